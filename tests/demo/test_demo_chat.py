"""The demo's chat with real workers: one conversation, whichever worker a page has reached."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.serving import DEADLINE_S, RESTARTED, Server
from tests.visiting import demo


class Chat:
    """One page's connection to the room.

    Attributes:
        pid, slot: of the worker that it has reached.
        lines: the lines that it got, in order of arrival.
    """

    def __init__(self, connection: ClientConnection, first: dict[str, Any]) -> None:
        self.connection = connection
        self.pid: int = first["through"]
        self.slot: int = first["slot"]
        self.lines: list[dict[str, Any]] = first["lines"]

    @property
    def texts(self) -> list[str]:
        return [line["text"] for line in self.lines]

    async def say(self, text: str, key: str = "") -> str:
        """Say something; its id."""
        key = key or secrets.token_hex(16)
        await self.connection.send(json.dumps({"id": key, "name": "Otter", "hue": 200, "text": text}))
        return key

    async def until(self, *texts: str) -> None:
        """Wait until all of these have arrived."""
        async with asyncio.timeout(DEADLINE_S):
            while not set(texts) <= set(self.texts):
                self.lines += json.loads(await self.connection.recv())["lines"]


@asynccontextmanager
async def chatting(server: Server, *, pid: int | None = None, but: int | None = None) -> AsyncIterator[Chat]:
    """Connect to the room, through the worker `pid`, or through another one than `but`."""
    async with asyncio.timeout(DEADLINE_S) as opening:
        while True:
            async with AsyncExitStack() as stack:
                try:
                    connection = await stack.enter_async_context(
                        connect(f"ws://127.0.0.1:{server.port}/chat", proxy=None)
                    )
                    chat = Chat(connection, json.loads(await connection.recv()))
                except (OSError, InvalidHandshake, ConnectionClosed):
                    # The worker that had accepted it was killed.
                    continue
                if chat.pid != but and pid in (None, chat.pid):
                    opening.reschedule(None)
                    yield chat
                    return


async def test_two_pages_on_different_workers_see_each_other_and_the_worker_that_it_came_through() -> None:
    async with demo(3) as server, chatting(server) as one, chatting(server, but=one.pid) as other:
        await one.say("hello")
        await other.until("hello")
        await other.say("and to you")
        await asyncio.gather(one.until("and to you"), other.until("and to you"))
        for chat in (one, other):
            assert [(line["text"], line["pid"], line["slot"]) for line in chat.lines] == [
                ("hello", one.pid, one.slot),
                ("and to you", other.pid, other.slot),
            ]
        # A later page gets the same lines.
        async with chatting(server) as late:
            assert late.lines == one.lines == other.lines


async def test_a_newcomer_knows_what_was_said_before_it_came() -> None:
    async with demo(1) as server:
        async with chatting(server) as chat:
            texts = [f"line {number}" for number in range(20)]
            for text in texts:
                await chat.say(text)
            await chat.until(*texts)
            server.signal(signal.SIGTTIN)
            await server.started(2)
            (newcomer,) = set(server.workers()) - {chat.pid}
            async with chatting(server, pid=newcomer) as there:
                assert there.lines == chat.lines
            # So do newcomers when all earlier workers go, to which the page comes back.
            server.signal(signal.SIGHUP)
            with pytest.raises(ConnectionClosed) as closed:
                await chat.until("never said")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        await server.said(RESTARTED)
        async with chatting(server) as chat:
            assert chat.texts == texts


async def test_what_is_said_again_through_another_worker_after_a_kill_is_said_once() -> None:
    async with demo(2) as server, chatting(server) as doomed, chatting(server, but=doomed.pid) as other:
        await doomed.say("for both", key="a" * 32)
        await other.until("for both")
        os.kill(doomed.pid, signal.SIGKILL)
        with pytest.raises(ConnectionClosed) as closed:
            await doomed.until("never said")
        assert closed.value.rcvd is None
        # What a page does that was not told in time: it says all of it again.
        async with chatting(server, but=doomed.pid) as again:
            assert again.texts == ["for both"]
            await again.say("for both", key="a" * 32)
            await again.say("the next")
            await asyncio.gather(again.until("the next"), other.until("the next"))
            assert again.texts == other.texts == ["for both", "the next"]


async def test_a_worker_that_stands_still_keeps_nobody_from_talking() -> None:
    async with demo(3) as server, chatting(server) as one, chatting(server, but=one.pid) as other:
        (still,) = set(server.workers()) - {one.pid, other.pid}
        os.kill(still, signal.SIGSTOP)
        try:
            await one.say("hello")
            await other.until("hello")
            # A newcomer learns the earlier lines.
            server.signal(signal.SIGTTIN)
            await server.started(4)
            (newcomer,) = set(server.workers()) - {one.pid, other.pid, still}
            async with chatting(server, pid=newcomer) as there:
                assert there.texts == ["hello"]
        finally:
            os.kill(still, signal.SIGCONT)
        # It gets the lines that it has missed.
        async with chatting(server, pid=still) as there:
            await there.until("hello")


async def test_a_page_that_says_what_none_of_ours_does_is_closed_and_the_others_talk_on() -> None:
    async with demo(1) as server, chatting(server) as chat:
        for word in ("nonsense", "x" * 100_000, json.dumps({"id": "a" * 32, "text": "no name"})):
            async with chatting(server) as bad:
                await bad.connection.send(word)
                with pytest.raises(ConnectionClosed) as closed:
                    await bad.until("never said")
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
        async with chatting(server) as mute:
            await mute.connection.send(b"bytes are no text")
            await mute.say("hello")
            await asyncio.gather(mute.until("hello"), chat.until("hello"))
        assert "Traceback" not in server.text
