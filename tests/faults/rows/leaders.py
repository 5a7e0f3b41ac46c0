"""Leaders that are killed and replaced at full speed: never two at once, and soon another.

Law: two servers, so that there is always a leader to kill. Every running task writes to a shared log all the
time, and the log names the leader. The log's order, and a lock that only the kernel takes away, show whether
there were two.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Final

from tests.faults.oracle import Note
from tests.faults.traffic import Listener, noted
from tests.faults.trial import Trial, everywhere, row
from tests.serving import Server, eventually, serving

SERVERS: Final = 2
WORKERS: Final = 4

# The promise.
MOVES_WITHIN_S: Final = 1.0

# A worker killed less than 1 s after it was ready counts as a crash loop (slots.py, EARLY_DEATH_S), which is
# another row.
OLD_ENOUGH_S: Final = 1.1

# One turn of so many is a rolling restart.
RESTART_EVERY: Final = 12

# A restart gets so long to reach the leader; the kill then cuts the leader's end short.
SOON_S: Final = 3.0


class Storm:
    """One server, and the kills and restarts of its leaders."""

    def __init__(self, server: Server, listener: Listener, seed: int) -> None:
        self._server = server
        self._listener = listener
        self._random = random.Random(seed)
        # When each leader was killed, by its generation.
        self.kills: dict[int, float] = {}
        self.restarts = self.cut_short = 0

    @property
    def notes(self) -> list[Note]:
        return self._listener.notes

    @property
    def turns(self) -> int:
        return len(self.kills) + self.restarts

    async def blow(self, turns: int) -> None:
        """Kill and restart so often."""
        while self.turns < turns:
            if self.turns % RESTART_EVERY == RESTART_EVERY - 1:
                await self._restart()
            else:
                await self._kill_the_leader()

    async def _kill_the_leader(self) -> None:
        """Kill the leader as soon as it runs, or a little later, unless it was born just now."""
        leader = await self._leader()
        joined = next(note for note in self.notes if note["what"] == "joined" and note["by"] == leader["by"])
        young_s = joined["at"] + OLD_ENOUGH_S - time.monotonic()
        a_little_s = self._random.choice([0.0, self._random.random() * 0.05])
        await asyncio.sleep(max(young_s, a_little_s))  # the moment is what is chosen here
        if self._running() == leader:
            self._kill(leader)

    async def _restart(self) -> None:
        """Replace a leader, and now and then kill it while its task ends."""
        cleans = asyncio.create_task(self._listener.next(noted("cleans"), SOON_S))
        await asyncio.sleep(0)
        self._server.signal(signal.SIGHUP)
        self.restarts += 1
        # A restart may miss the leader: one may be under way, or be given up because of a killed worker.
        with suppress(TimeoutError):
            leader = await cleans
            if self._random.random() < 0.5:
                self._kill(leader)
                self.cut_short += 1

    def _kill(self, note: Note) -> None:
        # Taken before the kill: another leader may have begun when this process goes on.
        at = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(note["pid"], signal.SIGKILL)
            self.kills.setdefault(note["by"], at)

    def _running(self) -> Note | None:
        """The beginning of the task that runs now, as far as the log is known."""
        for note in reversed(self.notes):
            if note["what"] in ("cleans", "ends"):
                return None
            if note["what"] == "begins":
                return note if note["by"] not in self.kills else None
        return None

    async def _leader(self) -> Note:
        while (leader := self._running()) is None:
            await self._listener.next(noted("begins"))
        return leader

    async def settle(self) -> Note:
        """Wait until all workers are there, and one of them leads."""
        await eventually(
            lambda: len(self._members()) == WORKERS and not self._is_restarting(), "all are here"
        )
        return await self._leader()

    def _is_restarting(self) -> bool:
        begun = self._server.count("restarting workers")
        return begun > self._server.count("have been restarted") + self._server.count("giving the restart up")

    def _members(self) -> set[int]:
        over = {*self.kills} | {note["by"] for note in self.notes if note["what"] == "leaving"}
        return {note["by"] for note in self.notes if note["what"] == "joined"} - over

    # --- results

    def faults(self) -> Iterator[str]:
        """Return the places in which two tasks ran at once, or one was left without an end."""
        over: set[int] = set()
        running = 0
        for note in self.notes:
            what, by = note["what"], note["by"]
            if what == "two":
                yield f"w{by} begins while another one holds the lock"
            if what not in ("begins", "alive", "cleans", "ends"):
                continue
            if by in over:
                yield f"w{by} {what} behind its end"
            if by != running:
                if running and running not in over and running not in self.kills:
                    yield f"w{by} {what} before w{running} ends"
                if what != "begins":
                    yield f"w{by} {what} out of its turn"
                over.add(running)
                running = by
            if what == "ends":
                over.add(by)

    def gaps_s(self) -> list[float]:
        """Return the seconds from each kill to the next beginning, if a worker was there to begin."""
        begins = [note["at"] for note in self.notes if note["what"] == "begins"]
        ends = {note["by"]: note["at"] for note in self.notes if note["what"] == "leaving"} | self.kills
        joined = {note["by"]: note["at"] for note in self.notes if note["what"] == "joined"}
        gaps = []
        for killed_at in self.kills.values():
            begun = min((at for at in begins if at > killed_at), default=float("inf"))
            until = min(begun, killed_at + MOVES_WITHIN_S)
            if any(at < killed_at and ends.get(by, float("inf")) > until for by, at in joined.items()):
                gaps.append(begun - killed_at)
        return gaps


@row(
    fault="killed and replaced leaders",
    how="two servers of 4 workers whose leader task writes into a shared log and holds a lock; one leader "
    "after the other is killed, some while their task ends, with rolling restarts in between",
    counts="kills and restarts",
    full=everywhere(500),
    short=40,
)
async def leaders(trial: Trial) -> None:
    """Run both servers side by side: one starts workers while the other has a leader to kill."""
    turns = -(-trial.count // SERVERS)
    async with asyncio.TaskGroup() as servers:
        storms = [servers.create_task(_storm(trial, number, turns)) for number in range(SERVERS)]
    results = [task.result() for task in storms]
    _report(trial, results)


async def _storm(trial: Trial, number: int, turns: int) -> Storm:
    folder = trial.part(f"server {number}").folder
    env = {"LEADERS_FOLDER": str(folder)}
    options = (*trial.variant.options, "--no-access-log")
    with closing(Listener(folder)) as listener:
        async with serving("tests.apps.leaders:app", *options, workers=WORKERS, env=env) as server:
            await server.started(WORKERS)
            storm = Storm(server, listener, turns + number)
            await storm.blow(turns)
            await storm.settle()
            status = await server.stop()
        trial.ended(status, f"exit status of server {number + 1}")
        tracebacks = server.count("Traceback")
        trial.none(f"tracebacks of server {number + 1}", tracebacks)
    return storm


def _report(trial: Trial, storms: list[Storm]) -> None:
    kills = sum(len(storm.kills) for storm in storms)
    restarts = sum(storm.restarts for storm in storms)
    cut_short = sum(storm.cut_short for storm in storms)
    trial.check(
        f"at least {trial.count:,} leaders killed and restarts begun",
        f"{kills:,} killed, {cut_short} of them while their task ended; {restarts} restarts",
        kills + restarts >= trial.count and restarts > 0,
    )
    notes = [note["what"] for storm in storms for note in storm.notes]
    trial.say("tasks that ran", f"{notes.count('begins'):,}, with {notes.count('alive'):,} signs of life")
    faults = [fault for storm in storms for fault in storm.faults()]
    trial.check("two at once, or one that was not ended", "; ".join(faults[:5]) or 0, not faults)
    gaps_s = [gap for storm in storms for gap in storm.gaps_s()]
    trial.least("kills with a worker there to begin", len(gaps_s), 1)
    what = "another one has begun after a kill, if there is one,"
    for gap_s in gaps_s:
        trial.within(what, gap_s, MOVES_WITHIN_S)
