"""Steps: what a handler leaves on its task never reaches the next one, in both engines."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from asgi_ipc.worker.dispatch import eager
from tests.engines import Engine, variant

# Each test runs on both; see conftest.py.
LOOP_FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


class World:
    """Takes first steps outside of any task, as the event loop does."""

    def __init__(self, engine: Engine) -> None:
        self.loop = asyncio.get_running_loop()
        self.steps = variant("asgi_ipc.worker.dispatch.steps", engine).Steps(self.loop)
        self.context = contextvars.copy_context()

    async def take(self, *functions: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
        """Begin these in one turn; their tasks, or what they raised."""
        results: list[Any] = []

        def turn() -> None:
            for function in functions:
                try:
                    results.append(self.steps.take(function(), self.context.copy()))
                except BaseException as error:  # noqa: BLE001  # a cancellation among them
                    results.append(error)

        self.loop.call_soon(turn)
        await asyncio.sleep(0)
        return results


@pytest.fixture(params=["pure", "native"])
def engine(request: pytest.FixtureRequest) -> Engine:
    which: Engine = request.param
    return which


def mine() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


Trace = Callable[[asyncio.Task[Any]], object]

_kept: list[Any] = []
_weakly_kept: weakref.WeakKeyDictionary[asyncio.Task[Any], int] = weakref.WeakKeyDictionary()


def _cancel_and_uncancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    task.uncancel()


@pytest.mark.parametrize(
    "leave",
    [
        _kept.append,
        lambda task: _kept.append(weakref.ref(task)),
        lambda task: _weakly_kept.__setitem__(task, 1),
        lambda task: task.add_done_callback(_kept.append),
        lambda task: task.set_name("mine"),
        lambda task: _kept.append(task.cancel),
        asyncio.Task.cancel,
        _cancel_and_uncancel,
    ],
    ids=["kept", "weak", "keyed", "callback", "name", "method", "cancelled", "uncancelled"],
)
async def test_a_task_that_shows_a_trace_of_its_handler_serves_no_other(engine: Engine, leave: Trace) -> None:
    here = World(engine)
    seen: list[object] = []

    async def leaves() -> None:
        leave(mine())

    async def looks() -> None:
        task = mine()
        seen.append((task.get_name() == "mine", task.cancelling(), task in _weakly_kept))
        seen.extend(
            kept
            for kept in _kept
            if kept is task
            or (isinstance(kept, weakref.ref) and kept() is task)
            or getattr(kept, "__self__", None) is task
        )
        await asyncio.sleep(0)

    first, second = await here.take(leaves, looks)
    assert first is None or isinstance(first, asyncio.CancelledError)
    assert second is not None
    assert seen == [(False, 0, False)]
    await second
    assert not second.cancelled()
    # A callback that the first one has left.
    await asyncio.sleep(0)
    assert second not in _kept
    _kept.clear()
    _weakly_kept.clear()


@pytest.mark.skipif(eager.HAS_EAGER_TASKS, reason="asyncio has eager tasks")
async def test_calls_that_end_without_waiting_share_a_task_for_one_turn(engine: Engine) -> None:
    here = World(engine)
    names: list[str] = []

    async def ends() -> None:
        async with asyncio.timeout(60):  # noqa: ASYNC100  # what it attached is gone when it ends
            names.append(mine().get_name())

    await here.take(ends, ends, ends)
    await here.take(ends)
    assert names[0] == names[1] == names[2] != names[3]


async def test_no_task_is_left_over_behind_the_turn(engine: Engine) -> None:
    here = World(engine)

    async def ends() -> None:
        pass

    assert await here.take(ends, ends) == [None, None]
    for _ in range(2):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {mine()}


async def test_a_done_callback_is_called_though_the_handler_never_waited(engine: Engine) -> None:
    here = World(engine)
    done: list[asyncio.Task[Any]] = []

    async def leaves() -> None:
        mine().add_done_callback(done.append)

    await here.take(leaves)
    for _ in range(3):
        await asyncio.sleep(0)
    assert [task.done() for task in done] == [True]


async def test_a_task_that_another_took_between_two_calls_serves_no_more(engine: Engine) -> None:
    """A plain handler between them may look at all tasks, and cancel them."""
    here = World(engine)
    seen: list[str] = []

    async def looks() -> None:
        seen.append(mine().get_name())
        await asyncio.sleep(0)
        seen.append("went on")

    async def ends() -> None:
        seen.append("ended")

    outer = mine()

    def turn() -> None:
        assert here.steps.take(ends(), here.context.copy()) is None
        for task in asyncio.all_tasks(here.loop) - {outer}:
            task.cancel()
        _kept.append(here.steps.take(looks(), here.context.copy()))

    here.loop.call_soon(turn)
    await asyncio.sleep(0)
    await _kept.pop()
    assert seen[0] == "ended"
    assert seen[2:] == ["went on"]


async def test_a_call_inside_the_step_of_another_has_a_task_of_its_own(engine: Engine) -> None:
    here = World(engine)
    seen: list[asyncio.Task[Any]] = []

    async def inner() -> None:
        seen.append(mine())

    async def outer() -> None:
        seen.append(mine())
        assert here.steps.take(inner(), here.context.copy()) is None
        seen.append(mine())

    assert await here.take(outer) == [None]
    first, second, third = seen
    assert first is third
    assert first is not second


async def test_the_current_task_is_as_before_behind_a_step(engine: Engine) -> None:
    here = World(engine)
    before = mine()

    async def fails() -> None:
        assert mine() is not before
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        here.steps.take(fails(), here.context.copy())
    assert mine() is before
    assert isinstance((await here.take(fails))[0], ValueError)
    assert mine() is before


async def test_each_step_of_a_call_runs_in_the_context_of_the_call(engine: Engine) -> None:
    here = World(engine)
    seen: list[int] = []

    def call(number: int) -> Callable[[], Coroutine[Any, Any, Any]]:
        async def handler() -> int:
            seen.append(variable.get())
            variable.set(number)
            for _ in range(3):
                await asyncio.sleep(0)
                seen.append(variable.get())
            return number

        return handler

    async def ends() -> None:
        seen.append(variable.get())
        variable.set(9)

    *tasks, _ = await here.take(ends, call(1), call(2), ends)
    assert [await task for task in tasks[1:]] == [1, 2]
    assert seen == [0, 0, 0, 0, *[1, 2] * 3]
    assert variable.get() == 0


async def test_a_cancelled_wait_ends_the_call_and_can_be_caught(engine: Engine) -> None:
    here = World(engine)

    async def waits() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "caught"
        return "went on"

    early, late = await here.take(waits, waits)
    # Before the event loop has come to the task, and behind that.
    early.cancel()
    await asyncio.sleep(0)
    late.cancel()
    assert [await early, await late] == ["caught", "caught"]


@pytest.mark.skipif(eager.HAS_EAGER_TASKS, reason="asyncio has eager tasks")
@pytest.mark.parametrize("has_gone_on", [False, True])
async def test_a_call_whose_event_loop_is_closed_is_closed(engine: Engine, has_gone_on: bool) -> None:
    here = World(engine)
    seen: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("closed")

    (task,) = await here.take(waits)
    if has_gone_on:
        await asyncio.sleep(0)
    # As when the task is destroyed, which only the end of the event loop can bring about.
    task.get_coro().close()
    assert seen == ["closed"]
    task.cancel()
    with pytest.raises((RuntimeError, asyncio.CancelledError)):
        await task
