"""Deliver: where it stops and why, and what goes around the dispatcher, in both engines."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import pytest

from tests.engines import Engine, variant

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


class World:
    """A deliverer, and what it handed to a dispatcher."""

    def __init__(self, engine: Engine, left: int = 100) -> None:
        dispatch = "asgi_ipc.worker.dispatch"
        self.batch_of = variant("asgi_ipc.wire.batch", engine).Batch.of
        self.Handler = variant(f"{dispatch}.handler", engine).Handler
        self.Reason = variant(f"{dispatch}.deliver", engine).Reason
        self.in_flight = variant(f"{dispatch}.backpressure", engine).InFlight(lambda: None)
        self.handlers: dict[str, Any] = {}
        self.waited: list[Any] = []
        self.went_on: list[Any] = []
        self.started: list[Any] = []
        self.deliverer = variant(f"{dispatch}.deliver", engine).Deliverer(
            self.handlers,
            variant(f"{dispatch}.steps", engine).Steps(asyncio.get_running_loop()),
            self.in_flight,
            lambda context, batch: self.waited.append(batch),
            lambda context, batch, stop: self.went_on.append((batch, stop)),
            left,
        )
        self.context = contextvars.copy_context()
        self.on("note", self.started.append)

    def on(self, name: str, function: Callable[[Any], Any], *, ordered: bool = False) -> None:
        is_async = asyncio.iscoroutinefunction(function)
        self.handlers[name] = self.Handler(name, function, is_async, ordered)

    def batch(self, *messages: tuple[str, Any]) -> Any:
        return self.batch_of([(*message, None) for message in messages])

    def deliver(self, batch: Any, handlers: dict[str, Any] | None = None) -> Any:
        return self.deliverer.deliver(self.context, batch, self.handlers if handlers is None else handlers)

    def accept(self, batch: Any) -> None:
        self.deliverer.accept(self.context, batch)


@pytest.fixture(params=["pure", "native"])
def engine(request: pytest.FixtureRequest) -> Engine:
    which: Engine = request.param
    return which


async def test_it_stops_behind_each_message_that_takes_a_decision_and_says_why(engine: Engine) -> None:
    here = World(engine)
    gate = asyncio.Event()

    async def waits(data: int) -> None:
        here.started.append(data)
        await gate.wait()

    async def ends(data: int) -> None:
        here.started.append(data)

    def fails(data: int) -> None:
        raise ValueError(data)

    def exits(data: int) -> None:
        raise SystemExit(data)

    async def fails_later(data: int) -> None:
        raise KeyError(data)

    here.on("waits", waits)
    here.on("ends", ends)
    here.on("fails", fails)
    here.on("exits", exits)
    here.on("fails later", fails_later)
    here.on("returns", ends)
    here.handlers["returns"] = here.Handler("returns", ends, False)
    here.on("ordered", ends, ordered=True)
    names = ["ends", "waits", "note", "fails", "exits", "nobody", "returns", "ordered", "fails later", "note"]
    batch = here.batch(*[(name, number) for number, name in enumerate(names)])
    stops = []
    while (stop := here.deliver(batch)) is not None:
        stops.append((batch.name, *stop))
    reasons = here.Reason
    assert [(name, reason, handler and handler.name) for name, reason, handler, _, _ in stops] == [
        ("waits", reasons.WAITS, "waits"),
        ("fails", reasons.FAILED, "fails"),
        ("exits", reasons.FAILED, "exits"),
        ("nobody", reasons.UNKNOWN, None),
        ("returns", reasons.COROUTINE, "returns"),
        ("ordered", reasons.ORDERED, "ordered"),
        ("fails later", reasons.FAILED, "fails later"),
    ]
    outcomes = [outcome for *_, outcome in stops]
    assert list(map(type, outcomes[1:3])) == [ValueError, SystemExit]
    assert type(outcomes[6]) is KeyError
    assert here.started == [0, 1, 2, 9]
    outcomes[4].close()
    gate.set()
    await outcomes[0]
    assert (here.deliverer.left, here.deliverer.received, batch.left) == (90, 10, 0)


async def test_it_ends_at_the_bounds_and_goes_on_where_it_ended(engine: Engine) -> None:
    here = World(engine, left=3)
    batch = here.batch(*[("note", number) for number in range(6)])
    assert here.deliver(batch) is None
    assert (here.started, batch.left) == ([0, 1, 2], 3)

    def blocks(data: int) -> None:
        here.in_flight.add(10**6, 0)

    here.on("blocks", blocks)
    here.deliverer.left = 100
    assert here.deliver(batch) is None
    batch = here.batch(("blocks", 0), ("note", 6))
    assert here.deliver(batch) is None
    assert (here.started, batch.left) == ([*range(6)], 1)
    here.in_flight.add(-(10**6), 0)
    assert here.deliver(batch) is None
    assert here.started == [*range(7)]
    assert here.deliverer.received == 8


async def test_the_messages_of_another_table_are_not_counted_as_received(engine: Engine) -> None:
    here = World(engine)
    assert here.deliver(here.batch(("note", 1)), dict(here.handlers)) is None
    assert (here.started, here.deliverer.received, here.deliverer.left) == ([1], 0, 99)


async def test_a_batch_goes_around_the_dispatcher_only_while_nothing_waits_there(engine: Engine) -> None:
    here = World(engine, left=4)
    inner = here.batch(("note", "inner"))

    def nests(data: int) -> None:
        here.started.append(data)
        here.accept(inner)

    here.on("nests", nests)
    here.accept(here.batch(("nests", 1), ("note", 2)))
    assert (here.started, here.waited, here.went_on) == ([1, 2], [inner], [])
    here.deliverer.is_watched = True
    here.accept(inner)
    assert here.waited == [inner, inner]
    here.deliverer.is_watched = False

    def watches(data: int) -> None:
        here.deliverer.is_watched = True

    here.on("watches", watches)
    watching = here.batch(("watches", 3))
    here.accept(watching)
    assert here.went_on == [(watching, None)]
    here.deliverer.is_watched = False
    bounded = here.batch(("note", 4), ("note", 5))
    here.accept(bounded)
    assert (here.started, bounded.left) == ([1, 2, 4], 1)
    here.deliverer.left = 4
    unknown = here.batch(("nobody", 6))
    here.accept(unknown)
    assert [each for each, _ in here.went_on] == [watching, bounded, unknown]
    assert here.went_on[2][1] == (here.Reason.UNKNOWN, None, here.context, None)
    assert not here.deliverer.is_running


async def test_each_call_has_a_context_of_its_own(engine: Engine) -> None:
    here = World(engine)

    def plain(data: str) -> None:
        here.started.append(variable.get())
        variable.set(data)

    async def ends(data: str) -> None:
        plain(data)

    here.on("plain", plain)
    here.on("ends", ends)
    assert here.deliver(here.batch(("plain", "1"), ("ends", "2"), ("plain", "3"), ("ends", "4"))) is None
    assert here.started == ["unset"] * 4
    assert variable not in here.context
