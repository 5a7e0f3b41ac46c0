"""A fleet in one process and loop, over real pipes and lifelines, with the launcher's own relay.

Law: everything but the processes is the product's: pipes, socket pairs,
descriptors over SCM_RIGHTS, `Relay` for who is told what. So the order of
events can be chosen, and a member can be stopped, killed or corrupted.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from asgi_ipc import IPC, Worker
from asgi_ipc.launcher.process import make_arena
from asgi_ipc.protocol import lifeline as words
from asgi_ipc.protocol.relay import Relay
from asgi_ipc.worker import station
from asgi_ipc.worker.endpoint import Endpoint, Settings
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.station import Station

COOKIE = b"\x01test run"[:8]
DEADLINE_S = 20.0


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until then: each turn may be the event."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


class Member:
    """One worker of the fleet: its IPC, and the launcher's ends of its pipe and lifeline."""

    def __init__(self, generation: int, slot: int, settings: Settings, has_arena: bool) -> None:
        self.worker = Worker(10_000 + generation, slot, generation)
        self.ipc = IPC()
        self.seen: list[tuple[str, int | None, Any]] = []
        self.arrived = asyncio.Event()
        read_end, self.write_end = os.pipe()
        os.set_blocking(read_end, False)
        os.set_blocking(self.write_end, False)
        own_arena, self.arena = make_arena() if has_arena else (-1, -1)
        self.line, theirs = socket.socketpair()
        self.line.setblocking(False)
        self.station = Station(Lifeline(theirs.detach()), read_end, self.worker, settings, own_arena)
        self.ipc.receive("note", self.note)

    @property
    def pid(self) -> int:
        return self.worker.pid

    @property
    def endpoint(self) -> Endpoint:
        endpoint = self.ipc._endpoint
        assert endpoint is not None
        return endpoint

    def note(self, data: Any) -> None:
        self.seen.append(("note", self.ipc.sender, data))
        self.arrived.set()

    def stop_reading(self) -> None:
        """As if its handlers in flight had reached their bound."""
        self.endpoint._pause()

    def go_on_reading(self) -> None:
        self.endpoint._resume()

    async def until(self, count: int) -> list[Any]:
        """Wait for that many notes; their data."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.seen) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return [data for _, _, data in self.seen]


class Fleet:
    """The launcher's side."""

    def __init__(self, settings: Settings, *, has_arena: bool) -> None:
        self.settings = settings
        self._has_arena = has_arena
        self.relay = Relay()
        self.members: dict[int, Member] = {}
        self._ever: list[Member] = []
        self.hold_words = False
        self._loop = asyncio.get_running_loop()
        self._generations = 0

    def new(self, slot: int = 0, restart_round: int = 0) -> Member:
        self._generations += 1
        member = Member(self._generations, slot, self.settings, self._has_arena)
        self.members[member.worker.generation] = member
        self._ever.append(member)
        self.relay.connect(member.worker, restart_round)
        parser = words.WordParser()
        self._loop.add_reader(member.line, self._hear, member, parser)
        member.station.attach(lambda: None)
        return member

    @asynccontextmanager
    async def joined(self, member: Member) -> AsyncIterator[Member]:
        """`member` inside its lifespan; its end is its leave."""
        lifespan = member.ipc.lifespan()
        # Looked at before the first await, so members that join at the same time don't mix.
        station.current = member.station
        try:
            await lifespan.__aenter__()
        finally:
            station.current = None
        # Dispatch begins in the turn after.
        await asyncio.sleep(0)
        try:
            yield member
        finally:
            await lifespan.__aexit__(None, None, None)

    def kill(self, member: Member) -> None:
        """Its process ends: the kernel closes what it had, and the launcher tells the others."""
        endpoint = member.endpoint
        for peer in endpoint.outgoing.peers.all():
            if peer.writer is not None:
                peer.writer.close()
        assert endpoint._reader is not None
        endpoint._reader.close()
        for task in endpoint.leading._tasks.values():
            task.cancel()
        # Its own lifespan ends with the test; there is nothing left for it to wait for.
        endpoint.outgoing.close()
        endpoint._eof.set()
        self.bury(member, "killed")

    def bury(self, member: Member, reason: str) -> None:
        self._loop.remove_reader(member.line)
        member.line.close()
        self._close_write_end(member)
        del self.members[member.worker.generation]
        self.relay.gone(member.worker.generation, reason)
        self.pump()

    def die(self) -> None:
        """The launcher is killed: everything of its own is closed by the kernel."""
        for member in self.members.values():
            self._loop.remove_reader(member.line)
            member.line.close()
            self._close_write_end(member)
        self.hold_words = True

    def pump(self) -> None:
        """Write every word that may be written now."""
        if self.hold_words:
            return
        while pending := self.relay.pending():
            for generation in pending:
                while (item := self.relay.next_item(generation)) is not None:
                    line = self.members[generation].line
                    encoded = words.encode_word(item.word)
                    if item.write_end_of is None:
                        line.sendall(encoded)
                    else:
                        owner = self.members[item.write_end_of]
                        fds = [owner.write_end, owner.arena] if owner.arena >= 0 else [owner.write_end]
                        socket.send_fds(line, [encoded], fds)
                    self.relay.wrote(generation)
        for member in self.members.values():
            if not self.relay.is_promised(member.worker.generation):
                self._close_write_end(member)

    def _hear(self, member: Member, parser: words.WordParser) -> None:
        chunk = member.line.recv(65536)
        if not chunk:
            self._loop.remove_reader(member.line)
            return
        generation = member.worker.generation
        for body in parser.feed(chunk):
            match words.decode_for_launcher(body):
                case words.Join():
                    self.relay.join(generation, self._loop.time())
                case words.Took(of, arrived):
                    self.relay.took(generation, of, arrived, self._loop.time())
                case words.Leaving():
                    self.relay.leave(generation)
                case words.Resigned() | words.Claim() | words.Release() as word:
                    self.relay.hear(generation, word)
        self.pump()

    def _close_write_end(self, member: Member) -> None:
        if member.write_end >= 0:
            os.close(member.write_end)
            member.write_end = -1
        if member.arena >= 0:
            os.close(member.arena)
            member.arena = -1

    def close(self) -> None:
        for member in self._ever:
            if member.line.fileno() >= 0:
                self._loop.remove_reader(member.line)
                member.line.close()
            self._close_write_end(member)
            member.station.lifeline.close()


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "cookie": COOKIE,
        "max_packet_bytes": 4096,
        "max_message_bytes": 16 * 1024 * 1024,
        "drain_timeout_s": 10.0,
    }
    return Settings(**(values | changes))


@asynccontextmanager
async def fleet(
    size: int, *, has_arena: bool = True, **changes: Any
) -> AsyncIterator[tuple[Fleet, list[Member]]]:
    """A fleet of that many members, all joined."""
    launcher = Fleet(settings(**changes), has_arena=has_arena)
    async with AsyncExitStack() as stack:
        stack.callback(launcher.close)
        leaves = await stack.enter_async_context(_together())
        members = []
        for slot in range(size):
            member = launcher.new(slot)
            await leaves.enter_async_context(launcher.joined(member))
            members.append(member)
        yield launcher, members


@asynccontextmanager
async def _together() -> AsyncIterator[AsyncExitStack]:
    """Lifespans that end at the same time, as those of a server that is stopped."""

    class Together(AsyncExitStack):
        async def enter_async_context(self, cm: Any) -> Any:
            entered = await cm.__aenter__()
            contexts.append(cm)
            return entered

    contexts: list[Any] = []
    stack = Together()
    try:
        yield stack
    finally:
        await asyncio.gather(*(context.__aexit__(None, None, None) for context in contexts))
