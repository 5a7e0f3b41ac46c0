"""The launcher: signals, restarts, deaths and its own end, with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from asgi_ipc.fleet.settings import Settings
from asgi_ipc.fleet.slots import STALLED_AFTER_S, Policy
from asgi_ipc.fleet.words import Interpreter
from asgi_ipc.launcher.launcher import LATE_S, Launch, Launcher
from asgi_ipc.testing.child import is_running
from tests.faults.oracle import judge
from tests.puppets import puppets
from tests.serving import DEADLINE_S, RESTARTED, binds, eventually, serving


async def test_what_a_turn_has_made_possible_is_done_in_the_next_one() -> None:
    """A word that is written may let another go, with no event in between, and none for a second behind."""
    launcher = Launcher(Launch(Policy(1, 1.0), (), Settings(cookie=b"12345678"), Interpreter([]), {}))
    launcher._loop = asyncio.get_running_loop()
    launcher._wake.set()
    async with asyncio.timeout(DEADLINE_S):
        await launcher._turn()


async def test_a_killed_worker_is_replaced_in_its_slot_and_removed_everywhere(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=3) as (strings, (a, b, c)):
        os.kill(b, signal.SIGKILL)
        await strings.server.said(rf"Worker \[{b}\] died: it was killed by SIGKILL; starting another")
        await strings.server.said("Application startup complete", 4)
        for pid in (a, c):
            members = await strings.call(pid, "members", 3)
            assert [slot for _, slot, _ in members] == [0, 1, 2]
            assert [generation for _, _, generation in members] == [1, 4, 3]
            assert b not in [member for member, _, _ in members]


async def test_a_worker_that_says_what_is_no_word_is_ended_and_the_others_go_on(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=2) as (strings, (a, b)):
        with suppress(ConnectionError):  # it may be gone before it has answered
            await strings.call(b, "babble")
        await strings.server.said(rf"Worker \[{b}\] sent bytes that are no word")
        await strings.server.said("Application startup complete", 3)
        members = await strings.call(a, "members", 2)
        assert b not in [pid for pid, _, _ in members]


async def test_one_worker_is_supervised_too(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=1) as (strings, (only,)):
        os.kill(only, signal.SIGKILL)
        await strings.server.said("Application startup complete", 2)
        (successor,) = strings.server.workers()
        assert successor != only
        assert (await strings.server.get("/")).json() == {"pid": successor, "workers": [successor]}


async def test_restarts_asked_for_during_a_restart_become_one_more(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=2) as (strings, pids):
        server = strings.server
        server.signal(signal.SIGHUP)
        await server.said("Received SIGHUP")
        # The kernel may merge these while they are pending; at least one arrives.
        for _ in range(5):
            server.signal(signal.SIGHUP)
        await server.said(RESTARTED, 2)
        await eventually(lambda: len(server.workers()) == 2, "the old ones have gone")
        assert not {*pids} & {*server.workers()}
        # Two rounds of two workers, and not one start more.
        assert server.count("Started server process") == 6


async def test_scaling_is_counted_up_and_down_to_one(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=2) as (strings, (a, b)):
        server = strings.server
        # One at a time: the kernel merges equal signals that are pending.
        for size in (3, 4, 5):
            await server.more(size)
        await server.said("Application startup complete", 5)
        assert len(await strings.call(a, "members", 5)) == 5
        for size in (4, 3, 2, 1):
            await server.fewer(size)
        server.signal(signal.SIGTTOU)
        await server.said("One worker is left")
        assert await strings.call(a, "members", 1) == [(a, 0, 1)]
        await eventually(lambda: server.workers() == [a], "the others have gone")
        assert not is_running(b)
        assert "drain timeout" not in server.text


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGINT, signal.SIGTERM)])
async def test_ctrl_c_to_the_whole_group_is_one_clean_stop(
    signals: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    async with puppets(tmp_path, workers=3) as (strings, pids):
        for each in signals:
            os.killpg(strings.server.pid, each)
        assert await strings.server.ended() == 0
        assert "Traceback" not in strings.server.text
        assert "KeyboardInterrupt" not in strings.server.text
        assert not any(map(is_running, pids))


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=2) as (strings, (a, b)):
        await strings.call(a, "send", b, "block", 60.0)
        strings.server.signal(signal.SIGTERM)
        await strings.server.said("Received SIGTERM, exiting")
        assert await strings.server.stop() == 128 + signal.SIGTERM
        assert not any(map(is_running, (a, b)))


async def test_a_killed_launcher_leaves_no_orphan_and_a_free_port(tmp_path: Path) -> None:
    env = {"TRAFFIC_FOLDER": str(tmp_path)}
    async with serving("tests.apps.traffic:app", "--no-access-log", workers=3, env=env) as server:
        pids = await server.started(3)
        os.kill(server.pid, signal.SIGKILL)
        await eventually(lambda: not any(map(is_running, pids)), "the workers have ended")
        assert binds(server.port)
    verdict = judge(tmp_path)
    assert verdict.faults == []
    assert len(verdict.left) == 3
    assert verdict.missing == {}


async def test_a_killed_launcher_ends_a_worker_whose_loop_is_blocked(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=2) as (strings, (a, b)):
        await strings.call(a, "send", b, "block", 60.0)
        os.kill(strings.server.pid, signal.SIGKILL)
        await eventually(lambda: not is_running(a), "the healthy worker has ended")
        await eventually(lambda: not is_running(b), "the blocked worker has been ended by its guard")


async def test_a_blocked_loop_is_told_and_told_again_when_it_turns(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=2) as (strings, (a, b)):
        await strings.call(a, "send", b, "block", 6.0)
        (line,) = await strings.server.said("stalled")
        assert f"[{b}]" in line
        await strings.call(a, "send", a, "note", "unmoved")
        await strings.call(a, "received", 1)
        await strings.server.said(rf"Worker \[{b}\] responds again")


async def test_the_launchers_own_pause_makes_no_worker_stalled(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=1) as (strings, [a]):
        # A pause that ends just after the worker would have been due to be judged: too short to be noticed
        # by its length, and what the worker has said meanwhile is unread.
        since_beat_s = await strings.call(a, "since_beat")
        strings.server.signal(signal.SIGSTOP)
        await asyncio.sleep(STALLED_AFTER_S - since_beat_s + LATE_S / 2)  # the fault is this pause
        strings.server.signal(signal.SIGCONT)
        # What is asked for now is done behind what was due before.
        await strings.server.more(2)
        assert not strings.server.found("stalled")


async def test_a_worker_that_has_served_its_requests_is_replaced_before_it_stops(tmp_path: Path) -> None:
    async with puppets(tmp_path, "--limit-max-requests", "3", workers=1) as (strings, (first,)):
        answers = [(await strings.server.get("/")).json()["pid"] for _ in range(3)]
        assert answers == [first] * 3
        await strings.server.said("Application startup complete", 2)
        assert (await strings.server.get("/")).status_code == 200
        await eventually(lambda: not is_running(first), "the first has gone")
        assert strings.server.count("died") == 0


async def test_an_open_stream_holds_up_neither_the_fleet_nor_the_signals(tmp_path: Path) -> None:
    env = {"PUPPET_FOLDER": str(tmp_path)}
    async with serving("tests.apps.stream:app", workers=2, env=env) as server:
        pids = await server.started(2)
        async with (
            httpx.AsyncClient(timeout=DEADLINE_S) as client,
            client.stream("GET", f"http://127.0.0.1:{server.port}/stream") as response,
        ):
            lines = response.aiter_lines()
            holder = int((await anext(lines)).split()[0])
            server.signal(signal.SIGHUP)
            await server.said("All 2 workers are ready", 2)
            # The one with the open stream goes on with it, the other has gone, and signals are heard.
            (other,) = {*pids} - {holder}
            await eventually(lambda: not is_running(other), "the other old one has gone")
            assert int((await anext(lines)).split()[0]) == holder
            assert not server.count(RESTARTED)
            await server.more(3)
            server.signal(signal.SIGTERM)
            await server.said("Received SIGTERM")
            server.signal(signal.SIGTERM)
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                async for _ in lines:
                    pass
        assert await server.ended() == 128 + signal.SIGTERM


async def test_a_reload_replaces_all_workers_and_a_broken_file_keeps_the_old(tmp_path: Path) -> None:
    app = tmp_path / "reloaded.py"

    def write(version: str) -> None:
        app.write_text(
            "from starlette.applications import Starlette\n"
            "from starlette.responses import JSONResponse\n"
            "from starlette.routing import Route\n"
            "from asgi_ipc import ipc\n"
            f"async def version(request): return JSONResponse([{version}, len(ipc.workers)])\n"
            "app = Starlette(routes=[Route('/', version)], lifespan=ipc.lifespan)\n"
        )

    write("1")
    options = ["--app-dir", str(tmp_path), "--reload", "--reload-dir", str(tmp_path)]
    # Two versions of one size within a second are one to the cache of compiled modules.
    env = {"PYTHONDONTWRITEBYTECODE": "1"}
    async with serving("reloaded:app", *options, workers=2, env=env) as server:
        await server.started(2)
        assert (await server.get("/")).json() == [1, 2]
        write("2")
        await server.said("detected changes in .*reloaded.py")
        await server.said(RESTARTED)
        await eventually(lambda: len(server.workers()) == 2, "the old ones have gone")
        assert (await server.get("/")).json() == [2, 2]
        write("(")
        await server.said("giving the restart up")
        assert server.count("SyntaxError") == 1
        assert (await server.get("/")).json() == [2, 2]
        write("3")
        await server.said(RESTARTED, 2)


async def test_a_crash_loop_is_slowed_down(tmp_path: Path) -> None:
    app = tmp_path / "dying.py"
    app.write_text(
        "import asyncio, os\n"
        "from contextlib import asynccontextmanager\n"
        "from starlette.applications import Starlette\n"
        "from asgi_ipc import ipc\n"
        "@asynccontextmanager\n"
        "async def lifespan(app):\n"
        "    async with ipc.lifespan(app):\n"
        "        if ipc.slot == 1:\n"
        "            asyncio.get_running_loop().call_later(0.1, os._exit, 9)\n"
        "        yield\n"
        "app = Starlette(lifespan=lifespan)\n"
    )
    async with serving("dying:app", "--app-dir", str(tmp_path), workers=2) as server:
        await server.said("exited with status 9; starting another in 1 s")
        assert server.count("starting another in 0.5 s") == 1
        assert server.count("exited with status 9; starting another.$") == 1
