"""Any ASGI app: what was accepted is delivered whatever the app says, and `ipc.wrap` by the specification."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from asgi_ipc import IPC, NotRunningError, WrongLoopError
from tests.apps import wrapped
from tests.serving import Server, free_port, serving, started


async def at_work(server: Server, workers: int) -> list[int]:
    """Broadcast a job, which begins in every worker; their pids."""
    pids = await server.started(workers)
    assert len((await server.get("/job")).json()) == workers
    await server.said("job begins", workers)
    return pids


async def drained(server: Server, workers: int = 3) -> None:
    """Broadcast a job; SIGTERM while it runs: it ends in every worker, and so does the server."""
    await at_work(server, workers)
    assert await server.stop() == 0, server.text
    assert server.count("job ends") == workers, server.text
    assert not server.found("drain timeout|leave cancelled|Traceback|inside of ipc.lifespan"), server.text


# --- the worker waits for the drain


async def test_a_wrapper_written_by_hand_loses_nothing_when_the_launcher_is_killed() -> None:
    async with serving("tests.apps.wrapped:by_hand", workers=3, env={"JOB_S": "1.5"}) as server:
        await at_work(server, 3)
        server.signal(signal.SIGKILL)
        # All output is read: its workers have ended, too.
        await server.ended()
        assert server.count("job ends") == 3
        assert not server.found("drain timeout|leave cancelled|inside of ipc.lifespan")


async def test_an_app_that_never_leaves_the_lifespan_is_left_for_it_and_that_is_said() -> None:
    async with serving("tests.apps.wrapped:staying", workers=2, env={"JOB_S": "1.5"}) as server:
        await at_work(server, 2)
        assert await server.stop() == 0
        assert server.count("job ends") == 2
        assert server.count("has ended inside of ipc.lifespan; leaving it") == 2
        assert not server.found("drain timeout|leave cancelled")


async def test_a_cancelled_leave_says_so_and_counts_and_the_others_are_told() -> None:
    async with serving("tests.apps.wrapped:impatient", workers=2, env={"JOB_S": "30"}) as server:
        pids = await at_work(server, 2)
        # One is scaled down; the other one lives.
        server.signal(signal.SIGTTOU)
        (line,) = await server.said("told that .* has gone")
        gone, reason = re.findall(r"told that (\d+) has gone: (\w+)", line)[0]
        assert int(gone) in pids
        assert reason == "cancelled"
        assert await server.stop() == 0
        assert server.count("job ends") == 0
        counts = "0 messages not sent, 0 not handled, 1 handlers cancelled"
        assert server.count(f"leave cancelled by the app: {counts}") == 2
        for pid in pids:
            assert server.count(
                rf"Worker \[{pid}\] had its leave cancelled by the app with 0 messages not sent and 0 not"
            )
        assert not server.found("drain timeout")


async def test_under_plain_uvicorn_a_wrapped_app_drains_too() -> None:
    port = free_port()
    command = ["-m", "uvicorn", "tests.apps.wrapped:wrapped_in_code", "--port", str(port)]
    async with started(*command, port=port) as server:
        await server.said("Uvicorn running on")
        assert len((await server.get("/job")).json()) == 1
        await server.said("job begins")
        await server.stop()
        assert server.count("job ends") == 1


# --- --wrap and ipc.wrap, in real servers

WHOLE = ["tests.apps.wrapped:whole", "--wrap"]


@pytest.mark.parametrize(
    "arguments",
    [
        WHOLE,
        ["tests.apps.wrapped:answer", "--wrap"],
        ["tests.apps.wrapped:answer", "--wrap", "--lifespan", "off"],
        ["tests.apps.wrapped:factory", "--wrap", "--factory"],
        ["tests.apps.wrapped:silent", "--wrap"],
        pytest.param(["tests.apps.wrapped:naive", "--wrap"], marks=pytest.mark.slow),
        pytest.param(["tests.apps.wrapped:brief", "--wrap"], marks=pytest.mark.slow),
        ["tests.apps.wrapped:member", "--wrap"],
        ["tests.apps.wrapped:by_hand"],
        pytest.param(["tests.apps.wrapped:by_hand", "--wrap"], marks=pytest.mark.slow),
        ["tests.apps.wrapped:wrapped_in_code"],
        ["tests.apps.wrapped:routed"],
        pytest.param(["tests.apps.wrapped:wrapped_in_code", "--wrap"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
async def test_every_kind_of_app_serves_and_drains(arguments: list[str]) -> None:
    async with serving(*arguments, workers=2) as server:
        await drained(server, 2)


async def test_a_wsgi_app_is_wrapped_and_sends_from_its_threads() -> None:
    async with serving("tests.apps.wrapped:wsgi", "--wrap", "--interface", "wsgi", workers=2) as server:
        pids = await server.started(2)
        answer = (await server.get("/")).json()
        assert answer["workers"] == 2
        assert sorted(answer["told"]) == sorted(pids)
        await server.said("job begins", 2)
        assert await server.stop() == 0
        assert server.count("job ends") == 2


async def test_an_app_that_crashes_behind_its_startup_is_served_on_and_that_is_told() -> None:
    async with serving("tests.apps.wrapped:crashing", "--wrap", workers=2) as server:
        await server.started(2)
        assert (await server.get("/")).json()["workers"] == 2
        assert await server.stop() == 0
        assert server.count("the app's lifespan has ended before the server") == 2
        assert server.count("RuntimeError: crashed behind its startup") == 2


@pytest.mark.parametrize(
    ("app", "options", "reason"),
    [
        ("failing", [], "no database"),
        ("refusing", [], "no database"),
        ("answer", ["--lifespan", "on"], "can only handle HTTP, not lifespan"),
        # Wrapped, it would join a second time.
        (
            "by_hand_in_vain",
            [],
            "LifespanError: this worker process has left the fleet: ipc.lifespan was entered",
        ),
    ],
)
async def test_a_startup_that_fails_ends_the_start_with_its_reason(
    app: str, options: list[str], reason: str
) -> None:
    async with serving(f"tests.apps.wrapped:{app}", "--wrap", *options, workers=2) as server:
        assert await server.ended() == 3
        assert reason in server.text
        assert not server.found("GET|Application startup complete")


async def test_handlers_run_between_the_apps_own_startup_and_shutdown() -> None:
    async with serving(*WHOLE, workers=2) as server:
        await server.started(2)
        assert (await server.get("/")).json() == {"workers": 2, "state": "hello"}
        await server.get("/job")
        await server.said("job begins", 2)
        assert await server.stop() == 0
        for pid in {line.split("[")[1] for line in server.found("job ends")}:
            lines = [line for line in server.lines if line.endswith(f"[{pid}")]
            order = [line for line in lines if re.match("app starts|job|app ends", line)]
            assert [line.rsplit(" ", 1)[0] for line in order] == [
                "app starts",
                "job begins",
                "job ends",
                "app ends: NotRunningError",
            ]


async def test_an_app_that_enters_the_lifespan_itself_decides_when_it_ends() -> None:
    async with serving("tests.apps.wrapped:member", "--wrap", workers=1) as server:
        await server.started(1)
        await server.get("/job")
        await server.said("job begins")
        assert await server.stop() == 0
        order = [line.split(" [")[0] for line in server.lines if re.match("app ends|app has|job ends", line)]
        assert order == ["app ends", "job ends", "app has left"]


async def test_an_app_without_the_lifespan_is_told_all_three_ways() -> None:
    async with serving("tests.apps.plain:app", "--lifespan", "off", workers=1) as server:
        (line,) = await server.said("has not entered ipc.lifespan")
        for way in ("lifespan=ipc.lifespan", "async with ipc.lifespan(app)", "ipc.wrap(app)", "--wrap"):
            assert way in line
        assert "(--lifespan off)" in line


async def test_an_app_that_has_left_before_it_is_ready_is_told_what_to_do() -> None:
    async with serving("tests.apps.wrapped:by_hand_in_vain", workers=1) as server:
        (line,) = await server.said("has left ipc.lifespan before it was ready")
        assert "ipc.wrap(app)" in line


async def test_wrap_is_an_option_of_run_too(tmp_path: Path) -> None:
    port = free_port()
    script = tmp_path / "script.py"
    script.write_text(
        "import asgi_ipc\n"
        "if __name__ == '__main__':\n"
        f"    asgi_ipc.run('tests.apps.wrapped:answer', workers=2, port={port}, wrap=True)\n"
    )
    async with started(str(script), port=port) as server:
        await server.started(2)
        assert (await server.get("/")).json()["workers"] == 2


# --- without a server: the words of the specification


class Talk:
    """A server's side of one lifespan."""

    def __init__(self, *events: str) -> None:
        self.events = [{"type": f"lifespan.{event}"} for event in events]
        self.said: list[Any] = []

    async def receive(self) -> Any:
        return self.events.pop(0)

    async def send(self, event: Any) -> None:
        self.said.append(event)

    async def with_app(self, app: Any, own: IPC) -> list[str]:
        await own.wrap(app)({"type": "lifespan", "state": {}}, self.receive, self.send)
        return [event["type"].removeprefix("lifespan.") for event in self.said]


@pytest.mark.parametrize(
    "app", [wrapped.answer, wrapped.whole, wrapped.silent, wrapped.naive, wrapped.brief, wrapped.crashing]
)
async def test_a_server_hears_that_the_startup_and_the_shutdown_are_complete_once_each(app: Any) -> None:
    own = IPC()
    talk = Talk("startup", "shutdown")
    assert await talk.with_app(app, own) == ["startup.complete", "shutdown.complete"]
    assert not talk.events
    with pytest.raises(NotRunningError):
        _ = own.workers


async def test_what_is_no_lifespan_event_passes_through_unchanged() -> None:
    seen: list[Any] = []

    async def app(*arguments: Any) -> None:
        seen.append(arguments)

    given = ({"type": "websocket"}, object(), object())
    await IPC().wrap(app)(*given)  # type: ignore[arg-type]
    assert all(mine is theirs for mine, theirs in zip(seen[0], given, strict=True))


async def test_a_failed_startup_reaches_the_server_as_it_was_said_and_enters_nothing() -> None:
    talk = Talk("startup")
    assert await talk.with_app(wrapped.refusing, IPC()) == ["startup.failed"]
    assert talk.said[0]["message"] == "no database"
    talk = Talk("startup")
    with pytest.raises(RuntimeError, match="no database"):
        await talk.with_app(wrapped.failing, IPC())
    (said,) = talk.said
    assert said["type"] == "lifespan.startup.failed"
    assert "RuntimeError: no database" in said["message"]


async def test_an_exception_of_the_apps_shutdown_is_the_servers_and_the_fleet_is_left() -> None:
    own = IPC()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        assert len(own.workers) == 1
        await receive()
        raise RuntimeError("in its shutdown")

    talk = Talk("startup", "shutdown")
    with pytest.raises(RuntimeError, match="in its shutdown"):
        await talk.with_app(app, own)
    with pytest.raises(NotRunningError):
        _ = own.workers


@pytest.mark.parametrize("app", [wrapped.answer, wrapped.silent, wrapped.whole, Starlette()])
async def test_a_lifespan_that_cannot_be_entered_fails_the_startup_once(app: Any) -> None:
    own = IPC()
    talk = Talk("startup")
    async with own.lifespan():
        with pytest.raises(WrongLoopError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, talk.with_app(app, own))
    (said,) = talk.said
    assert said["type"] == "lifespan.startup.failed"
    assert "WrongLoopError: ipc.lifespan is entered on another event loop" in said["message"]


def test_a_test_client_and_an_app_in_an_app_work_with_it() -> None:
    own = IPC()

    async def workers(request: Any) -> Any:
        return JSONResponse(len(own.workers))

    app = own.wrap(Starlette(routes=[Route("/", workers)]))
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/").json() == 1


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="an ASGI app can be called, and str can't"):
        IPC().wrap("module:app")  # type: ignore[arg-type]
