"""The test kit's cluster: every verb of `ipc.cluster`, and what spans, between nodes in one process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from asgi_ipc import (
    IPC,
    InvalidDataError,
    LauncherError,
    Node,
    NoHandlerError,
    NotConnectedError,
    NotRunningError,
    RemoteError,
    RequestTimeoutError,
    UnknownWorkerError,
    Worker,
    WorkerGoneError,
)
from asgi_ipc.testing import Nodes, cluster, fleet
from tests.inprocess import until

MIB = 1024 * 1024


def noting(nodes: Nodes, name: str = "note") -> dict[IPC, list[Any]]:
    """What each member is sent by that name."""
    seen: dict[IPC, list[Any]] = {}
    for node in nodes:
        for member in node:
            seen[member] = []
            member.receive(name, seen[member].append)
    return seen


def named(member: IPC, other: IPC) -> Worker:
    """Another member, as this one knows it."""
    (worker,) = (each for each in member.cluster.workers if each == other.worker)
    return worker


# --- who


async def test_all_nodes_know_each_other_and_their_workers() -> None:
    async with cluster(2, 2) as ((a, b), (c, d)):
        assert a.cluster.node.id == b.cluster.node.id == a.worker.node != c.worker.node
        here, there = a.cluster.nodes
        assert (here.state, there.state) == ("here", "connected")
        assert (here.name, there.name) == ("node-0", "node-1")
        assert here.workers == a.workers == (a.worker, b.worker)
        assert there.workers == c.workers == (c.worker, d.worker)
        assert a.cluster.workers == (a.worker, b.worker, c.worker, d.worker)
        # pids are the same on both, as in containers.
        assert a.pid == c.pid
        assert a.worker != c.worker
        assert there == Node(there.id, "renamed", "suspect")
        assert len({*a.cluster.nodes, *c.cluster.nodes}) == 2


async def test_without_a_cluster_this_server_is_the_only_node() -> None:
    async with fleet(2) as (a, b):
        news: list[Any] = []
        a.cluster.on_node_join(news.append)
        (node,) = a.cluster.nodes
        assert node == a.cluster.node
        assert node.state == "here"
        assert a.cluster.workers == a.workers == (a.worker, b.worker)
        b.receive("double", lambda data: 2 * data)
        a.receive("double", lambda data: 3 * data)
        assert await a.cluster.request(b.worker, "double", 4) == 8
        await a.cluster.send(b.worker, "double", 4)
        gathered = await a.cluster.gather("double", 4)
        assert gathered == {a.worker: 12, b.worker: 8}
        assert gathered.complete
        assert news == []
        assert a.stats().cluster == {}
    alone = IPC()
    with pytest.raises(NotRunningError):
        _ = alone.cluster.nodes


async def test_joins_and_departures_of_workers_and_nodes_are_told() -> None:
    async with cluster(2, 1) as nodes:
        (a,), (c,) = nodes
        news: list[Any] = []
        a.cluster.on_worker_join(lambda worker: news.append(("joined", worker)))
        a.cluster.on_worker_leave(lambda worker, reason: news.append(("left", worker, reason)))
        a.cluster.on_node_join(lambda node: news.append(("node", node.id)))
        a.cluster.on_node_leave(lambda node, reason: news.append(("gone", node.id, reason)))
        d = await nodes[1].add()
        b = await nodes[0].add()
        await until(lambda: len(news) == 2)
        assert {*news} == {("joined", d.worker), ("joined", b.worker)}
        worker = d.worker
        await nodes[1].leave(d, "replaced")
        await until(lambda: len(news) == 3)
        assert news.pop() == ("left", worker, "replaced")
        assert worker not in a.cluster.workers
        nodes.broker.cut(nodes[1])
        await until(lambda: len(a.cluster.nodes) == 1)
        await until(lambda: len(news) == 4)
        assert news[2:] == [("left", c.worker, "lost"), ("gone", c.worker.node, "lost")]
        nodes.broker.heal(nodes[1])
        await until(lambda: len(news) == 6)
        assert news[4:] == [("node", c.worker.node), ("joined", c.worker)]


async def test_a_node_that_is_not_heard_is_suspect_before_it_is_gone() -> None:
    async with cluster(2, 1) as nodes:
        (a,), _ = nodes
        nodes.broker.cut(nodes[1])
        await until(lambda: a.cluster.nodes[-1].state == "suspect")
        nodes.broker.heal(nodes[1])
        await until(lambda: a.cluster.nodes[-1].state == "connected")


# --- what spans


async def test_broadcasts_reach_the_workers_of_all_nodes_and_return_the_pids_here() -> None:
    async with cluster(3, 2) as nodes:
        seen = noting(nodes)
        (a, b), _, _ = nodes
        assert await a.broadcast("note", 1) == a.broadcast_nowait("note", 2) == (a.pid, b.pid)
        assert await a.broadcast("note", 3, include_self=False) == (b.pid,)
        assert await a.broadcast("note", "here", scope="server") == (a.pid, b.pid)
        await nodes.settled()
        assert seen.pop(a) == [1, 2, "here"]
        assert seen.pop(b) == [1, 2, 3, "here"]
        assert all(each == [1, 2, 3] for each in seen.values())
        with pytest.raises(ValueError, match="scope is 'cluster' or 'server', not 'world'"):
            await a.broadcast("note", scope="world")  # type: ignore[arg-type]


async def test_publications_reach_the_nodes_with_a_subscriber_and_no_others() -> None:
    async with cluster(3, 1) as nodes:
        (a,), (c,), (e,) = nodes
        async with c.subscribe("room") as messages, c.subscribe("other"):
            await until(lambda: "room" in _wanted(a))
            assert await a.publish("room", {"n": 1}) == ()
            assert a.publish_nowait("room", {"n": 2}) == ()
            await a.publish("room", "here", scope="server")
            await a.publish("nobody's", 0)
            first, second = await anext(messages), await anext(messages)
            assert (first.data, second.data) == ({"n": 1}, {"n": 2})
            assert (first.sender, first.worker, first.missed) == (None, a.worker, 0)
            await nodes.settled()
            assert "unsubscribed" not in e.stats().dropped
        await until(lambda: "room" not in _wanted(a))


def _wanted(member: IPC) -> dict[str, None]:
    return member._own.endpoint.clustering._wanted


async def test_messages_of_one_worker_keep_their_order_over_verbs_and_sizes() -> None:
    async with cluster(2, 1) as nodes:
        (a,), (c,) = nodes
        seen: list[tuple[int, int]] = []
        c.receive("note", lambda data: seen.append((data[0], len(data[1]))))
        to = named(a, c)
        async with c.subscribe("room") as messages:
            await until(lambda: "room" in _wanted(a))

            async def take() -> None:
                async for message in messages:
                    seen.append((message.data[0], len(message.data[1])))

            taking = asyncio.create_task(take())
            sizes = [1, 5000, MIB, 10, 100_000, 3 * MIB, 0]
            for number, size in enumerate(size for size in sizes for _ in range(3)):
                data = [number, bytes(size)]
                match number % 3:
                    case 0:
                        await a.broadcast("note", data)
                    case 1:
                        await a.cluster.send(to, "note", data)
                    case _:
                        await a.broadcast("note", data, include_self=False)
            await nodes.settled()
            taking.cancel()
        assert seen == [(number, sizes[number // 3]) for number in range(21)]


async def test_the_sender_is_named_as_a_worker_and_a_reply_reaches_it() -> None:
    async with cluster(2, 2) as nodes:
        (a, b), (c, _) = nodes
        seen = noting(nodes, "answer")
        senders: list[Any] = []

        @c.receive("ask")
        async def ask(data: Any) -> None:
            senders.append((c.sender, c.sender_worker))
            await asyncio.sleep(0)
            await c.reply("answer", data)
            await asyncio.to_thread(c.reply_nowait, "answer", "thread")

        await a.cluster.send(named(a, c), "ask", "how?")
        await until(lambda: len(seen[a]) == 2)
        assert senders == [(None, a.worker)]
        assert seen[a] == ["how?", "thread"]
        assert seen[b] == seen[c] == []


async def test_the_largest_message_passes_and_a_larger_one_is_refused() -> None:
    async with cluster(2, 1, max_message_bytes=2 * MIB) as nodes:
        (a,), (c,) = nodes
        sizes: list[int] = []
        c.receive("note", lambda data: sizes.append(len(data)))
        largest = 2 * MIB - 16
        await a.broadcast("note", bytes(largest))
        await a.cluster.send(named(a, c), "note", bytes(largest))
        with pytest.raises(ValueError, match="exceeds the limit"):
            await a.cluster.send(named(a, c), "note", bytes(2 * MIB))
        await nodes.settled()
        assert sizes == [largest, largest]


# --- questions


@dataclass
class Person:
    age: int


async def test_a_question_to_a_worker_of_another_node_is_answered_as_here() -> None:
    async with cluster(2, 1) as nodes:
        (a,), (c,) = nodes
        to = named(a, c)

        async def older(data: Person) -> Person:
            await asyncio.sleep(0)
            return Person(data.age + 1)

        c.receive("older", older)
        c.receive("fails", lambda data: data["missing"])
        assert await a.cluster.request(to, "older", Person(41), reply_type=Person) == Person(42)
        with pytest.raises(InvalidDataError, match="expected int"):
            await a.cluster.request(to, "older", {"age": "old"})
        with pytest.raises(NoHandlerError):
            await a.cluster.request(to, "unknown")
        with pytest.raises(RemoteError, match="KeyError"):
            await a.cluster.request(to, "fails", {})
        with pytest.raises(InvalidDataError, match="the answer"):
            await a.cluster.request(to, "older", Person(1), reply_type=str)


async def test_a_question_that_is_not_waited_for_any_more_is_cancelled_there() -> None:
    async with cluster(2, 1) as nodes:
        (a,), (c,) = nodes
        begun: list[str] = []
        ends: list[str] = []

        async def waits(data: Any) -> None:
            begun.append(data)
            try:
                await asyncio.Event().wait()
            finally:
                ends.append(data)

        c.receive("wait", waits)
        with pytest.raises(RequestTimeoutError, match="it is not known whether its handler has run"):
            await a.cluster.request(named(a, c), "wait", "timeout", timeout=0.2)
        asking = asyncio.create_task(a.cluster.request(named(a, c), "wait", "cancelled", timeout=None))
        await until(lambda: len(begun) == 2)
        asking.cancel()
        gathered = await a.cluster.gather("wait", "gathered", timeout=0.2, include_self=False)
        assert [type(error) for error in gathered.errors.values()] == [RequestTimeoutError]
        assert [*gathered.errors] == [c.worker]
        await until(lambda: len(ends) == 3)
        assert sorted(ends) == ["cancelled", "gathered", "timeout"]


async def test_gather_asks_all_workers_of_all_nodes() -> None:
    async with cluster(3, 2) as nodes:
        everybody = [member for node in nodes for member in node]
        for number, member in enumerate(everybody):
            member.receive("number", lambda data, number=number: [data, number])
        a = everybody[0]
        gathered = await a.cluster.gather("number", "x")
        assert gathered == {member.worker: ["x", number] for number, member in enumerate(everybody)}
        assert gathered.complete
        everybody[3].receive("number", None)
        gathered = await a.cluster.gather("number", "x", include_self=False)
        assert {*gathered.errors} == {everybody[3].worker}
        assert len(gathered) == 4
        assert not gathered.complete


async def test_a_worker_here_that_joins_while_all_are_asked_is_not_in_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with cluster(1, 2) as ((a, b),):
        for member in (a, b):
            member.receive("number", lambda data: data)
        before = Node(a.worker.node, "node-0", "here", (a.worker,))
        monkeypatch.setattr(type(a._own.endpoint.clustering), "view", (before,))
        gathered = await a.cluster.gather("number", 1)
        assert gathered == {a.worker: 1}
        assert gathered.complete


async def test_a_node_that_does_not_answer_is_missing_as_a_node() -> None:
    async with cluster(2, 2) as nodes:
        (a, b), (c, _) = nodes
        for member in (a, b):
            member.receive("number", lambda data: data)
        nodes.broker.lose = 1.0
        gathered = await a.cluster.gather("number", 1, timeout=0.1)
        assert gathered == {a.worker: 1, b.worker: 1}
        ((missing, error),) = gathered.errors.items()
        assert isinstance(missing, Node)
        assert missing.id == c.worker.node
        assert str(error).startswith("that node did not answer 'number' in time")


async def test_what_waits_for_a_node_that_leaves_the_view_ends_at_once() -> None:
    async with cluster(2, 1) as nodes:
        (a,), (c,) = nodes
        begun = asyncio.Event()

        async def waits(data: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

        c.receive("wait", waits)
        asking = asyncio.create_task(a.cluster.request(named(a, c), "wait", timeout=None))
        await begun.wait()
        nodes.broker.cut(nodes[1])
        with pytest.raises(WorkerGoneError):
            await asking


# --- refusals and losses


async def test_who_is_not_there_is_refused_whatever_the_timeout() -> None:
    async with cluster(2, 1) as nodes:
        (a,), (c,) = nodes
        to = named(a, c)
        for verb in (a.send, a.request):
            with pytest.raises(UnknownWorkerError, match=r"ipc\.cluster"):
                await verb(to, "note", timeout=None)
        stranger = Worker(1, 0, 99, node=to.node)
        nobody = Worker(1, 0, 1, node="0" * 16)
        for worker in (stranger, nobody):
            for other in (a.cluster.send, a.cluster.request):
                with pytest.raises(UnknownWorkerError):
                    await other(worker, "note", timeout=None)
        nodes.broker.cut(nodes[0])
        await until(lambda: not a.stats().cluster["connected"])
        for other in (a.cluster.send, a.cluster.request):
            with pytest.raises((NotConnectedError, UnknownWorkerError)):
                await other(to, "note", timeout=None)


Told = list[tuple[str, int | None]]


def gaps_of(member: IPC) -> Told:
    told: Told = []
    member.cluster.on_gap(lambda node, lost: told.append((node.name, lost)))
    return told


@pytest.mark.parametrize("cut_off", [0, 1])
async def test_what_a_cut_has_cost_is_told_to_the_number(cut_off: int) -> None:
    async with cluster(2, 2) as nodes:
        (a, _), (c, d) = nodes
        seen, told = noting(nodes), gaps_of(c)
        async with c.subscribe("room") as room, c.subscribe("other") as other:
            await until(lambda: {"room", "other"} <= _wanted(a).keys())
            await a.broadcast("note", "before")
            await nodes.settled()
            nodes.broker.cut(nodes[cut_off])
            for number in range(5):
                await a.broadcast("note", number)
            for _ in range(3):
                await a.publish("room", "lost")
            await a.publish("other", "lost")
            await until(lambda: len(c.cluster.nodes) == len(a.cluster.nodes) == 1)
            await a.broadcast("note", "while it was gone")
            nodes.broker.heal(nodes[cut_off])
            # Also without another message.
            await until(lambda: bool(told))
            assert told == [("node-0", 10)]
            await until(lambda: len(a.cluster.nodes) == 2)
            await a.publish("room", "after")
            await a.publish("other", "after")
            await a.broadcast("note", "after")
            first, second = await anext(room), await anext(other)
            assert (first.data, first.missed) == ("after", 3)
            assert (second.data, second.missed) == ("after", 1)
            await nodes.settled()
            assert seen[c] == seen[d] == ["before", "after"]
            assert told == [("node-0", 10)]


async def test_a_worker_that_joins_later_has_missed_nothing() -> None:
    async with cluster(2, 1) as nodes:
        (a,), (c,) = nodes
        told = gaps_of(c)
        nodes.broker.cut(nodes[1])
        await a.broadcast("note", 1)
        await nodes[0].settled()
        d = await nodes[1].add()
        late = gaps_of(d)
        nodes.broker.heal(nodes[1])
        await until(lambda: bool(told))
        assert told == [("node-0", 1)]
        await nodes.settled()
        assert late == []


async def test_a_lossy_broker_costs_exactly_what_is_told() -> None:
    async with cluster(2, 1) as nodes:
        (a,), (c,) = nodes
        seen, told = noting(nodes), gaps_of(c)
        nodes.broker.lose = 0.3
        for number in range(200):
            await a.broadcast("note", number)
            if number % 7 == 0:
                await asyncio.sleep(0.002)
        nodes.broker.lose = 0.0
        await until(lambda: len(seen[c]) + sum(lost or 0 for _, lost in told) == 200)
        assert sorted({*seen[c]}) == seen[c]
        assert all(lost is not None for _, lost in told)
        assert 0 < len(seen[c]) < 200


async def test_a_bridge_that_dies_costs_what_is_told_as_unknown_and_nothing_here() -> None:
    async with cluster(2, 2) as nodes:
        (a, b), (c, _) = nodes
        seen, told, here = noting(nodes), gaps_of(c), gaps_of(a)
        news: list[Any] = []
        c.cluster.on_node_leave(lambda node, reason: news.append(reason))
        asking = asyncio.create_task(a.cluster.request(named(a, c), "nobody waits", timeout=None))
        with pytest.raises(NoHandlerError):
            await asking
        await nodes.kill_bridge(nodes[0])
        await a.broadcast("note", "without a bridge")
        with pytest.raises(NotConnectedError):
            await a.cluster.send(named(a, c), "note")
        await until(lambda: seen[b] == ["without a bridge"])
        await nodes.start_bridge(nodes[0])
        await until(lambda: bool(told and here))
        assert (told, here) == ([("node-0", None)], [("node-1", None)])
        await a.broadcast("note", "with the next one")
        await nodes.settled()
        assert seen[c] == ["with the next one"]
        assert news == []


async def test_bad_sizes_are_refused() -> None:
    for count, size in ((0, 1), (1, 0), (2, 17)):
        with pytest.raises(LauncherError):
            async with cluster(count, size):
                raise AssertionError


async def test_the_app_acts_as_a_member_of_a_node() -> None:
    app = IPC()
    seen: list[Any] = []
    app.receive("note", lambda data: seen.append((app.pid, app.worker.node, app.sender, data)))
    gaps: list[Any] = []
    app.cluster.on_gap(lambda node, lost: gaps.append(lost))
    async with cluster(2, 1, like=app, secret=b"a secret") as nodes:
        (a,), (c,) = nodes
        with nodes[0].acting(a):
            await app.broadcast("note", 1)
        await nodes.settled()
        assert sorted(seen, key=str) == sorted(
            [(a.pid, a.worker.node, a.pid, 1), (c.pid, c.worker.node, None, 1)], key=str
        )
