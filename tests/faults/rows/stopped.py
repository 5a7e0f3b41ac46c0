"""A stopped receiver: SIGSTOP, with three senders at full rate to it.

Law: only its senders notice, and they only that there is no room; once it goes on it gets every message. The
last stop meets a rolling restart. The leavers can't deliver to the stopped worker any more, and both sides
count that loss.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from typing import Final

from asgi_ipc.testing.child import is_running
from asgi_ipc.wire.outbox import MAX_OUTBOX_BYTES
from tests.faults.oracle import Verdict
from tests.faults.traffic import PRESSURE, Traffic, noted, traffic
from tests.faults.trial import Trial, as_ms, describe, everywhere, percentile, row
from tests.faults.vitals import Vitals, watching
from tests.processes import is_stopped, own_bytes
from tests.serving import eventually

# The stopped worker, three that send to it, and one without messages to it.
WORKERS: Final = 5

# The length of a stop, and of the watch of the others before it.
STOP_S: Final = 30.0
WATCH_S: Final = 10.0
SHORT_STOP_S: Final = 2.0
SHORT_WATCH_S: Final = 1.0

# Each sender has one full outbox, and 10 MiB for the other needs of a process.
GROWTH_BYTES: Final = MAX_OUTBOX_BYTES + 10 * 1024 * 1024

# Unmoved: the noise of a machine with fewer cores than processes is within this.
UNMOVED_FACTOR: Final = 1.5
UNMOVED_S: Final = 0.005
# The test suite's machine may be busy with something else, and its samples are few.
SHORT_UNMOVED_S: Final = 0.02

LAG_MS: Final = 20
# Filling the outboxes takes the whole machine, and a large part of a short stop.
SHORT_LAG_MS: Final = 100

DRAIN_TIMEOUT_S: Final = 2.0
# A leave may take so much longer: the turn in which it begins, and the cancelled handlers.
DRAIN_SLACK_S: Final = 1.0

# The launcher's line about such a leave.
UNSENT: Final = "reached its drain timeout with"

# At 1 KiB each: an outbox is written when it has 64 KiB, so some messages are not written when the worker
# stops.
SAID_BEFORE_STOP: Final = 100


@row(
    fault="stopped receiver",
    how="SIGSTOP, three senders at full rate; the last time with a SIGHUP meanwhile",
    counts="stops",
    full=everywhere(20),
    short=1,
)
async def stopped(trial: Trial) -> None:
    """The stops, one after the other; then one that a restart meets."""
    options = ("--drain-timeout", str(DRAIN_TIMEOUT_S))
    async with traffic(trial, *options, workers=WORKERS, app=PRESSURE) as run:
        target, bystander, *senders = run.server.workers()
        async with watching(run.server, [bystander, *senders]) as vitals:
            await _stop_often(trial, run, vitals, target, senders)
        await _restart_meanwhile(trial, run, target, bystander, senders)
        generation = run.joined
        verdict = await run.finish(trial, excused={generation[target]})
    leavers = {generation[pid]: pid for pid in (bystander, *senders)}
    _check_leaves(trial, verdict, leavers)
    _check_counts(trial, run, verdict, generation[target], leavers, senders)


# --- the stops


async def _stop_often(trial: Trial, run: Traffic, vitals: Vitals, target: int, senders: list[int]) -> None:
    stop_s, watch_s = (STOP_S, WATCH_S) if trial.full else (SHORT_STOP_S, SHORT_WATCH_S)
    idle = await vitals.watch_for(watch_s)
    before_bytes = {pid: own_bytes(pid) for pid in senders}
    await run.strings.all(senders, "press", target)
    reading = await vitals.watch_for(watch_s)
    await _catch_up(run, target, senders)
    filling: list[float] = []
    full: list[float] = []
    lag: Counter[int] = Counter()
    for _ in range(trial.count):
        lag_before = await _lag(run, senders)
        os.kill(target, signal.SIGSTOP)
        filling += await _watch_until_full(run, vitals, target, senders)
        full += await vitals.watch_for(stop_s)  # the fault
        lag += await _lag(run, senders) - lag_before
        os.kill(target, signal.SIGCONT)
        await _catch_up(run, target, senders)
    _check_unmoved(trial, idle, reading, filling, full)
    _check_senders(trial, max(vitals.peak_bytes[pid] - before_bytes[pid] for pid in senders), lag)


def _check_unmoved(
    trial: Trial, idle: list[float], reading: list[float], filling: list[float], full: list[float]
) -> None:
    """Check the others' HTTP: the stop may cost no more than the same load, and waiting senders nothing."""
    slack_s = UNMOVED_S if trial.full else SHORT_UNMOVED_S
    slack = f"at most {UNMOVED_FACTOR:g} x before + {as_ms(slack_s)}"
    for what, before, during in (
        (f"others' HTTP p99 from the stop on, {slack}, when the receiver read", reading, filling + full),
        (f"others' HTTP p99 once the senders wait, {slack}, when all were idle", idle, full),
    ):
        before_s, during_s = percentile(before, 0.99), percentile(during, 0.99)
        trial.check(
            what,
            f"{as_ms(during_s)} of {len(during):,}, before {as_ms(before_s)} of {len(before):,}",
            bool(during) and during_s <= UNMOVED_FACTOR * before_s + slack_s,
        )


def _check_senders(trial: Trial, growth_bytes: int, lag: Counter[int]) -> None:
    trial.check(
        f"a sender's memory growth, at most its outbox of {MAX_OUTBOX_BYTES >> 20} MiB and 10 MiB",
        f"{growth_bytes / 2**20:.1f} MiB",
        growth_bytes <= GROWTH_BYTES,
    )
    most_ms = LAG_MS if trial.full else SHORT_LAG_MS
    lag_ms = percentile(list(map(float, lag.elements())), 0.99)
    trial.check(
        f"senders' event-loop lag meanwhile, p99 at most {most_ms} ms",
        f"{lag_ms:.0f} ms of {lag.total():,}",
        bool(lag) and lag_ms <= most_ms,
    )


async def _watch_until_full(run: Traffic, vitals: Vitals, target: int, senders: list[int]) -> list[float]:
    full = asyncio.Event()
    watched = asyncio.create_task(vitals.watch(full))
    try:
        await _press_until_full(run, target, senders)
    finally:
        full.set()
    return await watched


async def _press_until_full(run: Traffic, target: int, senders: list[int]) -> None:
    """Let them send at full rate, and wait until each has been refused for lack of room."""
    refusals = [run.listener.next(noted("refused", pid=pid)) for pid in senders]
    await asyncio.gather(*refusals, run.strings.all(senders, "press", target))


async def _catch_up(run: Traffic, target: int, senders: list[int]) -> None:
    """Let the senders be quiet, and wait until the target has heard the last of each."""
    await run.strings.all(senders, "quiet")
    last = [run.listener.next(noted("marked", sender=pid)) for pid in senders]
    await asyncio.gather(*last, run.strings.all(senders, "mark", target, "last"))


async def _lag(run: Traffic, pids: list[int]) -> Counter[int]:
    lag: Counter[int] = Counter()
    for pid in pids:
        lag += Counter((await run.strings.call(pid, "measured"))["lag"])
    return lag


# --- the restart


async def _restart_meanwhile(
    trial: Trial, run: Traffic, target: int, bystander: int, senders: list[int]
) -> None:
    """Stop the target with words of its own not written, fill the outboxes to it, and restart all."""
    spoken = asyncio.create_task(run.strings.call(target, "speak_and_stop", SAID_BEFORE_STOP))
    await eventually(lambda: is_stopped(target), "the target has stopped itself")
    await _press_until_full(run, target, senders)
    run.server.signal(signal.SIGHUP)
    # After the start, and once more; the stopped one keeps the restart from being over.
    await run.server.said(f"All {WORKERS} workers are ready", 2)
    trial.yes("a SIGHUP meanwhile is done while the worker is stopped", is_stopped(target))
    await run.server.said(UNSENT, WORKERS - 1)
    await eventually(lambda: not any(map(is_running, (bystander, *senders))), "the leavers have ended")
    left = asyncio.ensure_future(run.listener.next(noted("left", pid=target)))
    os.kill(target, signal.SIGCONT)
    await asyncio.gather(left, spoken)


def _check_leaves(trial: Trial, verdict: Verdict, leavers: dict[int, int]) -> None:
    """Check that each leave ended at the drain deadline, and all others got that reason."""
    began = {note["by"]: note["at"] for note in verdict.told("leaving")}
    took = [note["at"] - began[note["by"]] for note in verdict.told("left") if note["by"] in leavers]
    trial.check(
        f"leaves meanwhile end at the drain deadline of {DRAIN_TIMEOUT_S:g} s",
        ", ".join(f"{each:.2f} s" for each in sorted(took)),
        len(took) == len(leavers)
        and min(took) >= DRAIN_TIMEOUT_S
        and max(took) <= DRAIN_TIMEOUT_S + DRAIN_SLACK_S,
    )
    told = [note for note in verdict.told("told_leave") if note["of"] in leavers]
    trial.check(
        "reasons reported for them",
        describe(Counter(note["reason"] for note in told)),
        {note["of"] for note in told} == set(leavers)
        and {note["reason"] for note in told} == {"drain_timeout"},
    )


def _check_counts(
    trial: Trial, run: Traffic, verdict: Verdict, target: int, leavers: dict[int, int], senders: list[int]
) -> None:
    """Check that every message between leavers and stopped worker that was not delivered is counted."""
    said = {
        int(pid): int(count)
        for line in run.server.found(UNSENT)
        for pid, count in re.findall(rf"\[(\d+)\] {UNSENT} (\d+) messages", line)
    }
    pairs = [(leaver, target) for leaver, pid in leavers.items() if pid in senders]
    ours = [verdict.counted(pair) for pair in pairs]
    trial.check(
        "accepted to the stopped one, neither delivered nor counted by the leavers",
        sum(verdict.missing[pair].in_doubt for pair in pairs if pair in verdict.missing),
        all(pair in verdict.missing and not verdict.missing[pair].in_doubt for pair in pairs),
    )
    trial.check(
        "counted by the leavers, and the launcher's figures",
        f"{ours}, {[said.get(leavers[leaver]) for leaver, _ in pairs]}",
        min(ours) > 0 and ours == [said.get(leavers[leaver]) for leaver, _ in pairs],
    )
    told = {note["of"]: note["lost"] for note in verdict.told("told_leave", by=target)}
    missing = {leaver: verdict.missing.get((target, leaver)) for leaver in leavers}
    trial.check(
        "accepted by the stopped one, missing at the leavers, and the losses reported to it",
        f"{[each and each.messages for each in missing.values()]}, {[told.get(each) for each in leavers]}",
        all(each is not None and each.messages == told.get(of) for of, each in missing.items()),
    )
