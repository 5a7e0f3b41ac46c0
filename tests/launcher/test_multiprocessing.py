"""`multiprocessing` in workers: one tracker for all, and what its children inherit, as under uvicorn."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from asgi_ipc.testing.child import children, is_running
from tests.processes import of_session
from tests.serving import SERVE, UVICORN, Server, eventually, free_port, is_tracker, listens, serving, started

APP = "tests.apps.sharing:app"
SHARED = Path("/dev/shm")

# Serves with memory of its own, which its workers open, and with settings of its own.
SCRIPT = f"""
import logging, multiprocessing, sys
from multiprocessing import shared_memory
import asgi_ipc, uvicorn

if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    multiprocessing.current_process().authkey = b"chosen"
    multiprocessing.log_to_stderr(logging.ERROR)
    memory = shared_memory.SharedMemory(create=True, size=64)
    memory.buf[0] = 41
    print("made", memory.name, flush=True)
    try:
        run = asgi_ipc.run if sys.argv[1] == "asgi-ipc" else uvicorn.run
        run({APP!r}, port=int(sys.argv[2]), workers=2)
    finally:
        print("it has", memory.buf[0], flush=True)
        shared_memory.SharedMemory(memory.name).close()
        memory.close()
        memory.unlink()
"""


async def _up(server: Server) -> None:
    await server.said("Application startup complete", 2)
    await eventually(lambda: listens(server.port), "it listens")


@asynccontextmanager
async def _serving(by: Sequence[str] = SERVE) -> AsyncIterator[Server]:
    """The app with two workers."""
    async with serving(APP, by=by) as server:
        await _up(server)
        yield server


async def _of_each(server: Server) -> dict[int, dict[str, Any]]:
    """What each of two workers says of itself."""
    found: dict[int, dict[str, Any]] = {}
    while len(found) < 2:
        answer = (await server.get("/inherited")).json()
        found[answer.pop("pid")] = answer
    return found


def _trackers(server: Server) -> list[int]:
    return list(filter(is_tracker, of_session(server.pid)))


@pytest.mark.parametrize("by", [SERVE, UVICORN])
async def test_shared_memory_outlives_the_worker_that_made_it_and_not_the_server(by: Sequence[str]) -> None:
    async with _serving(by) as server:
        name, pid = (await server.get("/create")).json()
        os.kill(pid, signal.SIGTERM)
        await eventually(lambda: not is_running(pid), "the worker has gone")
        await server.said("Application startup complete", 3)
        assert {(await server.get(f"/read/{name}")).json() for _ in range(10)} == {42}
        assert not server.found("leaked|resource_tracker")
        assert len(_trackers(server)) == 1
        assert await server.stop() == 0
        # What nobody has unlinked the tracker does, and says so.
        assert server.count("1 leaked shared_memory objects to clean up at shutdown") == 1
    assert not (SHARED / name).exists()


@pytest.mark.parametrize("by", [SERVE, UVICORN])
async def test_workers_inherit_what_children_of_multiprocessing_do(by: Sequence[str]) -> None:
    async with _serving(by) as server:
        first, second = (await _of_each(server)).values()
        assert first == second
        del first["key"]
        assert first == {
            "name": "SpawnProcess-",
            # Python says the method by which a process was started itself (BaseProcess._bootstrap).
            "method": "spawn" if by == UVICORN else multiprocessing.get_context().get_start_method(),
            "parent": ["MainProcess", server.pid, True],
            "log_level": 0,
        }
        assert (await server.get("/secret")).json() == [False, False]


@pytest.mark.parametrize(("by", "method"), [("asgi-ipc", "forkserver"), ("uvicorn", "spawn")])
async def test_a_program_shares_its_memory_and_its_settings_with_its_workers(
    by: str, method: str, tmp_path: Path
) -> None:
    script = tmp_path / "program.py"
    script.write_text(SCRIPT)
    port = free_port()
    async with started(str(script), by, str(port), port=port) as server:
        await _up(server)
        (made,) = await server.said("made")
        name = made.split()[1]
        assert (await server.get(f"/read/{name}")).json() == 41
        first, second = (await _of_each(server)).values()
        assert first == second
        assert first["key"] == sha256(b"chosen").hexdigest()
        assert (first["method"], first["log_level"]) == (method, 40)
        server.signal(signal.SIGHUP)
        await server.said("Application startup complete", 4)
        # uvicorn's last old worker still accepts connections then, and closes them without an answer.
        await server.said("Finished server process", 2)
        assert (await server.get(f"/read/{name}")).json() == 41
        assert len(_trackers(server)) == 1
        server.signal(signal.SIGTERM)
        await server.said("it has 41")
        await server.ended()
        assert not server.found("leaked|Traceback|died unexpectedly")
    assert not (SHARED / name).exists()


async def test_a_server_that_needs_no_tracker_has_none() -> None:
    async with _serving() as server:
        assert (await server.get("/inherited")).status_code == 200
        assert len(children(server.pid)) == 2
        assert len(of_session(server.pid)) == 3


async def test_a_tracker_that_was_killed_is_replaced_for_the_next_workers() -> None:
    async with _serving() as server:
        await server.get("/create")
        await eventually(lambda: len(_trackers(server)) == 1, "there is a tracker")
        (killed,) = _trackers(server)
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: killed not in children(server.pid), "it has been reaped")
        await server.restart()
        name, pid = (await server.get("/create")).json()
        os.kill(pid, signal.SIGKILL)
        await server.said(rf"Worker \[{pid}\] died")
        assert (await server.get(f"/read/{name}")).json() == 42
        assert len(_trackers(server)) == 1
        assert await server.stop() == 0
        assert not server.found("died unexpectedly")
    assert not (SHARED / name).exists()
