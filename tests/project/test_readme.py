"""The README: its examples, as they stand there, in real servers and under a strict type checker."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from asgi_ipc import IPC, InvalidDataError
from tests.serving import DEADLINE_S, ROOT, Server, eventually, serving

AROUND = """
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route


async def who(request):
    return JSONResponse({"pid": ipc.pid, "online": sorted(online)})


app = Starlette(routes=[Route("/who", who)], lifespan=ipc.lifespan)
"""


# The code above the leader's example, with a migration and a handler.
BEFORE_LEADER = """
import os

from fastapi import FastAPI

from asgi_ipc import ipc


async def migrate() -> None:
    print("migrated by", os.getpid())


@ipc.receive("forget")
def forget(what: str) -> None:
    print("forgets", what, "of", ipc.sender)


"""


def example(heading: str) -> str:
    """The first Python code below a heading."""
    page = (ROOT / "README.md").read_text()
    found = re.search(rf"^#+ {heading}$.*?^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


async def told(server: Server, is_so: Callable[[dict[int, set[int]]], bool]) -> dict[int, set[int]]:
    """Wait for a state; return the workers known to each worker. A request may reach any of them."""
    known: dict[int, set[int]] = {}
    async with asyncio.timeout(DEADLINE_S):
        while not is_so(known):
            answer = (await server.get("/who")).json()
            known[answer["pid"]] = set(answer["online"])
    return known


async def test_a_newcomer_is_told_what_the_others_know_and_who_has_gone_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "presence.py").write_text(example("When a worker goes") + AROUND)
    async with serving("presence:app", "--app-dir", str(tmp_path), workers=2) as server:
        await server.started(2)
        # The one that joined first has told the other.
        known = await told(server, lambda known: any(known.values()))
        ((survivor, (victim,)),) = [(pid, others) for pid, others in known.items() if others]
        os.kill(victim, signal.SIGKILL)
        await server.started(3)
        await eventually(lambda: victim not in server.workers(), "it is gone")
        (successor,) = set(server.workers()) - {survivor}
        now: dict[int, set[int]] = {survivor: set(), successor: {survivor}}
        assert await told(server, lambda known: known == now) == now
        assert await server.stop() == 0
        assert "lost" not in server.text


async def test_a_typed_question_is_answered_and_the_example_gets_what_it_says() -> None:
    names: dict[str, Any] = {"ipc": (here := IPC()), "__name__": __name__}
    paths: dict[str, Any] = {}

    class App:
        def get(self, path: str) -> Callable[[Any], Any]:
            return lambda function: paths.setdefault(path, function)

    names["app"] = App()
    # The page's own code.
    code = compile(example("Typed data"), "README.md", "exec")
    FunctionType(code, names)()
    (visit,) = paths.values()
    async with here.lifespan():
        assert await visit("ada", 3) == {"here": 3}
        assert await visit("ada", 4) == {"here": 7}
        with pytest.raises(InvalidDataError, match="seconds: expected int, got str"):
            await visit("ada", "3")
        assert names["seconds_of"] == {"ada": 7}
        assert here.stats().dropped == {"invalid_data": 1}


async def test_every_worker_is_asked_and_a_stopped_one_costs_its_own_row_only(tmp_path: Path) -> None:
    (tmp_path / "uptime.py").write_text(example("Use it") + example("Questions and answers"))
    async with serving("uptime:app", "--app-dir", str(tmp_path), workers=3) as server:
        pids = {str(pid) for pid in await server.started(3)}
        answer = (await server.get("/uptime")).json()
        assert set(answer["uptime"]) == pids
        assert all(seconds > 0 for seconds in answer["uptime"].values())
        assert answer["silent"] == []
        stopped = server.workers()[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            # All workers share the listening socket: another one may answer, or none before it goes on.
            answers = await asyncio.gather(*(server.get("/uptime") for _ in range(4)), return_exceptions=True)
        finally:
            os.kill(stopped, signal.SIGCONT)
        told = [each.json() for each in answers if not isinstance(each, BaseException)]
        silent = f"worker {stopped} did not answer 'uptime' in time"
        assert any(line.startswith(silent) for each in told for line in each["silent"])


async def test_browsers_on_different_workers_hear_each_other_in_their_room_alone(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(example("Use it") + example("Topics"))
    async with (
        serving("chat:app", "--app-dir", str(tmp_path), workers=3) as server,
        AsyncExitStack() as stack,
    ):
        await server.started(3)

        async def open_in(room: str) -> ClientConnection:
            address = f"ws://127.0.0.1:{server.port}/rooms/{room}"
            return await stack.enter_async_context(connect(address))

        here = [await open_in("here") for _ in range(8)]
        elsewhere = await open_in("elsewhere")
        # A connection that is open hears everything, once.
        for number, socket in enumerate(here):
            await socket.send(f"hello from {number}")
        expected = [f"hello from {number}" for number in range(len(here))]
        for socket in here:
            async with asyncio.timeout(DEADLINE_S):
                assert sorted([str(await socket.recv()) for _ in here]) == expected
        # The first message there is one that was said there.
        await elsewhere.send("alone")
        assert await elsewhere.recv() == "alone"
        assert await server.stop() == 0
        assert "Traceback" not in server.text


async def test_the_leader_sweeps_and_one_worker_migrates_at_a_start_and_at_a_restart(tmp_path: Path) -> None:
    (tmp_path / "led.py").write_text(BEFORE_LEADER + example("One leader"))
    async with serving("led:app", "--app-dir", str(tmp_path), workers=3) as server:
        pids = await server.started(3)
        line, *_ = await server.said("forgets everything old of")
        leader = int(line.split()[-1])
        assert leader in pids
        (line,) = await server.said("migrated by")
        assert int(line.split()[-1]) in pids
        await server.restart()
        assert server.count("migrated by") == 2


def test_the_examples_pass_a_strict_type_checker(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    migration = "async def migrate() -> None: ...\n"
    follow = ["Questions and answers", "Topics", "Typed data", "When a worker goes", "One leader"]
    (tmp_path / "app.py").write_text(example("Use it") + migration + "\n".join(map(example, follow)))
    (tmp_path / "mypy.ini").write_text("[mypy]\n")
    options = [
        "--strict",
        "--config-file",
        str(tmp_path / "mypy.ini"),
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    # In a process of its own: it raises the recursion limit, and leaves it so.
    command = [sys.executable, "-m", "mypy", *options, str(tmp_path / "app.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.stdout.startswith("Success"), said.stdout
    assert said.stderr == ""
