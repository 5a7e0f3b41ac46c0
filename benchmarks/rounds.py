"""Rounds: the order of all runs.

Law: a minute in which the machine is slow must not fall on one subject alone. All fleets of a group stand
ready at the same time; in each round every yardstick and every case of every subject has one run, and ratios
are taken within a round (pyperf runs one benchmark after the other). Servers of the same code differ from
start to start (round trips by a third between starts, and by a fiftieth within one), so runs are spread over
several starts.
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

# The first run sends enough to estimate the number of messages of a real one.
FIRST_COUNT: Final = 200
FIRST_BYTES: Final = 4 * 1024 * 1024

# A second run follows, since first-time work slows the first one.
SECOND_S: Final = 0.05

# A sender makes at most so many payloads before the clock starts: a 10-byte payload takes some 60 bytes of
# memory, and 0.3 us.
MAX_COUNT: Final = 1_000_000

# Fewer say nothing about a 99th percentile.
MIN_ROUND_TRIPS: Final = 500

# Long enough for some bursts of each of 64 workers.
GROWTH_S: Final = 1.5

# A run of fewer is one of starting and stopping.
MIN_COUNT: Final = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """A subject, and its cases that one fleet of `size` processes is for."""

    subject: Subject
    size: int
    cases: Sequence[Case]


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is run.

    Attributes:
        runs: of each case in all, spread over so many `starts` of all fleets.
        run_s: the length of a run, roughly.
    """

    runs: int
    starts: int
    run_s: float

    @property
    def runs_of_starts(self) -> list[int]:
        """How many runs each start has, at least one."""
        starts = min(self.starts, self.runs)
        return [self.runs * (one + 1) // starts - self.runs * one // starts for one in range(starts)]


@dataclass(slots=True)
class _Place:
    """A case of a subject, over all starts. `count` is 0 until it is known."""

    subject: Subject
    size: int
    case: Case
    count: int
    done: list[Run]


async def run_group(group: int, entries: Sequence[Entry], extent: Extent) -> list[Result]:
    """All rounds of all entries."""
    places = [_Place(entry.subject, entry.size, case, 0, []) for entry in entries for case in entry.cases]
    for runs in extent.runs_of_starts:
        await _run_start(places, runs, extent)
    return [
        Result(place.subject.name, place.subject.loop, place.case.name, place.case.shape.name, group,
               place.count, place.done)
        for place in places
    ]  # fmt: skip


async def _run_start(places: Sequence[_Place], runs: int, extent: Extent) -> None:
    """So many rounds with fleets that are started for them."""
    async with contextlib.AsyncExitStack() as stack:
        fleets: dict[Subject, Fleet] = {}
        for place in places:
            if place.subject not in fleets:
                fleets[place.subject] = await stack.enter_async_context(assembled(place.subject, place.size))
            await _make_ready(place, fleets[place.subject], extent.run_s)
        for _ in range(runs):
            for place in places:
                run = await fleets[place.subject].run(place.case, place.count)
                place.done.append(run)
                number = len(place.done) - 1
                tell(place.subject.title, place.case.name, number, extent.runs, _figure(run))


async def _make_ready(place: _Place, fleet: Fleet, run_s: float) -> None:
    """Find out how many messages a run has; at further starts, have all happen once that happens once."""
    if not place.count:
        place.count = await _count(fleet, place.case, run_s)
    elif not place.case.shape.burst:
        await fleet.run(place.case, min(place.count, _first_count(place.case)))


async def _count(fleet: Fleet, case: Case, run_s: float) -> int:
    """How many messages make a run of about that length."""
    if case.shape.burst:
        # A whole number of bursts, which are due by the clock.
        return case.shape.burst * max(1, round(GROWTH_S / case.shape.pause_s))
    count = _first_count(case)
    for length_s in (SECOND_S, run_s):
        run = await fleet.run(case, count)
        count = max(MIN_COUNT, min(MAX_COUNT, int(length_s * NS_PER_S * count / run.duration_ns)))
    if not case.shape.is_round_trip or case.shape.subscriptions > MIN_ROUND_TRIPS:
        return count
    return max(count, MIN_ROUND_TRIPS)


def _first_count(case: Case) -> int:
    receivers = max(1, case.shape.parties - 1, case.shape.subscriptions)
    return max(MIN_COUNT, min(FIRST_COUNT, FIRST_BYTES // case.shape.size_bytes // receivers))


def tell(who: str, what: str, number: int, runs: int, figure: str) -> None:
    """How far it is, for the person at the screen."""
    print(f"{who:30} {what:20} {number + 1} of {runs}  {figure}", file=sys.stderr, flush=True)


def _figure(run: Run) -> str:
    if run.p50_us:
        return f"p50 {run.p50_us:.1f} us, p99 {run.p99_us:.1f} us"
    return f"{run.per_second:,.0f}/s" + (f", {run.cpu_us:.2f} us of CPU each" if run.cpu_us else "")
