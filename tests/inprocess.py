"""A fleet in one process and loop: the test kit's, with what only our own tests do to it.

Law: what every user's test may want is in `asgi_ipc.testing`. Here a member
notes what it is sent, and can be stopped; words can be held back.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any

from asgi_ipc import WouldBlockError
from asgi_ipc.fleet import words
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.testing import inprocess
from asgi_ipc.wire.packet import BATCH, encode_packet
from asgi_ipc.wire.payload import join_batch
from tests.encoding import encode_unchecked

COOKIE = b"\x01test run"[:8]
DEADLINE_S = 20.0
MIB = 1024 * 1024

# Bounds a whole test: what waits forever fails at the line where it waits.
TEST_DEADLINE_S = 45.0

settings = partial(Settings, cookie=COOKIE)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until then: each turn may be the event."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


class Member(inprocess.Member):
    """One worker that notes what it is sent."""

    def __init__(self, generation: int, slot: int, run: Settings, has_arena: bool) -> None:
        super().__init__(generation, slot, run, has_arena)
        self.seen: list[tuple[str, int | None, Any]] = []
        self.arrived = asyncio.Event()
        self.ipc.receive("note", self.note)

    def note(self, data: Any) -> None:
        self.seen.append(("note", self.ipc.sender, data))
        self.arrived.set()

    def stop_reading(self) -> None:
        """As if its handlers in flight had reached their bound."""
        self.endpoint.incoming.pause()

    def go_on_reading(self) -> None:
        self.endpoint.incoming.resume()

    def fill(self, to: Member, size_bytes: int = MIB) -> int:
        """Send notes of that size until the outbox for that member is full; how many."""
        for sent in itertools.count():
            try:
                self.ipc.send_nowait(to.pid, "note", bytes(size_bytes))
            except WouldBlockError:
                return sent
        raise AssertionError

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Inside, it does not read what the launcher says."""
        loop, lifeline = asyncio.get_running_loop(), self.assignment.lifeline
        loop.remove_reader(lifeline.fileno())
        yield
        loop.add_reader(lifeline.fileno(), lifeline.drain)

    async def until(self, count: int) -> list[Any]:
        """Wait for that many notes; their data."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.seen) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return [data for _, _, data in self.seen]


class Held:
    """A handler that waits until it is cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, data: object) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


class Forger:
    """Writes packets into a member's pipe, with the run's cookie, as another member."""

    def __init__(self, member: Member, sender: Worker) -> None:
        self._member = member
        self._sender = sender.generation
        self._end = os.dup(member.write_end)
        self._numbers = itertools.count()

    def batch(self, *messages: tuple[str, Any], number: int | None = None, receiver: int = 0) -> None:
        encoded = [encode_unchecked(*message) for message in messages]
        self.packet(BATCH, join_batch(encoded), number=number, receiver=receiver)

    def packet(self, kind: int, payload: bytes, *, number: int | None = None, receiver: int = 0) -> None:
        number = next(self._numbers) if number is None else number
        receiver = receiver or self._member.worker.generation
        self.write(encode_packet(COOKIE, self._sender, receiver, number, kind, payload))

    def write(self, chunk: bytes) -> None:
        os.write(self._end, chunk)

    def close(self) -> None:
        os.close(self._end)


class Fleet(inprocess.InProcessLauncher[Member]):
    """The launcher's side, which can be made to say nothing for a while."""

    hold_words = False

    def pump(self) -> None:
        if not self.hold_words:
            super().pump()

    @asynccontextmanager
    async def joined(self, member: Member) -> AsyncIterator[Member]:
        """`member` inside its lifespan; its end is its leave."""
        await member.enter()
        try:
            yield member
        finally:
            await member.leave()

    def stop(self, member: Member) -> None:
        """Say that it is to stop."""
        self.relay.tell(member.worker.generation, words.Stop())
        self.pump()

    def die(self) -> None:
        """The launcher is killed: everything of its own is closed by the kernel."""
        for member in self.members.values():
            self._loop.remove_reader(member.lifeline)
            member.lifeline.close()
            member.close_write_end()
        self.hold_words = True


@asynccontextmanager
async def fleet(
    size: int, *, has_arena: bool = True, **changes: Any
) -> AsyncIterator[tuple[Fleet, list[Member]]]:
    """A fleet of that many members, all joined, one after the other."""
    launcher = Fleet(partial(Member, run=settings(**changes), has_arena=has_arena))
    async with AsyncExitStack() as stack:
        stack.callback(launcher.close)
        members = [launcher.new(slot) for slot in range(size)]
        # At the same time, as those of a server that is stopped.
        stack.push_async_callback(_leave_together, members)
        for member in members:
            await member.enter()
        async with asyncio.timeout(TEST_DEADLINE_S):
            yield launcher, members


async def _leave_together(members: list[Member]) -> None:
    await asyncio.gather(*(member.leave() for member in members))
