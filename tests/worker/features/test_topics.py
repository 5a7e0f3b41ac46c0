"""Topics: who gets what is published, from when on, in which order; and what a slow subscriber costs."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc import (
    IPC,
    InvalidNameError,
    NotRunningError,
    Publication,
    Subscription,
    SubscriptionOverflowError,
)
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.worker.dispatch import backpressure
from asgi_ipc.worker.features import subscription, topics
from asgi_ipc.worker.features.subscription import Overflow
from tests.inprocess import DEADLINE_S, Fleet, Member, fleet, until

MIB = 1024 * 1024


def knows(member: Member, topic: str) -> tuple[int, ...]:
    """Whom that member would send what it publishes there."""
    return member.endpoint.topics.audience(topic).pids


def late(member: Member) -> list[int]:
    """Those who have not answered it in time, nor since."""
    return [each.peer.worker.pid for each in member.endpoint.topics._listeners.values() if each.is_late]


def waiting(subscribed: Subscription) -> int:
    return len(subscribed._queue)


async def following(subscribed: Subscription) -> Publication:
    """The next publication, with a deadline."""
    async with asyncio.timeout(DEADLINE_S):
        return await anext(subscribed)


async def take(subscribed: Subscription, count: int) -> list[Any]:
    return [(await following(subscribed)).data for _ in range(count)]


# --- who gets it


async def test_a_publication_goes_to_the_workers_that_have_a_subscriber_and_to_nobody_else() -> None:
    async with fleet(4) as (_, (a, b, c, d)):
        async with b.ipc.subscribe("room") as at_b, d.ipc.subscribe("room") as at_d, d.ipc.subscribe("room"):
            before = c.ipc.stats().received
            assert await a.ipc.publish("room", {"n": 1}) == (b.pid, d.pid)
            assert a.ipc.publish_nowait("elsewhere", 1) == ()
            assert await following(at_b) == Publication("room", {"n": 1}, a.worker, 0, a.pid)
            assert (await following(at_d)).sender == a.pid
            assert c.ipc.stats().received == before
        await until(lambda: not knows(a, "room"))
        assert await a.ipc.publish("room", 2) == ()


async def test_publications_arrive_in_order_in_each_subscription_whatever_their_size() -> None:
    async with fleet(3) as (_, (a, b, c)), c.ipc.subscribe("t") as first, c.ipc.subscribe("t") as second:
        sizes = [10, MIB, 0, 5000, 3 * MIB, 70, 200_000, 1]
        for publisher in (a, b):
            for number, size in enumerate(sizes):
                await publisher.ipc.publish("t", [number, bytes(size)])
        for each in (first, second):
            got = [await following(each) for _ in range(2 * len(sizes))]
            for publisher in (a, b):
                own = [message.data for message in got if message.sender == publisher.pid]
                assert own == [[number, bytes(size)] for number, size in enumerate(sizes)]


async def test_topics_are_told_where_messages_must_be_small() -> None:
    async with fleet(2, max_message_bytes=1024) as (_, (a, b)):
        names = [f"{number:04}" + "é" * 125 for number in range(50)]
        entered = [b.ipc.subscribe(name) for name in names]
        await asyncio.gather(*(each.__aenter__() for each in entered))
        assert [await a.ipc.publish(name) for name in names] == [(b.pid,)] * len(names)


async def test_threads_may_publish() -> None:
    async with fleet(2) as (_, (a, b)), b.ipc.subscribe("t") as messages:
        thread = threading.Thread(target=lambda: [a.ipc.publish_nowait("t", n) for n in range(500)])
        thread.start()
        assert await take(messages, 500) == list(range(500))
        thread.join()


# --- who comes and goes


async def test_a_newcomer_knows_every_subscription_before_it_can_publish() -> None:
    async with (
        fleet(3) as (launcher, (a, b, c)),
        a.ipc.subscribe("t") as at_a,
        b.ipc.subscribe("u") as at_b,
    ):
        newcomer = launcher.new(3)
        async with launcher.joined(newcomer):
            # What it does not know yet it sends to those who have something to say, and to no one else.
            took = [newcomer.ipc.publish_nowait("t", 1), newcomer.ipc.publish_nowait("u", 2)]
            assert a.pid in took[0]
            assert b.pid in took[1]
            assert not {c.pid, newcomer.pid} & {*took[0], *took[1]}
            assert await take(at_a, 1) == [1]
            assert await take(at_b, 1) == [2]
            await until(lambda: newcomer.endpoint.topics._unheard == ())
            assert knows(newcomer, "t") == (a.pid,)
            assert await newcomer.ipc.publish("v") == ()
            async with newcomer.ipc.subscribe("t") as messages:
                assert await c.ipc.publish("t", 3) == (a.pid, newcomer.pid)
                assert await take(messages, 1) == [3]


@pytest.mark.parametrize("how", ["leaves", "killed"])
async def test_who_has_gone_is_sent_nothing_and_remembered_nowhere(how: str) -> None:
    async with fleet(2) as (launcher, (a, b)):
        third = launcher.new(2)
        async with launcher.joined(third):
            subscribed = third.ipc.subscribe("t")
            await subscribed.__aenter__()
            assert await a.ipc.publish("t", 1) == (third.pid,)
            # As if it still had something to tell.
            a.endpoint.topics._unheard = (a.endpoint.outgoing.peers.meant_by(third.pid),)
            if how == "killed":
                launcher.kill(third)
                await until(lambda: third.worker not in a.ipc.workers)
        await until(lambda: not knows(a, "t") and not knows(b, "t"))
        assert await a.ipc.publish("t", 2) == ()
        assert not a.endpoint.topics._audience
        assert list(a.endpoint.topics._unheard) == []
        assert third.worker not in [peer.worker for peer in a.endpoint.topics._listeners]
        # Nobody waits for it either.
        async with a.ipc.subscribe("t"):
            assert await b.ipc.publish("t", 3) == (a.pid,)


async def test_the_end_of_the_lifespan_ends_iterations_behind_what_waits() -> None:
    ipc = IPC()
    async with ipc.lifespan():
        messages = ipc.subscribe("t")
        await messages.__aenter__()
        blocked = ipc.subscribe("u")
        await blocked.__aenter__()
        waits = asyncio.create_task(anext(blocked, None))
        await ipc.publish("t", 1)
        await until(lambda: waiting(messages) == 1)
    async with asyncio.timeout(DEADLINE_S):
        assert [message.data async for message in messages] == [1]
        assert await waits is None


async def test_a_stream_that_shall_not_hold_up_a_stop_ends_when_the_worker_is_told_to() -> None:
    async with (
        fleet(2) as (launcher, (a, b)),
        b.ipc.subscribe("t", until_stop=True) as stream,
        b.ipc.subscribe("t") as stays,
    ):
        await a.ipc.publish("t", 1)
        await until(lambda: waiting(stream) == waiting(stays) == 1)
        launcher.stop(b)
        assert [message.data async for message in stream] == [1]
        # As one that is opened only then.
        async with b.ipc.subscribe("t", until_stop=True) as late:
            assert await a.ipc.publish("t", 2) == (b.pid,)
            assert await take(stays, 2) == [1, 2]
            async with asyncio.timeout(DEADLINE_S):
                assert [message.data async for message in late] == []


# --- members that are slow to know


async def test_a_member_that_does_not_answer_is_waited_for_once_and_learns_it_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet(3) as (_, (a, b, c)):
        c.stop_reading()
        with monkeypatch.context() as patch:
            patch.setattr(topics, "KNOWN_TIMEOUT_S", 0.0)
            async with a.ipc.subscribe("first"):
                assert f"worker {c.pid} has not answered" in caplog.text
                await until(lambda: late(a) == [c.pid])
        # From here on a wait for it would fail by the test's own time limit.
        monkeypatch.setattr(topics, "KNOWN_TIMEOUT_S", None)
        async with a.ipc.subscribe("second"), a.ipc.subscribe("third") as third:
            assert await b.ipc.publish("third", 1) == (a.pid,)
            assert knows(c, "third") == ()
            c.go_on_reading()
            await until(lambda: knows(c, "third") == (a.pid,))
            await until(lambda: knows(c, "first") == ())
            await c.ipc.publish("third", 2)
            assert await take(third, 2) == [1, 2]
            async with a.ipc.subscribe("fourth"):
                assert knows(c, "fourth") == (a.pid,)


async def test_entering_ends_with_the_last_answer_and_not_with_the_time_limit() -> None:
    async with fleet(3) as (_, (a, b, c)):
        b.stop_reading()
        entering = [asyncio.create_task(a.ipc.subscribe(topic).__aenter__()) for topic in "ttu"]
        await until(lambda: knows(c, "u") == (a.pid,))
        assert not any(each.done() for each in entering)
        b.go_on_reading()
        await until(lambda: all(each.known == 2 for each in a.endpoint.topics._listeners.values()))
        # The answer wakes a future, all futures wake a wait, and the wait wakes the task.
        for _ in range(4):
            await asyncio.sleep(0)
        assert all(each.done() for each in entering)


async def test_what_changes_meanwhile_is_told_with_one_word_however_often_it_changes() -> None:
    async with fleet(2) as (_, (a, b)):
        b.stop_reading()
        (listener,) = a.endpoint.topics._listeners.values()
        listener.is_late = True
        async with a.ipc.subscribe("under way"):
            sent = a.ipc.stats().sent
            for _ in range(100):
                async with a.ipc.subscribe("comes and goes"), a.ipc.subscribe("too"):
                    pass
            async with a.ipc.subscribe("stays"):
                assert a.ipc.stats().sent == sent
                b.go_on_reading()
                await until(lambda: knows(b, "stays") == (a.pid,))
                assert knows(b, "comes and goes") == ()
                assert a.ipc.stats().sent == sent + 1


async def test_a_topic_that_changes_again_is_told_behind_those_that_changed_before() -> None:
    async with fleet(2, max_message_bytes=1024) as (_, (a, b)):
        # One word has room for two of these.
        first, second, third = (f"{number}" * 200 for number in range(3))
        b.stop_reading()
        (listener,) = a.endpoint.topics._listeners.values()
        listener.is_late = True
        async with a.ipc.subscribe("under way"):
            async with a.ipc.subscribe(first):
                pass
            async with a.ipc.subscribe(second), a.ipc.subscribe(third), a.ipc.subscribe(first):
                b.go_on_reading()
                await until(lambda: not listener.changed and not listener.is_telling)
                # The last answer is of the last change.
                assert listener.known == a.endpoint.topics._revision
                assert [knows(b, topic) for topic in (first, second, third)] == [(a.pid,)] * 3


async def test_who_waits_to_enter_is_let_in_when_the_last_that_is_missing_dies() -> None:
    async with fleet(2) as (launcher, (a, _)):
        third = launcher.new(2)
        async with launcher.joined(third):
            third.stop_reading()
            entering = asyncio.create_task(a.ipc.subscribe("t").__aenter__())
            await until(lambda: any(each.waits for each in a.endpoint.topics._listeners.values()))
            launcher.kill(third)
            await entering


async def test_cancelled_while_it_enters_it_is_nowhere() -> None:
    async with fleet(2) as (_, (a, b)):
        b.stop_reading()
        entering = asyncio.create_task(a.ipc.subscribe("t").__aenter__())
        await until(lambda: any(each.waits for each in a.endpoint.topics._listeners.values()))
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert a.endpoint.topics.is_empty
        b.go_on_reading()
        async with a.ipc.subscribe("u"):
            assert knows(b, "t") == ()


async def test_word_of_a_subscription_waits_for_room_and_gets_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async with fleet(2, has_arena=False) as (_, (a, b)):
        b.stop_reading()
        a.fill(b)
        monkeypatch.setattr(topics, "KNOWN_TIMEOUT_S", 0.0)
        async with a.ipc.subscribe("t") as messages:
            b.go_on_reading()
            await until(lambda: knows(b, "t") == (a.pid,))
            await b.ipc.publish("t", 1)
            assert await take(messages, 1) == [1]


async def test_a_publication_that_nobody_wants_any_more_is_counted_and_corrected() -> None:
    async with fleet(2) as (_, (a, b)):
        # As of a member that was stalled when it joined, and may have something to tell.
        peer = next(each for each in a.endpoint.outgoing.peers.all() if each.worker == b.worker)
        a.endpoint.topics._unheard = (peer,)
        assert await a.ipc.publish("t", 1) == (b.pid,)
        await until(lambda: a.endpoint.topics._unheard == ())
        assert await a.ipc.publish("t", 1) == ()
        assert b.ipc.stats().dropped == {"unsubscribed": 1}


# --- a subscriber that is slow


async def put(ipc: IPC, topic: str, count: int, start: int = 0) -> None:
    """Publish numbers, and wait until they have been heard."""
    received = ipc.stats().received
    for number in range(start, start + count):
        ipc.publish_nowait(topic, number)
    await until(lambda: ipc.stats().received >= received + count)


async def test_drop_oldest_keeps_the_last_and_tells_how_many_went_before() -> None:
    ipc = IPC()
    async with ipc.lifespan(), ipc.subscribe("t", overflow="drop_oldest", max_messages=3) as messages:
        await put(ipc, "t", 10)
        got = [await following(messages) for _ in range(3)]
        assert [(each.data, each.missed) for each in got] == [(7, 7), (8, 0), (9, 0)]
        await put(ipc, "t", 1)
        assert (await following(messages)).missed == 0
        assert ipc.stats().dropped == {"overflow": 7}


async def test_drop_newest_keeps_the_first_and_tells_with_the_next_one() -> None:
    ipc = IPC()
    async with ipc.lifespan(), ipc.subscribe("t", overflow="drop_newest", max_messages=3) as messages:
        await put(ipc, "t", 10)
        assert [(await following(messages)).data for _ in range(2)] == [0, 1]
        await put(ipc, "t", 1, start=10)
        got = [await following(messages) for _ in range(2)]
        assert [(each.data, each.missed) for each in got] == [(2, 0), (10, 7)]
        assert ipc.stats().dropped == {"overflow": 7}


async def test_close_ends_the_iteration_behind_what_waits_with_a_typed_error() -> None:
    ipc = IPC()
    async with ipc.lifespan(), ipc.subscribe("t", overflow="close", max_messages=3) as messages:
        await put(ipc, "t", 5)
        assert await take(messages, 3) == [0, 1, 2]
        with pytest.raises(SubscriptionOverflowError, match="no room beyond 3") as closed:
            await following(messages)
        assert (closed.value.topic, closed.value.max_messages, closed.value.missed) == ("t", 3, 2)
        with pytest.raises(SubscriptionOverflowError):
            await following(messages)


async def test_wait_loses_nothing_and_holds_up_whoever_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "MAX_IN_FLIGHT", 50)
    async with (
        fleet(2) as (_, (a, b)),
        b.ipc.subscribe("t", max_messages=10) as messages,
        b.ipc.subscribe("t") as other,
    ):
        count = 30_000
        published = 0

        async def publish_all() -> None:
            nonlocal published
            for number in range(count):
                published += bool(await a.ipc.publish("t", [number, "x" * 2000], timeout=None))

        publishing = asyncio.create_task(publish_all())
        await until(lambda: bool(a.endpoint.outgoing._room._congested))
        assert not publishing.done()
        # The reader has stopped: a bounded number has come, and is held.
        assert waiting(messages) == 10 + 50
        got: list[int] = []
        async with asyncio.timeout(DEADLINE_S):
            while len(got) < count:
                got.append((await following(messages)).data[0])
                while waiting(other):
                    await following(other)
        await publishing
        assert published == count
        assert got == list(range(count))
        assert b.ipc.stats().dropped == {}


async def test_what_is_taken_or_left_behind_is_in_flight_no_more() -> None:
    async with fleet(2) as (_, (a, b)):
        in_flight = b.endpoint.dispatcher.in_flight
        async with b.ipc.subscribe("t", max_messages=1) as messages:
            for _ in range(20):
                await a.ipc.publish("t", bytes(1000))
            await until(lambda: in_flight.calls == 19)
            in_all = in_flight.size_bytes
            assert in_all >= 19_000
            await take(messages, 10)
            assert (in_flight.calls, in_flight.size_bytes) == (9, in_all * 9 // 19)
        assert (in_flight.calls, in_flight.size_bytes) == (0, 0)


async def test_what_waits_for_a_subscriber_that_asks_does_not_keep_its_answer_from_coming() -> None:
    async with fleet(2) as (_, (a, b)):
        a.ipc.receive("double", lambda data: data * 2)
        async with b.ipc.subscribe("t", max_messages=10) as messages:
            count = 2000
            for number in range(count):
                assert await a.ipc.publish("t", number) == (b.pid,)
            async with asyncio.timeout(DEADLINE_S):
                for number in range(count):
                    assert (await following(messages)).data == number
                    # Its answer comes behind all of them.
                    assert await b.ipc.request(a.pid, "double", number, timeout=None) == number * 2
        in_flight = b.endpoint.dispatcher.in_flight
        assert (in_flight.calls, in_flight.size_bytes) == (0, 0)


async def test_large_data_of_any_kind_counts_in_a_subscription(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "MAX_WAITING_BYTES", MIB)
    async with fleet(2) as (_, (a, b)), b.ipc.subscribe("t", overflow="drop_newest") as messages:
        for number in range(10):
            await a.ipc.publish("t", [number, {"blob": bytes(MIB // 2)}])
        await until(lambda: b.ipc.stats().dropped.get("overflow", 0) >= 8)
        assert [message[0] for message in await take(messages, 2)] == [0, 1]
        assert waiting(messages) == 0


@given(
    steps=st.lists(st.one_of(st.none(), st.integers(0, 600_000)), max_size=60),
    overflow=st.sampled_from(["wait", "drop_oldest", "drop_newest"]),
    max_messages=st.integers(1, 5),
)
async def test_what_is_taken_and_what_is_told_as_missed_add_up_to_what_was_put(
    steps: list[int | None], overflow: Overflow, max_messages: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subscription, "MAX_WAITING_BYTES", MIB)
        ipc = IPC()
        async with (
            ipc.lifespan(),
            ipc.subscribe("t", overflow=overflow, max_messages=max_messages) as subscribed,
        ):
            own = ipc._own.endpoint.topics
            put = expected = 0

            async def take_one() -> None:
                nonlocal expected
                message = await following(subscribed)
                # Numbered from 0: as many as are told are skipped, and never one twice.
                expected += message.missed
                assert message.data == expected
                expected += 1

            for size in steps:
                if size is not None:
                    subscribed.put((Publication("t", put, Worker(1, 0, 1), 0, 1), size))
                    put += 1
                elif waiting(subscribed):
                    await take_one()
                assert not own.in_flight.calls or overflow == "wait"
                within = list(subscribed._queue)[: waiting(subscribed) - own.in_flight.calls]
                assert len(within) <= max_messages
                assert sum(size for _, size in within[:-1]) < MIB
                # Nothing is held for which there is room.
                assert (
                    not own.in_flight.calls
                    or len(within) == max_messages
                    or sum(size for _, size in within) >= MIB
                )
            while waiting(subscribed):
                await take_one()
            assert own.in_flight.calls == 0
            # Those at the very end are told with the next one.
            assert expected + subscribed._missed == put
            assert bool(own.overflowed) <= (overflow != "wait")


# --- what is refused


async def test_what_is_no_subscription_is_refused_at_once() -> None:
    ipc = IPC()
    with pytest.raises(InvalidNameError, match="invalid topic ''"):
        ipc.subscribe("")
    with pytest.raises(ValueError, match="overflow is one of wait, drop_oldest, drop_newest, close"):
        ipc.subscribe("t", overflow=cast("Overflow", "drop"))
    for wrong in (0, -1, True, 1.5):
        with pytest.raises(ValueError, match="max_messages is a number from 1 on; not"):
            ipc.subscribe("t", max_messages=cast("int", wrong))
    with pytest.raises(NotRunningError, match="lifespan is not entered"):
        async with ipc.subscribe("t"):
            pass
    with pytest.raises(NotRunningError, match="lifespan is not entered"):
        await ipc.publish("t")
    with pytest.raises(NotRunningError, match="lifespan is not entered"):
        ipc.publish_nowait("t")
    with pytest.raises(RuntimeError, match="enter the subscription first"):
        await anext(ipc.subscribe("t"))


async def test_what_is_no_publication_is_refused_before_anything_is_sent() -> None:
    ipc = IPC()
    nothing = cast("str", object())
    async with ipc.lifespan(), ipc.subscribe("t") as messages:
        for publish in (ipc.publish, ipc.publish_nowait):
            with pytest.raises(InvalidNameError, match="invalid topic 'a"):
                await cast("Any", publish("a\nb"))
            with pytest.raises(TypeError):
                await cast("Any", publish("t", nothing))
            # Nobody's subscribed: wrong all the same.
            with pytest.raises(TypeError):
                await cast("Any", publish("nobody", nothing))
        with pytest.raises(ValueError, match="timeout"):
            await ipc.publish("t", timeout=-1)
        assert waiting(messages) == 0
        with pytest.raises(RuntimeError, match="entered once"):
            await messages.__aenter__()


async def test_one_task_iterates_and_a_cancelled_wait_loses_nothing() -> None:
    ipc = IPC()
    async with ipc.lifespan(), ipc.subscribe("t") as messages:
        first = asyncio.create_task(anext(messages))
        await until(lambda: messages._waiter is not None)
        with pytest.raises(RuntimeError, match="one task"):
            await following(messages)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await ipc.publish("t", 1)
        assert (await following(messages)).data == 1
        assert repr(messages) == "<Subscription to 't': 0 waiting>"


async def test_whoever_never_waits_lets_others_have_a_turn() -> None:
    ipc = IPC()
    async with ipc.lifespan(), ipc.subscribe("t") as messages:
        await put(ipc, "t", 1000)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        other = asyncio.create_task(others())
        await take(messages, 1000)
        assert turns >= 2
        other.cancel()


# --- everything at once


class Crowd:
    """Members that come and go, subscribe and publish; and what each subscription must have got."""

    def __init__(self, launcher: Fleet, random: Random) -> None:
        self.launcher = launcher
        self.random = random
        self.members: dict[Member, AsyncExitStack] = {}
        # By subscription: whose it is, and what was published since it was entered.
        self.entered: dict[Subscription, tuple[Member, list[str]]] = {}
        self.got: dict[Subscription, list[str]] = {}
        self.takers: dict[Subscription, asyncio.Task[None]] = {}
        self.published = 0

    async def join(self) -> None:
        member = self.launcher.new(len(self.members))
        stack = self.members[member] = AsyncExitStack()
        await stack.enter_async_context(self.launcher.joined(member))

    async def leave(self, *, killed: bool = False) -> None:
        member = self.random.choice([*self.members])
        await self.until_all_is_there()
        for subscribed in [each for each in self.entered if self.entered[each][0] is member]:
            await self.unsubscribe(subscribed, killed=killed)
        if killed:
            self.launcher.kill(member)
        await self.members.pop(member).aclose()

    async def kill(self) -> None:
        await self.leave(killed=True)

    async def subscribe(self) -> None:
        member = self.random.choice([*self.members])
        subscribed = member.ipc.subscribe(f"topic {self.random.randrange(4)}", max_messages=3)
        await subscribed.__aenter__()
        self.entered[subscribed] = member, []
        got = self.got[subscribed] = []
        first = self.published

        async def take() -> None:
            async for message in subscribed:
                # What was under way to this worker already may come, too.
                if int(message.data.split()[0]) >= first:
                    got.append(message.data)

        self.takers[subscribed] = asyncio.create_task(take())

    async def unsubscribe(self, subscribed: Subscription | None = None, *, killed: bool = False) -> None:
        if self.entered:
            chosen = subscribed or self.random.choice([*self.entered])
            await self.until_all_is_there()
            if not killed:
                await chosen.__aexit__(None, None, None)
            del self.entered[chosen], self.got[chosen]
            self.takers.pop(chosen).cancel()

    async def publish(self) -> None:
        for _ in range(self.random.randrange(1, 20)):
            member = self.random.choice([*self.members])
            topic, data = f"topic {self.random.randrange(4)}", f"{self.published} by {member.pid}"
            self.published += 1
            expected = [each for each in self.entered if each.topic == topic]
            took = await member.ipc.publish(topic, data)
            assert {*took} >= {self.entered[each][0].pid for each in expected}
            for each in expected:
                self.entered[each][1].append(data)

    async def until_all_is_there(self) -> None:
        await until(lambda: all(len(self.got[each]) == len(due) for each, (_, due) in self.entered.items()))

    async def check(self) -> None:
        """Each has got all of it once, in the order of each publisher; all know who wants what."""
        await self.until_all_is_there()
        for each, (_, due) in self.entered.items():
            got = self.got[each]
            for pid in {data.split()[-1] for data in due}:
                assert [data for data in got if data.endswith(pid)] == [x for x in due if x.endswith(pid)]
            assert sorted(got) == sorted(due)
        wants: dict[str, set[int]] = {}
        for each, (member, _) in self.entered.items():
            wants.setdefault(each.topic, set()).add(member.pid)
        for member in self.members:
            own = member.endpoint.topics
            await until(lambda own=own: not own._unheard)  # type: ignore[misc]
            await until(lambda own=own: {t: {*a.pids} for t, a in own._audience.items()} == wants)  # type: ignore[misc]


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_comes_and_goes_every_subscription_gets_all_of_it_once_and_in_order(seed: int) -> None:
    async with fleet(1) as (launcher, _):
        crowd = Crowd(launcher, Random(seed))
        steps = [crowd.join, crowd.subscribe, crowd.publish, crowd.unsubscribe, crowd.leave, crowd.kill]
        try:
            await crowd.join()
            for _ in range(60):
                step = crowd.random.choices(steps, weights=[2, 6, 12, 3, 1, 1])[0]
                if step in (crowd.leave, crowd.kill) and len(crowd.members) < 2:
                    continue
                await step()
            await crowd.check()
            assert crowd.published
        finally:
            for taker in crowd.takers.values():
                taker.cancel()
            await asyncio.gather(*(stack.aclose() for stack in crowd.members.values()))
