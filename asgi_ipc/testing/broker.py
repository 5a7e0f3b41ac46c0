"""A broker in memory, for several nodes in one process.

Law: it does what a broker does to envelopes, and to connections: it brings them in order, late, or not at
    all.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from asgi_ipc.bridge.transport import Transport, TransportError
from asgi_ipc.cluster.nodes import Node
from asgi_ipc.cluster.settings import ClusterSettings


class MemoryBroker:
    """The broker of the nodes of `asgi_ipc.testing.cluster`.

    Attributes:
        delay: seconds until an envelope arrives.
        lose: the share of the envelopes that get lost, from 0 to 1.
    """

    def __init__(self) -> None:
        self.delay = 0.0
        self.lose = 0.0
        self._transports: dict[str, _Memory] = {}
        self._cut: set[str] = set()
        self._random = random.Random(0)
        self._under_way = 0

    def cut(self, node: Node | Sequence[Any]) -> None:
        """Break the connection of a node, given as its Node or its members, until `heal`."""
        name = _id_of(node)
        self._cut.add(name)
        if name in self._transports:
            self._transports[name].wake()

    def heal(self, node: Node | Sequence[Any]) -> None:
        """Let a node connect again."""
        name = _id_of(node)
        self._cut.discard(name)
        if name in self._transports:
            self._transports[name].wake()

    @property
    def is_empty(self) -> bool:
        """Return whether no envelope is under way."""
        return not self._under_way and not any(each.arrived for each in self._transports.values())

    def transport(self, settings: ClusterSettings, node: str) -> Transport:
        """Return a node's connection."""
        transport = self._transports[node] = _Memory(self, settings, node)
        return transport

    def is_cut(self, node: str) -> bool:
        """Return whether a node has no connection."""
        return node in self._cut

    def carry(self, source: str, to: str | None, envelope: bytes) -> None:
        """Bring an envelope to a node, or (None) to all others."""
        for node, transport in self._transports.items():
            if node == source or to not in (None, node) or self.is_cut(node):
                continue
            if self.lose and self._random.random() < self.lose:
                continue
            self._under_way += 1
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self._bring, transport, envelope)
            else:
                self._bring(transport, envelope)

    def _bring(self, transport: _Memory, envelope: bytes) -> None:
        self._under_way -= 1
        if not self.is_cut(transport.node):
            transport.arrived.append(envelope)
            transport.wake()


class _Memory(Transport):
    def __init__(self, broker: MemoryBroker, settings: ClusterSettings, node: str) -> None:
        super().__init__(settings, node)
        self.arrived: list[bytes] = []
        self._broker = broker
        self._changed = asyncio.Event()

    def wake(self) -> None:
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def connect(self) -> None:
        while self._broker.is_cut(self.node):
            await self._change()
        self.arrived = []

    async def publish(self, envelopes: Sequence[tuple[str | None, bytes]]) -> None:
        for to, envelope in envelopes:
            if self._broker.is_cut(self.node):
                raise TransportError("the connection is cut")
            self._broker.carry(self.node, to, envelope)

    async def receive(self) -> Sequence[bytes]:
        while not self.arrived:
            if self._broker.is_cut(self.node):
                raise TransportError("the connection is cut")
            await self._change()
        arrived, self.arrived = self.arrived, []
        return arrived

    async def close(self) -> None:
        pass


def _id_of(node: Node | Sequence[Any]) -> str:
    if isinstance(node, Node):
        return node.id
    found: str = node[0].worker.node
    return found
