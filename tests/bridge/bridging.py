"""Bridging: a cluster in this process over any broker, with the bridges within reach.

Law: as `asgi_ipc.testing.cluster`, which has a broker in memory and keeps its bridges to itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from asgi_ipc import IPC, Node, Publication, Worker
from asgi_ipc.bridge.bridge import Bridge
from asgi_ipc.bridge.transport import Transport
from asgi_ipc.cluster.envelope import EPOCH_BYTES
from asgi_ipc.cluster.settings import OUTBOX_BYTES, ClusterSettings
from asgi_ipc.testing.members import Members, checked
from asgi_ipc.testing.members import running as fleet
from tests.serving import DEADLINE_S

# Beyond every revision of a test.
ANY_REVISION = 10**9

# Makes the connection of a node, by the node's id.
Connect = Callable[[str], Transport]


class Bridged:
    """One node: its members, and its bridge.

    Attributes:
        members: the workers.
        bridge: what runs now.
    """

    def __init__(self, members: Members, connect: Connect, outbox_bytes: int, speed: float) -> None:
        self.members = members
        self._connect = connect
        self._settings = ClusterSettings(urls=("memory://",), name="test", outbox_bytes=outbox_bytes)
        self._speed = speed
        self.bridge: Bridge
        self._member: Any
        self._running: asyncio.Task[None]
        self._stop = asyncio.Event()

    @property
    def first(self) -> IPC:
        return self.members[0]

    @property
    def node(self) -> str:
        return self.first.cluster.node.id

    async def begin(self) -> None:
        """Start a bridge."""
        member = self._member = self.members._launcher.new(-1)
        await member.enter()
        transport = self._connect(member.worker.node)
        self.bridge = Bridge(
            member.endpoint,
            transport,
            self._settings,
            "a node",
            os.urandom(EPOCH_BYTES),
            speed=self._speed,
        )
        self._stop = asyncio.Event()
        self._running = asyncio.create_task(self.bridge.run(self._stop))

    async def end(self) -> None:
        """Stop the bridge, as a stop of the server does."""
        self._stop.set()
        await self._running
        await self._bury("left")

    async def die(self) -> None:
        """End the bridge without a word to anybody."""
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running
        await self._bury("killed")

    async def _bury(self, reason: str) -> None:
        await self._member.leave()
        self.members._launcher.bury(self._member, reason)
        self._member.close()


class Noted:
    """What one worker has been told of other nodes."""

    def __init__(self, ipc: IPC) -> None:
        self.ipc = ipc
        # In their order: notes and publications as (worker, data), gaps as (node, lost).
        self.messages: list[tuple[Worker | None, Any]] = []
        self.gaps: list[tuple[str, int | None]] = []
        self.all: list[Any] = []
        self.left: list[tuple[str, str]] = []
        self.missed = 0
        ipc.receive("note", self._note)
        ipc.cluster.on_gap(self._gap)
        ipc.cluster.on_node_leave(self._leave)

    @property
    def data(self) -> list[Any]:
        return [data for _, data in self.messages]

    @property
    def lost(self) -> int:
        """How many messages were told to be lost."""
        return sum(lost or 0 for _, lost in self.gaps)

    @asynccontextmanager
    async def subscribed(self, topic: str) -> AsyncIterator[None]:
        """Inside, publications of a topic are noted, too."""
        async with self.ipc.subscribe(topic) as messages:

            async def take() -> None:
                async for message in messages:
                    self._publication(message)

            taking = asyncio.create_task(take())
            try:
                yield
            finally:
                taking.cancel()
                with suppress(asyncio.CancelledError):
                    await taking

    def _publication(self, message: Publication) -> None:
        self.missed += message.missed
        self.messages.append((message.worker, message.data))

    def _note(self, data: Any) -> None:
        self.messages.append((self.ipc.sender_worker, data))
        self.all.append(data)

    def _gap(self, node: Node, lost: int | None) -> None:
        self.gaps.append((node.id, lost))
        self.all.append(("lost", lost))

    def _leave(self, node: Node, reason: str) -> None:
        self.left.append((node.id, reason))


async def come(condition: Callable[[], bool], otherwise: Callable[[], object] = lambda: "") -> None:
    """Wait until something has come over a socket."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110  # an envelope has no event for the test
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(otherwise()) from None


@asynccontextmanager
async def bridged(
    *connects: Connect, size: int = 1, outbox_bytes: int = OUTBOX_BYTES, speed: float = 1.0, **options: Any
) -> AsyncIterator[list[Bridged]]:
    """A cluster with a node for each connection; all know each other when this is entered."""
    async with AsyncExitStack() as stack:
        nodes: list[Bridged] = []
        for connect in connects:
            run = checked(size, None, **options)
            members = await stack.enter_async_context(fleet(size, run, None))
            node = Bridged(members, connect, outbox_bytes, speed)
            await node.begin()
            stack.push_async_callback(node.end)
            nodes.append(node)
        await met(nodes)
        yield nodes


async def met(nodes: list[Bridged]) -> None:
    """Wait until all know all workers, and are known.

    What is said while a node does not know yet that it is known, and gets lost with that word, is not told.
    """
    count = sum(len(node.members) for node in nodes)
    await come(
        lambda: (
            all(
                len(member.cluster.workers) == count and len(member.cluster.nodes) == len(nodes)
                for node in nodes
                for member in node.members
            )
            and all(
                not link.received.waits_for(ANY_REVISION)
                for node in nodes
                for link in node.bridge._machine.links.values()
                if link.is_in_view
            )
        ),
        lambda: [(member.cluster.nodes, member.stats().cluster) for node in nodes for member in node.members],
    )
