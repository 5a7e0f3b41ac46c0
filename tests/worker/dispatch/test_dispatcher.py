"""Handlers: the order in which they start, their contexts, their bounds, and what they may raise."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.batch import Batch
from asgi_ipc.worker.dispatch import backpressure, dispatcher
from asgi_ipc.worker.dispatch.delivery import Delivery, current_delivery
from asgi_ipc.worker.dispatch.dispatcher import Dispatcher
from asgi_ipc.worker.dispatch.handler import Handler
from asgi_ipc.worker.dispatch.registry import Registry
from tests.inprocess import until

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class World:
    """A dispatcher, and what it said about room."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.flow: list[str] = []
        self.started: list[Any] = []
        self.dispatcher = Dispatcher(
            self.registry,
            lambda: self.flow.append("full"),
            lambda: self.flow.append("room"),
            lambda: None,
        )
        self.context = contextvars.copy_context()
        self.context.run(current_delivery.set, Delivery(self, Worker(7, 0, 1)))

    def on(self, name: str, function: Callable[[Any], Any], *, ordered: bool = False) -> None:
        self.registry.set(name, function, ordered)

    def deliver(self, *messages: tuple[str, Any]) -> None:
        self.dispatcher.accept(self.context, Batch.of([(*message, None) for message in messages]))

    def announce(self, news: str) -> None:
        """To a plain watcher, who writes it down."""
        watchers: list[Handler] = []
        Registry.watch(watchers, "watcher", self.started.append, "news")
        self.dispatcher.announce(watchers, (news,), self.context)

    async def settle(self) -> None:
        async with asyncio.timeout(10):
            await self.dispatcher.idle()


@pytest_asyncio.fixture
async def here() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.dispatcher.close()


async def test_the_order_of_arrival_survives_the_bound_on_a_turn(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "MESSAGES_PER_TURN", 4)

    async def slow(data: int) -> None:
        here.started.append(data)

    here.on("async", slow)
    here.on("plain", here.started.append)
    # The next turn is due before what this one puts behind its tasks.
    here.deliver(("async", 0))
    here.deliver(("plain", 1), ("async", 2), ("plain", 3), ("plain", 4), ("plain", 5))
    await here.settle()
    assert here.started == [0, 1, 2, 3, 4, 5]


async def test_handlers_start_in_the_order_of_arrival_across_both_kinds_and_packets(here: World) -> None:

    async def slow(data: int) -> None:
        here.started.append(data)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    here.on("async", slow)
    here.on("plain", here.started.append)
    here.deliver(("async", 0), ("plain", 1), ("async", 2), ("async", 3), ("plain", 4))
    here.deliver(("plain", 5), ("async", 6))
    here.announce("news")
    here.deliver(("plain", 7))
    await here.settle()
    assert here.started == [0, 1, 2, 3, 4, 5, 6, "news", 7]


async def test_an_ordered_handler_does_not_start_before_its_last_call_has_finished(here: World) -> None:

    async def ordered(data: int) -> None:
        here.started.append(("begin", data))
        await asyncio.sleep(0)
        here.started.append(("end", data))

    here.on("ordered", ordered, ordered=True)
    here.deliver(*[("ordered", number) for number in range(4)])
    await here.settle()
    assert here.started == [(what, number) for number in range(4) for what in ("begin", "end")]


async def test_every_call_has_a_context_of_its_own_that_its_tasks_inherit(here: World) -> None:

    async def setter(data: str) -> None:
        here.started.append(variable.get())
        variable.set(data)
        await asyncio.sleep(0)
        here.started.append(variable.get())
        await asyncio.to_thread(lambda: here.started.append(variable.get()))

    def plain(data: str) -> None:
        here.started.append(variable.get())
        variable.set(data)

    here.on("async", setter)
    here.on("plain", plain)
    here.deliver(("plain", "a"), ("plain", "b"))
    here.deliver(("async", "c"), ("async", "d"))
    await here.settle()
    assert here.started[:4] == ["unset"] * 4
    assert sorted(here.started[4:]) == ["c", "c", "d", "d"]
    assert variable.get() == "unset"


async def test_partials_callables_and_plain_functions_that_return_coroutines_are_handlers(
    here: World,
) -> None:

    async def two(prefix: str, data: str) -> None:
        here.started.append(prefix + data)

    class AsyncCallable:
        async def __call__(self, data: str) -> None:
            here.started.append(data)

    here.on("partial", functools.partial(two, "p-"))
    here.on("callable", AsyncCallable())
    here.on("lambda", lambda data: two("l-", data))
    here.deliver(("partial", "x"), ("callable", "y"), ("lambda", "z"))
    await here.settle()
    assert here.started == ["p-x", "y", "l-z"]


async def test_whatever_a_handler_raises_is_logged_and_counted_and_the_rest_goes_on(
    here: World, caplog: pytest.LogCaptureFixture
) -> None:

    class Odd(BaseException):
        """Frameworks have such ones, for what an `except Exception` shall not catch."""

    def odd(data: str) -> None:
        raise Odd(data)

    async def odd_async(data: str) -> None:
        raise Odd(data)

    async def fails(data: str) -> None:
        raise LookupError(data)

    async def cancels(data: str) -> None:
        raise asyncio.CancelledError

    def wrong_signature() -> None:
        raise AssertionError("never called")

    async def wrong_async_signature() -> None:
        raise AssertionError("never called")

    # They say that they take one; who says what is true can't be registered.
    for wrong in (wrong_signature, wrong_async_signature):
        vars(wrong)["__signature__"] = inspect.signature(fails)
    here.on("fails", fails)
    here.on("cancels", cancels)
    here.on("signature", wrong_signature)  # type: ignore[arg-type]
    here.on("async signature", wrong_async_signature)  # type: ignore[arg-type]
    here.on("odd", odd)
    here.on("odd async", odd_async)
    here.on("good", here.started.append)
    with caplog.at_level(logging.WARNING, "asgi_ipc"):
        here.deliver(("fails", "on purpose"), ("cancels", ""), ("signature", ""), ("async signature", ""))
        here.deliver(("odd", ""), ("good", 1), ("odd async", ""), ("good", 2))
        here.deliver(("nobody", ""), ("good", 3))
        await here.settle()
    assert here.started == [1, 2, 3]
    assert here.dispatcher.calls.errors == 6
    assert (here.dispatcher.received, here.dispatcher.discarded) == (10, 1)
    assert "LookupError: on purpose" in caplog.text


async def test_a_coroutine_that_a_plain_function_returns_is_in_flight_until_it_ends(here: World) -> None:
    gate = asyncio.Event()

    async def waits() -> None:
        await gate.wait()

    here.on("returns", lambda data: waits())
    here.deliver(("returns", 0), ("returns", 1))
    assert here.dispatcher.in_flight.calls == 2
    gate.set()
    await here.settle()
    assert here.dispatcher.in_flight.calls == 0


async def test_a_stopped_dispatcher_takes_its_own_handlers_along(here: World) -> None:
    here.dispatcher.receive("own", here.started.append)
    here.deliver(("own", 1))
    assert here.started == [1]
    assert here.dispatcher.stop() == []
    assert here.registry.handlers == {}
    here.deliver(("own", 2))
    assert (here.started, here.dispatcher.unhandled) == ([1], 1)


async def test_a_handler_that_exits_ends_no_other_message(here: World) -> None:
    here.on("exits", sys.exit)
    here.on("good", here.started.append)
    with pytest.raises(SystemExit):
        here.deliver(("exits", 3), ("good", "still here"))
    await here.settle()
    assert here.started == ["still here"]


async def test_the_reader_is_told_to_pause_at_the_bound_and_nothing_more_starts(here: World) -> None:
    gate = asyncio.Event()

    async def waits(data: int) -> None:
        here.started.append(data)
        await gate.wait()

    here.on("waits", waits)
    here.on("plain", here.started.append)
    here.deliver(*[("waits", number) for number in range(backpressure.MAX_IN_FLIGHT + 5)], ("plain", "last"))
    await until(lambda: len(here.started) == backpressure.MAX_IN_FLIGHT)
    assert here.flow == ["full"]
    assert here.dispatcher.is_full
    gate.set()
    await here.settle()
    assert here.flow == ["full", "room"]
    assert here.started == [*range(backpressure.MAX_IN_FLIGHT + 5), "last"]


async def test_large_data_in_flight_is_bounded_in_bytes(here: World) -> None:
    gate = asyncio.Event()

    async def waits(data: bytes) -> None:
        await gate.wait()

    here.on("waits", waits)
    quarter = bytes(backpressure.MAX_IN_FLIGHT_BYTES // 4)
    here.deliver(*[("waits", quarter)] * 3)
    assert here.flow == []
    here.deliver(("waits", quarter))
    await until(lambda: bool(here.flow))
    assert here.flow == ["full"]
    gate.set()
    await here.settle()
    assert here.flow == ["full", "room"]


async def test_messages_without_a_handler_are_counted_and_each_name_is_logged_once(
    here: World, caplog: pytest.LogCaptureFixture
) -> None:
    here.deliver(("nobody", 1), ("none", 2), ("nobody", 3), ("no\nname", 4))
    assert (here.dispatcher.discarded, here.dispatcher.invalid_names) == (3, 1)
    assert here.dispatcher.received == 4
    names = [record.getMessage().rpartition(" ")[2] for record in caplog.records]
    assert names == ["'nobody'", "'none'"]


async def test_the_reader_is_told_to_pause_when_messages_wait_for_a_second_turn(here: World) -> None:
    here.on("plain", here.started.append)
    here.deliver(*[("plain", number) for number in range(2 * dispatcher.MESSAGES_PER_TURN)])
    await here.settle()
    assert here.flow == []
    here.deliver(*[("plain", number) for number in range(3 * dispatcher.MESSAGES_PER_TURN)])
    assert here.flow == []
    await here.settle()
    assert here.flow == ["full", "room"]


async def test_a_turn_handles_a_bounded_number_of_messages(here: World) -> None:
    here.on("plain", here.started.append)
    here.deliver(*[("plain", number) for number in range(3 * dispatcher.MESSAGES_PER_TURN)])
    assert len(here.started) == dispatcher.MESSAGES_PER_TURN
    here.deliver(("plain", "behind"))
    await here.settle()
    assert here.started == [*range(3 * dispatcher.MESSAGES_PER_TURN), "behind"]


async def test_idle_means_now_and_not_a_moment_ago(here: World) -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def waits(event: Any) -> None:
        await event.wait()
        here.started.append("done")

    here.on("waits", waits)
    here.deliver(("waits", first))
    idle = asyncio.create_task(here.dispatcher.idle())
    await asyncio.sleep(0)
    first.set()
    # Nothing runs, whoever waits for that has been woken and not gone on yet, and a message comes.
    await until(lambda: here.dispatcher._idle is None)
    here.deliver(("waits", second))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not idle.done()
    second.set()
    await idle
    assert here.started == ["done", "done"]


async def test_a_wait_that_begins_inside_a_handler_ends_behind_it(here: World) -> None:
    waits: list[asyncio.Task[Any]] = []

    def begins(data: int) -> None:
        waits.append(here.dispatcher.calls.steps.take(here.dispatcher.idle(), here.context.copy()))

    here.on("begins", begins)
    asyncio.get_running_loop().call_soon(here.deliver, ("begins", 0))
    await until(lambda: bool(waits))
    async with asyncio.timeout(10):
        await waits[0]


async def test_calls_behind_an_ordered_one_count_with_their_data(here: World) -> None:
    gate = asyncio.Event()

    async def ordered(data: bytes) -> None:
        await gate.wait()

    here.on("ordered", ordered, ordered=True)
    here.deliver(("ordered", bytes(1000)), ("ordered", "text"), ("ordered", 1))
    in_flight = here.dispatcher.in_flight
    assert (in_flight.calls, in_flight.size_bytes) == (3, 1004)
    gate.set()
    await here.settle()
    assert (in_flight.calls, in_flight.size_bytes) == (0, 0)


async def test_the_end_of_a_leave_cancels_handlers_and_lets_them_clean_up(here: World) -> None:

    async def waits(data: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            here.started.append("cleaned up")

    here.on("waits", waits, ordered=True)
    here.deliver(("waits", 1), ("waits", 2), ("waits", 3))
    await asyncio.sleep(0)
    assert await here.dispatcher.close() == 1
    assert here.started == ["cleaned up"]
    # The two in the lane, and one that comes late.
    here.deliver(("waits", 4))
    assert here.dispatcher.unhandled == 3
