"""Several lifespans in one process: counted on one loop, and anywhere else the true reason why not."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.testclient import TestClient

from asgi_ipc import IPC, LifespanError, NotRunningError, UnknownWorkerError, WrongLoopError
from asgi_ipc.fleet.words import Drained
from asgi_ipc.testing import fleet
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.transport.pipes import PipeWriter
from tests.inprocess import Held, until
from tests.inprocess import fleet as inprocess
from tests.serving import serving

# --- counted


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
async def test_the_last_exit_leaves_whatever_the_order(order: tuple[int, ...]) -> None:
    own = IPC()
    seen: list[int] = []
    own.receive("note", seen.append)
    entered = [own.lifespan() for _ in order]
    for lifespan in entered:
        await lifespan.__aenter__()
    assert len(own.workers) == 1
    for number, index in enumerate(order):
        await own.send(own.pid, "note", number)
        await entered[index].__aexit__(None, None, None)
    assert seen == [0, 1, 2]
    with pytest.raises(NotRunningError):
        await own.send(own.pid, "note", 3)
    # It was a fleet of one: there can be another.
    async with own.lifespan():
        await own.send(own.pid, "note", 4)
    assert seen == [0, 1, 2, 4]


async def test_an_exception_in_one_leaves_the_other_one_in() -> None:
    own = IPC()
    async with own.lifespan():
        with pytest.raises(RuntimeError, match="mine"):
            async with own.lifespan():
                raise RuntimeError("mine")
        assert await own.broadcast("nobody") == (own.pid,)


async def test_many_tasks_enter_and_exit_at_the_same_time() -> None:
    own = IPC()
    seen: list[int] = []
    own.receive("note", seen.append)

    async def live(number: int) -> None:
        async with own.lifespan():
            for _ in range(number % 5):
                await asyncio.sleep(0)
            await own.send(own.pid, "note", number)

    async with own.lifespan():
        await asyncio.gather(*map(live, range(50)))
    assert sorted(seen) == list(range(50))


@pytest.mark.parametrize("gives_up", ["one", "both"])
async def test_a_join_that_is_given_up_goes_on_for_the_other_and_the_last_one_leaves(gives_up: str) -> None:
    async with inprocess(1) as (launcher, (there,)):
        newcomer = launcher.new(1)

        async def also() -> None:
            async with newcomer.ipc.lifespan():
                await there.ipc.broadcast("nobody")
                assert len(newcomer.ipc.workers) == 2

        # A join waits until all members know of it.
        with there.deaf():
            tasks = []
            for enter in (newcomer.enter, also):
                tasks.append(asyncio.create_task(enter()))
                await asyncio.sleep(0)
            cancelled = tasks if gives_up == "both" else tasks[:1]
            for task in cancelled:
                task.cancel()
            if gives_up == "one":
                with pytest.raises(asyncio.CancelledError):
                    await tasks[0]
                assert not tasks[1].done()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results[: len(cancelled)]] == [asyncio.CancelledError] * len(
            cancelled
        )
        assert results[len(cancelled) :] in ([], [None])
        launcher.bury(newcomer, "left")
        with pytest.raises(UnknownWorkerError):
            await there.ipc.send(newcomer.pid, "nobody")


async def test_a_member_of_a_tests_fleet_may_enter_again_too() -> None:
    async with fleet(2) as (a, b):
        async with a.lifespan():
            pass
        assert await b.broadcast("nobody") == (a.pid, b.pid)


async def test_while_it_ends_it_cannot_be_entered() -> None:
    own = IPC()
    going = asyncio.Event()

    async def last(data: object) -> None:
        with pytest.raises(LifespanError, match="is ending"):
            async with own.lifespan():
                raise AssertionError("entered")
        going.set()

    own.receive("last", last)
    async with own.lifespan():
        own.send_nowait(own.pid, "last")
    assert going.is_set()
    async with own.lifespan():
        assert len(own.workers) == 1


def test_an_app_and_an_included_router_enter_it_each() -> None:
    own = IPC()
    router = APIRouter(lifespan=own.lifespan)
    app = FastAPI(lifespan=own.lifespan)

    @router.get("/")
    async def told() -> dict[str, Any]:
        return {"told": len(await own.broadcast("nobody"))}

    app.include_router(router)
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/").json() == {"told": 1}


# --- refused


async def test_another_loop_is_told_the_true_reason_and_changes_nothing() -> None:
    own = IPC()

    async def enter() -> None:
        async with own.lifespan():
            raise AssertionError("entered")

    def elsewhere() -> None:
        with pytest.raises(WrongLoopError, match="entered on another event loop already"):
            asyncio.run(enter())

    async with own.lifespan():
        await asyncio.to_thread(elsewhere)
        assert await own.broadcast("nobody") == (own.pid,)


def test_of_two_overlapping_test_clients_the_second_is_told_why_and_one_behind_the_other_works() -> None:
    own = IPC()
    app = Starlette(lifespan=own.lifespan)
    with TestClient(app):
        with pytest.raises(WrongLoopError, match="entered on another event loop already"), TestClient(app):
            raise AssertionError("entered")
        assert len(own.workers) == 1
    with TestClient(app):
        assert len(own.workers) == 1


def test_a_loop_that_was_closed_without_leaving_is_no_obstacle() -> None:
    own = IPC()
    kept = own.lifespan()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(kept.__aenter__())
    loop.close()
    for _ in range(2):
        with TestClient(Starlette(lifespan=own.lifespan)):
            assert len(own.workers) == 1
    with pytest.raises(NotRunningError):
        _ = own.workers


def test_of_many_threads_that_enter_at_once_each_is_the_only_one_or_refused() -> None:
    own = IPC()
    together = threading.Barrier(8)
    inside: list[int] = []
    refused: list[str] = []
    wrong: list[BaseException] = []

    async def enter() -> None:
        async with own.lifespan():
            inside.append(1)
            if len(inside) > 1:
                wrong.append(AssertionError("two loops are in"))
            await own.broadcast("nobody")
            inside.pop()

    def run() -> None:
        together.wait(30)
        for _ in range(20):
            try:
                asyncio.run(enter())
            except LifespanError as error:
                refused.append(str(error))
            except BaseException as error:  # noqa: BLE001  # it is what is looked for
                wrong.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all("another event loop" in text for text in refused)


@pytest.mark.parametrize(
    ("app", "error"),
    [
        ("divided", "SecondIPCError: one IPC per process: another IPC() has entered"),
        ("elsewhere", "WrongLoopError: ipc.lifespan is entered on another event loop than the server's"),
    ],
)
async def test_a_worker_says_why_a_lifespan_can_not_be_entered(app: str, error: str) -> None:
    async with serving(f"tests.apps.wrapped:{app}", "--lifespan", "on", workers=1) as server:
        assert await server.ended() == 3
        assert error in server.text
        assert "has left the fleet" not in server.text


# --- cancelled


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """What leaves have warned of so far."""
    with caplog.at_level(logging.WARNING, "asgi_ipc"):
        yield lambda: "".join(text for text in caplog.messages if "not sent" in text)


def cancelled_leave(*, unhandled: int = 0, cancelled: int) -> str:
    """The warning of a cancelled leave that has sent everything."""
    counts = f"0 messages not sent, {unhandled} not handled, {cancelled} handlers cancelled"
    return f"leave cancelled by the app: {counts}"


async def is_leaving(own: IPC) -> None:
    await until(lambda: own._own.is_entered and own._own.endpoint.departing.is_set())


async def test_a_leave_that_is_cancelled_with_nothing_to_lose_is_clean(warnings: Callable[[], str]) -> None:
    own = IPC()
    with anyio.CancelScope() as scope:
        async with own.lifespan():
            scope.cancel()
            await asyncio.sleep(0)
    assert warnings() == ""
    with pytest.raises(NotRunningError):
        _ = own.workers


async def test_a_cancel_at_every_turn_still_finds_all_counted_and_closed(warnings: Callable[[], str]) -> None:
    own = IPC()
    held = Held()
    own.receive("held", held)
    with anyio.move_on_after(0.05):
        async with own.lifespan():
            await own.broadcast("held")
    assert held.cancelled.is_set()
    assert warnings() == cancelled_leave(cancelled=1)
    with pytest.raises(NotRunningError):
        _ = own.workers
    async with own.lifespan():
        assert len(own.workers) == 1


async def test_a_cancel_while_the_leaders_task_ends_is_a_cancelled_leave_too(
    warnings: Callable[[], str],
) -> None:
    own = IPC()
    leading, ending = asyncio.Event(), asyncio.Event()

    @own.leader_task
    async def lead() -> None:
        leading.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await asyncio.sleep(0.05)

    own.receive("held", Held())

    async def live() -> None:
        async with own.lifespan():
            await own.broadcast("held")
            await leading.wait()

    task = asyncio.create_task(live())
    await ending.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert warnings() == cancelled_leave(cancelled=1)


async def test_a_cancelled_leave_counts_what_was_not_sent_tells_the_launcher_and_closes_everything(
    warnings: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Drained] = []
    send = Lifeline.send

    def listen(lifeline: Lifeline, word: Any) -> None:
        if isinstance(word, Drained):
            said.append(word)
        send(lifeline, word)

    monkeypatch.setattr(Lifeline, "send", listen)
    async with inprocess(2, has_arena=False) as (launcher, (leaver, stopped)):
        told: list[Any] = []
        stopped.ipc.on_leave(lambda *news: told.append(news))
        stopped.stop_reading()
        for _ in range(3):
            await leaver.ipc.send(stopped.pid, "nobody", bytes(1024 * 1024))
        endpoint = leaver.endpoint
        writer = endpoint.outgoing.peers.meant_by(stopped.pid).writer
        task = asyncio.create_task(leaver.leave())
        await endpoint.departing.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        counts = r"(\d+) messages not sent, 0 not handled, 0 handlers cancelled"
        (unsent,) = re.findall(f"leave cancelled by the app: {counts}", warnings())
        assert 2 <= int(unsent) <= 3
        assert leaver.ipc.stats().dropped == {"lost": int(unsent)}
        assert said == [Drained(False, int(unsent), 0, cancelled=True)]
        assert isinstance(writer, PipeWriter)
        assert not writer.is_open
        assert not endpoint.incoming._reader.is_open
        launcher.bury(leaver, "cancelled")
        stopped.go_on_reading()
        await until(lambda: bool(told))


async def test_messages_that_wait_behind_a_cancelled_leave_are_counted(warnings: Callable[[], str]) -> None:
    own = IPC()
    own.receive("held", Held(), ordered=True)

    async def live() -> None:
        async with own.lifespan():
            for _ in range(10):
                await own.send(own.pid, "held")

    task = asyncio.create_task(live())
    await is_leaving(own)
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert warnings() == cancelled_leave(unhandled=9, cancelled=1)
    assert own.stats().dropped == {"unhandled": 9}


def test_a_loop_that_ends_counts_the_handlers_that_it_cancels_itself(warnings: Callable[[], str]) -> None:
    own = IPC()
    own.receive("held", Held())

    async def live() -> None:
        async with own.lifespan():
            for _ in range(20):
                await own.send(own.pid, "held")

    async def main() -> None:
        task = asyncio.create_task(live())
        await is_leaving(own)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(main())
    assert warnings() == cancelled_leave(cancelled=20)
