"""Stray bytes: another process of the same user writes into a worker's pipe.

Law: its writes are no packets of this run: random bytes, packets that are cut short or flipped, packets with
another cookie. They cost no sender a message, and the reader counts the skipped bytes exactly.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any, Final

import msgspec

from tests.faults.stray import Target
from tests.faults.traffic import PRESSURE, Traffic, noted, traffic
from tests.faults.trial import Trial, describe, everywhere, row
from tests.processes import is_stopped, message_pipe, own_bytes
from tests.serving import Helper, eventually, helping

WORKERS: Final = 4
KINDS: Final = ("random", "cut", "flipped", "foreign")

# Half packets with one good message behind them: read one after the other, and read at once.
HALVES: Final = 10
SHORT_HALVES: Final = 4

# Half a packet delays no message: its reader doesn't wait for the other half. This bounds a busy machine.
ARRIVAL_S: Final = 1.0

# Between two looks at the memory of the workers.
LOOK_S: Final = 0.05
# Memory for strays, beside the peak of the traffic itself, which the other workers have, too.
GROWTH_BYTES: Final = 10 * 1024 * 1024

SEED: Final = 20_240_229


class _Writer:
    """The stray process; it writes on command."""

    def __init__(self, stray: Helper) -> None:
        self._stray = stray
        self.writes = 0
        self.written_bytes = 0

    async def write(self, count: int, *kinds: str) -> None:
        """Let it write; return when all of it is in the pipe."""
        line = await self._stray.ask(f"{count} {' '.join(kinds)}")
        self.writes += count
        self.written_bytes += int(line)


@row(
    fault="stray bytes",
    how="another process writes random bytes, packets cut short or flipped, and packets with another cookie",
    counts="writes",
    full=everywhere(100_000),
    short=2_000,
)
async def stray(trial: Trial) -> None:
    """Half packets when all is quiet; then everything, under traffic all to all."""
    async with traffic(trial, workers=WORKERS, app=PRESSURE) as run:
        victim, sender, *_ = run.server.workers()
        it, other = await run.strings.all((victim, sender), "measured")
        target = Target(
            pipe=message_pipe(victim),
            cookie=bytes.fromhex(it["cookie"]),
            sender=other["generation"],
            receiver=it["generation"],
            max_packet_bytes=it["max_packet_bytes"],
        )
        target_json = msgspec.json.encode(target).decode()
        async with helping("-m", "tests.faults.stray", target_json, str(SEED)) as stray:
            writer = _Writer(stray)
            await _halves(trial, run, writer, victim, sender)
            await _storm(trial, run, writer, victim, sender)
        measured = await run.strings.all(run.server.workers(), "measured")
        await run.finish(trial, is_lossless=True)
    elsewhere = [each["dropped"] for each in measured if each["generation"] != it["generation"]]
    trial.none("dropped by the other workers", [each for each in elsewhere if each])


async def _halves(trial: Trial, run: Traffic, writer: _Writer, victim: int, sender: int) -> None:
    """Half a packet, one good message behind it, then silence."""
    count = HALVES if trial.full else SHORT_HALVES
    for number in range(count):
        at_once = number % 2 == 1
        if at_once:
            os.kill(victim, signal.SIGSTOP)
            await eventually(lambda: is_stopped(victim), "the worker has stopped")
        await writer.write(1, "cut")
        began = asyncio.get_running_loop().time()
        arrival = asyncio.ensure_future(run.listener.next(noted("marked", text=str(number))))
        await run.strings.call(sender, "mark", victim, str(number))
        if at_once:
            began = asyncio.get_running_loop().time()
            os.kill(victim, signal.SIGCONT)
        what = "a message behind half a packet, then silence: arrives"
        trial.within(what, (await arrival)["at"] - began, ARRIVAL_S)
    skipped = await run.strings.call(victim, "measured")
    trial.equal("halves that are counted", skipped["dropped"].get("corrupt", 0), count)
    trial.equal("bytes of halves that are counted", skipped["skipped_bytes"], writer.written_bytes)


async def _storm(trial: Trial, run: Traffic, writer: _Writer, victim: int, sender: int) -> None:
    """Write all kinds at full rate, while all workers talk to all."""
    before_writes = writer.writes
    await run.strings.all(run.server.workers(), "chat")
    # The worker has grown to the needs of its own traffic: it has got a large message.
    await run.listener.next(noted("large", pid=sender))
    before = await run.strings.call(victim, "measured")
    storm = asyncio.create_task(writer.write(trial.count, *KINDS))
    with trial.timing("how long it took"):
        growth = await _growth(storm, run.server.workers())
        await storm
    # After the last stray byte: a reader that got this message has read all of them.
    last = asyncio.ensure_future(run.listener.next(noted("marked", text="last")))
    await run.strings.call(sender, "mark", victim, "last")
    await last
    after = await run.strings.call(victim, "measured")
    _check_storm(trial, writer, before, after, writer.writes - before_writes)
    most_bytes = GROWTH_BYTES + max(growth[pid] for pid in growth if pid != victim)
    trial.check(
        "growth of its memory meanwhile, at most 10 MiB more than that of the others",
        f"{growth[victim] / 2**20:.1f} MiB of {most_bytes / 2**20:.1f} MiB",
        growth[victim] <= most_bytes,
    )


async def _growth(meanwhile: asyncio.Task[None], pids: list[int]) -> dict[int, int]:
    """Return the largest growth of each, in bytes."""
    before = {pid: own_bytes(pid) for pid in pids}
    peak = dict(before)
    while not meanwhile.done():
        await asyncio.wait([meanwhile], timeout=LOOK_S)
        peak = {pid: max(peak[pid], own_bytes(pid)) for pid in pids}
    return {pid: peak[pid] - before[pid] for pid in pids}


def _check_storm(
    trial: Trial, writer: _Writer, before: dict[str, Any], after: dict[str, Any], writes: int
) -> None:
    heard = after["received"] - before["received"]
    trial.check("good messages that it heard meanwhile", f"{heard:,}", heard > 0)
    dropped = dict(after["dropped"])
    corrupt = dropped.pop("corrupt", 0)
    trial.check("gaps and other drops", describe(dropped) or 0, not dropped)
    runs = corrupt - before["dropped"].get("corrupt", 0)
    trial.check(
        "runs of stray bytes that are counted; adjoining ones are one run",
        f"{runs:,} of {writes:,} writes",
        1 <= runs <= writes,
    )
    trial.equal("stray bytes that are counted", after["skipped_bytes"], writer.written_bytes)
