"""Frozen programs: what PyInstaller makes of a script serves, restarts and stops, beside uvicorn's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from asgi_ipc.testing.child import children, is_running
from tests import serving
from tests.serving import RESTARTED, ROOT, Server, eventually, free_port

pytestmark = [
    pytest.mark.slow,
    # Two builds, of which each takes 10 to 20 s alone.
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform == "win32", reason="workers need Unix pipes"),
]

SCRIPT = ROOT / "tests" / "apps" / "frozen.py"


@pytest.fixture(scope="module", params=["onedir", "onefile"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The executable; each kind is made once."""
    pytest.importorskip("PyInstaller", reason="pip install pyinstaller")
    folder = tmp_path_factory.mktemp(request.param)
    command = [sys.executable, "-m", "PyInstaller", f"--{request.param}", "--log-level", "WARN"]
    command += ["--distpath", f"{folder}/dist", "--workpath", f"{folder}/build", "--specpath", str(folder)]
    # It imports its own app by name.
    command += ["--paths", str(SCRIPT.parent), "--hidden-import", SCRIPT.stem, str(SCRIPT)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    made = subprocess.run(command, check=False, env=env, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    made_in = folder / "dist" / SCRIPT.stem if request.param == "onedir" else folder / "dist"
    return made_in / SCRIPT.stem


@asynccontextmanager
async def running(
    program: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Server, int]]:
    """The program, ready with two workers, and the pid of its launcher, which is not its own in one file."""
    port = free_port()
    given = {"UNGUARDED": str(port)} if env else {}
    async with serving.running(
        [str(program), "--port", str(port), *arguments], port=port, env=given
    ) as server:
        await server.said("Application startup complete", 2)
        (line, *_) = await server.said("Started parent process")
        yield server, int(line.partition("[")[2].partition("]")[0])


async def family(server: Server, path: str = "/") -> list[int]:
    (await server.get(path)).raise_for_status()
    return sorted(children(server.pid))


async def test_it_serves_with_its_own_arguments_and_no_process_more(program: Path) -> None:
    async with running(program, "--server", "asgi_ipc") as (server, launcher):
        workers = children(launcher)
        assert len(workers) == 2
        pid, arguments = (await server.get("/")).json()
        assert pid in workers
        assert arguments == ["--port", str(server.port), "--server", "asgi_ipc"]
        assert (await server.get("/members")).json() == sorted(workers)
        # In one file there is one more: the parent that has unpacked it.
        below = {child.pid for child in psutil.Process(server.pid).children(recursive=True)}
        assert {server.pid, *below} == {server.pid, launcher, *workers}
        assert server.count("^above in ") == 3
        assert await server.stop() == 0
        assert server.count("^below in ") == 1
        assert not any(map(is_running, workers))


async def test_it_answers_as_the_same_program_does_under_uvicorn(program: Path) -> None:
    answers = []
    for name in ("uvicorn", "asgi_ipc"):
        async with running(program, "--server", name) as (server, launcher):
            _, arguments = (await server.get("/")).json()
            pool = (await server.get("/pool")).json()
            answers.append((arguments[2:3], pool, server.count("Started server process")))
            assert await server.stop() == 0
            assert not is_running(launcher)
    assert answers == [(["--server"], 42, 2)] * 2


async def test_a_killed_worker_is_replaced_and_all_are_restarted(program: Path) -> None:
    async with running(program) as (server, launcher):
        victim, other = children(launcher)
        os.kill(victim, signal.SIGKILL)
        await server.said(rf"Worker \[{victim}\] died: it was killed by SIGKILL; starting another")
        await server.said("Application startup complete", 3)
        assert other in children(launcher)
        os.kill(launcher, signal.SIGHUP)
        await server.said(RESTARTED)
        await eventually(lambda: len(children(launcher)) == 2, "the old ones have gone")
        assert not {victim, other} & {*children(launcher)}
        # The program itself, two, one for the victim, and two more.
        assert server.count("^above in ") == 6


async def test_a_ctrl_c_that_reaches_all_of_it_is_one_clean_stop(program: Path) -> None:
    async with running(program) as (server, launcher):
        os.killpg(server.pid, signal.SIGINT)
        assert await server.ended() == 0
        assert server.count("ending all workers at once") == 0
        assert server.count("Finished server process") == 2
        assert not is_running(launcher)


async def test_no_worker_outlives_its_killed_launcher(program: Path) -> None:
    async with running(program) as (server, launcher):
        workers = children(launcher)
        os.kill(launcher, signal.SIGKILL)
        await eventually(lambda: not any(map(is_running, workers)), "they have left")
        await server.ended()


async def test_what_multiprocessing_starts_is_no_server_where_the_program_forgot_to_say_so(
    program: Path,
) -> None:
    async with running(program, env={"UNGUARDED": "yes"}) as (server, launcher):
        workers = children(launcher)
        assert (await server.get("/pool")).json() == 42
        assert server.count("Uvicorn running on") == 1
        # Of the pool's two processes, its worker and the resource tracker, none was a server.
        assert server.count("Started parent process") == 1
        assert children(launcher) == workers
