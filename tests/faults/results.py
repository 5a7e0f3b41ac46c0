"""Results: the last full run of each row, and the table made of them.

Law: only a run adds a result, with its commit, its date and the machine; the table shows the file.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from typing import Final

import msgspec

from asgi_ipc import engine
from tests.faults.guarantees import ROOT, TABLE, put
from tests.faults.rows import ROWS
from tests.faults.trial import ASYNCIO, PURE, SMALL, UVLOOP, Figure, Row, Trial

FILE: Final = ROOT / "docs" / "guarantees.json"


class Result(msgspec.Struct, frozen=True):
    """One row on one variant."""

    row: str
    variant: str
    count: int
    counts: str
    holds: bool
    figures: list[Figure]
    seconds: float
    date: str
    commit: str
    machine: str


class Results(msgspec.Struct):
    """All of them, by row and variant."""

    results: dict[str, Result] = {}

    @classmethod
    def load(cls) -> Results:
        """Load the saved results."""
        return msgspec.json.decode(FILE.read_bytes(), type=cls) if FILE.exists() else cls()

    def add(self, row: Row, trial: Trial, seconds: float) -> None:
        """Replace the result of that row on that variant, and write the file."""
        self.results[f"{row.name}/{trial.variant.name}"] = Result(
            row=row.name,
            variant=trial.variant.name,
            count=trial.count,
            counts=row.counts,
            holds=not trial.failures,
            figures=trial.figures,
            seconds=round(seconds, 1),
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            commit=COMMIT,
            # The simulation swaps names inside Python modules.
            machine=f"{_machine()}, {'pure' if row.name == 'simulation' else engine.name()} engine",
        )
        FILE.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def write_table() -> None:
    """Put the table into its page, between the marks."""
    put(TABLE, table(Results.load()))


def table(results: Results) -> str:
    """One line for each row with a cell for each way to run the workers, and below it the figures."""
    lines = ["| fault | how | uvloop | asyncio | 512-byte packets, 16 KiB pipes |", "|---|---|---|---|---|"]
    details: list[str] = []
    for row in ROWS.values():
        found = {variant: results.results.get(f"{row.name}/{variant.name}") for variant in row.full}
        cells = [_cell(found[each]) if each in found else "" for each in (UVLOOP, ASYNCIO, SMALL)]
        if PURE in found:
            cells[0] = _cell(found[PURE])
        lines.append(f"| [{row.fault}](#{row.name}) | {row.how} | {' | '.join(cells)} |")
        details += [f'<a id="{row.name}"></a>', "", f"### {row.fault}", ""]
        first, *others = found.values()
        if first is not None:
            details += _details(first, list(first.figures))
        for result in others:
            if result is not None and not result.holds:
                details += _details(result, [each for each in result.figures if not each.holds])
    return "\n".join([*lines, "", *details])


def _cell(result: Result | None) -> str:
    if result is None:
        return "not run"
    failed = sum(not each.holds for each in result.figures)
    verdict = f"**{failed} of {len(result.figures)} figures fail**" if failed else "holds"
    return f"{result.count:,} {result.counts}: {verdict}"


def _details(result: Result, figures: list[Figure]) -> list[str]:
    """Return the figures, with variant, duration, date, commit and machine."""
    where = f"{result.variant}, {result.count:,} {result.counts}"
    head = f"{where}; {result.seconds:,.0f} s, {result.date}, commit {result.commit}, {result.machine}:"
    lines = [
        f"- {'' if each.holds else '**does not hold:** '}{each.what}: {each.measured}" for each in figures
    ]
    return [head, "", *lines, ""]


def _commit() -> str:
    """Return the commit, with a mark if the package or the tests differ from it."""
    head = _git("rev-parse", "--short", "HEAD") or "unknown"
    return head + ("-dirty" if _git("status", "--porcelain", "--", "asgi_ipc", "tests") else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _machine() -> str:
    versions = " ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("uvicorn", "uvloop", "msgspec")
    )
    return (
        f"Linux {platform.release().split('-')[0]}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {versions}"
    )


# The commit of the running code: a checkout during a long run does not change it.
COMMIT: Final = _commit()
