"""A blocked event loop: `time.sleep` in a handler.

Law: a blocked worker costs no other worker anything. The others go on asking each other and sending to the
blocked one. Messages for it wait, and none is lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Final

from tests.faults.trial import Trial, as_ms, everywhere, percentile, row
from tests.processes import of_session
from tests.puppets import Puppets, puppets
from tests.serving import watching

WORKERS: Final = 4

# The promise: "a blocked event loop shows as `stalled` within 5 s", and workers whose launcher was killed
# "exit, within 5 s when no request is open".
SHOWN_S: Final = 5.0
ENDED_S: Final = 5.0

# The slowest hundredth of the answers may come so much later than before: as late as an event loop may be.
# The short form shares its machine with the rest of the suite.
MOVED_S: Final = 0.02
SHORT_MOVED_S: Final = 0.1

# 4 s is the least that the option takes. Workers beat once a second, so the launcher may judge up to a second
# before the block is 4 s old.
HANG_TIMEOUT_S: Final = 4
BEAT_S: Final = 1.0

# The block that the row ends.
LONG_BLOCK_S: Final = 60.0

# Questions in a row, messages to the blocked one behind them, and a client's think time.
QUESTIONS: Final = 10
MESSAGES: Final = 10
THINK_S: Final = 0.02
BATCHES_BEFORE: Final = 30


@row(
    fault="blocked loop",
    how="time.sleep in a handler; the launcher sees it, replaces it if so configured, or is killed meanwhile",
    counts="seconds of sleep",
    full=everywhere(60),
    short=6,
)
async def blocked(trial: Trial) -> None:
    """Run all three side by side; they wait most of the time."""
    ready = asyncio.Barrier(3)
    async with asyncio.TaskGroup() as parts:
        parts.create_task(_shows_and_moves_nobody(trial, ready))
        parts.create_task(_is_replaced(trial, ready))
        parts.create_task(_leaves_no_orphan(trial, ready))


class Others:
    """The workers that are not blocked: they ask each other in a ring, and send to the blocked one."""

    def __init__(self, strings: Puppets, pids: list[int], blocked_pid: int) -> None:
        self._strings = strings
        self._blocked = blocked_pid
        ring = [pid for pid in pids if pid != blocked_pid]
        self._pairs = list(zip(ring, [*ring[1:], ring[0]], strict=True))
        self.sent = 0
        self.refused: list[str] = []

    async def ask(self, *, and_send: bool) -> list[float]:
        """Let every worker ask the next one and send, so often; return the seconds of each answer."""
        asked = [self._strings.call(pid, "round_trips", to, QUESTIONS) for pid, to in self._pairs]
        seconds = [each for answers in await asyncio.gather(*asked) for each in answers]
        if and_send:
            for pid, _ in self._pairs:
                self.refused += await self._strings.call(pid, "flood", self._blocked, MESSAGES, 100)
                self.sent += MESSAGES
        await asyncio.sleep(THINK_S)  # this is what a client does: it thinks
        return seconds


async def _shows_and_moves_nobody(trial: Trial, ready: asyncio.Barrier) -> None:
    folder = trial.part("shown").folder
    async with puppets(folder, *trial.variant.options, workers=WORKERS) as (strings, pids):
        server = strings.server
        victim = pids[1]
        others = Others(strings, pids, victim)
        await ready.wait()
        before = [s for _ in range(BATCHES_BEFORE) for s in await others.ask(and_send=False)]
        began = time.monotonic()
        await strings.call(pids[0], "send", victim, "block", float(trial.count))

        async def shows() -> None:
            await server.said(rf"Worker \[{victim}\] is stalled")
            trial.within("a log line with `stalled` and the pid", time.monotonic() - began, SHOWN_S)

        shown = asyncio.create_task(shows())
        meanwhile = []
        while not server.count(rf"Worker \[{victim}\] responds again"):
            assert time.monotonic() < began + trial.count + server.deadline_s
            meanwhile += await others.ask(and_send=True)
        again = f"{time.monotonic() - began:.1f} s"
        trial.say(f"after a block of {trial.count} s it responds again", again)
        await shown
        arrived = await strings.call(victim, "counted", "plain", others.sent)
        members = await strings.call(pids[0], "members", WORKERS)
        trial.ended(await server.stop())
    trial.equal("log lines with `stalled`", server.count("stalled"))
    moved_s = MOVED_S if trial.full else SHORT_MOVED_S
    was_s, is_s = percentile(before, 0.99), percentile(meanwhile, 0.99)
    trial.check(
        f"round trips between others: p99 at most {as_ms(moved_s)} more than before",
        f"{as_ms(was_s)} before ({len(before):,}), {as_ms(is_s)} during the block ({len(meanwhile):,}), "
        f"at most {as_ms(max(meanwhile))}",
        is_s <= was_s + moved_s,
    )
    trial.equal("messages to the blocked one that arrive afterwards", arrived, others.sent)
    trial.none("refused by it", others.refused)
    same = [pid for pid, _, _ in members] == pids and not server.count("died")
    trial.check("no worker was replaced", f"{len(members)} members", same)


async def _is_replaced(trial: Trial, ready: asyncio.Barrier) -> None:
    options = (*trial.variant.options, "--worker-hang-timeout", str(HANG_TIMEOUT_S))
    async with puppets(trial.part("replaced").folder, *options, workers=WORKERS) as (strings, pids):
        server = strings.server
        victim = pids[1]
        await ready.wait()
        began = time.monotonic()
        await strings.call(pids[0], "send", victim, "block", LONG_BLOCK_S)
        await server.said(rf"Worker \[{victim}\] has been stalled for {HANG_TIMEOUT_S} s; replacing it")
        judged_s = time.monotonic() - began
        await server.said("Application startup complete", WORKERS + 1)
        replaced_s = time.monotonic() - began
        members = await strings.call(pids[0], "members", WORKERS)
        news = [await strings.call(pid, "told", "leave", victim) for pid in pids if pid != victim]
        told = [[each for each in heard if each[0] == "leave"] for heard in news]
        trial.ended(await server.stop(), "exit status of a stop then")
    trial.check(
        f"--worker-hang-timeout {HANG_TIMEOUT_S}: judged, and another one is ready",
        f"after {judged_s:.1f} s and {replaced_s:.1f} s",
        HANG_TIMEOUT_S - BEAT_S <= judged_s <= HANG_TIMEOUT_S + BEAT_S
        and victim not in [pid for pid, _, _ in members],
    )
    trial.check(
        "the others get one callback, with", told, told == [[("leave", victim, "stalled", 0)]] * len(told)
    )


async def _leaves_no_orphan(trial: Trial, ready: asyncio.Barrier) -> None:
    # A launcher would replace it, but the launcher is gone.
    options = (*trial.variant.options, "--worker-hang-timeout", f"{LONG_BLOCK_S:g}")
    async with puppets(trial.part("orphans").folder, *options, workers=WORKERS) as (strings, pids):
        server = strings.server
        victim = pids[1]
        await ready.wait()
        await strings.call(pids[0], "send", victim, "block", LONG_BLOCK_S)
        await server.said(rf"Worker \[{victim}\] is stalled")
        with watching(pids) as ends:
            killed_at = time.monotonic()
            os.kill(server.pid, signal.SIGKILL)
            trial.within("launcher killed meanwhile: all have ended", await ends.last() - killed_at, ENDED_S)
        trial.none("orphans", of_session(server.pid))
