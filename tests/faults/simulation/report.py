"""The report: many seeds and the named schedules, in one process or two, and their results.

Law: a seed is run by itself and judged by itself; the report only adds up.
"""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from tests.faults.simulation.plan import STEPS
from tests.faults.simulation.seeds import NAMED, find, plan_of
from tests.faults.simulation.world import World

# Seeds that one process takes at once, at most.
CHUNK: Final = 250

# A run leaves some thousand objects in cycles; collecting them seldom is faster than often.
COLLECT_EVERY: Final = 50

# The machine has other things to do.
MAX_PROCESSES: Final = 2


@dataclass(frozen=True)
class Report:
    """The results of some seeds.

    Attributes:
        seeds: how many were run, besides the named schedules.
        failures: what is wrong in each run that failed, and how to see it again.
        named: the named schedules, and the seed in which each has happened.
        kills: workers killed, by the step of the protocol that they were at.
        accepted, delivered, lost: messages, one for each receiver; `lost`: counted so by their senders.
        events: nasty schedules that were seen, in whichever seed, by name.
        exits: workers, by how they ended.
        seconds: of a clock on the wall.
    """

    seeds: int = 0
    failures: list[str] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    accepted: int = 0
    delivered: int = 0
    lost: int = 0
    events: dict[str, int] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def __add__(self, other: Report) -> Report:
        return Report(
            self.seeds + other.seeds,
            self.failures + other.failures,
            self.named | other.named,
            dict(Counter(self.kills) + Counter(other.kills)),
            self.accepted + other.accepted,
            self.delivered + other.delivered,
            self.lost + other.lost,
            dict(Counter(self.events) + Counter(other.events)),
            dict(Counter(self.exits) + Counter(other.exits)),
            self.seconds + other.seconds,
        )

    def __str__(self) -> str:
        lines = [
            f"{self.seeds} seeds in {self.seconds:.1f} s, {len(self.failures)} failed",
            f"messages: {self.accepted} accepted, {self.delivered} delivered, {self.lost} counted lost",
            "workers: " + _counts(self.exits),
            "killed at: " + _counts({step: self.kills.get(step, 0) for step in STEPS}),
            "seen: " + _counts(self.events),
            *(f'named: "{name}", seen in its seed {seed}' for name, seed in self.named.items()),
        ]
        return "\n".join([*lines, *self.failures])


def simulate(seeds: range, processes: int = 2) -> Report:
    """Run these seeds and the named schedules, in one process or two."""
    began = time.monotonic()
    chunk = min(CHUNK, -(-len(seeds) // processes)) or 1
    jobs = [partial(_run_named, name) for name in NAMED]
    jobs += [partial(_run_all, seeds[start : start + chunk]) for start in range(0, len(seeds), chunk)]
    if processes == 1:
        reports = list(map(_do, jobs))
    else:
        # Not forked: the caller may have threads.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, MAX_PROCESSES), mp_context=context) as pool:
            reports = list(pool.map(_do, jobs))
    return sum(reports, Report(seconds=time.monotonic() - began))


def _do(job: Callable[[], Report]) -> Report:
    with _collecting_seldom():
        return job()


def _run_all(seeds: range) -> Report:
    report = Report()
    for place, seed in enumerate(seeds):
        if place % COLLECT_EVERY == 0:
            gc.collect()
        report += _run(seed)
    gc.collect()
    return report


def _run(seed: int) -> Report:
    world = World(plan_of(seed))
    try:
        world.run()
    except Exception:  # noqa: BLE001  # a mistake of the simulation's own is a failure of that seed
        world.fail(traceback.format_exc())
    ledger = world.ledger
    return Report(
        seeds=1,
        failures=_failures(world, f"--seed {seed}"),
        kills=dict(world.kills),
        accepted=ledger.accepted,
        delivered=ledger.delivered,
        lost=ledger.lost,
        events=dict(world.events),
        exits=dict(Counter(each.fate for each in ledger.exits.values())),
    )


def _run_named(name: str) -> Report:
    try:
        world = find(name)
    except LookupError as error:
        return Report(failures=[str(error)])
    failures = _failures(world, f'--named "{name}"')
    return Report(failures=failures, named={name: world.plan.seed} if world.events[name] else {})


def _failures(world: World, options: str) -> list[str]:
    if not world.failures:
        return []
    return [f"{'; '.join(world.failures)}; again: python -m tests.faults.simulation {options}"]


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def trace_lines(world: World) -> Iterator[str]:
    """Return the events, one a line: the virtual second, the process, the event."""
    for now, who, what, values in world.kernel.trace:
        yield f"{now:10.6f}  {who:<9} {what % values if values else what}"


def trace_hash(world: World) -> str:
    """The same for the same events in the same order at the same times."""
    return hashlib.sha256("\n".join(trace_lines(world)).encode()).hexdigest()


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
