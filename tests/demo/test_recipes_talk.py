"""The recipes chat and events: browsers in different workers, and their fate at a restart."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from asgi_ipc import ipc
from asgi_ipc.testing.child import is_running
from demo.recipes import events
from tests.serving import DEADLINE_S, eventually
from tests.visiting import client, recipe, sockets, visits


async def heard(browser: ClientConnection) -> tuple[str, int]:
    """The next message, and how many were lost before it."""
    async with asyncio.timeout(DEADLINE_S):
        message = json.loads(await browser.recv())
    return message["text"], message["missed"]


async def close_code(browser: ClientConnection) -> int:
    async with asyncio.timeout(DEADLINE_S):
        await browser.wait_closed()
    assert browser.close_code is not None
    return browser.close_code


async def test_a_room_is_heard_in_all_workers_in_order_and_closes_cleanly_when_they_restart() -> None:
    async with recipe("chat") as server:
        pids = server.workers()
        async with (
            sockets(server, "/rooms/here", pids) as here,
            sockets(server, "/rooms/there", pids) as there,
        ):
            speaker = here[pids[0]]
            for number in range(50):
                await speaker.send(f"{number}")
            for listener in here.values():
                assert [await heard(listener) for _ in range(50)] == [(f"{n}", 0) for n in range(50)]
            # The first message in another room is one that was said there.
            await there[pids[1]].send("apart")
            assert await heard(there[pids[2]]) == ("apart", 0)
            # A browser that goes in the middle of a send disturbs no other.
            here[pids[1]].transport.abort()
            await speaker.send("still")
            assert await heard(here[pids[2]]) == ("still", 0)
            await server.kill(pids[2])
            await speaker.send("all the same")
            assert await heard(speaker) == ("still", 0)
            assert await heard(speaker) == ("all the same", 0)
            await server.restart()
            for pid in (pids[0], pids[1]):
                assert await close_code(there[pid]) == 1012
        async with sockets(server, "/rooms/here", server.workers()[:2]) as again:
            one, other = again.values()
            await one.send("back")
            assert await heard(other) == ("back", 0)


async def test_who_reads_too_slowly_is_told_what_it_missed_and_holds_up_nobody() -> None:
    async with recipe("chat", workers=2) as server:
        address = f"ws://127.0.0.1:{server.port}/rooms/here"
        # Beyond what the kernel takes on the way to it.
        count = 3000
        text = "x" * 4000
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect(("127.0.0.1", server.port))
        async with (
            connect(address, sock=narrow, max_queue=1, compression=None) as slow,
            connect(address) as quick,
        ):
            for number in range(count):
                await quick.send(f"{number:4}{text[4:]}")
                assert (await heard(quick))[0].startswith(f"{number:4}")
            last, lost = -1, 0
            while last < count - 1:
                text, missed = await heard(slow)
                assert int(text[:4]) == last + missed + 1
                last += missed + 1
                lost += missed
            assert lost > 0
        for wrong, code in ((b"binary", 1003), ("x" * 4001, 1009)):
            async with connect(address) as speaker:
                await speaker.send(wrong)
                assert await close_code(speaker) == code


# --- server-sent events


@asynccontextmanager
async def following(visitor: httpx.AsyncClient, topic: str) -> AsyncIterator[AsyncIterator[str]]:
    """The events of a stream, the one with `retry` first."""
    async with visitor.stream("GET", f"/events/{topic}") as response:
        assert response.headers["content-type"].startswith("text/event-stream")

        async def blocks() -> AsyncIterator[str]:
            lines: list[str] = []
            async for line in response.aiter_lines():
                if line:
                    lines.append(line)
                else:
                    yield "\n".join(lines)
                    lines.clear()

        yield blocks()


async def next_of(stream: AsyncIterator[str]) -> str | None:
    async with asyncio.timeout(DEADLINE_S):
        return await anext(stream, None)


async def test_events_reach_every_worker_and_streams_end_when_they_restart() -> None:
    async with recipe("events") as server:
        pids = server.workers()
        async with visits(server, pids) as visitors:
            publisher = visitors[pids[2]]
            async with (
                following(visitors[pids[0]], "news") as one,
                following(visitors[pids[1]], "news") as other,
            ):
                assert await next_of(one) == await next_of(other) == "retry: 1000"
                answer = await publisher.post("/events/news", content="two\r\nlines, \N{BLACK STAR}\r\r\n")
                assert set(answer.json()["told"]) == {pids[0], pids[1]}
                expected = "event: message\ndata: two\ndata: lines, \N{BLACK STAR}\ndata: \ndata: "
                assert await next_of(one) == await next_of(other) == expected
                assert (await publisher.post("/events/others", content="")).json()["told"] == []
                assert (await publisher.get("/events/" + "x" * 255)).status_code == 400
                assert (await publisher.post("/events/news", content="x" * 70_000)).status_code == 413
                # No --timeout-graceful-shutdown is set, and only the workers close a stream.
                server.signal(signal.SIGHUP)
                assert await next_of(one) is await next_of(other) is None
        # Idle connections have been closed by now.
        await server.said("All workers have been restarted")


async def test_a_stream_ends_when_its_worker_itself_is_told_to_stop() -> None:
    async with recipe("events", workers=2) as server:
        pid = server.workers()[0]
        async with visits(server, [pid]) as visitors, following(visitors[pid], "news") as stream:
            assert await next_of(stream) == "retry: 1000"
            os.kill(pid, signal.SIGTERM)
            assert await next_of(stream) is None
        await eventually(lambda: not is_running(pid), "it has ended")


async def test_a_quiet_stream_shows_that_it_lives_and_one_that_was_too_slow_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ipc.lifespan():
        stream = events.stream(ipc.subscribe("t", overflow="drop_oldest", max_messages=1))
        assert await anext(stream) == "retry: 1000\n\n"
        with monkeypatch.context() as patch:
            patch.setattr(events, "HEARTBEAT_S", 0.0)
            assert await anext(stream) == ": still here\n\n"
        async with ipc.subscribe("t") as quick:
            for number in range(3):
                await ipc.publish("t", str(number))
                assert (await anext(quick)).data == str(number)
        assert await anext(stream) == "event: missed\ndata: 2\n\n"
        assert await anext(stream) == "event: message\ndata: 2\n\n"


async def test_a_browser_that_goes_leaves_no_subscription_behind() -> None:
    async with recipe("events", workers=2) as server, client(server) as publisher:
        async with client(server) as visitor, following(visitor, "news") as stream:
            await next_of(stream)
            assert len((await publisher.post("/events/news", content="x")).json()["told"]) == 1
        async with asyncio.timeout(DEADLINE_S):
            while (await publisher.post("/events/news", content="x")).json()["told"]:
                pass
