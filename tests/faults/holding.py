"""Long requests: clients that hold a streaming response or a WebSocket open, and note its end.

Law: a client reads, asks and notes; it never hangs up before the server does.
Its server is `tests/apps/stream.py`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.serving import DEADLINE_S

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

    pid: int = 0
    heard: list[tuple[float, int]] = field(default_factory=list)
    ended_at: float | None = None
    code: int | None = None
    _task: asyncio.Task[None] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, line: str) -> None:
        """Return the worker's own answer."""
        pid, heard = map(int, line.split())
        assert self.pid in (0, pid)
        self.pid = pid
        self.heard.append((time.monotonic(), heard))
        self._news.set()

    def heard_since(self, at: float) -> int:
        """How many messages its worker has heard from then to its end."""
        later = [heard for when, heard in self.heard if when >= at]
        return later[-1] - later[0] if later else 0

    async def says_more(self) -> None:
        """Wait until its worker has spoken again. Raises TimeoutError."""
        self._news.clear()
        async with asyncio.timeout(DEADLINE_S):
            await self._news.wait()

    def go_on(self, task: asyncio.Task[None]) -> None:
        """Until the server ends it."""
        self._task = task

    async def ended(self) -> None:
        """Wait for that. Raises TimeoutError."""
        assert self._task is not None
        async with asyncio.timeout(DEADLINE_S):
            await self._task
        assert self.ended_at is not None


async def hold_stream(port: int) -> Held:
    """Open a streaming response, and read on when its first line is there."""
    held = Held()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: test\r\n\r\n")

    async def read() -> None:
        try:
            while await _read_line(reader, held):
                pass
        except ConnectionResetError:
            pass
        held.ended_at = time.monotonic()
        writer.close()

    async with asyncio.timeout(DEADLINE_S):
        while not held.pid:
            assert await _read_line(reader, held), "no stream"
    held.go_on(asyncio.create_task(read()))
    return held


async def _read_line(reader: asyncio.StreamReader, held: Held) -> bool:
    """One line, of the app or of the chunks around it; false at the end."""
    line = (await reader.readline()).decode()
    words = line.split()
    if len(words) == 2 and words[0].isdigit():
        held.note(line)
    return bool(line)


async def hold_websocket(port: int) -> Held:
    """Open a WebSocket, and ask on and on when its first answer is there."""
    held = Held()
    # No proxy: this is the loopback interface.
    connection = await connect(f"ws://127.0.0.1:{port}/converse", proxy=None, open_timeout=DEADLINE_S)

    async def ask() -> None:
        try:
            while True:
                await _question(connection, held)
                await asyncio.sleep(THINK_S)  # this is what a client does: it thinks
        except ConnectionClosed as closed:
            held.code = closed.rcvd.code if closed.rcvd is not None else None
        held.ended_at = time.monotonic()

    async with asyncio.timeout(DEADLINE_S):
        await _question(connection, held)
    held.go_on(asyncio.create_task(ask()))
    return held


async def _question(connection: ClientConnection, held: Held) -> None:
    await connection.send("?")
    answer = await connection.recv()
    assert isinstance(answer, str)
    held.note(answer)
