"""The plan: subjects, cases and groups.

Law: options in, a record out. The record names each measurement that is impossible here, with the reason.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks import ours, peers, yardsticks
from benchmarks.cases import CASES, PAIR, Case
from benchmarks.conductor import Subject
from benchmarks.results import Circumstances, LeftOut, Record, Result
from benchmarks.rounds import Entry, Extent, run_group
from benchmarks.serving import footprint, http

# Beside the cases: requests of clients; start-up, memory, and idle workers.
HTTP: Final = "E"
FOOTPRINT: Final = "F"

# Enough to tell a loss of two percent, where rates of a second differ by some.
PAIRS: Final = 24


@dataclass(frozen=True, slots=True)
class Plan:
    """The chosen measurements.

    Attributes:
        only: patterns of names; None for everything.
    """

    loops: Sequence[str]
    extent: Extent
    only: Sequence[str] | None = None
    with_peers: bool = True

    def means(self, name: str) -> bool:
        """True if a case of that name is chosen."""
        return self.only is None or any(fnmatch.fnmatch(name, pattern) for pattern in self.only)

    @property
    def cases(self) -> list[Case]:
        """The chosen cases of this package."""
        return [case for case in CASES if self.means(case.name)]

    @property
    def is_empty(self) -> bool:
        """True if nothing is chosen."""
        return not self.cases and not self.means(HTTP) and not self.means(FOOTPRINT)


async def carry_out(plan: Plan, where: Circumstances) -> Record:
    """Measure all of it. Raises BenchmarkError if a message was lost, altered or out of order."""
    subjects, absent = peers.subjects() if plan.with_peers else ([], {})
    results: list[Result] = []
    left_out = [LeftOut(name, "", f"not installed: {lacks}") for name, lacks in absent.items()]
    for size in sorted({case.shape.fleet for case in plan.cases}):
        entries, reasons = _entries(plan, size, subjects)
        left_out += reasons
        results += await run_group(size, entries, plan.extent)
    if plan.means(HTTP):
        if why := http.is_missing():
            left_out.append(LeftOut(ours.NAME, HTTP, why))
        else:
            for loop in plan.loops:
                results += await http.measure(loop, PAIRS)
    footprints = []
    if plan.means(FOOTPRINT):
        for loop in plan.loops:
            footprints += await footprint.measure(loop, plan.extent.runs)
    return Record(where, results, left_out, footprints)


def _entries(plan: Plan, size: int, subjects: Sequence[Subject]) -> tuple[list[Entry], list[LeftOut]]:
    """Return the subjects that take turns on fleets of that size, and those left out."""
    cases = [case for case in plan.cases if case.shape.fleet == size]
    shapes = list(dict.fromkeys(case.shape for case in cases))
    # Y3 is there for round trips; of growth only the processor time counts, which is compared by Y4.
    only_growth = all(shape.burst for shape in shapes)
    entries = [
        Entry(subject, theirs[0].fleet, [Case(shape) for shape in theirs])
        for subject, theirs in yardsticks.subjects(plan.loops)
        if subject.name == "Y4" or (not only_growth and (size == PAIR or subject.name != "Y3"))
    ]
    entries += [Entry(ours.subject(loop), size, cases) for loop in plan.loops]
    left_out: list[LeftOut] = []
    for subject in subjects:
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
