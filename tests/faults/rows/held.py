"""Shared memory that is held: its reader, or its owner, is killed before the data is copied.

Law: a kill comes only after the owner itself reports that the other worker holds something. Afterwards no
process holds, maps or opens anything of the dead, and in silence all memory but one window of each worker
goes back to the kernel.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from itertools import cycle
from typing import Final

from asgi_ipc.wire.arena import WINDOW_BYTES
from tests.faults.traffic import PRESSURE, Traffic, traffic
from tests.faults.trial import NotHereError, Trial, everywhere, row
from tests.processes import ARENA, arenas, links
from tests.serving import DEADLINE_S

WORKERS: Final = 4

# Larger than any packet; more of them than a receiver may hold at once, and less than an outbox takes.
GIVEN: Final = 100
GIVEN_BYTES: Final = 64 * 1024


class Ring:
    """The present workers in the order of their slots, and all that have joined so far."""

    def __init__(self, run: Traffic) -> None:
        self.run = run
        self.pids: list[int] = []
        self.generations: dict[int, int] = {}

    async def whole(self) -> None:
        """Wait until the fleet is complete and all know all; then let each press another."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                self.generations = self.run.joined
                self.pids = [pid for pid in self.run.server.workers() if pid in self.generations]
                if len(self.pids) == WORKERS and await self._all_know_all():
                    break
                await asyncio.sleep(0.01)  # what another process knows has no event here
        for place, pid in enumerate(self.pids):
            await self.run.strings.call(pid, "quiet")
            await self.run.strings.call(pid, "press", self.pids[place - 1])

    async def _all_know_all(self) -> bool:
        living = {self.generations[pid] for pid in self.pids}
        return all([set((await self.held(pid))[1]) == living - {self.generations[pid]} for pid in self.pids])

    async def held(self, pid: int) -> tuple[int, dict[int, int]]:
        """Return that worker's report of its arena."""
        used_bytes, by_receiver = await self.run.strings.call(pid, "held")
        return used_bytes, by_receiver

    async def give(self, owner: int, reader: int) -> int:
        """Let one write for the other, stopped one until some of it is held; return the held bytes."""
        await self.run.strings.call(owner, "give", reader, GIVEN, GIVEN_BYTES)
        async with asyncio.timeout(DEADLINE_S):
            while True:
                _, by_receiver = await self.held(owner)
                if of_it := by_receiver[self.generations[reader]]:
                    return of_it
                await asyncio.sleep(0.01)  # an arena has no event for it


async def _reader_dies(ring: Ring, owner: int, reader: int) -> int:
    os.kill(reader, signal.SIGSTOP)
    others = [pid for pid in ring.pids if pid != reader]
    held_bytes = sum([await ring.give(pid, reader) for pid in others])
    os.kill(reader, signal.SIGKILL)
    return held_bytes


async def _owner_dies(ring: Ring, owner: int, reader: int) -> int:
    os.kill(reader, signal.SIGSTOP)
    held_bytes = await ring.give(owner, reader)
    os.kill(owner, signal.SIGKILL)
    # It reads the dead one's messages now.
    os.kill(reader, signal.SIGCONT)
    return held_bytes


@row(
    fault="killed with shared memory held",
    how="a stopped worker holds data that others have written for it; then it is killed, or the writer",
    counts="kills",
    full=everywhere(200),
    short=4,
)
async def held(trial: Trial) -> None:
    """Both kinds of death, in turn, around the ring."""
    async with traffic(trial, workers=WORKERS, app=PRESSURE) as run:
        ring = Ring(run)
        _look_for_memory(ring)
        descriptors = len(links(run.server.pid))
        kinds: cycle[Callable[[Ring, int, int], Awaitable[int]]] = cycle([_reader_dies, _owner_dies])
        held_bytes = []
        for number in range(trial.count):
            await ring.whole()
            owner, reader = (ring.pids[(number + step) % WORKERS] for step in (0, 1))
            held_bytes.append(await next(kinds)(ring, owner, reader))
            await run.server.said("Application startup complete", WORKERS + number + 1)
        await ring.whole()
        await _check_the_end(trial, ring, descriptors)
        await run.finish(trial)
    trial.equal("kills", len(held_bytes), trial.count)
    trial.least("bytes held at each kill", min(held_bytes), GIVEN_BYTES)


def _look_for_memory(ring: Ring) -> None:
    """Raises NotHereError if the workers share none."""
    if not arenas(ring.run.server.workers()[0]):
        raise NotHereError("there is no shared memory here (memfd_create)")


async def _check_the_end(trial: Trial, ring: Ring, descriptors: int) -> None:
    run = ring.run
    mapped = [len(arenas(pid)) for pid in ring.pids]
    trial.check(f"arenas mapped in each worker: {WORKERS}", mapped, mapped == [WORKERS] * WORKERS)
    own = [sum(ARENA in link for link in links(pid).values()) for pid in ring.pids]
    # Before 3.13 an mmap keeps a duplicate of its descriptor.
    each = 0 if sys.version_info >= (3, 13) else WORKERS
    trial.check(f"their descriptors open in each: {each}", own, own == [each] * WORKERS)
    here = len(links(run.server.pid))
    trial.check(f"the launcher's descriptors, {descriptors} before", here, here == descriptors)
    for pid in ring.pids:
        await run.strings.call(pid, "quiet")
    async with asyncio.timeout(DEADLINE_S):
        while True:
            # A beat a second acknowledges, and gives back.
            used_bytes = sum([(await ring.held(pid))[0] for pid in ring.pids])
            resident_bytes = sum(sum(arenas(pid)) for pid in ring.pids)
            if not used_bytes and resident_bytes <= WORKERS * WORKERS * WINDOW_BYTES:
                break
            await asyncio.sleep(0.05)
    trial.say("held, and resident, when all are quiet", f"{used_bytes} bytes, {resident_bytes >> 10} KiB")
