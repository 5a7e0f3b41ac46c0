"""Calls: what an async handler may rely on, as in a task of its own, on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import pytest_asyncio
import uvloop

from asgi_ipc import IPC
from tests.inprocess import until

# Each test runs on both; see conftest.py.
LOOP_FACTORIES = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class World:
    """One worker that sends itself messages, and what its handlers have noted."""

    def __init__(self) -> None:
        self.ipc = IPC()
        self.notes: list[Any] = []

    def send(self, *names: str) -> None:
        for name in names:
            self.ipc.send_nowait(self.ipc.pid, name, name)

    async def until(self, count: int) -> list[Any]:
        await until(lambda: len(self.notes) >= count)
        return self.notes


@pytest_asyncio.fixture
async def here() -> AsyncIterator[World]:
    world = World()
    async with world.ipc.lifespan():
        yield world


async def test_a_timeout_in_a_handler_ends_its_wait_and_nobody_elses(here: World) -> None:
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


async def test_the_task_is_the_same_before_and_after_a_wait_and_another_for_each_that_waits(
    here: World,
) -> None:
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


async def test_whoever_keeps_the_task_of_a_handler_can_not_cancel_the_next(here: World) -> None:
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


async def test_a_handler_that_cancels_itself_cancels_no_other(
    here: World, caplog: pytest.LogCaptureFixture
) -> None:
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
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "handler 'ends' was cancelled",
        "handler 'suspends' was cancelled",
    ]


async def test_anyio_works_in_handlers_that_wait_and_in_such_that_do_not(here: World) -> None:
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


async def _note_later(notes: list[Any], number: int) -> None:
    await anyio.lowlevel.checkpoint()
    notes.append(number)


async def test_a_shielded_wait_and_a_task_group_of_asyncio_work(here: World) -> None:
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


async def _fails() -> None:
    raise ValueError("on purpose")


async def test_many_handlers_that_suspend_start_in_order_within_few_turns(here: World) -> None:
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
