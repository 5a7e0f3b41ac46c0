"""Real frameworks, each served for real: what docs/frameworks.md shows is what is started here.

They are installed by the dependency group `frameworks`; `make test-all` does that.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError
from websockets.frames import CloseCode

from tests.serving import DEADLINE_S, ROOT, Server, serving

APPS = ROOT / "tests" / "apps" / "frameworks"
DOCS = ROOT / "docs" / "frameworks.md"

WORKERS = 3

# Enough for a request to be under way at any moment of a restart.
CLIENTS = 4

# Has a route, tool or event of that name called: what it gives back.
Call: TypeAlias = Callable[[Server, str], Awaitable[list[int]]]


async def by_http(server: Server, name: str) -> list[int]:
    answer = await server.get("/" if name == "who" else f"/{name}")
    assert answer.status_code == 200, answer.text
    told: list[int] = answer.json()
    return told


async def by_graphql(server: Server, name: str) -> list[int]:
    answer = await server.get(f"/?query={{{name}}}")
    assert answer.status_code == 200, answer.text
    told: list[int] = answer.json()["data"][name]
    return told


async def by_mcp(server: Server, name: str) -> list[int]:
    said = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": {}}}
    headers = {"accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        answer = await client.post(f"http://127.0.0.1:{server.port}/mcp", json=said, headers=headers)
    assert answer.status_code == 200, answer.text
    told: list[int] = answer.json()["result"]["structuredContent"]["result"]
    return told


async def by_socketio(server: Server, name: str) -> list[int]:
    # Engine.IO and Socket.IO as they are on the wire: open, connect, an event that wants an acknowledgement.
    address = f"ws://127.0.0.1:{server.port}/socket.io/?EIO=4&transport=websocket"
    try:
        async with asyncio.timeout(DEADLINE_S), connect(address) as socket:
            assert str(await socket.recv()).startswith("0")
            await socket.send("40")
            assert str(await socket.recv()).startswith("40")
            await socket.send(f'420["{name}"]')
            acknowledgement = str(await socket.recv())
            assert acknowledgement.startswith("430")
            told: list[int] = json.loads(acknowledgement[3:])[0]
            return told
    except ConnectionClosedError as closed:
        if closed.rcvd is None or closed.rcvd.code != CloseCode.SERVICE_RESTART:
            raise
        # An open WebSocket is closed with 1012 when its worker restarts: its client connects again.
        return await by_socketio(server, name)


# Target, options, how it is called.
FRAMEWORKS: dict[str, tuple[str, tuple[str, ...], Call]] = {
    "Starlette": ("starlette_app:app", (), by_http),
    "FastAPI": ("fastapi_app:app", (), by_http),
    "Litestar": ("litestar_app:app", (), by_http),
    "Quart": ("quart_app:app", (), by_http),
    "BlackSheep": ("blacksheep_app:app", (), by_http),
    "Falcon": ("falcon_app:app", (), by_http),
    "Django and Channels": ("django_app:application", ("--wrap",), by_http),
    "Flask": ("flask_app:app", (), by_http),
    "FastMCP": ("fastmcp_app:app", (), by_mcp),
    "python-socketio": ("socketio_app:app", (), by_socketio),
    "Strawberry": ("strawberry_app:app", (), by_graphql),
}


async def restarted_under_load(server: Server, call: Call) -> int:
    """A rolling restart while clients ask, each request on a connection of its own; how many asked."""
    done = asyncio.Event()

    async def ask() -> int:
        count = 0
        while not done.is_set():
            # How many have answered in time is not the question here: this one has.
            assert await call(server, "who")
            count += 1
        return count

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(ask()) for _ in range(CLIENTS)]
        await server.restart()
        done.set()
    return sum(client.result() for client in clients)


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAMEWORKS)
async def test_it_asks_all_workers_restarts_under_load_and_drains_at_a_stop(name: str) -> None:
    target, options, call = FRAMEWORKS[name]
    async with serving(target, *options, "--app-dir", str(APPS), workers=WORKERS) as server:
        first = await server.started(WORKERS)
        assert sorted(await call(server, "who")) == sorted(first)
        assert await restarted_under_load(server, call) >= 2 * CLIENTS
        # The earlier server is gone, or about to be.
        now = sorted(await call(server, "job"))
        assert len(now) >= WORKERS
        await server.said("job begins", len(now))
        assert await server.stop() == 0, server.text
        assert server.count("job ends") == len(now), server.text
        wrong = server.found(
            "Traceback|drain timeout|cancelled|not entered ipc.lifespan|inside of ipc.lifespan"
        )
        assert not wrong, server.text


@pytest.mark.slow
async def test_a_channels_consumer_asks_too() -> None:
    options = ["--wrap", "--app-dir", str(APPS)]
    async with serving("django_app:application", *options, workers=WORKERS) as server:
        pids = await server.started(WORKERS)
        async with asyncio.timeout(DEADLINE_S), connect(f"ws://127.0.0.1:{server.port}/workers") as socket:
            await socket.send('"who"')
            assert sorted(json.loads(await socket.recv())) == sorted(pids)


def _shown() -> dict[str, str]:
    """The Python blocks of the page, by the file name in their first line."""
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", DOCS.read_text(), re.DOTALL)
    return dict(blocks)


def _example(text: str) -> str:
    """A file as the page shows it: without what is there for our linter, or says what it is."""
    text = re.sub(r'\A""".*?"""\n\n', "", text, flags=re.DOTALL)
    return text.replace("  # noqa: F401", "")


def test_the_page_shows_the_very_files_that_are_served() -> None:
    files = {
        file.name: _example(file.read_text()) for file in APPS.glob("*.py") if file.name != "__init__.py"
    }
    assert _shown() == files
    assert {target.split(":")[0] + ".py" for target, _, _ in FRAMEWORKS.values()} | {"messages.py"} == set(
        files
    )


def test_the_page_says_how_each_is_started_and_the_readme_links_it() -> None:
    page = DOCS.read_text()
    for name, (target, options, _) in FRAMEWORKS.items():
        assert f"## {name}\n" in page
        assert " ".join(["asgi-ipc serve", target, "--workers 4", *options]) in page
    assert "(docs/frameworks.md)" in (ROOT / "README.md").read_text()
