"""A helper in a real server: reached, killed, hung, drained, and in nobody's `ipc.workers`."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asgi_ipc.testing.child import is_running
from tests.serving import Server, eventually, free_port, started


@asynccontextmanager
async def helped(module: str = "tests.apps.helping") -> AsyncIterator[Server]:
    """Two workers and a helper that runs `module`."""
    port = free_port()
    async with started("-m", "tests.apps.helped", str(port), module, port=port) as server:
        await server.said("All 2 workers are ready")
        yield server


async def _members(server: Server) -> dict[int, dict[str, Any]]:
    """What each of the two workers knows of the others."""
    found: dict[int, dict[str, Any]] = {}
    while len(found) < 2:
        answer = (await server.get("/members")).json()
        found[answer["pid"]] = answer
    return found


async def _helper(server: Server, count: int = 1) -> int:
    """The pid of the helper that is the n-th to be ready."""
    line = (await server.said(r"Echo \[\d+\] is ready", count))[-1]
    return int(line.split("[")[1].split("]")[0])


async def test_a_helper_is_reached_comes_back_outlives_a_restart_and_is_drained_behind_the_workers() -> None:
    async with helped() as server:
        first = await _helper(server)
        text, by, its_workers, sender = (await server.get("/ask")).json()
        assert (text, by, sender) == ("how are you?", first, first)
        members = await _members(server)
        assert sorted(its_workers) == sorted(members)
        for member in members.values():
            assert sorted(member["workers"]) == sorted(member["broadcast"]) == sorted(members)
            assert member["kinds"] == ["worker", "worker"]
            assert member["helpers"] == [first]
            assert member["leader"] in members
        os.kill(first, signal.SIGKILL)
        await server.said(rf"Echo \[{first}\] died: it was killed by SIGKILL; starting another")
        second = await _helper(server, 2)
        server.signal(signal.SIGHUP)
        await server.said("All workers have been restarted")
        assert (await server.get("/ask")).json()[1] == second
        members = await _members(server)
        assert all(member["helpers"] == [second] for member in members.values())
        assert not any({first, second} & {*member["news"]} for member in members.values())
        assert await server.stop() == 0
        # What the workers have sent while they left has arrived.
        assert server.count(rf"Helper \[{second}\] has heard 4 last words") == 1
        assert not server.found("drain timeout|not stopped in time")
        assert server.count("died") == 1


async def test_a_helper_that_stands_still_is_replaced_like_a_worker() -> None:
    async with helped() as server:
        first = await _helper(server)
        os.kill(first, signal.SIGSTOP)
        await server.said(rf"Echo \[{first}\] is stalled")
        await server.said(rf"Echo \[{first}\] has been stalled for 2 s; replacing it")
        assert await _helper(server, 2) != first


async def test_a_helper_that_cannot_start_is_tried_again_and_the_server_serves() -> None:
    async with helped("tests.apps.no_such_module") as server:
        await server.said("ModuleNotFoundError: No module named 'tests.apps.no_such_module'")
        await server.said(r"Echo \[\d+\] died: it exited with status 1; starting another in 0.5 s")
        assert len(await _members(server)) == 2
        assert await server.stop() == 0


async def test_a_helper_ends_when_its_launcher_is_killed() -> None:
    async with helped() as server:
        pid = await _helper(server)
        server.signal(signal.SIGKILL)
        await eventually(lambda: not is_running(pid), "the helper has ended")
