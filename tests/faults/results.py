"""Results: what the last full run of each row has come to, and the table that is made of it.

Law: a result is added by a run and by nothing else, with its commit, its date
and the machine; the table shows what is in the file.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from typing import Final

import msgspec

from tests.faults.guarantees import ROOT, TABLE, put
from tests.faults.rows import ROWS
from tests.faults.trial import Row, Trial

FILE: Final = ROOT / "docs" / "guarantees.json"


class Measured(msgspec.Struct, frozen=True):
    """One figure of a result."""

    what: str
    measured: str
    holds: bool


class Result(msgspec.Struct, frozen=True):
    """One row on one variant."""

    row: str
    variant: str
    count: int
    counts: str
    holds: bool
    figures: list[Measured]
    seconds: float
    date: str
    commit: str
    machine: str


class Results(msgspec.Struct):
    """All of them, by row and variant."""

    results: dict[str, Result] = {}

    @classmethod
    def load(cls) -> Results:
        """What is there already."""
        return msgspec.json.decode(FILE.read_bytes(), type=cls) if FILE.exists() else cls()

    def add(self, row: Row, trial: Trial, seconds: float) -> None:
        """Replace what was known of that row on that variant, and write the file."""
        self.results[f"{row.name}/{trial.variant.name}"] = Result(
            row=row.name,
            variant=trial.variant.name,
            count=trial.count,
            counts=row.counts,
            holds=not trial.failures,
            figures=[Measured(each.what, each.measured, each.holds) for each in trial.figures],
            seconds=round(seconds, 1),
            date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            commit=COMMIT,
            machine=_machine(),
        )
        FILE.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def write_table() -> None:
    """Put the table into its page, between the marks."""
    put(TABLE, table(Results.load()))


def table(results: Results) -> str:
    """One line for each row and variant that was run, and the figures below them."""
    lines = ["| fault | on | how much | result | commit, date |", "|---|---|---|---|---|"]
    details: list[str] = []
    for name, row in ROWS.items():
        for variant in row.full:
            result = results.results.get(f"{name}/{variant.name}")
            if result is None:
                lines.append(f"| {row.fault} | {variant.name} | | not run | |")
                continue
            failed = [each for each in result.figures if not each.holds]
            verdict = "holds" if result.holds else f"**{len(failed)} figures fail**"
            lines.append(
                f"| {row.fault} | {variant.name} | {result.count:,} {result.counts} | {verdict} "
                f"| {result.commit}, {result.date} |"
            )
            details.append(_details(row, result))
    return "\n".join([*lines, "", *details])


def _details(row: Row, result: Result) -> str:
    head = f"**{row.fault}, {result.variant}** ({row.how}; {result.seconds:,.0f} s; {result.machine})"
    figures = [
        f"- {'' if each.holds else '**does not hold:** '}{each.what}: {each.measured}"
        for each in result.figures
    ]
    return "\n".join([head, "", *figures, ""])


def _commit() -> str:
    """What is checked out, and whether the package or the tests differ from it."""
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


# Of what runs: a long run does not notice what is checked out meanwhile.
COMMIT: Final = _commit()
