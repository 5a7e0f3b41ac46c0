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
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from tests import engines
from tests.faults.simulation.plan import STEPS
from tests.faults.simulation.seeds import NAMED, find, plan_of
from tests.faults.simulation.world import World
from tests.faults.trial import describe

# Seeds that one process takes at once, at most.
CHUNK: Final = 250

# A run leaves some thousand objects in cycles; collecting them seldom is faster than often.
COLLECT_EVERY: Final = 50

# The machine has other things to do.
PROCESSES: Final = 2


@dataclass
class Report:
    """The results of some seeds.

    Attributes:
        seeds: how many were run, besides the named schedules.
        failures: what is wrong in each run that failed, and how to see it again.
        named: the named schedules, and the seed in which each has happened.
        messages: accepted, delivered and counted lost (by their senders), one for each receiver.
        kills: workers killed, by the step of the protocol that they were at.
        events: nasty schedules that were seen, in whichever seed, by name.
        exits: workers, by how they ended.
        seconds: of a clock on the wall.
    """

    seeds: int = 0
    failures: list[str] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)
    messages: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def add(self, other: Report) -> None:
        """Add the results of other seeds; the time passes once."""
        self.seeds += other.seeds
        self.failures += other.failures
        self.named |= other.named
        self.messages.update(other.messages)
        self.kills.update(other.kills)
        self.events.update(other.events)
        self.exits.update(other.exits)

    def __str__(self) -> str:
        lines = [
            f"{self.seeds} seeds in {self.seconds:.1f} s, {len(self.failures)} failed",
            "messages: " + describe(self.messages),
            "workers: " + describe(self.exits),
            "killed at: " + describe({step: self.kills[step] for step in STEPS}),
            "seen: " + describe(self.events),
            *(f'named: "{name}", seen in its seed {seed}' for name, seed in self.named.items()),
        ]
        return "\n".join([*lines, *self.failures])


def simulate(seeds: range) -> Report:
    """Run these seeds and the named schedules, in processes of their own."""
    report, began = Report(), time.monotonic()
    chunk = min(CHUNK, -(-len(seeds) // PROCESSES)) or 1
    jobs = [partial(_run_named, name) for name in NAMED]
    jobs += [partial(_run_all, seeds[start : start + chunk]) for start in range(0, len(seeds), chunk)]
    # Not forked: the caller may have threads, and the native engine.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(PROCESSES, context, initializer=gc.disable)
    with engines.children_run("pure"), pool:
        for part in [pool.submit(job) for job in jobs]:
            report.add(part.result())
    report.seconds = time.monotonic() - began
    return report


def _run_all(seeds: range) -> Report:
    report = Report()
    for place, seed in enumerate(seeds, 1):
        report.add(_run(seed))
        if place % COLLECT_EVERY == 0:
            gc.collect()
    gc.collect()
    return report


def _run(seed: int) -> Report:
    world = World(plan_of(seed))
    try:
        world.run()
    except Exception:  # noqa: BLE001  # a mistake of the simulation's own is a failure of that seed
        world.fail(traceback.format_exc())
    ledger = world.ledger
    messages = {"accepted": ledger.accepted, "delivered": ledger.delivered, "counted lost": ledger.lost}
    return Report(
        seeds=1,
        failures=_failures(world, f"--seed {seed}"),
        messages=Counter(messages),
        kills=world.kills,
        events=world.events,
        exits=Counter(each.fate for each in ledger.exits.values()),
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


def trace_lines(world: World) -> Iterator[str]:
    """Return the events, one a line: the virtual second, the process, the event."""
    for now, who, what, values in world.kernel.trace:
        yield f"{now:10.6f}  {who:<9} {what % values if values else what}"


def trace_hash(world: World) -> str:
    """The same for the same events in the same order at the same times."""
    return hashlib.sha256("\n".join(trace_lines(world)).encode()).hexdigest()
