"""Without the launcher: the same app as a fleet of one, under whatever runs it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from asgi_ipc import IPC, NotRunningError, ipc
from tests.apps import alone
from tests.inprocess import Held
from tests.serving import Server, eventually, free_port, listens, run_python, started


def _check_everything(answer: dict[str, object]) -> None:
    assert answer == {
        "workers": 1,
        "slot": 0,
        "broadcast": 1,
        "seen": [["note", True, "to myself"], ["ask", True, "question"], ["note", True, "to all"]]
        + [["note", True, "answer to question"]],
        "unknown": "UnknownWorkerError",
        "outside": "OutsideHandlerError",
    }


def test_under_a_test_client_in_each_of_its_lifespans() -> None:
    for _ in range(2):
        with TestClient(alone.app) as client:
            _check_everything(client.get("/").json())
    with TestClient(alone.fastapi_app) as client:
        _check_everything(client.get("/").json())
        # A plain endpoint runs in a thread.
        assert client.get("/thread").json() == {"sent": True, "waiting": "NotRunningError"}


async def test_under_httpx_asgi_transport() -> None:
    transport = httpx.ASGITransport(alone.app)
    async with (
        ipc.lifespan(alone.app),
        httpx.AsyncClient(transport=transport, base_url="http://app") as client,
    ):
        _check_everything((await client.get("/")).json())


@pytest.mark.parametrize("options", [[], ["--reload", "--reload-dir", "tests/apps"]], ids=["plain", "reload"])
async def test_under_uvicorn(options: list[str]) -> None:
    port = free_port()
    command = ["-m", "uvicorn", "tests.apps.alone:app", "--port", str(port), *options]
    async with started(*command, port=port) as server:
        await server.started(1)
        await eventually(lambda: listens(port), "uvicorn listens")
        _check_everything((await server.get("/")).json())
        await server.stop()
        assert "each is alone" not in server.text


async def _is_warned(server: Server, count: int) -> None:
    lines = await server.said("each is alone", count)
    assert all("asgi-ipc serve APP --workers N" in line for line in lines)


async def test_uvicorns_own_workers_are_warned_once_that_they_are_alone() -> None:
    port = free_port()
    command = ["-m", "uvicorn", "tests.apps.alone:app", "--workers", "3", "--port", str(port)]
    async with started(*command, port=port) as server:
        await server.said("Application startup complete", 3)
        await _is_warned(server, 1)
        _check_everything((await server.get("/")).json())
        await server.stop()
        assert server.count("each is alone") == 1
        assert server.count("^WARNING: .*each is alone") == 1


async def test_gunicorns_workers_are_warned_that_they_are_alone(tmp_path: Path) -> None:
    port = free_port()
    command = ["-m", "gunicorn", "tests.apps.alone:app", "-w", "2", "-k", "uvicorn_worker.UvicornWorker"]
    async with started(*command, "-b", f"127.0.0.1:{port}", port=port) as server:
        await _is_warned(server, 2)
        _check_everything((await server.get("/")).json())
        await server.stop()


async def test_outside_the_lifespan_every_verb_says_so() -> None:
    here = IPC()
    for verb in (here.send(1, "name"), here.broadcast("name"), here.reply("name")):
        with pytest.raises(NotRunningError):
            await verb
    plain: list[Callable[[], object]] = [
        lambda: here.send_nowait(1, "name"),
        lambda: here.broadcast_nowait("name"),
        lambda: here.reply_nowait("name"),
        here.stats,
        lambda: here.workers,
        lambda: here.slot,
    ]
    for call in plain:
        with pytest.raises(NotRunningError):
            call()
    assert here.sender is None


async def test_on_another_event_loop_each_verb_says_what_to_do_instead() -> None:
    here = IPC()

    async def subscribe() -> None:
        async with here.subscribe("topic"):
            raise AssertionError("entered")

    def told(verb: Callable[[], Coroutine[Any, Any, Any]]) -> str:
        with pytest.raises(NotRunningError) as caught:
            asyncio.run(verb())
        return str(caught.value).partition("; ")[2]

    instead = "in a thread use ipc.blocking, a _nowait verb, or asyncio.run_coroutine_threadsafe()"
    verbs: list[Callable[[], Coroutine[Any, Any, Any]]] = [
        lambda: here.send(here.pid, "name"),
        lambda: here.publish("topic"),
        lambda: here.request(here.pid, "name"),
        lambda: here.send_any("name"),
        subscribe,
    ]
    async with here.lifespan():
        for verb in verbs:
            assert await asyncio.to_thread(told, verb) == instead


async def test_what_was_accepted_is_handled_before_the_lifespan_has_ended() -> None:
    own = IPC()
    seen: list[int] = []

    @own.receive("late")
    async def late(number: int) -> None:
        await asyncio.sleep(0)
        seen.append(number)
        if number == 0:
            await own.reply("late", 1000)

    async with own.lifespan():
        for number in range(500):
            own.send_nowait(own.pid, "late", number)
    assert sorted(seen) == [*range(500), 1000]
    with pytest.raises(NotRunningError):
        await own.send(own.pid, "late", 1)


async def test_a_handler_that_never_ends_is_cancelled_at_the_drain_deadline(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asgi_ipc.worker.lifespan.ORPHAN_DRAIN_TIMEOUT_S", 0.05)
    own = IPC()
    held = Held()
    own.receive("endless", held)
    with caplog.at_level(logging.WARNING, "asgi_ipc"):
        async with own.lifespan():
            await own.send(own.pid, "endless")
    assert held.cancelled.is_set()
    assert "drain timeout: 0 messages not sent, 0 not handled, 1 handlers cancelled" in caplog.text


async def test_handlers_registered_before_and_directly_behind_the_lifespan_miss_nothing() -> None:
    own = IPC()
    seen: list[str] = []
    both = asyncio.Event()

    def note(data: str) -> None:
        seen.append(data)
        if len(seen) == 2:
            both.set()

    own.receive("before", note)
    async with own.lifespan():
        own.send_nowait(own.pid, "before", "one")
        own.send_nowait(own.pid, "behind", "two")
        own.receive("behind", note)
        async with asyncio.timeout(5):
            await both.wait()
    assert seen == ["one", "two"]


def test_the_package_imports_no_web_framework() -> None:
    names = ("starlette", "fastapi", "uvicorn", "click")
    code = f"import sys, asgi_ipc; print([name for name in {names} if name in sys.modules])"
    assert run_python("-c", code).stdout.strip() == "[]"
