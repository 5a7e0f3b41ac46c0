"""Vitals: the response times and the memory of workers, seen from outside.

Law: a light hand. It asks each worker some fifty times a second over a
connection that it keeps, and asks psutil; a worker's own word is not needed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from tests.processes import own_bytes
from tests.serving import DEADLINE_S, Server
from tests.visiting import one_each

# Between an answer and the next question to the same worker.
PAUSE_S: Final = 0.02

_REQUEST: Final = b"GET /pid HTTP/1.1\r\nHost: test\r\n\r\n"


Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(slots=True)
class Vitals:
    """Measurements of some workers, over one connection to each."""

    connections: dict[int, Streams]
    # The largest that each has been.
    peak_bytes: dict[int, int] = field(default_factory=dict)

    async def watch(self, until: asyncio.Event) -> list[float]:
        """Ask all of them until told to stop: how long each answer took, in seconds."""
        took: list[float] = []
        async with asyncio.TaskGroup() as group:
            for pid in self.connections:
                group.create_task(self._watch_one(pid, until, took))
        return took

    async def watch_for(self, seconds: float) -> list[float]:
        """The same for so long."""
        until = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, until.set)
        return await self.watch(until)

    async def _watch_one(self, pid: int, until: asyncio.Event, took: list[float]) -> None:
        while not until.is_set():
            began = time.perf_counter()
            async with asyncio.timeout(DEADLINE_S):
                await _ask(*self.connections[pid])
            took.append(time.perf_counter() - began)
            self.peak_bytes[pid] = max(self.peak_bytes.get(pid, 0), own_bytes(pid))
            await asyncio.sleep(PAUSE_S)  # a client's think time


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """One request; the pid that answers."""
    writer.write(_REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    (length,) = (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    body = await reader.readexactly(int(length.split(b":")[1]))
    pid: int = json.loads(body)
    return pid


@asynccontextmanager
async def watching(server: Server, pids: Collection[int]) -> AsyncIterator[Vitals]:
    """A connection to each of these workers, kept open. The app answers /pid."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[int, Streams]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with closing(writer):
            yield await _ask(reader, writer), (reader, writer)

    async with one_each(pids, opened) as connections:
        yield Vitals(connections)
