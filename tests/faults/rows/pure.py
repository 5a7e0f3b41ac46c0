"""Rows without a server: the parser under mutated input, and the product in a simulated world.

Law: `fuzzing/` and `simulation/` decide the events and the promises of an execution or a seed; this file has
the figures. Both run in processes of their own, so that this process does not disturb them.
"""

from __future__ import annotations

import asyncio
from typing import Final

from tests.faults.fuzz import fuzz
from tests.faults.simulation import simulate
from tests.faults.simulation.plan import STEPS
from tests.faults.simulation.seeds import NAMED
from tests.faults.trial import PURE, Trial, describe, row

# So many seeds for each kill at each step of the protocol: 1,000 of them in 100,000 seeds.
SEEDS_PER_KILL: Final = 100

# The share of executions that must reach the reassembler, and of those in which an unharmed sender is owed
# every message: without either, nothing would be tested.
LEAST_REACHED: Final = 0.5
LEAST_UNHARMED: Final = 0.25


@row(
    fault="parser",
    how="inputs with the valid cookie, mutated structurally, against a reference of the expected result",
    counts="executions",
    full={PURE: 2_000_000},
    short=2_000,
)
async def parser(trial: Trial) -> None:
    """So many executions, each with the run's valid cookie; a tenth is guided if atheris is there."""
    report = await asyncio.to_thread(fuzz, trial.count)
    trial.equal("executions", report.executions, trial.count)
    trial.none("crashes", report.crashed)
    trial.none("wrongly accepted, delivered or counted", len(report.failures) - report.crashed)
    trial.none("failures (seed, shrunk script)", report.failures)
    for what, least, count in (
        ("reaches the reassembler", LEAST_REACHED, report.reached),
        ("has an unharmed sender that got every message through", LEAST_UNHARMED, report.unharmed),
    ):
        share = count / max(report.executions, 1)
        trial.check(f"share that {what}, at least {least:.0%}", f"{share:.1%}", share >= least)
    trial.say("packets that made the receiver deliver", f"{report.delivered:,}")
    guided = f"{report.guided:,} executions; {report.note or '; '.join(report.coverage)}"
    trial.check("guided by coverage", guided, report.guided > 0 or not trial.full)


@row(
    fault="simulation",
    how="the shipped launcher and workers on a simulated kernel and clock, with kills at any call",
    counts="seeds",
    full={PURE: 100_000},
    short=200,
)
async def simulation(trial: Trial) -> None:
    """Seeds from 0 on, and the named schedules."""
    report = await asyncio.to_thread(simulate, range(trial.count))
    trial.equal("seeds", report.seeds, trial.count)
    trial.none("seeds and named schedules that failed", report.failures)
    least = max(trial.count // SEEDS_PER_KILL, 1)
    for step in STEPS:
        kills = report.kills[step]
        trial.check(f"workers killed at: {step}; at least {least:,}", f"{kills:,}", kills >= least)
    for name in NAMED:
        seen = f"in its seed {report.named.get(name)}; {report.events[name]:,} times in the others"
        trial.check(f"named schedule: {name}", seen, name in report.named)
    trial.say("messages", describe(report.messages))
    trial.say("workers, by their end", describe(report.exits))
