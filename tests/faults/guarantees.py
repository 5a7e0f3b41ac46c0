"""The page docs/guarantees.md: text written by hand, and tables between marks written by commands.

Law: nothing between the marks is written by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "guarantees.md"

TABLE: Final = ("<!-- table: written by `make faults` -->", "<!-- end of table -->")
PLANTED: Final = (
    "<!-- planted: written by `python -m tests.faults.planted --page` -->",
    "<!-- end of planted -->",
)


def put(marks: tuple[str, str], text: str) -> None:
    """Replace the text between two marks of the page."""
    begin, end = marks
    page = PAGE.read_text()
    before, found, rest = page.partition(begin)
    _, found_too, after = rest.partition(end)
    if not (found and found_too):
        raise ValueError(f"{PAGE.name} has lost its marks: {begin}")
    PAGE.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")
