"""`ipc.blocking`: the awaited verbs from threads; no deadlock, and no thread that waits for ever."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from asgi_ipc import (
    IPC,
    InvalidNameError,
    NoHandlerError,
    NotRunningError,
    OutsideHandlerError,
    RemoteError,
    RequestTimeoutError,
)
from asgi_ipc.testing import fleet
from tests.serving import DEADLINE_S, run_python, serving


async def test_every_verb_works_from_a_thread_as_on_the_loop() -> None:
    async with fleet(3) as members:
        a, b, c = members
        noted: list[Any] = []
        for member in members:
            member.receive("note", lambda data, member=member: noted.append((member.pid, data)))
            member.receive("double", lambda number: number * 2)

        def work() -> None:
            a.blocking.send(b.pid, "note", "sent")
            assert a.blocking.broadcast("note", "all", include_self=False) == (b.pid, c.pid)
            assert a.blocking.request(c.pid, "double", 21) == 42
            assert a.blocking.gather("double", 4) == {a.pid: 8, b.pid: 8, c.pid: 8}
            assert a.blocking.send_any("note", "any") in (a.pid, b.pid, c.pid)
            assert a.blocking.publish("topic", "news") == ()

        await asyncio.to_thread(work)
        await members.settled()
        assert noted[0] == (b.pid, "sent")
        assert sorted(noted[1:3]) == [(b.pid, "all"), (c.pid, "all")]
        assert [data for _, data in noted[3:]] == ["any"]


async def test_a_handlers_thread_knows_its_sender_and_replies() -> None:
    async with fleet(2) as members:
        a, b = members
        seen: list[Any] = []
        a.receive("answer", lambda data: seen.append((a.sender, data)))

        def work(data: str) -> None:
            b.blocking.reply("answer", [b.sender, data])

        async def ask(data: str) -> None:
            await asyncio.to_thread(work, data)

        b.receive("ask", ask)
        await a.send(b.pid, "ask", "question")
        while not seen:
            await members.settled()
            await asyncio.sleep(0)
        assert seen == [(b.pid, [a.pid, "question"])]
        with pytest.raises(OutsideHandlerError):
            await asyncio.to_thread(a.blocking.reply, "answer")


async def test_a_thousand_calls_from_many_threads_all_arrive_in_the_order_of_each_thread() -> None:
    async with fleet(2) as members:
        a, b = members
        noted: list[list[int]] = []
        b.receive("note", noted.append)

        def work(thread: int) -> None:
            for number in range(125):
                a.blocking.send(b.pid, "note", [thread, number])

        await asyncio.gather(*(asyncio.to_thread(work, thread) for thread in range(8)))
        await members.settled()
    for thread in range(8):
        assert [number for which, number in noted if which == thread] == list(range(125))


# --- errors


async def never(data: object) -> None:
    await asyncio.Event().wait()


VERBS: dict[str, Callable[[IPC], Any]] = {
    "send": lambda own: own.blocking.send(1, "name"),
    "broadcast": lambda own: own.blocking.broadcast("name"),
    "reply": lambda own: own.blocking.reply("name"),
    "request": lambda own: own.blocking.request(1, "name"),
    "gather": lambda own: own.blocking.gather("name"),
    "send_any": lambda own: own.blocking.send_any("name"),
    "publish": lambda own: own.blocking.publish("name"),
}


@pytest.mark.parametrize("name", VERBS)
async def test_outside_of_the_lifespan_and_on_its_loop_it_says_so(name: str) -> None:
    own = IPC()
    with pytest.raises(NotRunningError, match="is not entered"):
        await asyncio.to_thread(VERBS[name], own)
    async with own.lifespan():
        with pytest.raises(NotRunningError) as caught:
            VERBS[name](own)
    assert str(caught.value) == (
        f"ipc.blocking.{name}() would block the event loop that it waits for; here use `await ipc.{name}()`"
    )
    with pytest.raises(NotRunningError, match="is not entered"):
        VERBS[name](own)


async def test_errors_and_bounds_are_those_of_the_verb() -> None:
    async with fleet(2) as (a, b):

        def fails(data: object) -> None:
            raise ValueError("wrong")

        b.receive("never", never)
        b.receive("fails", fails)

        def work() -> None:
            with pytest.raises(NoHandlerError):
                a.blocking.request(b.pid, "nobody")
            with pytest.raises(RemoteError, match="wrong"):
                a.blocking.request(b.pid, "fails")
            with pytest.raises(InvalidNameError):
                a.blocking.send(b.pid, "")
            with pytest.raises(TypeError):
                a.blocking.send(b.pid, "name", object())  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="a timeout is a number of seconds"):
                a.blocking.send(b.pid, "name", timeout=-1)
            began = time.monotonic()
            with pytest.raises(RequestTimeoutError):
                a.blocking.request(b.pid, "never", timeout=0.1)
            silent = a.blocking.gather("never", timeout=0.1, include_self=False)
            assert isinstance(silent.errors[b.pid], RequestTimeoutError)
            assert 0.2 <= time.monotonic() - began < DEADLINE_S

        await asyncio.to_thread(work)


async def test_what_waits_for_a_loop_that_stands_still_has_used_its_time() -> None:
    own = IPC()
    own.receive("never", never)
    calling = threading.Event()
    took: list[float] = []

    def work() -> None:
        calling.set()
        began = time.monotonic()
        with pytest.raises(RequestTimeoutError):
            own.blocking.request(own.pid, "never", timeout=0.3)
        took.append(time.monotonic() - began)

    async with own.lifespan():
        thread = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.sleep(0)
        calling.wait(DEADLINE_S)
        # The loop itself is blocked, longer than the call may take.
        threading.Event().wait(0.4)
        began = time.monotonic()
        await thread
        assert time.monotonic() - began < 0.25


async def test_a_loop_that_waits_for_the_very_thread_is_given_up_and_nothing_is_sent() -> None:
    own = IPC()
    seen: list[object] = []
    own.receive("note", seen.append)
    told: list[str] = []

    def work() -> None:
        with pytest.raises(NotRunningError) as caught:
            own.blocking.send(own.pid, "note", "too late", timeout=0.1)
        told.append(str(caught.value))

    async with own.lifespan():
        thread = threading.Thread(target=work)
        thread.start()
        # A deadlock, but for the bound.
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        await own.send(own.pid, "note", "in time")
    assert told == ["the event loop stands still: ipc.blocking.send() waited 0.1 s; nothing was sent"]
    assert seen == ["in time"]


async def test_a_test_client_in_a_thread_acts_as_a_member() -> None:
    like = IPC()
    like.receive("who", lambda data: like.pid)
    app = FastAPI(lifespan=like.lifespan)

    @app.get("/")
    def everybody() -> list[int]:
        return list(like.blocking.gather("who"))

    def get() -> Any:
        with TestClient(app) as client:
            return client.get("/").json()

    async with fleet(2, like=like) as members:
        with members.acting(members[1]):
            assert await asyncio.to_thread(get) == [member.pid for member in members]


# --- ends


async def test_the_end_of_the_lifespan_ends_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    own = IPC()
    asked = asyncio.Event()

    async def never(data: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    own.receive("never", never)

    def work() -> None:
        with pytest.raises((NotRunningError, RemoteError)):
            own.blocking.request(own.pid, "never", timeout=None)

    monkeypatch.setattr("asgi_ipc.worker.lifespan.ORPHAN_DRAIN_TIMEOUT_S", 0.05)
    async with own.lifespan():
        thread = asyncio.create_task(asyncio.to_thread(work))
        await asked.wait()
    await thread


def test_a_loop_that_cancels_all_when_it_ends_ends_what_waits() -> None:
    own = IPC()
    lifespan = own.lifespan()

    async def main() -> Future[Any]:
        begun = asyncio.Event()

        async def never(data: object) -> None:
            begun.set()
            await asyncio.Event().wait()

        own.receive("never", never)
        await lifespan.__aenter__()
        waiting = pool.submit(own.blocking.request, own.pid, "never", timeout=None)
        await begun.wait()
        return waiting

    with ThreadPoolExecutor() as pool:
        waiting = asyncio.run(main())
        assert isinstance(waiting.exception(DEADLINE_S), NotRunningError | RemoteError)


INTERRUPTED = """
import asyncio, os, signal, sys, threading
from asgi_ipc import ipc

withdrawn = threading.Event()

@ipc.receive("never")
async def never(data):
    # The main thread waits in its call.
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await asyncio.Event().wait()
    finally:
        withdrawn.set()

ready, over = threading.Event(), threading.Event()

async def live():
    async with ipc.lifespan():
        ready.set()
        while not over.is_set():
            await asyncio.sleep(0.01)

thread = threading.Thread(target=asyncio.run, args=(live(),))
thread.start()
ready.wait()
try:
    ipc.blocking.request(ipc.pid, "never", timeout=None)
except KeyboardInterrupt:
    # The question has been withdrawn: the handler there is cancelled.
    print("interrupted", withdrawn.wait(20))
over.set()
thread.join()
"""


def test_an_interrupt_ends_the_wait_and_withdraws_the_question() -> None:
    said = run_python("-W", "error", "-c", INTERRUPTED)
    assert said.stdout == "interrupted True\n", said.stderr
    assert said.returncode == 0


ABANDONED = """
import asyncio, threading
from asgi_ipc import ipc

loop = asyncio.new_event_loop()
lifespan = ipc.lifespan()
loop.run_until_complete(lifespan.__aenter__())
said = []

def work():
    try:
        ipc.blocking.gather("nobody", timeout=None)
    except BaseException as error:
        said.append(repr(error))

thread = threading.Thread(target=work)
thread.start()
# The call has been made, and the loop does not turn again: it is closed without a word.
while not loop._ready:
    pass
loop.close()
thread.join(20)
print(thread.is_alive(), *said)
import os; os._exit(0)
"""


def test_a_loop_that_is_closed_without_a_word_is_noticed() -> None:
    said = run_python("-c", ABANDONED)
    assert said.stdout == "False NotRunningError('the event loop is closed')\n", said.stderr
    assert said.stderr == ""


# --- where it is for


async def test_plain_routes_of_three_workers_ask_all_of_them_and_stop_with_status_0() -> None:
    async with serving("tests.apps.blocking:app", workers=3) as server:
        pids = await server.started(3)
        answers = await asyncio.gather(*(server.get("/") for _ in range(60)))
        for answer in answers:
            assert sorted(answer.json()["answers"]) == sorted(pids)
        assert await server.stop() == 0
        assert "Traceback" not in server.text


async def test_a_route_that_asks_while_its_worker_stops_has_its_answer() -> None:
    async with serving("tests.apps.blocking:app", workers=2) as server:
        pids = await server.started(2)
        slow = asyncio.create_task(server.get("/slow"))
        await server.said("asked", 2)
        server.signal(signal.SIGTERM)
        assert sorted((await slow).json()["answers"]) == sorted(pids)
        assert await server.ended() == 0
