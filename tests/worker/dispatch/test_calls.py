"""Calls: what an async handler may rely on, as in a task of its own, on both event loops."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import uvloop

from asgi_ipc import IPC

# Bounds a failure; nothing here waits for it.
DEADLINE_S = 10.0

Main = Callable[[], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Main], None]:
    def on_loop(main: Main) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(DEADLINE_S):
                await main()

        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(bounded())

    return on_loop


class World:
    """One worker that sends itself messages, and what its handlers have noted."""

    def __init__(self) -> None:
        self.ipc = IPC()
        self.notes: list[Any] = []

    def send(self, *names: str) -> None:
        for name in names:
            self.ipc.send_nowait(self.ipc.pid, name, name)

    async def until(self, count: int) -> list[Any]:
        while len(self.notes) < count:  # noqa: ASYNC110  # each turn of the loop is the event
            await asyncio.sleep(0)
        return self.notes


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    here = World()
    async with here.ipc.lifespan():
        yield here


def test_a_timeout_in_a_handler_ends_its_wait_and_nobody_elses(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with world() as here:
            gate = asyncio.Event()

            @here.ipc.receive("late")
            async def late(data: str) -> None:
                try:
                    async with asyncio.timeout(60), asyncio.timeout(0.001):
                        await asyncio.Event().wait()
                except TimeoutError:
                    here.notes.append("timed out")
                    gate.set()

            @here.ipc.receive("waits")
            async def waits(data: str) -> None:
                async with asyncio.timeout(60):
                    await gate.wait()
                here.notes.append("waited")

            @here.ipc.receive("quick")
            async def quick(data: str) -> None:
                async with asyncio.timeout(60):  # noqa: ASYNC100  # for a handler that never suspends
                    here.notes.append("quick")

            here.send("waits", "late", "quick")
            assert await here.until(3) == ["quick", "timed out", "waited"]

    run(main)


def test_the_task_is_the_same_before_and_after_a_wait_and_another_for_each_that_waits(
    run: Callable[[Main], None],
) -> None:
    async def main() -> None:
        async with world() as here:
            gate = asyncio.Event()

            @here.ipc.receive("waits")
            async def waits(data: str) -> None:
                before = asyncio.current_task()
                await gate.wait()
                here.notes.append((before, asyncio.current_task()))

            here.send("waits", "waits", "waits")
            asyncio.get_running_loop().call_later(0.001, gate.set)
            notes = await here.until(3)
            assert all(before is after for before, after in notes)
            assert len({before for before, _ in notes}) == 3

    run(main)


def test_whoever_keeps_the_task_of_a_handler_can_not_cancel_the_next(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with world() as here:
            kept: list[asyncio.Task[Any]] = []

            @here.ipc.receive("keeps")
            async def keeps(data: str) -> None:
                task = asyncio.current_task()
                assert task is not None
                kept.append(task)

            @here.ipc.receive("waits")
            async def waits(data: str) -> None:
                for task in kept:
                    task.cancel()
                await asyncio.sleep(0)
                here.notes.append("went on")

            here.send("keeps", "waits")
            assert await here.until(1) == ["went on"]
            assert here.ipc.stats().handler_errors == 0

    run(main)


def test_a_handler_that_cancels_itself_cancels_no_other(
    run: Callable[[Main], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with world() as here:

            @here.ipc.receive("ends")
            async def ends(data: str) -> None:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                here.notes.append("ends")

            @here.ipc.receive("suspends")
            async def suspends(data: str) -> None:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                try:
                    await asyncio.sleep(0)
                finally:
                    here.notes.append("suspends")

            @here.ipc.receive("next")
            async def follows(data: str) -> None:
                await asyncio.sleep(0)
                here.notes.append("next")

            here.send("ends", "next", "suspends", "next")
            assert sorted(await here.until(4)) == ["ends", "next", "next", "suspends"]
            # As any task that cancels itself, whether it suspends behind that or not.
            while here.ipc.stats().handler_errors < 2:  # noqa: ASYNC110  # each turn of the loop is the event
                await asyncio.sleep(0)

    run(main)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "handler 'ends' was cancelled",
        "handler 'suspends' was cancelled",
    ]


def test_anyio_works_in_handlers_that_wait_and_in_such_that_do_not(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with world() as here:
            limiter = anyio.CapacityLimiter(1)

            @here.ipc.receive("group")
            async def group(data: str) -> None:
                async with limiter, anyio.create_task_group() as tasks:
                    for number in range(3):
                        tasks.start_soon(_note_later, here.notes, number)
                here.notes.append("group")

            @here.ipc.receive("moves on")
            async def moves_on(data: str) -> None:
                with anyio.move_on_after(0.001) as scope:
                    await anyio.sleep(60)
                here.notes.append(("moved on", scope.cancelled_caught))

            @here.ipc.receive("at once")
            async def at_once(data: str) -> None:
                with anyio.fail_after(60):  # noqa: ASYNC100  # for a handler that never suspends
                    here.notes.append("at once")

            here.send("group", "moves on", "at once", "group")
            notes = await here.until(10)
            assert notes[0] == "at once"
            assert notes.count("group") == 2
            assert ("moved on", True) in notes
            assert here.ipc.stats().handler_errors == 0

    run(main)


async def _note_later(notes: list[Any], number: int) -> None:
    await anyio.lowlevel.checkpoint()
    notes.append(number)


def test_a_shielded_wait_and_a_task_group_of_asyncio_work(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with world() as here:

            @here.ipc.receive("group")
            async def group(data: str) -> None:
                async with asyncio.TaskGroup() as tasks:
                    inner = tasks.create_task(asyncio.sleep(0, "inner"))
                here.notes.append(await asyncio.shield(inner))
                try:
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(_fails())
                        await asyncio.Event().wait()
                except* ValueError:
                    here.notes.append("failed")

            here.send("group")
            assert await here.until(2) == ["inner", "failed"]

    run(main)


async def _fails() -> None:
    raise ValueError("on purpose")


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def test_what_a_handler_sets_it_finds_after_each_wait_and_the_next_does_not(
    run: Callable[[Main], None],
) -> None:
    async def main() -> None:
        async with world() as here:

            @here.ipc.receive("sets")
            async def sets(data: str) -> None:
                here.notes.append(variable.get())
                variable.set("set")
                for _ in range(3):
                    await asyncio.sleep(0)
                    here.notes.append(variable.get())

            @here.ipc.receive("looks")
            async def looks(data: str) -> None:
                here.notes.append(variable.get())
                variable.set("looked")

            here.send("looks", "sets", "looks", "looks")
            notes = await here.until(7)
            assert notes[:2] == ["unset", "unset"]
            assert sorted(notes[2:]) == ["set", "set", "set", "unset", "unset"]
            assert variable.get() == "unset"

    run(main)


def test_many_handlers_that_suspend_start_in_order_within_few_turns(run: Callable[[Main], None]) -> None:
    async def main() -> None:
        async with world() as here:
            gate = asyncio.Event()
            started: list[int] = []

            @here.ipc.receive("waits")
            async def waits(number: int) -> None:
                started.append(number)
                await gate.wait()
                here.notes.append(number)

            for number in range(200):
                here.ipc.send_nowait(here.ipc.pid, "waits", number)
            for _ in range(20):
                await asyncio.sleep(0)
            assert started == list(range(200))
            gate.set()
            assert sorted(await here.until(200)) == started

    run(main)
