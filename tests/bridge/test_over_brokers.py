"""Clusters over real brokers: what spans arrives once and in order, and what does not arrive is told."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from asgi_ipc import NotConnectedError
from asgi_ipc.bridge.transport import Transport
from tests.bridge.bridging import Bridged, Noted, bridged, come, met
from tests.brokers import Broker, Kind, broker
from tests.proxy import Proxy, proxy

MIB = 1024 * 1024


def numbers(noted: Noted) -> list[int]:
    return [number for number in noted.data if isinstance(number, int)]


async def test_nodes_meet_speak_and_take_nothing_of_their_own(running: Broker) -> None:
    async with bridged(running.transport, running.transport, size=2) as (a, b):
        noted = [Noted(member) for member in (*a.members, *b.members)]
        await a.first.broadcast("note", "to all", include_self=False)
        await b.first.cluster.send(a.members[1].worker, "note", "to one")
        await come(lambda: [len(each.messages) for each in noted] == [0, 2, 1, 1])
        assert noted[2].messages == [(a.first.worker, "to all")]
        assert (b.first.worker, "to one") in noted[1].messages
        # Some beats later, so that greetings have come back from a broker that returns them.
        beats = [node.bridge._counts["sent"] + 6 for node in (a, b)]
        await come(
            lambda: all(n.bridge._counts["sent"] >= count for n, count in zip((a, b), beats, strict=True))
        )
        for node in (a, b):
            totals = node.bridge._totals()
            assert totals["rejected"] == totals["dropped"] == 0
            assert len(node.first.cluster.nodes) == 2
        assert not any(each.gaps for each in noted)


async def test_all_sizes_from_one_worker_to_another_keep_their_order(running: Broker) -> None:
    async with bridged(running.transport, running.transport) as (a, b):
        noted = Noted(b.first)
        async with noted.subscribed("topic"):
            await come(lambda: "topic" in a.first._own.endpoint.clustering._wanted)
            to = b.first.worker
            wanted: list[int] = []
            for number in range(0, 600, 6):
                await a.first.broadcast("note", number, include_self=False)
                await a.first.publish("topic", number + 1)
                await a.first.cluster.send(to, "note", number + 2)
                await a.first.broadcast("note", [number + 3, bytes(number % 5 * 70_000)], include_self=False)
                await a.first.cluster.send(to, "note", [number + 4, bytes(number % 7 * 90_000)])
                await a.first.publish("topic", [number + 5, bytes(number % 3 * 90_000)])
                wanted += range(number, number + 6)
            await come(lambda: len(noted.messages) == len(wanted), lambda: (noted.gaps, len(noted.messages)))
        # A subscription is read by a task of its own.
        came = [data[0] if isinstance(data, list) else data for data in noted.data]
        for is_publication in (True, False):
            assert [n for n in came if (n % 6 in (1, 5)) is is_publication] == [
                n for n in wanted if (n % 6 in (1, 5)) is is_publication
            ]
        assert not noted.gaps
        assert not noted.missed


async def test_a_message_of_16_mib_and_a_question_of_16_mib_pass(running: Broker) -> None:
    async with bridged(running.transport, running.transport, max_message_bytes=17 * MIB) as (a, b):
        noted = Noted(b.first)
        b.first.receive("length", len)
        large = bytes(range(256)) * (16 * MIB // 256)
        await a.first.broadcast("note", large, include_self=False)
        await come(lambda: len(noted.messages) == 1, lambda: (noted.gaps, a.bridge._totals()))
        assert noted.data == [large]
        assert await a.first.cluster.request(b.first.worker, "length", large, timeout=40) == len(large)
        assert not noted.gaps


async def test_what_is_said_during_a_cut_is_told_with_its_exact_number(running: Broker) -> None:
    async with proxy(running.port) as between:

        def cut_off(node: str) -> Transport:
            return running.transport(node, port=between.port)

        async with bridged(cut_off, running.transport) as (a, b):
            await _loses_exactly(a, b, between)


async def _loses_exactly(a: Bridged, b: Bridged, between: Proxy) -> None:
    noted = Noted(b.first)
    back = Noted(a.first)
    for _ in range(3):
        await a.first.broadcast("note", 0, include_self=False)
    await come(lambda: len(noted.messages) == 3)
    between.cut()
    await come(lambda: not a.bridge._machine.is_connected)
    for number in range(1, 101):
        await a.first.broadcast("note", number, include_self=False)
        await b.first.broadcast("note", -number, include_self=False)
    with pytest.raises(NotConnectedError):
        await a.first.cluster.send(b.first.worker, "note", "refused", timeout=None)
    between.heal()
    await come(lambda: a.bridge._machine.is_connected)
    await met([a, b])
    await come(lambda: len(noted.messages) - 3 + noted.lost == 100, lambda: (noted.gaps, noted.data))
    await come(lambda: len(back.messages) + back.lost == 100, lambda: (back.gaps, back.data))
    # All that this bridge was given while it had no connection; what another one has said may wait in a
    # stream.
    assert noted.lost == 100
    assert None not in [lost for _, lost in (*noted.gaps, *back.gaps)]
    assert numbers(back) == sorted(numbers(back), reverse=True)
    await a.first.cluster.send(b.first.worker, "note", "again")
    await come(lambda: noted.data[-1] == "again")
    await a.first.broadcast("note", 101, include_self=False)
    await come(lambda: noted.data[-1] == 101)
    assert noted.lost == 100


async def test_a_connection_that_swallows_everything_is_found_out(kind: Kind, running: Broker) -> None:
    async with proxy(running.port) as between:

        def cut_off(node: str) -> Transport:
            return running.transport(node, port=between.port)

        async with bridged(cut_off, running.transport) as (a, b):
            noted = Noted(b.first)
            between.swallow()
            sent = 0
            # Under load: a link on which nothing comes back ends within the limit of an answer.
            while a.bridge._machine.is_connected:
                await a.first.broadcast("note", bytes(10_000), include_self=False)
                sent += 1
                await asyncio.sleep(0.01)  # the rate
            between.heal()
            await come(lambda: a.bridge._machine.is_connected)
            await met([a, b])
            await come(partial(_has_all, noted, sent), partial(_tells, noted))
            assert noted.lost
            assert None not in [lost for _, lost in noted.gaps]


async def test_without_a_broker_a_node_is_alone_and_joins_when_there_is_one(
    kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        broker(kind, tmp_path, is_started=False) as later,
        bridged(later.transport, size=2) as (a,),
        bridged(later.transport) as (b,),
    ):
        noted = Noted(a.members[1])
        await a.first.broadcast("note", "here", include_self=False)
        await come(lambda: noted.data == ["here"])
        assert len(a.first.cluster.nodes) == 1
        await come(lambda: "No connection to the broker at" in caplog.text)
        await later.start()
        await met([a, b])
        await b.first.broadcast("note", "there", include_self=False)
        await come(lambda: noted.data == ["here", "there"])


async def test_a_broker_that_is_killed_and_comes_back_costs_what_was_under_way_and_tells_it(
    running: Broker,
) -> None:
    async with bridged(running.transport, running.transport, size=2) as (a, b):
        noted = [Noted(b.first), Noted(b.members[1])]
        local = Noted(a.members[1])
        sent = 0
        for _ in range(3):
            for _ in range(50):
                await a.first.broadcast("note", sent, include_self=False)
                sent += 1
            await running.kill()
            await come(lambda: not a.bridge._machine.is_connected and not b.bridge._machine.is_connected)
            for _ in range(50):
                await a.first.broadcast("note", sent, include_self=False)
                sent += 1
            await running.start()
            await come(lambda: a.bridge._machine.is_connected and b.bridge._machine.is_connected)
            await met([a, b])
        for each in noted:
            await come(partial(_has_all, each, sent), partial(_tells, each))
            assert each.lost >= 150
            assert each.data == sorted({*each.data})
            assert None not in [lost for _, lost in each.gaps]
            # A gap is told before what comes behind it.
            assert _is_told_in_its_place(each.all)
        assert local.data == list(range(sent))
        assert not local.gaps


def _has_all(noted: Noted, sent: int) -> bool:
    return len(noted.messages) + noted.lost == sent


def _tells(noted: Noted) -> object:
    return len(noted.messages), noted.gaps


def _is_told_in_its_place(told: list[object]) -> bool:
    """Whether each number is the one behind the last, with what was told to be lost between."""
    next_number = 0
    for each in told:
        match each:
            case ("lost", int(lost)):
                next_number += lost
            case number:
                if number != next_number:
                    return False
                next_number += 1
    return True
