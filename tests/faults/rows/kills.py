"""Killed workers: in peace, while a worker joins or leaves, and in the midst of a large message.

Law: the workers' notes and the ledgers decide afterwards which moment a kill has hit, never the intention of
the harness.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Final

from asgi_ipc.wire.outbox import MAX_OUTBOX_BYTES
from tests.faults.oracle import Note, Verdict
from tests.faults.traffic import Traffic, noted, traffic
from tests.faults.trial import Trial, as_ms, everywhere, row

WORKERS: Final = 4
LARGE_BYTES: Final = 1024 * 1024

# Every survivor must have removed the dead within this.
REMOVED_WITHIN_S: Final = 1.0

# The time of an event that has not been seen.
NEVER_S: Final = 3600.0

# A worker killed less than 1 s after it was ready counts as a crash loop (slots.py, EARLY_DEATH_S), which is
# another row.
OLD_ENOUGH_S: Final = 1.1

# A dead receiver may have had so many bytes of small messages in its pipe and memory: a pipe of the default
# size and one read of as much. Besides, from each sender, one large message that it had just completed and
# one with its last piece in the pipe.
IN_DOUBT_BYTES: Final = 2 * 64 * 1024
IN_DOUBT_LARGE: Final = 2


class Killer:
    """Chooses victims and moments. One at a time: the next when the fleet is whole again."""

    def __init__(self, run: Traffic, seed: int) -> None:
        self._run = run
        self._random = random.Random(seed)
        # When each worker was killed, by its generation.
        self.kills: dict[int, float] = {}
        self._members: dict[int, Note] = {}
        self._gone: set[int] = set()
        # So many of the notes have been looked at.
        self._seen = 0

    def members(self) -> dict[int, Note]:
        """Return the members that have neither left nor been killed, with the note of their joining."""
        notes = self._run.listener.notes
        for note in notes[self._seen :]:
            if note["what"] == "joined" and note["by"] not in self._gone:
                self._members[note["by"]] = note
            elif note["what"] == "leaving":
                self._forget(note["by"])
        self._seen = len(notes)
        return self._members

    def _forget(self, generation: int) -> None:
        self._gone.add(generation)
        self._members.pop(generation, None)

    def kill(self, note: Note) -> None:
        """Kill the worker that wrote this note, unless it has left meanwhile."""
        self._forget(note["by"])
        with suppress(ProcessLookupError):
            os.kill(note["pid"], signal.SIGKILL)
            self.kills[note["by"]] = time.monotonic()

    def anyone(self, but: int = 0) -> Note:
        """A member that was not born just now."""
        members = [note for generation, note in self.members().items() if generation != but]
        old = [note for note in members if time.monotonic() - note["at"] > OLD_ENOUGH_S]
        return self._random.choice(old or members)

    async def whole(self) -> None:
        """Wait until there are as many members as there should be."""
        while len(self.members()) < WORKERS:
            await self._run.listener.next(noted("joined"))

    async def at(self, what: str, but: int = 0) -> Note:
        """The next such note of a member that was not born just now, or (`joining`) of anyone."""

        def is_meant(note: Note) -> bool:
            if note["what"] != what or note["by"] == but:
                return False
            joined = self.members().get(note["by"])
            return joined is None or time.monotonic() - joined["at"] > OLD_ENOUGH_S

        return await self._run.listener.next(is_meant)

    # --- moments

    async def in_peace(self) -> None:
        """Choose any member, at any moment."""
        await asyncio.sleep(self._random.random() * 0.05)  # the moment is what is random here
        self.kill(self.anyone())

    async def in_a_large_message(self) -> None:
        """Choose a worker that has begun to send 1 MiB, or a receiver of that message."""
        note = await self.at("large")
        self.kill(note if self._random.random() < 0.5 else self.anyone(but=note["by"]))

    async def while_one_joins(self) -> None:
        """Kill a member, then choose its successor as it asks to join, or a member that gets that word."""
        joining = asyncio.create_task(self.at("joining"))
        await asyncio.sleep(0)
        self.kill(self.anyone())
        note = await joining
        self.kill(note if self._random.random() < 0.3 else self.anyone())

    async def while_one_leaves(self) -> None:
        """Choose a worker that is scaled away, or another one, while it drains."""
        leaving = asyncio.create_task(self.at("leaving"))
        await asyncio.sleep(0)
        self._run.server.signal(signal.SIGTTOU)
        note = await leaving
        self.kill(note if self._random.random() < 0.3 else self.anyone(but=note["by"]))
        self._run.server.signal(signal.SIGTTIN)

    def moments(self) -> Iterator[Callable[[], object]]:
        """In turn; a large message is under way for some milliseconds only, and is missed as often as not."""
        others = (self.in_peace, self.while_one_joins, self.while_one_leaves)
        return itertools.cycle([each for other in others for each in (self.in_a_large_message, other)])


@row(
    fault="worker SIGKILL",
    how="4 workers under traffic with some of 1 MiB, killed by pid",
    counts="kills",
    full=everywhere(1000),
    short=12,
    short_everywhere=True,
)
async def kills(trial: Trial) -> None:
    """Kill, wait until the fleet is whole, kill again."""
    env = {
        "TRAFFIC_PAUSE_S": "0.004",
        "TRAFFIC_LARGE_BYTES": str(LARGE_BYTES),
        "TRAFFIC_LARGE_SHARE": "0.004",
    }
    async with traffic(trial, workers=WORKERS, env=env) as run:
        killer = Killer(run, trial.count)
        moments = killer.moments()
        await killer.whole()
        while len(killer.kills) < trial.count:
            await next(moments)()  # type: ignore[misc]  # a bound method of the killer's
            await killer.whole()
        seconds = time.monotonic() - run.began
        verdict = await run.finish(trial)
    if trial.full:
        run.check_rate(trial, verdict, seconds)
    _check_moments(trial, verdict, killer.kills)
    _check_removal(trial, verdict, killer.kills)
    _check_losses(trial, verdict, killer.kills.keys())


def _check_moments(trial: Trial, verdict: Verdict, killed: dict[int, float]) -> None:
    spans = _spans(verdict)
    moving = sum(any(begin <= at <= end for begin, end in spans) for at in killed.values())
    cut = {
        generation
        for pair, missing in verdict.missing.items()
        if max(missing.sizes_bytes, default=0) >= LARGE_BYTES
        for generation in pair
    }
    cut |= {
        g for sender, receiver, size in verdict.unfinished if size >= LARGE_BYTES for g in (sender, receiver)
    }
    large = len(cut & killed.keys())
    # A tenth of the kills each, as 100 of 1,000.
    least = trial.count // 10
    trial.check("kills", len(killed), len(killed) >= trial.count)
    trial.least("while a member joined or left", moving, least)
    # A large message is on its way for less than a millisecond where there is shared memory: of a few kills
    # none may meet one.
    trial.least("during a 1 MiB message", large, least if trial.full else 0)


def _spans(verdict: Verdict) -> list[tuple[float, float]]:
    """Return the spans of joins and leaves: from the beginning to the end, or to the death."""
    begun: dict[tuple[int, str], float] = {}
    spans = []
    ends = {"joined": "joining", "left": "leaving"}
    for note in verdict.notes:
        what, by = note["what"], note["by"]
        if what in ends.values():
            begun[by, what] = note["at"]
        elif what in ends and (by, ends[what]) in begun:
            spans.append((begun.pop((by, ends[what])), note["at"]))
    # It was killed in this span: only the killer can have looked later.
    return spans + [(at, at + 0.01) for at in begun.values()]


def _check_removal(trial: Trial, verdict: Verdict, killed: dict[int, float]) -> None:
    known: dict[int, set[int]] = defaultdict(set)
    ended = dict(killed)
    removed: dict[tuple[int, int], float] = {}
    told: dict[tuple[int, int], int] = defaultdict(int)
    for note in verdict.notes:
        by = note["by"]
        match note["what"]:
            case "joined":
                known[by].update(note["members"])
            case "told_join":
                known[by].add(note["of"])
            case "leaving":
                ended[by] = min(note["at"], ended.get(by, note["at"]))
            case "removed":
                removed[by, note["of"]] = note["at"]
            case "told_leave":
                told[by, note["of"]] += 1
                # It may have come and gone between two looks at the members; it is no member now.
                removed.setdefault((by, note["of"]), note["at"])
    late: list[str] = []
    delays = [0.0]
    witnesses = 0
    for dead, at in killed.items():
        for by, others in known.items():
            # A survivor: it knew the dead, and has removed it or lived for long enough to do so.
            lived = ended.get(by, at + NEVER_S) - at
            delay = removed.get((by, dead), at + NEVER_S) - at
            if dead not in others or lived < min(delay, REMOVED_WITHIN_S):
                continue
            witnesses += 1
            delays.append(delay)
            must_be_told = lived > REMOVED_WITHIN_S
            if delay > REMOVED_WITHIN_S or (must_be_told and told[by, dead] != 1):
                late.append(f"{by} of {dead}: {delay:.2f} s, told {told[by, dead]} x")
    twice = [pair for pair, times in told.items() if times > 1]
    trial.check(
        f"every survivor has removed it within {REMOVED_WITHIN_S:g} s, with one callback",
        f"{witnesses} of {witnesses}, slowest {as_ms(max(delays))}" if not late else "; ".join(late[:5]),
        not late and witnesses > 0,
    )
    trial.none("told twice", twice)


def _check_losses(trial: Trial, verdict: Verdict, dead: Collection[int]) -> None:
    small: dict[int, int] = defaultdict(int)
    wrong: list[str] = []
    counted = 0
    for (sender, receiver), missing in verdict.missing.items():
        if sender in dead:
            taken = sum(missing.sizes_bytes)
            # It may take an outbox with it.
            if taken > MAX_OUTBOX_BYTES + LARGE_BYTES:
                wrong.append(f"{sender} to {receiver}: {taken} bytes not written")
        elif receiver in dead:
            counted += missing.counted
            large = sum(size >= LARGE_BYTES for size in missing.in_doubt_bytes)
            small[receiver] += sum(size for size in missing.in_doubt_bytes if size < LARGE_BYTES)
            if large > IN_DOUBT_LARGE:
                wrong.append(f"{sender} to {receiver}: {large} large ones in doubt")
    wrong += [f"to {dead}: {size} bytes in doubt" for dead, size in small.items() if size > IN_DOUBT_BYTES]
    trial.check(
        "survivors' lost = counted, in doubt at most the content of the dead one's pipe and memory",
        f"{counted:,} counted; in doubt at most {max(small.values(), default=0):,} bytes to one"
        + "".join(f"; {each}" for each in wrong[:5]),
        not wrong,
    )
