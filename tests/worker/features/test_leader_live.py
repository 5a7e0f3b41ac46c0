"""The leader among real processes: it moves when it is killed, replaced or scaled away, and start-up work."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from asgi_ipc.testing.child import is_running
from tests.faults.oracle import Note
from tests.faults.traffic import Listener
from tests.serving import DEADLINE_S, RESTARTED, Server, eventually, serving

LOOPS = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])

# What is promised of a leader that is killed.
MOVES_WITHIN_S = 1.0


class Log:
    """What the workers of one server have noted; what is waited for may have come already."""

    def __init__(self, server: Server, listener: Listener) -> None:
        self.server = server
        self._listener = listener

    def all(self, what: str) -> list[Note]:
        return [note for note in self._listener.notes if note["what"] == what]

    async def of(self, what: str, count: int) -> list[Note]:
        """So many notes of that kind."""
        async with asyncio.timeout(DEADLINE_S):
            while len(found := self.all(what)) < count:
                await self._listener.next(lambda note: note["what"] == what)
        return found

    def is_in_turn(self) -> bool:
        """Whether each task had ended, or died, before the next one began, and never came back."""
        running = [note["by"] for note in self._listener.notes if note["what"] in ("begins", "alive", "ends")]
        turns = [each for place, each in enumerate(running) if not place or running[place - 1] != each]
        return len(turns) == len(set(turns)) and not self.all("two")


@asynccontextmanager
async def leaders(folder: Path, *options: str, workers: int) -> AsyncIterator[Log]:
    env = {"LEADERS_FOLDER": str(folder)}
    with closing(Listener(folder)) as listener:
        async with serving("tests.apps.leaders:app", *options, workers=workers, env=env) as server:
            yield Log(server, listener)
            assert await server.stop() == 0
            assert "Traceback" not in server.text


@LOOPS
async def test_one_leads_from_the_start_and_another_within_a_second_of_its_death(
    loop: str, tmp_path: Path
) -> None:
    async with leaders(tmp_path, "--loop", loop, workers=3) as log:
        server = log.server
        await server.started(3)
        (first,) = await log.of("begins", 1)
        assert (first["is_leader"], first["leader"]) == (True, first["pid"])
        assert (await server.get("/")).text == str(first["pid"])
        killed_at = time.monotonic()
        os.kill(first["pid"], signal.SIGKILL)
        _, second = await log.of("begins", 2)
        assert second["at"] - killed_at < MOVES_WITHIN_S
        # A new one that leads nothing, for any of them may answer.
        await server.started(4)
        await eventually(lambda: len(log.all("joined")) == 4, "its successor has joined")
        assert (await server.get("/")).text == str(second["pid"])
    # None but these two, even when all are stopped.
    assert log.all("begins") == [first, second]
    assert [note["by"] for note in log.all("ends")] == [second["by"]]
    assert log.is_in_turn()


@LOOPS
async def test_a_restart_and_scaling_move_it_when_the_task_has_ended(loop: str, tmp_path: Path) -> None:
    async with leaders(tmp_path, "--loop", loop, workers=2) as log:
        server = log.server
        await server.started(2)
        (first,) = await log.of("begins", 1)
        server.signal(signal.SIGHUP)
        await server.said(RESTARTED)
        second = (await log.of("begins", 2))[-1]
        assert second["by"] > 2
        (ended, *_) = await log.of("ends", 1)
        assert ended["by"] == first["by"]
        assert ended["at"] <= second["at"]
        # Its last broadcast, from its `finally`.
        assert first["by"] in {note["of"] for note in await log.of("heard", 1)}
        # One more, which leads when the one that leads has died, and then is one too many.
        server.signal(signal.SIGTTIN)
        joined = (await log.of("joined", 5))[-1]
        begun = len(log.all("begins"))
        os.kill(log.all("begins")[-1]["pid"], signal.SIGKILL)
        third = (await log.of("begins", begun + 1))[-1]
        assert third["by"] == joined["by"]
        await log.of("joined", 6)
        server.signal(signal.SIGTTOU)
        fourth = (await log.of("begins", begun + 2))[-1]
        assert third["by"] in {note["by"] for note in log.all("ends")}
        assert fourth["by"] != third["by"]
    assert log.is_in_turn()


async def test_start_up_work_is_done_by_one_and_by_the_next_if_it_dies_and_once_more_after_a_restart(
    tmp_path: Path,
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    async with leaders(tmp_path, workers=3) as log:
        server = log.server
        (first,) = await log.of("migrates", 1)
        await log.of("joined", 3)
        hold.unlink()
        assert log.all("migrated") == []
        os.kill(first["pid"], signal.SIGKILL)
        _, second = await log.of("migrates", 2)
        assert second["by"] != first["by"]
        await server.started(3)
        assert first["by"] not in {note["by"] for note in await log.of("migrated", 2)}
        server.signal(signal.SIGHUP)
        await server.said(RESTARTED)
        before = 1 + 3
        assert [note["by"] > before for note in await log.of("migrates", 3)] == [False, False, True]
        assert len(log.all("migrated")) == 2 + 2
    assert len(log.all("seeds")) == 1
    assert [note["first"] for note in log.all("job")].count(True) == 1
    assert len(log.all("job")) == 3 + 3


async def test_a_killed_launcher_leaves_one_leader_that_ends_its_task(tmp_path: Path) -> None:
    env = {"LEADERS_FOLDER": str(tmp_path)}
    with closing(Listener(tmp_path)) as listener:
        async with serving("tests.apps.leaders:app", workers=3, env=env) as server:
            log = Log(server, listener)
            pids = await server.started(3)
            await log.of("begins", 1)
            os.kill(server.pid, signal.SIGKILL)
            await log.of("ends", 1)
            await server.ended()
            await eventually(lambda: not any(map(is_running, pids)), "all have ended")
        assert len(log.all("begins")) == len(log.all("ends")) == 1
        assert log.is_in_turn()
