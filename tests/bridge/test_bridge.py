"""The bridge over a broker in memory: what has no room is counted and told, and a stop says good-bye."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest

from asgi_ipc import SendTimeoutError
from asgi_ipc.bridge.transport import Transport, TransportError
from asgi_ipc.cluster.settings import ClusterSettings
from asgi_ipc.testing.broker import MemoryBroker
from tests.bridge.bridging import Bridged, Noted, bridged, come, met

KIB = 1024
SPEED = 10.0


class Slow(Transport):
    """A connection that takes nothing while it is held."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner.settings, inner.node)
        self._inner = inner
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def connect(self) -> None:
        await self._inner.connect()

    async def publish(self, envelopes: Sequence[tuple[str | None, bytes]]) -> None:
        await self.may_go_on.wait()
        await self._inner.publish(envelopes)

    async def receive(self) -> Sequence[bytes]:
        return await self._inner.receive()

    async def close(self) -> None:
        await self._inner.close()


class World:
    """A broker, and the connections to it."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.slow: dict[str, Slow] = {}

    def connect(self, node: str) -> Transport:
        settings = ClusterSettings(urls=("memory://",), name="test")
        slow = self.slow[node] = Slow(self.broker.transport(settings, node))
        return slow


def _has(noted: Noted, count: int) -> bool:
    return len(noted.messages) == count


def totals(node: Bridged) -> dict[str, int]:
    return node.bridge._totals()


async def test_a_worker_without_room_misses_what_is_counted_and_told() -> None:
    world = World()
    async with bridged(world.connect, world.connect, size=2, speed=SPEED) as (a, b):
        slow, other = Noted(b.first), Noted(b.members[1])
        b.first._own.endpoint.incoming.pause()
        sent = 0
        while not totals(b)["undelivered"]:
            await a.first.broadcast("note", [sent, bytes(200 * KIB)], include_self=False)
            sent += 1
            await come(partial(_has, other, sent))
        for _ in range(10):
            await a.first.broadcast("note", [sent, bytes(200 * KIB)], include_self=False)
            sent += 1
        await come(lambda: len(other.messages) == sent)
        undelivered = totals(b)["undelivered"]
        assert undelivered >= 1
        b.first._own.endpoint.incoming.resume()
        await come(lambda: len(slow.messages) + slow.lost == sent, lambda: (slow.gaps, len(slow.messages)))
        assert slow.lost == undelivered
        numbers = [number for number, _ in slow.data]
        assert numbers == sorted({*numbers})
        # The others are unharmed, and nothing of it is a loss of theirs.
        assert [number for number, _ in other.data] == list(range(sent))
        assert not other.gaps
        await come(lambda: a.first.stats().cluster["dropped"] == 0)
        await come(lambda: b.members[1].stats().cluster["undelivered"] == undelivered)


async def test_a_subscription_of_a_worker_without_room_counts_what_it_missed() -> None:
    world = World()
    async with bridged(world.connect, world.connect, speed=SPEED) as (a, b):
        noted = Noted(b.first)
        async with noted.subscribed("topic"):
            await come(lambda: "topic" in a.first._own.endpoint.clustering._wanted)
            await met([a, b])
            b.first._own.endpoint.incoming.pause()
            sent = 0
            while totals(b)["undelivered"] < 3:
                await a.first.publish("topic", [sent, bytes(200 * KIB)])
                await a.first.broadcast("note", sent, include_self=False)
                sent += 1
                await asyncio.sleep(0)
            await come(lambda: world.broker.is_empty and not totals(a)["waiting_bytes"])
            b.first._own.endpoint.incoming.resume()
            await a.first.publish("topic", "last")
            await come(lambda: "last" in noted.data)
            publications = [data for data in noted.data if not isinstance(data, int)]
            assert len(publications) - 1 + noted.missed == sent
            assert noted.missed
            await come(lambda: len(noted.messages) - 1 + noted.lost == 2 * sent)


async def test_beyond_the_outbox_messages_are_dropped_counted_and_told() -> None:
    world = World()
    async with bridged(world.connect, world.connect, outbox_bytes=1024 * KIB, speed=SPEED) as (a, b):
        noted = Noted(b.first)
        slow = world.slow[a.node]
        slow.may_go_on.clear()
        sent = 0
        while totals(a)["dropped"] < 5:
            assert await a.first.broadcast("note", [sent, bytes(100 * KIB)], include_self=False) is not None
            sent += 1
            # The bridge's turn.
            await asyncio.sleep(0)
        assert totals(a)["waiting_bytes"] <= 1024 * KIB + 200 * KIB
        slow.may_go_on.set()
        await come(
            lambda: len(noted.messages) + noted.lost == sent, lambda: (noted.gaps, len(noted.messages))
        )
        assert noted.lost == totals(a)["dropped"]
        numbers = [number for number, _ in noted.data]
        assert numbers == sorted({*numbers})


async def test_a_full_outbox_refuses_what_is_addressed_and_never_what_fans_out() -> None:
    world = World()
    async with bridged(world.connect, world.connect, outbox_bytes=1024 * KIB, speed=SPEED) as (a, b):
        slow = world.slow[a.node]
        slow.may_go_on.clear()
        while not totals(a)["dropped"]:
            await a.first.broadcast("note", bytes(100 * KIB), include_self=False)
            await asyncio.sleep(0)
        with pytest.raises(SendTimeoutError):
            await a.first.cluster.send(b.first.worker, "note", bytes(100 * KIB), timeout=0.1)
        await a.first.broadcast("note", bytes(100 * KIB), include_self=False)
        slow.may_go_on.set()


async def test_a_stop_says_good_bye_behind_what_was_said() -> None:
    world = World()
    async with bridged(world.connect, world.connect, speed=SPEED) as (a, b):
        noted = Noted(b.first)
        for number in range(50):
            await a.first.broadcast("note", number, include_self=False)
        await come(lambda: totals(a)["sent"] > 0)
        await a.end()
        await come(lambda: bool(noted.left))
        assert noted.left == [(a.node, "left")]
        assert noted.data == list(range(50))
        assert not noted.gaps
        await a.begin()
        await met([a, b])


async def test_the_death_of_a_bridge_is_an_unknown_loss_for_both_sides_and_no_more() -> None:
    world = World()
    async with bridged(world.connect, world.connect, speed=SPEED) as (a, b):
        here, there = Noted(a.first), Noted(b.first)
        await a.first.broadcast("note", "before", include_self=False)
        await come(lambda: there.data == ["before"])
        await a.die()
        assert a.first.cluster.nodes[1].id == b.node
        await a.begin()
        await come(lambda: bool(here.gaps) and bool(there.gaps))
        await met([a, b])
        await a.first.broadcast("note", "after", include_self=False)
        await b.first.broadcast("note", "back", include_self=False)
        await come(lambda: there.data == ["before", "after"] and here.data == ["back"])
        assert (here.gaps, there.gaps) == ([(b.node, None)], [(a.node, None)])
        assert not there.left


async def test_a_connection_that_breaks_at_each_envelope_costs_only_what_is_told() -> None:
    world = World()

    class Breaking(Slow):
        count = 0

        async def publish(self, envelopes: Sequence[tuple[str | None, bytes]]) -> None:
            for each in envelopes:
                self.count += 1
                if self.count > 10 and self.count % 7 == 0:
                    raise TransportError("broken")
                await self._inner.publish([each])

    def breaking(node: str) -> Transport:
        return Breaking(world.broker.transport(ClusterSettings(urls=("memory://",), name="test"), node))

    async with bridged(breaking, world.connect, speed=SPEED) as (a, b):
        noted = Noted(b.first)
        sent = 0
        while totals(a)["connects"] < 4:
            await a.first.broadcast("note", sent, include_self=False)
            sent += 1
            await asyncio.sleep(0.001)  # the rate
        await come(lambda: len(noted.messages) + noted.lost == sent, lambda: (noted.gaps, noted.data))
        assert noted.data == sorted({*noted.data})
