"""Clusters: several fleets in one process, each a node, with a broker in memory between them.

Law: everything except processes and the broker is the product's: each node has a bridge that is a member of
its fleet.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from asgi_ipc.cluster.envelope import EPOCH_BYTES
from asgi_ipc.cluster.settings import ClusterSettings
from asgi_ipc.errors import LauncherError
from asgi_ipc.testing.broker import MemoryBroker
from asgi_ipc.testing.members import MAX_MEMBERS, Members, checked, running
from asgi_ipc.worker.ipc import IPC

if TYPE_CHECKING:
    from asgi_ipc.testing.inprocess import Member

# What takes seconds between servers takes tenths here: a node that is cut off is gone after half a second.
SPEED: Final = 10.0

# How long the nodes may take to find each other.
MEET_S: Final = 10.0


class Nodes(tuple[Members, ...]):
    """The nodes of a cluster, each the members of its fleet. Made by `cluster`.

    Attributes:
        broker: what is between them.
    """

    broker: MemoryBroker
    _bridges: list[_RunningBridge]

    async def settled(self, *, timeout: float = 5.0) -> None:
        """Wait until all messages sent so far are handled in every member of every node.

        Messages to a node that is cut off, or that were lost, are not waited for. Raises TimeoutError.
        """
        async with asyncio.timeout(timeout):
            # A message may be on its way from a member to a bridge, to the broker, and again.
            for _ in range(3):
                for node in self:
                    await node.settled(timeout=timeout)
                while not self.broker.is_empty:  # noqa: ASYNC110  # each turn may be the one
                    await asyncio.sleep(0)

    async def kill_bridge(self, node: Members) -> None:
        """Let the bridge of a node die at once, as by SIGKILL; until `start_bridge` there is none."""
        await self._bridges[self.index(node)].kill()

    async def start_bridge(self, node: Members) -> None:
        """Start the next bridge of a node, as the launcher does."""
        await self._bridges[self.index(node)].start()


class _RunningBridge:
    """The bridge of one node, one life after the other."""

    def __init__(self, members: Members, broker: MemoryBroker, secret: bytes | None, name: str) -> None:
        self._launcher = members._launcher
        self._broker = broker
        self._settings = ClusterSettings(urls=("memory://",), name="test", secret=secret)
        self._name = name
        self._member: Member | None = None
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        from asgi_ipc.bridge.bridge import Bridge

        member = self._member = self._launcher.new(-1)
        await member.enter()
        self._stop = asyncio.Event()
        bridge = Bridge(
            member.endpoint,
            self._broker.transport(self._settings, member.worker.node),
            self._settings,
            self._name,
            secrets.token_bytes(EPOCH_BYTES),
            speed=SPEED,
        )
        self._running = asyncio.create_task(bridge.run(self._stop))

    async def kill(self) -> None:
        member, running = self._member, self._running
        if member is None or running is None:
            raise LauncherError("this node has no bridge")
        self._member = self._running = None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        endpoint = member.endpoint
        endpoint.messaging.close()
        self._launcher.kill(member)
        await endpoint.dispatcher.close()
        await member.leave()
        member.close()

    async def end(self) -> None:
        member, running = self._member, self._running
        if member is None or running is None:
            return
        self._stop.set()
        await running
        await member.leave()
        self._launcher.bury(member, "left")
        member.close()


@asynccontextmanager
async def cluster(
    nodes: int, size: int, *, like: IPC | None = None, secret: bytes | None = None, **options: Any
) -> AsyncIterator[Nodes]:
    """A cluster of so many fleets of `size` members: `async with cluster(2, 3) as (a, b):`.

    Each node is a tuple of its members, as `fleet` gives it, in this process. All nodes know each
    other when this is entered.
    Time runs faster between them: a node that is cut off is `suspect` after 0.3 seconds and gone after 0.5.

    Args:
        nodes: from 1 on. All members together are at most 16.
        size, like, options: as of `fleet`.
        secret: seals the envelopes.

    Raises LauncherError as `fleet`, and TimeoutError if the nodes don't find each other.
    """
    if nodes < 1 or nodes * size > MAX_MEMBERS:
        raise LauncherError(f"a cluster in one process has 1 to {MAX_MEMBERS} members, not {nodes} x {size}")
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        fleets = []
        bridges = []
        for number in range(nodes):
            run = checked(size, like, node_name=f"node-{number}", **options)
            fleets.append(await stack.enter_async_context(running(size, run, like)))
            bridges.append(_RunningBridge(fleets[-1], broker, secret, run.node_name))
            await bridges[-1].start()
            stack.push_async_callback(bridges[-1].end)
        there = Nodes(fleets)
        there.broker, there._bridges = broker, bridges
        async with asyncio.timeout(MEET_S):
            # Envelopes come in turns of their own.
            while not all(  # noqa: ASYNC110
                _knows_all(member, nodes, nodes * size) for fleet in there for member in fleet
            ):
                await asyncio.sleep(0.001)
        yield there


def _knows_all(member: IPC, nodes: int, workers: int) -> bool:
    return len(member.cluster.nodes) == nodes and len(member.cluster.workers) == workers
