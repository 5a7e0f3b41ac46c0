"""Clusters: several fleets in one process, each a node, with a broker in memory between them.

Law: everything except processes and the broker is the product's: each node has a bridge that is a member of
its fleet.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from asgi_ipc.cluster.envelope import EPOCH_BYTES
from asgi_ipc.cluster.settings import ClusterSettings
from asgi_ipc.errors import LauncherError
from asgi_ipc.testing.broker import MemoryBroker
from asgi_ipc.testing.members import Members, checked, running
from asgi_ipc.worker.ipc import IPC

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
    if nodes < 1:
        raise LauncherError(f"a cluster has at least one node, not {nodes!r}")
    broker = MemoryBroker()
    async with AsyncExitStack() as stack:
        fleets = []
        for number in range(nodes):
            run = checked(size, like, node_name=f"node-{number}", **options)
            fleets.append(await stack.enter_async_context(running(size, run, like)))
            await stack.enter_async_context(_bridged(fleets[-1], broker, secret, run.node_name))
        there = Nodes(fleets)
        there.broker = broker
        async with asyncio.timeout(MEET_S):
            # Envelopes come in turns of their own.
            while not all(  # noqa: ASYNC110
                _knows_all(member, nodes, nodes * size) for fleet in there for member in fleet
            ):
                await asyncio.sleep(0.001)
        yield there


def _knows_all(member: IPC, nodes: int, workers: int) -> bool:
    return len(member.cluster.nodes) == nodes and len(member.cluster.workers) == workers


@asynccontextmanager
async def _bridged(
    members: Members, broker: MemoryBroker, secret: bytes | None, name: str
) -> AsyncIterator[None]:
    """Beside a fleet, its bridge; it ends before the members do."""
    from asgi_ipc.bridge.bridge import Bridge

    member = members._launcher.new(-1)
    await member.enter()
    settings = ClusterSettings(urls=("memory://",), name="test", secret=secret)
    transport = broker.transport(settings, member.worker.node)
    stop = asyncio.Event()
    bridge = Bridge(member.endpoint, transport, settings, name, secrets.token_bytes(EPOCH_BYTES), speed=SPEED)
    running = asyncio.create_task(bridge.run(stop))
    try:
        yield
    finally:
        stop.set()
        await running
        await member.leave()
        members._launcher.bury(member, "left")
        member.close()
