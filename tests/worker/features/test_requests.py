"""Questions: one asks one, one asks all, one of all gets it; and everything that can go wrong between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from asgi_ipc import (
    InvalidDataError,
    InvalidNameError,
    NoHandlerError,
    NotRunningError,
    RemoteError,
    RequestTimeoutError,
    UnknownWorkerError,
    WorkerGoneError,
)
from asgi_ipc.wire.message import ANSWER, ASK, PUBLISH, TOPICS, WITHDRAW
from asgi_ipc.worker.dispatch import backpressure
from asgi_ipc.worker.features.answers import MAX_TRACEBACK
from tests.inprocess import DEADLINE_S, MIB, Held, Member, fleet, until


async def failure(asker: Member, asked: Member, name: str, data: Any = b"") -> RemoteError:
    """The error of a handler there."""
    with pytest.raises(RemoteError) as remote:
        await asker.ipc.request(asked.pid, name, data, timeout=None)
    return remote.value


async def test_a_plain_and_an_async_handler_answer_with_what_they_give_back() -> None:
    async with fleet(2) as (_, (a, b)):

        async def later(data: Any) -> Any:
            await asyncio.sleep(0)
            return [b.ipc.sender, data]

        b.ipc.receive({"plain": lambda data: {"got": data}, "async": later, "nothing": lambda data: None})
        assert await a.ipc.request(b.pid, "plain", "x") == {"got": "x"}
        assert await a.ipc.request(b.worker, "async", 7) == [a.pid, 7]
        assert await a.ipc.request(b.pid, "nothing") is None
        assert await a.ipc.request(b.pid, "plain", bytes(MIB)) == {"got": bytes(MIB)}
        assert b.ipc.stats().received == 4


async def test_questions_start_in_the_order_of_all_messages() -> None:
    async with fleet(2) as (_, (a, b)):
        order: list[Any] = []

        async def noted(data: Any) -> None:
            order.append(data)
            await asyncio.sleep(0)

        b.ipc.receive({"message": order.append, "question": noted, "plain": order.append})
        a.ipc.send_nowait(b.pid, "message", 0)
        asking = asyncio.gather(
            a.ipc.request(b.pid, "question", 1),
            a.ipc.request(b.pid, "plain", 2),
            a.ipc.request(b.pid, "question", 3),
        )
        await asyncio.sleep(0)
        a.ipc.send_nowait(b.pid, "message", 4)
        await asking
        await until(lambda: len(order) == 5)
        assert order == [0, 1, 2, 3, 4]


async def test_questions_to_an_ordered_handler_wait_for_its_last_call_and_are_answered_each() -> None:
    async with fleet(2) as (_, (a, b)):
        running = 0

        async def alone(data: int) -> int:
            nonlocal running
            running += 1
            assert running == 1
            await asyncio.sleep(0)
            running -= 1
            return data * 2

        b.ipc.receive("alone", alone, ordered=True)
        a.ipc.send_nowait(b.pid, "alone", 0)
        answers = await asyncio.gather(*(a.ipc.request(b.pid, "alone", number) for number in range(10)))
        assert answers == [number * 2 for number in range(10)]


# --- no answer


async def test_no_handler_a_failing_one_and_a_slow_one_are_told_apart(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with fleet(2) as (_, (a, b)):

        def fails(data: Any) -> None:
            raise ValueError(f"not {data}")

        async def fails_later(data: Any) -> None:
            await asyncio.sleep(0)
            raise KeyError(data)

        b.ipc.receive({"fails": fails, "fails later": fails_later, "never": Held()})
        with pytest.raises(NoHandlerError, match="no handler for 'unknown'") as unknown:
            await a.ipc.request(b.pid, "unknown")
        assert (unknown.value.pid, unknown.value.name) == (b.pid, "unknown")
        with caplog.at_level(logging.ERROR):
            error = await failure(a, b, "fails", "good")
        assert (error.type_name, error.message) == ("ValueError", "not good")
        assert 'raise ValueError(f"not {data}")' in error.traceback
        assert "handler 'fails' of a message" in caplog.text
        error = await failure(a, b, "fails later", "key")
        assert (error.type_name, error.message) == ("KeyError", "'key'")
        assert str(error) == f"handler 'fails later' of worker {b.pid} raised KeyError: 'key'"
        with pytest.raises(RequestTimeoutError):
            await a.ipc.request(b.pid, "never", timeout=0)
        assert b.ipc.stats().handler_errors == 2


@pytest.mark.parametrize("max_message_bytes", [200, 100_000])
async def test_an_answer_that_cannot_be_carried_is_a_remote_error_at_once(max_message_bytes: int) -> None:
    async with fleet(2, max_message_bytes=max_message_bytes) as (_, (a, b)):
        b.ipc.receive({"set": lambda data: {1, 2}, "large": lambda data: bytes(max_message_bytes)})
        error = await failure(a, b, "set")
        message = "a message can't carry data of type set: send a list"
        assert (error.type_name, error.message) == ("TypeError", message)
        assert (await failure(a, b, "large")).type_name == "asgi_ipc.errors.MessageTooLargeError"


async def test_where_messages_must_be_small_an_error_says_less() -> None:
    async with fleet(2, max_message_bytes=200) as (_, (a, b)):

        def fails(data: Any) -> None:
            raise ValueError("x" * int(data))

        b.ipc.receive("fails", fails)
        for length, text in (("10", "x" * 10), ("1000", "")):
            error = await failure(a, b, "fails", length)
            assert (error.type_name, error.message) == ("ValueError", text)


async def test_what_an_exception_says_is_bounded_and_made_carriable() -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    def silent(data: Any) -> None:
        raise SilentError

    def long(data: Any) -> None:
        raise ValueError("x" * MIB + "\ud800")

    async with fleet(2) as (_, (a, b)):
        b.ipc.receive({"long": long, "silent": silent})
        error = await failure(a, b, "long")
        assert len(error.traceback) <= MAX_TRACEBACK
        assert set(error.message) == {"x"}
        assert "can't be had: RuntimeError" in (await failure(a, b, "silent")).message


async def test_a_question_that_is_none_is_refused_before_anything_is_sent() -> None:
    async with fleet(2) as (_, (a, b)):
        sent = a.ipc.stats().sent
        with pytest.raises(InvalidNameError):
            await a.ipc.request(b.pid, ASK)
        with pytest.raises(TypeError, match="set"):
            await a.ipc.request(b.pid, "name", {1})  # type: ignore[call-overload]
        with pytest.raises(UnknownWorkerError):
            await a.ipc.request(1, "name")
        with pytest.raises(ValueError, match="timeout"):
            await a.ipc.request(b.pid, "name", timeout=-1)
        assert a.ipc.stats().sent == sent
    with pytest.raises(NotRunningError):
        await a.ipc.request(b.pid, "name")
    with pytest.raises(NotRunningError):
        await a.ipc.gather("name")


async def test_a_dead_worker_is_told_of_at_once_and_what_it_had_answered_counts() -> None:
    # `held` holds up the leave of the killed member.
    async with fleet(2, drain_timeout=0.1) as (launcher, (a, b)):
        held = Held()
        b.ipc.receive({"held": held, "quick": lambda data: data})
        asking = asyncio.create_task(a.ipc.request(b.pid, "held", timeout=None))
        await held.begun.wait()
        a.stop_reading()
        quick = asyncio.create_task(a.ipc.request(b.pid, "quick", 1, timeout=None))
        await until(lambda: b.ipc.stats().received == 2)
        await asyncio.sleep(0)
        launcher.kill(b)
        a.go_on_reading()
        assert await quick == 1
        with pytest.raises(WorkerGoneError):
            await asking


async def test_a_late_answer_is_counted_and_reaches_no_other_question() -> None:
    async with fleet(2) as (_, (a, b)):
        b.ipc.receive("plain", lambda data: data)
        a.stop_reading()
        plain = asyncio.create_task(a.ipc.request(b.pid, "plain", "late", timeout=None))
        await until(lambda: b.ipc.stats().received == 1)
        plain.cancel()
        with pytest.raises(asyncio.CancelledError):
            await plain
        a.go_on_reading()
        assert await a.ipc.request(b.pid, "plain", "other") == "other"
        assert a.ipc.stats().dropped == {"late_answer": 1}


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("how", ["cancelled", "cancelled without room", "killed"])
async def test_the_handler_of_an_asker_that_waits_no_longer_is_cancelled(how: str, kind: str) -> None:
    async with fleet(2, has_arena=False) as (launcher, (a, b)):
        held = Held()

        def plain(data: Any) -> Any:
            return held(data)

        b.ipc.receive("held", held if kind == "async" else plain)
        asking = asyncio.create_task(a.ipc.request(b.pid, "held", timeout=None))
        await held.begun.wait()
        if how == "killed":
            launcher.kill(a)
        else:
            if how == "cancelled without room":
                b.stop_reading()
                a.fill(b)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            b.go_on_reading()
        await held.cancelled.wait()
        asking.cancel()
        await b.endpoint.dispatcher.idle()
        assert not b.endpoint._answers._open
        assert b.ipc.stats().handler_errors == 0


async def test_a_question_withdrawn_while_it_waits_for_its_turn_is_never_handled() -> None:
    async with fleet(2) as (_, (a, b)):
        go_on = asyncio.Event()
        handled: list[Any] = []

        async def alone(data: Any) -> None:
            handled.append(data)
            await go_on.wait()

        b.ipc.receive("alone", alone, ordered=True)
        a.ipc.send_nowait(b.pid, "alone", "first")
        asking = asyncio.create_task(a.ipc.request(b.pid, "alone", "second", timeout=None))
        await until(lambda: b.ipc.stats().received == 2)
        asking.cancel()
        await until(lambda: b.ipc.stats().received == 3)
        go_on.set()
        await b.endpoint.dispatcher.idle()
        assert handled == ["first"]
        assert not b.endpoint._answers._open


def chain(me: Member, other: Member, timeout: float | None) -> Callable[[int], Awaitable[int]]:
    """A handler that asks the other's handler of the same name, so many times in all."""

    async def down(depth: int) -> int:
        return 1 + await me.ipc.request(other.pid, "down", depth - 1, timeout=timeout) if depth else 0

    return down


async def test_long_chains_of_questions_back_and_forth_come_to_no_standstill() -> None:
    async with fleet(2) as (_, (a, b)):
        a.ipc.receive("down", chain(a, b, None))
        b.ipc.receive("down", chain(b, a, None))
        chains, depth = 20, 80
        async with asyncio.timeout(20):
            answers = await asyncio.gather(
                *(a.ipc.request(b.pid, "down", depth, timeout=None) for _ in range(chains)),
                *(b.ipc.request(a.pid, "down", depth, timeout=None) for _ in range(chains)),
            )
        assert answers == [depth] * 2 * chains


async def test_a_cycle_beyond_the_bound_ends_in_typed_errors_and_the_next_question_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backpressure, "MAX_IN_FLIGHT", 4)
    async with fleet(2) as (_, (a, b)):
        a.ipc.receive("down", chain(a, b, 0.1))
        b.ipc.receive("down", chain(b, a, 0.1))
        results = await asyncio.gather(
            *(a.ipc.request(b.pid, "down", 20, timeout=0.1) for _ in range(8)),
            *(b.ipc.request(a.pid, "down", 20, timeout=0.1) for _ in range(8)),
            return_exceptions=True,
        )
        assert {type(result) for result in results} == {RequestTimeoutError}
        # Questions that nobody waits for any more were on their way, and have the same deadline.
        await until(lambda: a.endpoint.is_settled and b.endpoint.is_settled)
        for member in (a, b):
            in_flight = member.endpoint.dispatcher.in_flight
            assert (in_flight.calls, in_flight.size_bytes) == (0, 0)
        assert await a.ipc.request(b.pid, "down", 2, timeout=None) == 2


async def test_questions_and_answers_wait_for_room() -> None:
    async with fleet(2, has_arena=False) as (_, (a, b)):
        b.ipc.receive("double", lambda data: data + data)
        answers = await asyncio.gather(
            *(a.ipc.request(b.pid, "double", bytes(4 * MIB), timeout=None) for _ in range(20))
        )
        assert [len(answer) for answer in answers] == [8 * MIB] * 20


async def test_malformed_words_of_the_packages_own_are_counted_and_nothing_else() -> None:
    async with fleet(2) as (_, (a, b)):
        wrap, post = a.endpoint.outgoing.wrap, a.endpoint.outgoing.post
        words = [
            *(wrap(name, (1, 2, 3, 4), "x") for name in (ASK, ANSWER, WITHDRAW)),
            wrap(ASK, ("number", "name"), "x"),
            wrap(ASK, (1,), ["unhashable"]),
            wrap(PUBLISH, (), 1),
            wrap(PUBLISH, (), [["no", "topic"], 1]),
            wrap(TOPICS, (1,), 1),
            wrap(TOPICS, (1, 1), [["\x00"], []]),
        ]
        for word in words:
            assert post(a.endpoint.outgoing.peers.meant_by(b.pid), word)
        async with b.ipc.subscribe("t") as messages:
            assert await a.ipc.publish("t", 1) == (b.pid,)
            assert (await anext(messages)).data == 1
        await a.ipc.send(b.pid, "note", "good")
        assert await b.until(1) == ["good"]
        assert b.ipc.stats().dropped == {"invalid_name": len(words)}


# --- all, and any


async def test_everybody_is_asked_and_who_has_no_answer_costs_its_own_row_only() -> None:
    # `held` holds up the leave of the killed member.
    async with fleet(5, drain_timeout=0.1) as (launcher, members):
        a, b, c, d, e = members
        held = Held()

        def fails(data: Any) -> None:
            raise ValueError(data)

        for member in (a, b):
            member.ipc.receive("who", lambda data, member=member: [data, member.worker.slot])
        c.ipc.receive("who", fails)
        d.ipc.receive("who", held)
        asking = asyncio.create_task(a.ipc.gather("who", "x", timeout=None))
        await held.begun.wait()
        launcher.kill(d)
        gathered = await asking
        assert gathered == {a.pid: ["x", 0], b.pid: ["x", 1]}
        assert not gathered.complete
        kinds = {pid: type(error) for pid, error in gathered.errors.items()}
        assert kinds == {c.pid: RemoteError, d.pid: WorkerGoneError, e.pid: NoHandlerError}


async def test_who_is_slow_costs_the_deadline_and_others_may_be_asked_alone() -> None:
    async with fleet(3) as (_, (a, b, c)):
        b.ipc.receive("who", lambda data: "b")
        c.stop_reading()
        gathered = await a.ipc.gather("who", timeout=0.1, include_self=False)
        assert gathered == {b.pid: "b"}
        assert type(gathered.errors[c.pid]) is RequestTimeoutError
        c.go_on_reading()
        c.ipc.receive("who", lambda data: "c")
        gathered = await a.ipc.gather("who", timeout=None, include_self=False)
        assert dict(gathered) == {b.pid: "b", c.pid: "c"}
        assert gathered.complete
    async with fleet(1) as (_, (a,)):
        gathered = await a.ipc.gather("who", include_self=False)
        assert gathered == {}
        assert gathered.complete


async def test_what_waits_for_room_when_the_time_is_over_is_never_asked() -> None:
    async with fleet(2, has_arena=False, max_message_bytes=MIB) as (_, (a, b)):
        asked: list[Any] = []
        b.ipc.receive("who", asked.append)
        b.stop_reading()
        full = a.fill(b, MIB - 100)
        gathered = await a.ipc.gather("who", bytes(MIB - 100), timeout=0.01, include_self=False)
        assert type(gathered.errors[b.pid]) is RequestTimeoutError
        b.go_on_reading()
        await b.until(full)
        await a.ipc.send(b.pid, "note", "behind")
        await b.until(full + 1)
        assert asked == []


async def test_a_question_that_waits_for_room_ends_when_the_worker_begins_to_leave() -> None:
    async with fleet(2, has_arena=False, max_message_bytes=MIB, drain_timeout=0.1) as (_, (a, b)):
        b.stop_reading()
        a.fill(b, MIB - 100)
        asking = asyncio.create_task(a.ipc.gather("who", bytes(MIB - 100), timeout=None, include_self=False))
        await asyncio.sleep(0)
        leaving = asyncio.create_task(b.leave())
        await until(lambda: b.worker not in a.ipc.workers)
        async with asyncio.timeout(DEADLINE_S):
            gathered = await asking
        assert not leaving.done()
        assert type(gathered.errors[b.pid]) is WorkerGoneError
        b.go_on_reading()
        await leaving


async def test_one_of_all_gets_it_in_turn_and_who_is_busy_does_not() -> None:
    async with fleet(3, has_arena=False) as (_, members):
        a, b, c = members
        took = []
        for number in range(9):
            took.append(await a.ipc.send_any("note", number))
            # What lies unread in a pipe counts.
            await until(lambda: sum(len(member.seen) for member in members) == len(took))
        assert sorted(took) == sorted([a.pid, b.pid, c.pid] * 3)
        for member in members:
            await member.until(3)
        b.stop_reading()
        for _ in range(20):
            a.ipc.send_nowait(b.pid, "note", bytes(100_000))
        took = [await a.ipc.send_any("note", number) for number in range(8)]
        assert b.pid not in took
        b.go_on_reading()
        await b.until(23)


async def test_one_that_goes_before_it_has_taken_it_is_replaced_by_another() -> None:
    async with fleet(2, has_arena=False, max_message_bytes=MIB) as (launcher, (a, b)):
        a.stop_reading()
        b.stop_reading()
        for member in (a, b):
            a.fill(member, MIB - 100)
        waiting = asyncio.create_task(a.ipc.send_any("note", bytes(MIB - 100), timeout=None))
        await until(lambda: any(peer.outbox.waiting for peer in a.endpoint.outgoing.peers.all()))
        launcher.kill(b)
        a.go_on_reading()
        assert await waiting == a.pid


async def test_an_answer_is_converted_to_the_type_that_was_asked_for() -> None:
    class Point(msgspec.Struct):
        x: int
        y: int = 0

    async with fleet(2) as (_, (a, b)):
        for member in (a, b):
            member.ipc.receive("where", lambda data: data)
        ask, ask_in_thread = a.ipc.request, a.ipc.blocking.request
        assert await ask(b.pid, "where", {"x": 1}, reply_type=Point) == Point(1)
        assert await ask(b.pid, "where", [{"x": 1}], reply_type=list[Point]) == [Point(1)]
        assert await ask(b.pid, "where", {"x": 1}) == {"x": 1}
        asked = await asyncio.to_thread(ask_in_thread, b.pid, "where", {"x": 2}, reply_type=Point)
        assert asked == Point(2)
        with pytest.raises(InvalidDataError) as caught:
            await ask(b.pid, "where", {"x": "one"}, reply_type=Point)
        assert (caught.value.pid, caught.value.name, caught.value.of_answer) == (b.pid, "where", True)
        assert (caught.value.field, caught.value.expected) == ("x", "int")
        sentence = f"the answer of handler 'where' of worker {b.pid} does not fit: x: "
        assert str(caught.value).startswith(sentence)


async def test_what_does_not_fit_is_the_error_of_its_row() -> None:
    async with fleet(3) as (_, (a, b, c)):

        def count(data: int) -> int:
            return data

        a.ipc.receive("count", lambda data: 1)
        b.ipc.receive("count", lambda data: "one")
        c.ipc.receive("count", count)
        answers = await a.ipc.gather("count", "two", reply_type=int)
        assert answers == {a.pid: 1}
        told = [(each.of_answer, each.reason) for each in answers.errors.values()]  # type: ignore[attr-defined]
        assert told == [(True, "expected int, got str"), (False, "expected int, got str")]
        assert not answers.complete


async def test_a_type_that_no_answer_can_become_is_refused_before_anything_is_sent() -> None:
    async with fleet(1) as (_, (a,)):
        with pytest.raises(TypeError, match="reply_type is"):
            await a.ipc.request(a.pid, "note", reply_type=asyncio.Event)
        assert a.ipc.stats().sent == 0


async def test_workers_are_named_beside_their_pids() -> None:
    async with fleet(2) as (_, (a, b)):
        b.ipc.receive("who", lambda data: (b.ipc.sender, b.ipc.sender_worker == a.worker))
        assert await a.ipc.request(b.pid, "who") == [a.pid, True]
        assert b.ipc.sender_worker is None
        assert b.ipc.leader_worker == a.worker
        assert b.ipc.leader == a.pid
        async with b.ipc.subscribe("t") as messages:
            await a.ipc.publish("t", 1)
            async with asyncio.timeout(DEADLINE_S):
                published = await anext(messages)
        assert (published.worker, published.sender) == (a.worker, a.pid)
