"""Mutual flood: workers that answer each message with four more, from inside their handlers.

Law: outboxes, pipes and handlers in flight are all full, and each waits for the other. Every worker must have
progress or typed errors at any time, and at the end every accepted message must have arrived.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from asgi_ipc.worker.dispatch.backpressure import MAX_IN_FLIGHT
from tests.faults.traffic import PRESSURE, noted, traffic
from tests.faults.trial import ASYNCIO, SMALL, UVLOOP, Trial, describe, row


@dataclass(frozen=True, slots=True)
class _Flood:
    """One way to flood: the number of workers, the handlers of tests/apps/pressure.py, the sizes."""

    name: str
    workers: int
    kinds: tuple[str, ...]
    sizes_bytes: tuple[int, ...]
    patience_s: float


# Handlers that wait for room, and plain ones that don't; many messages to a packet, and packets to a message.
_BOTH: Final = ("flood", "flood_nowait")
_MIXED_BYTES: Final = (96, 1024, 64 * 1024)
FLOODS: Final = (
    _Flood("2 workers", 2, _BOTH, _MIXED_BYTES, 2.0),
    _Flood("4 workers", 4, _BOTH, _MIXED_BYTES, 2.0),
)
# So many messages that both workers reach the bound of waiting handlers and stop reading. Each handler waits
# as long as a send does by default; only deadlines end this state.
STUCK: Final = _Flood("2 workers, all handlers waiting", 2, ("flood",), (512,), 5.0)

# The messages of each to each other that start the flood.
FIRST_MESSAGES: Final = 100

# A worker whose sends all wait has nothing to show until their deadline.
STANDSTILL_SLACK_S: Final = 1.0

# A full outbox from each to each; they are read while all workers write.
DRAIN_TIMEOUT_S: Final = 60


@row(
    fault="mutual flood",
    how="two and four workers flood each other from inside handlers",
    counts="seconds of each flood",
    # Half of it is longer than the longest standstill that is allowed, so each half must bring a message.
    full={UVLOOP: 30, ASYNCIO: 16, SMALL: 16},
    short=1,
)
async def flood(trial: Trial) -> None:
    """Run one way after the other."""
    for each in (*FLOODS, STUCK) if trial.full else FLOODS:
        await _flood(trial.part(each.name, f"{each.name}: "), each)


async def _flood(trial: Trial, how: _Flood) -> None:
    options = ("--drain-timeout", str(DRAIN_TIMEOUT_S))
    async with traffic(trial, *options, workers=how.workers, app=PRESSURE) as run:
        run.server.deadline_s += DRAIN_TIMEOUT_S
        pids = run.server.workers()
        await run.strings.all(pids, "agree", how.kinds, how.sizes_bytes, how.patience_s)
        full = [run.listener.next(noted("full", pid=pid)) for pid in pids]
        await asyncio.gather(*full, run.strings.all(pids, "flood", FIRST_MESSAGES))
        await run.strings.all(pids, "listen")
        await asyncio.sleep(trial.count / 2)  # the fault: so many seconds of it
        halfway = await run.strings.all(pids, "measured")
        await asyncio.sleep(trial.count / 2)
        measured = await run.strings.all(pids, "measured")
        # In the middle of it: what is accepted now must still arrive.
        await run.finish(trial, is_lossless=True)
    _check_progress(trial, halfway, measured, how.patience_s + STANDSTILL_SLACK_S)
    trial.none("drain timeouts when all stop in the middle of it", run.server.count("drain timeout"))


def _check_progress(
    trial: Trial, halfway: list[dict[str, Any]], measured: list[dict[str, Any]], most_s: float
) -> None:
    progress = [new["progress"] - old["progress"] for old, new in zip(halfway, measured, strict=True)]
    trial.check("messages heard in the second half, each worker", progress, min(progress) > 0)
    standstill_s = max(each["standstill_s"] for each in measured)
    trial.at_most(f"longest without a message or a typed error, at most {most_s:g} s", standstill_s, most_s)
    backlog = max(sum(each["outbox_bytes"].values()) for each in measured)
    trial.say("most that waited in one worker's outboxes at the end", f"{backlog / 2**20:.1f} MiB")
    trial.say(
        "handlers in flight at the end, each worker",
        f"{[each['in_flight'] for each in measured]} (nothing is read from {MAX_IN_FLIGHT:,} on)",
    )
    refused: Counter[str] = Counter()
    for each in measured:
        refused.update(each["refused"])
    allowed = {"SendTimeoutError", "WouldBlockError"}
    trial.check("typed errors", describe(refused), refused.keys() <= allowed and bool(refused))
    trial.none("other errors in handlers", sum(each["handler_errors"] for each in measured))
