"""Rounds: in which order everything is run.

Law: a minute in which the machine is slow must not fall on one subject
alone. All fleets of a group stand ready at the same time; in each round every
yardstick and every case of every subject has one run, and ratios are taken
within a round.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.cases import Case
from benchmarks.conductor import Fleet, Subject, assembled
from benchmarks.judgement import NS_PER_S, Run
from benchmarks.results import Result

# What a first run sends: enough to tell how many messages a real one needs.
FIRST_COUNT: Final = 200
FIRST_BYTES: Final = 4 * 1024 * 1024

# A second one, since the first is slowed by all that happens for the first time.
SECOND_S: Final = 0.05

# What a sender may have to make before the clock starts: 10-byte payloads take
# some 60 bytes of memory each, and 0.3 us.
MAX_COUNT: Final = 1_000_000

# Fewer say nothing about a 99th percentile.
MIN_ROUND_TRIPS: Final = 500

# A run of fewer is one of starting and stopping.
MIN_COUNT: Final = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """A subject, and its cases that one fleet of `size` processes is for."""

    subject: Subject
    size: int
    cases: Sequence[Case]


async def run_group(group: int, entries: Sequence[Entry], runs: int, run_s: float) -> list[Result]:
    """So many rounds of all entries, each run about `run_s` seconds long."""
    async with contextlib.AsyncExitStack() as stack:
        places: list[tuple[Fleet, Case, int, list[Run]]] = []
        for entry in entries:
            fleet = await stack.enter_async_context(assembled(entry.subject, entry.size))
            for case in entry.cases:
                places.append((fleet, case, await _count(fleet, case, run_s), []))
        for number in range(runs):
            for fleet, case, count, done in places:
                done.append(await fleet.run(case, count))
                _tell(f"{fleet.subject.title:24} {case.name:24} {number + 1} of {runs}  {done[-1]}")
        return [
            Result(fleet.subject.name, fleet.subject.loop, case.name, case.shape.name, group, count, done)
            for fleet, case, count, done in places
        ]


async def _count(fleet: Fleet, case: Case, run_s: float) -> int:
    """How many messages make a run of about that length."""
    receivers = max(1, case.shape.parties - 1)
    first = max(MIN_COUNT, min(FIRST_COUNT, FIRST_BYTES // case.shape.size_bytes // receivers))
    count = first
    for length_s in (SECOND_S, run_s):
        run = await fleet.run(case, count)
        count = max(MIN_COUNT, min(MAX_COUNT, int(length_s * NS_PER_S * count / run.duration_ns)))
    return max(count, MIN_ROUND_TRIPS) if case.shape.is_round_trip else count


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
