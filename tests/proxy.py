"""A proxy: the network between a bridge and its broker, in the test's process.

Law: it moves bytes and does not look into them. What a network does it can do: break, refuse, stand still,
and swallow everything without a word.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

CHUNK_BYTES: Final = 256 * 1024


class Mode(enum.Enum):
    """What happens to bytes and to new connections."""

    OPEN = enum.auto()
    CUT = enum.auto()  # connections are reset, and new ones at once
    STALLED = enum.auto()  # bytes wait, and go on later
    BLACK = enum.auto()  # bytes are swallowed; new connections are accepted, and nobody answers


class Proxy:
    """Connections to a port of its own, which lead to another one of 127.0.0.1.

    Attributes:
        port: where it listens.
        connections: how many it has accepted so far.
    """

    def __init__(self, to: int, host: str) -> None:
        self._to = to
        self._host = host
        self._mode = Mode.OPEN
        self._changed = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.connections = 0

    async def listen(self) -> None:
        """Begin."""
        self._server = await asyncio.start_server(self._accepted, self._host, 0, limit=CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Reset all connections, and refuse others until `heal`."""
        self._become(Mode.CUT)
        self._reset()

    def stall(self) -> None:
        """Hold all bytes back until `heal`."""
        self._become(Mode.STALLED)

    def swallow(self) -> None:
        """Take all bytes and pass none on, without a word, until `heal`."""
        self._become(Mode.BLACK)

    def heal(self) -> None:
        """Pass everything on again. Connections that have lost bytes are reset."""
        was = self._mode
        self._become(Mode.OPEN)
        if was is Mode.BLACK:
            self._reset()

    def close(self) -> None:
        """End it with all connections."""
        assert self._server is not None
        self._server.close()
        self._reset()
        for task in self._tasks:
            task.cancel()

    def _become(self, mode: Mode) -> None:
        self._mode = mode
        self._changed.set()
        self._changed = asyncio.Event()

    def _reset(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._mode is Mode.CUT:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            with suppress(OSError):
                # One that comes into the dark waits there.
                while self._mode is Mode.BLACK:
                    await self._changed.wait()
                there, back = await asyncio.open_connection("127.0.0.1", self._to, limit=CHUNK_BYTES)
                self._writers.add(back)
                tasks = [
                    asyncio.create_task(self._pass(reader, back)),
                    asyncio.create_task(self._pass(there, writer)),
                ]
                self._tasks.update(tasks)
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                self._tasks.difference_update(tasks)
                self._writers.discard(back)
                back.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(CHUNK_BYTES):
                while self._mode is Mode.STALLED:
                    await self._changed.wait()
                if self._mode is not Mode.BLACK:
                    to.write(chunk)
                    await to.drain()


@asynccontextmanager
async def proxy(to: int, host: str = "127.0.0.1") -> AsyncIterator[Proxy]:
    """A proxy in front of a port."""
    there = Proxy(to, host)
    await there.listen()
    try:
        yield there
    finally:
        there.close()
