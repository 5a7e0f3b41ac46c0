"""Long requests: clients that hold a streaming response or a WebSocket open, and note its end.

Law: a client reads, asks and notes; it never hangs up before the server does.
Its server is `tests/apps/stream.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.serving import DEADLINE_S, eventually

# A client's think time between two questions on a WebSocket.
THINK_S: Final = 0.05

# How a WebSocket ends when its server goes and says so: service restart (RFC 6455 registry, 1012).
TOLD_SO: Final = 1012


@dataclass(slots=True)
class Held:
    """One open request.

    Attributes:
        pid: the worker that has it.
        heard: by when (monotonic clock), how many messages that worker said it had heard.
        ended_at: when the server has ended it.
        code: of a WebSocket, how; None: without a word.
    """

    is_socket: bool
    pid: int = 0
    heard: list[tuple[float, int]] = field(default_factory=list)
    ended_at: float | None = None
    code: int | None = None
    task: asyncio.Task[None] | None = None

    async def read(self, lines: AsyncIterator[str]) -> None:
        """Note what the worker says, until the server ends the request."""
        try:
            async for line in lines:
                pid, heard = map(int, line.split())
                assert self.pid in (0, pid)
                self.pid = pid
                self.heard.append((time.monotonic(), heard))
        except ConnectionClosed as closed:
            self.code = closed.rcvd.code if closed.rcvd is not None else None
        self.ended_at = time.monotonic()

    def heard_since(self, at: float) -> int:
        """How many messages its worker has heard from then to its end."""
        later = [heard for when, heard in self.heard if when >= at]
        return later[-1] - later[0] if later else 0

    async def says_more(self) -> None:
        """Wait until its worker has spoken again."""
        before = len(self.heard)
        await eventually(lambda: len(self.heard) > before, "its worker is silent")

    async def ended(self) -> None:
        """Wait until the server has ended it. Raises TimeoutError."""
        assert self.task is not None
        async with asyncio.timeout(DEADLINE_S):
            await self.task


async def _hold(lines: AsyncIterator[str], *, is_socket: bool) -> Held:
    held = Held(is_socket)
    held.task = asyncio.create_task(held.read(lines))
    await eventually(lambda: bool(held.pid), "the request is open")
    return held


async def hold_stream(port: int) -> Held:
    """Open a streaming response, and read on when its first line is there."""

    async def lines() -> AsyncIterator[str]:
        async with httpx.AsyncClient(timeout=DEADLINE_S, trust_env=False) as client:
            # Ended without the last chunk, or reset: its server has gone.
            with suppress(httpx.RemoteProtocolError, httpx.ReadError):
                async with client.stream("GET", f"http://127.0.0.1:{port}/stream") as response:
                    async for line in response.aiter_lines():
                        yield line

    return await _hold(lines(), is_socket=False)


async def hold_websocket(port: int) -> Held:
    """Open a WebSocket, and ask on and on when its first answer is there."""

    async def lines() -> AsyncIterator[str]:
        # No proxy: this is the loopback interface.
        address = f"ws://127.0.0.1:{port}/converse"
        async with connect(address, proxy=None, open_timeout=DEADLINE_S) as connection:
            while True:
                await connection.send("?")
                yield str(await connection.recv())
                await asyncio.sleep(THINK_S)  # this is what a client does: it thinks

    return await _hold(lines(), is_socket=True)
