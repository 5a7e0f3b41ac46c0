"""Tables in Markdown.

Law: pure; figures are given as they were measured.
"""

from __future__ import annotations

from collections.abc import Sequence


def head(*titles: str) -> list[str]:
    """The first two lines of a table; a title that ends in a colon is that of numbers."""
    rules = ["--:" if title.endswith(":") else "---" for title in titles]
    return [row([title.removesuffix(":") for title in titles]), f"|{'|'.join(rules)}|"]


def row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(cells)} |"


def thousands(per_second: float) -> str:
    """A rate in thousands, with as many digits as it deserves."""
    rate = per_second / 1000
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:,.1f}" if rate >= 1 else f"{rate:,.2f}"
