"""The publication: docs/benchmarks.md, its chart, and the part of the README that shows them.

Law: the command writes them, never a person. In the README it replaces only the part between two marks;
without the marks it writes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.chart import chart
from benchmarks.judgement import BenchmarkError
from benchmarks.opening import opening
from benchmarks.report import best_known, cpu, everything, figures_table, rate, servers_table, side_by_side
from benchmarks.results import Record
from benchmarks.servers import ROOT

BEGIN: Final = "<!-- benchmarks: written by `make bench-peers`, not by hand -->"
END: Final = "<!-- benchmarks: end -->"

PAGE: Final = "docs/benchmarks.md"
PICTURE: Final = "docs/benchmarks.svg"

# How it was measured, for the page.
HOW: Final = Path(__file__).parent / "how.md"


def publish(record: Record, root: Path = ROOT) -> list[Path]:
    """Write all three; their paths. Raises BenchmarkError if the README has no place for it."""
    readme = root / "README.md"
    page = with_part(readme.read_text(), readme_part(record))
    paths = [root / PICTURE, root / PAGE, readme]
    for path, text in zip(paths, (chart(record), whole_page(record), page), strict=True):
        path.write_text(text)
    return paths


def with_part(page: str, part: str) -> str:
    """The page with that text between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"README.md does not have the lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{part.strip()}\n{END}{after}"


def readme_part(record: Record) -> str:
    """Return the README's part."""
    return (
        f"![asgi-ipc and what else one could use, side by side]({PICTURE})\n\n"
        "Thousand messages handled a second; of a broadcast to 20 workers each delivery counts.\n\n"
        f"{best_known(record)}\n\n"
        f"{record.where.short}. "
        f"[How it was measured, all peers, and the figures that were not reached]({PAGE}).\n"
    )


def whole_page(record: Record) -> str:
    """Return the text of docs/benchmarks.md."""
    parts = [
        "# Benchmarks",
        f"{record.where.sentence}" + (f"; engine {record.engine}." if record.engine else "."),
        opening(record),
        "![side by side](benchmarks.svg)",
        "## Figures aimed at",
        figures_table(record),
        "## Side by side",
        "Thousand deliveries a second.",
        side_by_side(record, rate),
        "Microseconds of processor time for each delivery, sender and receivers together.",
        side_by_side(record, cpu),
        "## How it was measured",
        HOW.read_text().strip(),
        "## Beside plain uvicorn",
        servers_table(record),
        "## Everything",
        everything(record, with_figures=False).strip(),
    ]
    return "\n\n".join(parts) + "\n"
