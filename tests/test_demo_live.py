"""The demo with real workers: who sent what to whom, seen from outside; and the live stream across a restart."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

ROOT = Path(__file__).parent.parent
DEADLINE_S = 60.0
# Between two looks at something that only outside processes change.
LOOK_AGAIN_S = 0.02


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its launcher's pid, and where it answers."""

    pid: int
    url: str
    log: Path


@asynccontextmanager
async def serving(log: Path, workers: int, *options: str) -> AsyncIterator[Server]:
    """Serve the demo until the block ends; it must then stop by itself, with status 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "asgi_ipc.cli", "serve", "demo:app", "--workers", str(workers)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), *options], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    server = Server(process.pid, f"http://127.0.0.1:{port}", log)
    try:
        await fleet_of(server, workers)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            status = await asyncio.to_thread(process.wait, DEADLINE_S)
        finally:
            process.kill()
            process.wait()
    assert status == 0, log.read_text()


async def get(server: Server, path: str) -> httpx.Response:
    """Ask over a new connection, so any worker may answer."""
    async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE_S) as client:
        return await client.get(path)


async def fleet_of(server: Server, count: int, without: frozenset[int] = frozenset()) -> dict[int, int]:
    """Pids by slot, once `count` workers are here and none of `without` is."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                workers = (await get(server, "/workers")).json()["workers"]
            except httpx.TransportError:
                workers = []
            slots = {worker["slot"]: worker["pid"] for worker in workers}
            if len(workers) == len(slots) == count and not without & set(slots.values()):
                return slots
            await asyncio.sleep(LOOK_AGAIN_S)


async def logged(server: Server, pid: int, name: str, text: str) -> dict[str, Any]:
    """The entry in the /log of worker `pid` with that name and text, once it is there."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            answer = (await get(server, "/log")).json()
            for entry in answer["log"]:
                if answer["pid"] == pid and entry["name"] == name and text in entry["data"]:
                    return dict(entry)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """Where the server writes; shown when the test fails."""
    path = tmp_path / "server.log"
    yield path
    if path.exists():
        print(path.read_text())  # noqa: T201


async def test_a_message_arrives_at_its_worker_with_its_sender_and_is_answered(log: Path) -> None:
    async with serving(log, 3) as server:
        slots = await fleet_of(server, 3)
        for target in slots.values():
            sent = (await get(server, f"/send/{target}/hi/{target}")).json()
            assert sent == {"from": sent["from"], "to": target}
            entry = await logged(server, target, "hello", f"hi/{target}")
            assert (entry["from"], entry["data"]) == (sent["from"], f"hi/{target}")
            answer = await logged(server, sent["from"], "reply", f"hi/{target}")
            assert answer["from"] == target

        sent = (await get(server, "/broadcast/everyone")).json()
        assert sorted(sent["to"]) == sorted(slots.values())
        for pid in slots.values():
            assert (await logged(server, pid, "hello", "everyone"))["from"] == sent["from"]

        unknown = await get(server, f"/send/{os.getpid()}/hi")
        assert (unknown.status_code, unknown.json()["error"]) == (404, f"no worker {os.getpid()} is here now")
    assert "says 'everyone'" in log.read_text()


async def test_a_message_above_the_limit_is_413_and_the_next_arrives(log: Path) -> None:
    async with serving(log, 1, "--max-message-bytes", "1024") as server:
        (pid,) = (await fleet_of(server, 1)).values()
        refused = await get(server, f"/send/{pid}/{'x' * 2000}")
        assert refused.status_code == 413
        assert "exceeds the limit of 1024 bytes" in refused.json()["error"]
        # The answer to this one is above the limit, which is the handler's trouble alone.
        assert (await get(server, f"/send/{pid}/{'y' * 1000}")).status_code == 200
        assert (await get(server, f"/send/{pid}/small")).status_code == 200
        await logged(server, pid, "reply", "small")


class Page:
    """What the page knows, learnt as the page learns it: over one socket after the other."""

    def __init__(self, url: str) -> None:
        self.url = url.replace("http", "ws") + "/live"
        self.fleet: list[dict[str, int]] = []
        self.messages: dict[tuple[int, int], dict[str, Any]] = {}
        self.close_codes: list[int | None] = []
        self.changed = asyncio.Condition()

    async def follow(self) -> None:
        while True:
            try:
                async with connect(self.url, proxy=None) as live:
                    await self._listen(live)
            except (OSError, InvalidStatus, ConnectionClosed):
                continue

    async def _listen(self, live: ClientConnection) -> None:
        async for text in live:
            word = json.loads(text)
            async with self.changed:
                if word["kind"] == "fleet":
                    self.fleet = word["workers"]
                else:
                    self.messages[word["generation"], word["number"]] = word
                self.changed.notify_all()
        self.close_codes.append(live.close_code)

    async def until_shown(self, text: str, pids: set[int]) -> None:
        """Wait until `text` is shown as received by exactly the workers `pids`."""

        def shown() -> bool:
            pid_of = {worker["generation"]: worker["pid"] for worker in self.fleet}
            hellos = [m for m in self.messages.values() if m["name"] == "hello" and m["text"] == text]
            return sorted(pid_of.get(m["generation"], 0) for m in hellos) == sorted(pids)

        async with asyncio.timeout(DEADLINE_S), self.changed:
            await self.changed.wait_for(shown)

    async def until_fleet(self, pids: set[int]) -> None:
        async with asyncio.timeout(DEADLINE_S), self.changed:
            await self.changed.wait_for(lambda: {worker["pid"] for worker in self.fleet} == pids)


async def test_a_page_follows_kills_and_restarts_and_sees_what_came_before_it(log: Path) -> None:
    async with serving(log, 3) as server, asyncio.TaskGroup() as tasks:
        first = await fleet_of(server, 3)
        pids = set(first.values())
        await get(server, "/broadcast/before")
        page = Page(server.url)
        following = tasks.create_task(page.follow())
        await page.until_shown("before", pids)
        await get(server, "/broadcast/while")
        await page.until_shown("while", pids)

        os.kill(first[1], signal.SIGKILL)
        second = await fleet_of(server, 3, without=frozenset({first[1]}))
        await page.until_fleet(set(second.values()))
        await get(server, f"/send/{second[1]}/welcome")
        await page.until_shown("welcome", {second[1]})

        os.kill(server.pid, signal.SIGHUP)
        third = await fleet_of(server, 3, without=frozenset(second.values()))
        await page.until_fleet(set(third.values()))
        # uvicorn's word to the page that it may come back: the stream holds up no restart.
        assert 1012 in page.close_codes
        await get(server, "/broadcast/after")
        await page.until_shown("after", set(third.values()))
        following.cancel()


async def test_a_foreign_page_gets_4xx_from_a_real_server(log: Path) -> None:
    async with serving(log, 1) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=DEADLINE_S) as client:
            assert (await client.get("/", headers={"Host": "evil.example"})).status_code == 421
            cross = {"Sec-Fetch-Site": "cross-site"}
            assert (await client.post("/broadcast/hi", headers=cross)).status_code == 403
        for headers, status in ((cross, 403), ({"Origin": "http://evil.example"}, 403)):
            with pytest.raises(InvalidStatus) as refused:
                await connect(
                    server.url.replace("http", "ws") + "/live", additional_headers=headers, proxy=None
                )
            assert refused.value.response.status_code == status
