"""The plan: subjects, cases and groups.

Law: options in, a record out. The record names each measurement that is impossible here, with the reason.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from benchmarks import ours, peers, yardsticks
from benchmarks.cases import CASES, Case
from benchmarks.conductor import Subject
from benchmarks.ours import builds
from benchmarks.results import Circumstances, LeftOut, Record, Result
from benchmarks.rounds import Entry, Extent, run_group
from benchmarks.servers import Build
from benchmarks.serving import footprint, http

# Beside the cases: requests of clients; start-up, memory, and idle workers.
HTTP: Final = "E"
FOOTPRINT: Final = "F"

# The cases on asyncio and on another interpreter; all others take as long and say nothing else.
BESIDE: Final = (
    "A-10B-*", "A-1KiB-nowait", "A-10KiB-nowait", "A-1MiB-nowait", "B5-10B-nowait", "C4-10B-nowait",
    "D-free-*", "D-one-cpu-*",
)  # fmt: skip

LOOP: Final = "uvloop"

# Enough to tell a loss of two percent, where rates of a second differ by some.
PAIRS: Final = 24


@dataclass(frozen=True, slots=True)
class Plan:
    """The chosen measurements.

    Attributes:
        only: patterns of names; None for everything.
        against_commit: an older commit that is built and measured in the same rounds.
        python: another interpreter that is, too.
    """

    loops: Sequence[str]
    extent: Extent
    only: Sequence[str] | None = None
    with_peers: bool = True
    against_commit: str | None = None
    python: str | None = None

    def means(self, name: str) -> bool:
        """True if a case of that name is chosen."""
        return self.only is None or any(fnmatch.fnmatch(name, pattern) for pattern in self.only)

    @property
    def cases(self) -> list[Case]:
        """The chosen cases of this package."""
        return [case for case in CASES if self.means(case.name)]

    @property
    def beside(self) -> list[Case]:
        """Those that are measured on asyncio and on another interpreter, unless some were chosen."""
        if self.only is not None or LOOP not in self.loops:
            return self.cases
        return [case for case in CASES if any(fnmatch.fnmatch(case.name, pattern) for pattern in BESIDE)]

    @property
    def is_empty(self) -> bool:
        """True if nothing is chosen."""
        return not self.cases and not self.means(HTTP) and not self.means(FOOTPRINT)


async def carry_out(plan: Plan, where: Circumstances) -> Record:
    """Measure all of it. Raises BenchmarkError if a message was lost, altered or out of order."""
    others, absent = peers.subjects() if plan.with_peers else ([], {})
    results: list[Result] = []
    left_out = [LeftOut(name, "", f"not installed: {lacks}") for name, lacks in absent.items()]
    footprints = []
    with ExitStack() as stack:
        present = stack.enter_context(builds.present())
        measured, against = [present], ""
        if plan.against_commit:
            try:
                measured.append(stack.enter_context(builds.of_commit(plan.against_commit)))
                against = measured[-1].subject
            except builds.NoSuchCommitError as error:
                left_out.append(LeftOut(builds.older(plan.against_commit), "", str(error)))
        ours_alone = _subjects(plan, measured)
        if plan.python:
            newer = stack.enter_context(builds.beside(plan.python))
            ours_alone.append((builds.subject(newer, LOOP), plan.beside))
        for size in sorted({case.shape.fleet for case in plan.cases}):
            entries, reasons = _entries(plan, size, ours_alone, others)
            left_out += reasons
            results += await run_group(size, entries, plan.extent)
        if plan.means(HTTP):
            if why := http.is_missing():
                left_out.append(LeftOut(ours.NAME, HTTP, why))
            else:
                results += await http.measure(plan.loops[-1], PAIRS, measured)
        if plan.means(FOOTPRINT):
            footprints += await footprint.measure(plan.loops[-1], plan.extent.runs, measured)
    return Record(where, results, left_out, footprints, against=against, engine=present.engine)


def _subjects(plan: Plan, measured: Sequence[Build]) -> list[tuple[Subject, list[Case]]]:
    """All cases of each build on uvloop; and on asyncio some, of this tree."""
    found = []
    for loop in plan.loops:
        for build in measured if loop == LOOP else measured[:1]:
            found.append((builds.subject(build, loop), plan.cases if loop == LOOP else plan.beside))
    return found


def _entries(
    plan: Plan, size: int, ours_alone: Sequence[tuple[Subject, list[Case]]], others: Sequence[Subject]
) -> tuple[list[Entry], list[LeftOut]]:
    """Return the subjects that take turns on fleets of that size, and those left out."""
    shapes = list(dict.fromkeys(case.shape for case in plan.cases if case.shape.fleet == size))
    entries = [
        Entry(subject, theirs[0].fleet, [Case(shape) for shape in theirs])
        for subject, theirs in yardsticks.subjects(plan.loops, shapes)
    ]
    for subject, cases in ours_alone:
        if able := [case for case in cases if case.shape.fleet == size]:
            entries.append(Entry(subject, size, able))
    left_out: list[LeftOut] = []
    for subject in others:
        able = []
        for shape in shapes:
            if shape.is_ours_alone:
                continue
            if why := subject.missing(shape):
                left_out.append(LeftOut(subject.title, shape.name, why))
            else:
                able.append(Case(shape))
        if able:
            entries.append(Entry(subject, size, able))
    return entries, left_out
