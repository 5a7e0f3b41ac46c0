"""Fairness: many senders at full rate to one receiver that can't keep up.

Law: no sender owns the pipe. Each sender has messages waiting all the time, so the receiver gets from each
the share that the others leave.
"""

from __future__ import annotations

import asyncio
from typing import Final

from asgi_ipc.wire.outbox import MAX_OUTBOX_BYTES
from tests.faults.traffic import PRESSURE, Traffic, traffic
from tests.faults.trial import ASYNCIO, SMALL, UVLOOP, Trial, row

SENDERS: Final = 16
SHORT_SENDERS: Final = 6

# So much waits in each sender when the receiver begins to count. While an outbox fills, its sender takes all
# it can of the machine; after that the pipe limits it.
BACKLOG_BYTES: Final = MAX_OUTBOX_BYTES * 3 // 4

# The slowest sender's share of the average.
LEAST_SHARE: Final = 0.1
SILENCE_S: Final = 1.0

# Sixteen outboxes of 32 MiB may be full at the end; the row does not judge the time to empty them.
DRAIN_TIMEOUT_S: Final = 60


@row(
    fault="fairness",
    how="16 senders, one receiver, saturated",
    counts="seconds",
    # One figure, of one length: the other variants take as long.
    full={UVLOOP: 10, ASYNCIO: 10, SMALL: 10},
    short=2,
)
async def fairness(trial: Trial) -> None:
    """Press, listen for so many seconds, compare."""
    senders = SENDERS if trial.full else SHORT_SENDERS
    options = ("--drain-timeout", str(DRAIN_TIMEOUT_S))
    async with traffic(trial, *options, workers=senders + 1, app=PRESSURE) as run:
        run.server.deadline_s += DRAIN_TIMEOUT_S
        receiver, *pids = run.server.workers()
        await run.strings.all(pids, "press", receiver)
        await run.strings.all(pids, "backlog", receiver, BACKLOG_BYTES)
        await run.strings.call(receiver, "listen")
        least_bytes = await _wait_saturated(run, receiver, pids, trial.count)
        heard: list[tuple[int, float]] = list((await run.strings.call(receiver, "heard")).values())
        await run.strings.all(pids, "quiet")
        await run.finish(trial, is_lossless=True)
    trial.check("least that waited in a sender meanwhile", f"{least_bytes:,} bytes", least_bytes > 0)
    _check_fair(trial, heard, senders)


async def _wait_saturated(run: Traffic, receiver: int, pids: list[int], seconds: int) -> int:
    """Let the senders go on so long; return the least that waited in any of them, read once a second."""
    waiting: list[int] = []
    for _ in range(seconds):
        await asyncio.sleep(1)  # the fault: so many seconds of it
        waiting += [each["outbox_bytes"].get(receiver, 0) for each in await run.strings.all(pids, "measured")]
    return min(waiting)


def _check_fair(trial: Trial, heard: list[tuple[int, float]], senders: int) -> None:
    """Compare the messages and the longest silence of each sender."""
    counts = [messages for messages, _ in heard]
    mean = max(sum(counts) / senders, 1)
    trial.say("messages received from a sender, mean", f"{mean:,.0f}")
    trial.equal("senders heard", len(heard), senders)
    slowest, fastest = min(counts, default=0) / mean, max(counts, default=0) / mean
    trial.check(
        f"slowest sender, at least {LEAST_SHARE:.0%} of the mean",
        f"{slowest:.0%} (the fastest {fastest:.0%})",
        slowest >= LEAST_SHARE,
    )
    silence_s = max((silence_s for _, silence_s in heard), default=float("inf"))
    trial.at_most(f"longest silence of a sender, at most {SILENCE_S:g} s", silence_s, SILENCE_S)
