"""The demo with real workers: their messages, seen from outside, and the stream over a restart."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.serving import DEADLINE_S, Server, serving
from tests.visiting import demo


async def fleet_of(server: Server, count: int, without: frozenset[int] = frozenset()) -> dict[int, int]:
    """Pids by slot, once `count` workers are here and none of `without` is."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                workers = (await server.get("/workers")).json()["workers"]
            except httpx.TransportError:
                # The worker that had accepted it was killed.
                continue
            slots = {worker["slot"]: worker["pid"] for worker in workers}
            if len(workers) == len(slots) == count and not without & set(slots.values()):
                return slots


async def logged(server: Server, pid: int, name: str, text: str) -> dict[str, Any]:
    """The entry in the /log of worker `pid` with that name and text, once it is there."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            answer = (await server.get("/log")).json()
            for entry in answer["log"]:
                if answer["pid"] == pid and entry["name"] == name and text in entry["data"]:
                    return dict(entry)


async def test_a_message_arrives_at_its_worker_with_its_sender_and_is_answered() -> None:
    async with demo(3) as server:
        slots = await fleet_of(server, 3)
        for target in slots.values():
            sent = (await server.get(f"/send/{target}/hi/{target}")).json()
            assert sent == {"from": sent["from"], "to": target}
            entry = await logged(server, target, "hello", f"hi/{target}")
            assert (entry["from"], entry["data"]) == (sent["from"], f"hi/{target}")
            answer = await logged(server, sent["from"], "reply", f"hi/{target}")
            assert answer["from"] == target

        sent = (await server.get("/broadcast/everyone")).json()
        assert sorted(sent["to"]) == sorted(slots.values())
        for pid in slots.values():
            assert (await logged(server, pid, "hello", "everyone"))["from"] == sent["from"]

        unknown = await server.get(f"/send/{os.getpid()}/hi")
        assert (unknown.status_code, unknown.json()["error"]) == (404, f"no worker {os.getpid()} is here now")
        assert "says 'everyone'" in server.text


async def test_a_message_above_the_limit_is_413_and_the_next_arrives() -> None:
    async with demo(1, "--max-message-bytes", "1024") as server:
        (pid,) = (await fleet_of(server, 1)).values()
        refused = await server.get(f"/send/{pid}/{'x' * 2000}")
        assert refused.status_code == 413
        assert "exceeds the limit of 1024 bytes" in refused.json()["error"]
        # The answer to this one is above the limit, which is the handler's trouble alone.
        assert (await server.get(f"/send/{pid}/{'y' * 1000}")).status_code == 200
        assert (await server.get(f"/send/{pid}/small")).status_code == 200
        await logged(server, pid, "reply", "small")


async def test_whoever_asks_again_is_not_sent_to_a_worker_that_stands_still() -> None:
    async with demo(2) as server, httpx.AsyncClient(timeout=DEADLINE_S) as client:
        url = f"http://127.0.0.1:{server.port}/workers"
        first = await client.get(url)
        assert first.headers["connection"] == "close"
        still = first.json()["pid"]
        os.kill(still, signal.SIGSTOP)
        try:
            assert (await client.get(url)).json()["pid"] != still
        finally:
            os.kill(still, signal.SIGCONT)


class Page:
    """The knowledge of a page, learnt as the page learns it: over one socket after the other."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fleet: list[dict[str, int]] = []
        self.messages: dict[tuple[int, int], dict[str, Any]] = {}
        self.close_codes: list[int | None] = []
        self.changed = asyncio.Condition()

    async def follow(self) -> None:
        while True:
            try:
                async with connect(self.url, proxy=None) as live:
                    await self._listen(live)
            except ConnectionClosed as closed:
                self.close_codes.append(closed.rcvd.code if closed.rcvd else None)
            except (OSError, InvalidStatus):
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


async def test_a_page_follows_kills_and_restarts_and_sees_what_came_before_it() -> None:
    async with demo(3) as server, asyncio.TaskGroup() as tasks:
        first = await fleet_of(server, 3)
        pids = set(first.values())
        await server.get("/broadcast/before")
        page = Page(f"ws://127.0.0.1:{server.port}/live")
        following = tasks.create_task(page.follow())
        await page.until_shown("before", pids)
        await server.get("/broadcast/while")
        await page.until_shown("while", pids)

        os.kill(first[1], signal.SIGKILL)
        second = await fleet_of(server, 3, without=frozenset({first[1]}))
        await page.until_fleet(set(second.values()))
        await server.get(f"/send/{second[1]}/welcome")
        await page.until_shown("welcome", {second[1]})

        os.kill(server.pid, signal.SIGHUP)
        third = await fleet_of(server, 3, without=frozenset(second.values()))
        await page.until_fleet(set(third.values()))
        # uvicorn's word to the page that it may come back: the stream holds up no restart.
        assert 1012 in page.close_codes
        await server.get("/broadcast/after")
        await page.until_shown("after", set(third.values()))
        following.cancel()


async def test_a_foreign_page_gets_4xx_from_a_real_server() -> None:
    async with demo(1) as server:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{server.port}", timeout=DEADLINE_S
        ) as client:
            assert (await client.get("/", headers={"Host": "evil.example"})).status_code == 421
            cross = {"Sec-Fetch-Site": "cross-site"}
            assert (await client.post("/broadcast/hi", headers=cross)).status_code == 403
        for headers in (cross, {"Sec-Fetch-Site": "same-site"}, {"Origin": "http://evil.example"}):
            for path in ("live", "chat"):
                address = f"ws://127.0.0.1:{server.port}/{path}"
                with pytest.raises(InvalidStatus) as refused:
                    await connect(address, additional_headers=headers, proxy=None)
                assert refused.value.response.status_code == 403


async def test_the_terminal_is_greeted_once_with_a_pid_that_is_here() -> None:
    async with serving("demo:app", workers=3, env={"DEMO_URL": "http://127.0.0.1:9"}) as server:
        pids = await server.started(3)
        (line,) = await server.said("curl http://127.0.0.1:9/send/")
        assert int(line.split("/")[-2]) in pids
        assert server.count("Open   http://127.0.0.1:9/ ") == 1
