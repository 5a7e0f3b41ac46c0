"""Ending: whatever still runs in a worker, it ends, and says what it leaves."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from asgi_ipc.testing.child import is_running
from tests.processes import of_session
from tests.serving import Server, eventually, run_python, serving, serving_by, watching

APP = "tests.apps.leftover:app"

# What is promised of a worker whose launcher was killed.
ORPHAN_S = 5.0

# What a worker says of each kind when it does not end by itself; None: nothing of it is seen from Python.
KINDS = {
    "thread": r"thread 'a-thread' at .+leftover.py:\d+ in forever",
    "to_thread": r"thread '\w+_0' at .+leftover.py:\d+ in forever",
    "thread_pool": r"thread 'a-pool_0' at .+leftover.py:\d+ in forever",
    "process_pool": r"It leaves child process \d+ \(.*multiprocessing.spawn",
    "process": r"It leaves child process \d+ \(",
    "task": r"task 'a-task' at .+leftover.py:\d+ in stubborn",
    "atexit": r"the main thread at .+leftover.py:\d+ in forever",
    "finalizer": None,
}


@asynccontextmanager
async def _serving(
    by: str, *options: str, workers: int = 2, env: dict[str, str] | None = None
) -> AsyncIterator[Server]:
    """Serve the app; end what it leaves, which holds its output open."""
    async with serving_by(by, APP, *options, workers=workers, env=env) as server:
        try:
            yield server
        finally:
            _end_all(of_session(server.pid))


async def _stopped(server: Server) -> None:
    """SIGTERM, and wait until the process has ended; its output may still be held open."""
    server.signal(signal.SIGTERM)
    await eventually(lambda: not is_running(server.pid), "the server has ended")


def _end_all(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def _leave(server: Server, kinds: str, workers: int = 1) -> set[int]:
    """Have so many workers leave these behind; their pids."""
    pids: set[int] = set()
    while len(pids) < workers:
        pids.add(int((await server.get(f"/leave/{kinds}")).text))
    return pids


@pytest.mark.parametrize("by", ["asgi-ipc", "uvicorn"])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_still_runs_in_a_worker_does_not_hold_the_servers_stop_up(kind: str, by: str) -> None:
    options = ("--exit-timeout", "0.3") if by == "asgi-ipc" else ()
    async with _serving(by, *options) as server:
        (pid,) = await _leave(server, kind)
        await _stopped(server)
        assert not any(map(is_running, server.ever_started()))
        said = KINDS[kind]
        if by == "asgi-ipc" and said is not None:
            (line,) = await server.said(rf"Worker \[{pid}\] still ran 0.3 s after its shutdown")
            assert re.search(said, line)
            assert "drain timeout" not in server.text
        _end_all(of_session(server.pid))
        assert await server.ended() == 0


async def test_a_thread_that_ends_in_time_is_waited_for_and_then_the_worker_ends_at_once() -> None:
    async with serving_by("asgi-ipc", APP, "--exit-timeout", "60", workers=1) as server:
        (pid,) = await _leave(server, "brief")
        assert await server.stop() == 0
        assert server.count(f"the brief thread of {pid} has ended") == 1
        assert server.count("still ran") == 0


async def test_restarts_leave_as_many_processes_as_before_whatever_still_runs_in_the_old() -> None:
    async with _serving("asgi-ipc", "--exit-timeout", "0.3") as server:
        gone: set[int] = set()
        for restart in range(1, 5):
            await server.said("Application startup complete", 2 * restart)
            gone |= await _leave(server, "thread", 2)
            server.signal(signal.SIGHUP)
            await server.said("All workers have been restarted", restart)
        await eventually(lambda: len(of_session(server.pid)) == 3, "a launcher and two workers run")
        assert not any(map(is_running, gone))
        assert len(gone) > 4
        await server.said("still ran 0.3 s", len(gone))
        for pid in gone:
            told = await server.said(rf"worker {pid} is gone")
            assert all(line.endswith("is gone: replaced") for line in told)
        await _stopped(server)


@pytest.mark.parametrize("kinds", ["program", "program,thread"])
async def test_a_child_process_is_named_by_its_pid_and_left_alone(kinds: str) -> None:
    async with _serving("asgi-ipc", "--exit-timeout", "0.3", workers=1) as server:
        (pid,) = await _leave(server, kinds)
        await _stopped(server)
        lines = await server.said(rf"Worker \[{pid}\].* child process")
        for line in lines:
            child = re.search(r"leaves child process (\d+) \(\S*sleep 120.0\) running", line)
            assert child is not None
            assert is_running(int(child[1]))
        _end_all(of_session(server.pid))
        assert await server.ended() == 0


@pytest.mark.parametrize(
    ("kinds", "shutdown_s"),
    [("thread,to_thread,thread_pool,process_pool,task,atexit", "0"), ("message,thread", "0"), ("task", "60")],
)
async def test_a_killed_launcher_leaves_no_worker_whatever_still_runs_in_it(
    kinds: str, shutdown_s: str
) -> None:
    env = {"LEFTOVER_SHUTDOWN_S": shutdown_s}
    # A time that is longer than the promise does not count then.
    async with _serving("asgi-ipc", "--exit-timeout", "60", env=env) as server:
        await _leave(server, kinds, 2)
        with watching(server.ever_started()) as ends:
            killed_at = time.monotonic()
            os.kill(server.pid, signal.SIGKILL)
            assert await ends.last() - killed_at < ORPHAN_S
        await server.said("still ran after the launcher's end, and is ended", 2)


async def test_an_open_request_outlives_the_launcher_and_its_worker_ends_behind_it() -> None:
    request_s = 5.5
    async with serving_by("asgi-ipc", APP, workers=1) as server:
        await _leave(server, "thread")
        request = asyncio.create_task(server.get(f"/wait/{request_s}"))
        await server.said("a request waits")
        with watching(server.ever_started()) as ends:
            os.kill(server.pid, signal.SIGKILL)
            assert (await request).text == "done"
            assert await ends.last() - time.monotonic() < ORPHAN_S


async def test_a_request_without_client_ends_when_the_launcher_is_killed_and_messages_are_handled() -> None:
    async with serving_by("asgi-ipc", APP, workers=2) as server:
        for number in (1, 2):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /wait/100 HTTP/1.1\r\nhost: test\r\n\r\n")
            await server.said("a request waits", number)
            writer.close()
        await server.get("/leave/late")
        with watching(server.ever_started()) as ends:
            killed_at = time.monotonic()
            os.kill(server.pid, signal.SIGKILL)
            assert await ends.last() - killed_at < ORPHAN_S
        await server.said("the late handler has ended", 2)
        assert server.count("still ran|drain timeout") == 0


async def test_an_app_that_cannot_be_imported_ends_the_server_whatever_it_has_begun() -> None:
    async with serving(APP, "--exit-timeout", "0.3", env={"LEFTOVER_IMPORT": "thread"}) as server:
        assert await server.ended() == 3
        assert server.count("RuntimeError: it can't be imported") == 1


def test_a_program_that_takes_the_place_of_an_ending_worker_is_not_ended_by_the_workers_timer() -> None:
    code = (
        "import asyncio, atexit, os, sys\n"
        "from asgi_ipc.worker.runtime import exiting\n"
        "program = 'import signal; print(signal.getitimer(signal.ITIMER_REAL))'\n"
        "atexit.register(os.execv, sys.executable, [sys.executable, '-c', program])\n"
        "with asyncio.Runner() as runner, exiting.bounded(60, runner):\n"
        "    runner.run(asyncio.sleep(0))\n"
    )
    assert run_python("-c", code).stdout == "(0.0, 0.0)\n"
