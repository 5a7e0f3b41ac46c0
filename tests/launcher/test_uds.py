"""Sockets: what a killed server leaves behind is replaced, and two servers never both say that they run."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from asgi_ipc.testing.child import is_running
from tests.serving import SERVE, UVICORN, eventually, free_port, serving, started

APP = "tests.apps.plain:app"
RUNNING = "Uvicorn running on"


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):o}"


@contextmanager
def left_behind(path: Path, its_mode: int = 0o666) -> Iterator[None]:
    """What a killed server leaves: a socket file that nobody accepts at."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    path.chmod(its_mode)
    yield
    path.unlink(missing_ok=True)


async def answers(path: Path) -> bool:
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
        return (await client.get("http://app/")).status_code == 200


async def test_after_a_killed_launcher_the_next_server_takes_the_path_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    async with serving(APP, "--uds", str(path), "--uds-mode", "660") as first:
        workers = await first.started(2)
        assert mode(path) == "660"
        first.signal(signal.SIGKILL)
        await eventually(lambda: not any(map(is_running, workers)), "the workers have gone, too")
    assert path.is_socket()
    async with serving(APP, "--uds", str(path)) as second:
        await second.started(2)
        assert await answers(path)
        assert mode(path) == "660"
    assert not path.exists()


async def test_uvicorn_and_this_make_the_same_file_and_remove_it(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    modes = []
    for by in (SERVE, UVICORN):
        async with serving(APP, "--uds", str(path), by=by) as server:
            await server.started(2)
            assert await answers(path)
            modes.append((mode(path), server.count(f"{RUNNING} unix socket {path} ")))
            assert await server.stop() == 0
            assert not path.exists()
    assert modes == [("666", 1)] * 2


async def test_the_mode_and_the_owner_are_those_that_were_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    # As root somebody else, otherwise oneself, by number.
    owner = (65534, 65534) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    options = ["--uds-mode", "0600", "--uds-owner", f"{owner[0]}:{owner[1]}"]
    with left_behind(path, 0o644):
        async with serving(APP, "--uds", str(path), *options) as server:
            await server.said(RUNNING)
            found = path.stat()
            assert (mode(path), found.st_uid, found.st_gid) == ("600", *owner)
            await server.started(2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may give files away")
async def test_whoever_may_not_give_a_file_away_is_told_and_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    async with serving(APP, "--uds", str(path), "--uds-owner", "0:0") as server:
        assert await server.ended() == 3
        assert server.count("Operation not permitted") == 1
    assert not path.exists()


async def test_a_live_one_is_refused_with_its_path_and_the_pid_of_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    async with serving(APP, "--uds", str(path)) as first:
        workers = await first.started(2)
        before = path.stat().st_ino
        async with serving(APP, "--uds", str(path)) as second:
            assert await second.ended() == 3
            (line,) = second.found("ERROR")
            assert f"can't listen on {path}: another server listens there: process " in line
            assert int(line.rpartition("process ")[2].partition(";")[0]) in [first.pid, *workers]
            assert second.count(RUNNING) == second.count("Traceback") == 0
        assert path.stat().st_ino == before
        assert await answers(path)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
async def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "sock"
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to(tmp_path / "nowhere")
    async with serving(APP, "--uds", str(path)) as server:
        assert await server.ended() == 3
        assert server.count(f"ERROR:.*can't listen on {path}: there is a file that is no socket") == 1
        assert server.count("Traceback") == 0
    assert path.name in os.listdir(tmp_path)


async def test_at_the_stop_a_file_that_is_somebody_elses_by_now_stays(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    async with serving(APP, "--uds", str(path)) as server:
        await server.started(2)
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            assert await server.stop() == 0
            assert path.is_socket()


async def _ends(options: list[str]) -> list[tuple[int, int]]:
    """Two servers that are started at once: whether each says that it runs, and its status."""

    async def one() -> tuple[int, int]:
        async with started("-m", "asgi_ipc.cli", "serve", APP, *options) as server:
            await server.said(f"{RUNNING}|can't listen")
            said = server.count(RUNNING)
            both.release()
            # It serves until the other one has said something, too.
            await all_said.wait()
            if said:
                # Before that a SIGTERM may find no handler yet.
                await server.started(1)
                server.signal(signal.SIGTERM)
            return said, await server.ended()

    both, all_said = asyncio.Semaphore(0), asyncio.Event()
    ends = [asyncio.create_task(one()) for _ in range(2)]
    for _ in ends:
        await both.acquire()
    all_said.set()
    return sorted(await asyncio.gather(*ends))


@pytest.mark.parametrize("place", ["port", "stale socket", "new socket"])
async def test_of_two_that_start_at_one_place_one_says_that_it_runs(tmp_path: Path, place: str) -> None:
    path = tmp_path / "sock"
    if place == "port":
        assert await _ends(["--port", str(free_port())]) == [(0, 3), (1, 0)]
        return
    with left_behind(path) if place == "stale socket" else left_behind(tmp_path / "other"):
        assert await _ends(["--uds", str(path)]) == [(0, 3), (1, 0)]


async def test_it_listens_where_it_says_so_and_what_connects_then_is_answered_later() -> None:
    async with serving("tests.apps.plain:app", workers=1) as server:
        await server.said(RUNNING)
        # Before any worker is there.
        assert (await server.get("/")).status_code == 200


@pytest.mark.parametrize("by", [SERVE, UVICORN])
@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
async def test_both_kinds_of_address_are_served_as_by_uvicorn(by: Sequence[str], host: str) -> None:
    shown = f"[{host}]" if ":" in host else host
    async with serving(APP, "--host", host, "--backlog", "7", by=by) as server:
        await server.started(2)
        (line,) = server.found(RUNNING)
        assert f"{RUNNING} http://{shown}:{server.port} " in line
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://{shown}:{server.port}/")).status_code == 200


@pytest.mark.parametrize("by", [SERVE, UVICORN])
async def test_a_socket_that_is_handed_over_is_served_as_by_uvicorn(by: Sequence[str]) -> None:
    # As systemd hands it over: open already when the command begins.
    code = (
        "import os, socket, sys; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
        "s.set_inheritable(True); print('port', s.getsockname()[1], flush=True); "
        "os.execv(sys.executable, [sys.executable, '-m', *sys.argv[1:], '--fd', str(s.fileno())])"
    )
    async with started("-c", code, *by, APP, "--workers", "2") as server:
        (line,) = await server.said(r"^port \d+")
        await server.started(2)
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{line.split()[1]}/")).status_code == 200
