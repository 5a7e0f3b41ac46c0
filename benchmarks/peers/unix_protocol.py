"""A hand-written asyncio Protocol over Unix sockets: the best that a user would write in an afternoon.

Frames of a 4-byte length and the payload; the receiver cuts each chunk into all its frames. Joined: the
messages of a turn of the loop are joined once and written to each connection. Written one by one:
`transport.write` for each message and connection, as a first version does.
"""

from __future__ import annotations

import asyncio
import functools
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast

from benchmarks.conductor import Subject
from benchmarks.control import Order
from benchmarks.party import LoopParty, check_answer, turns
from benchmarks.process import Factory, spawned

LENGTH: Final = struct.Struct("<I")

POLL_S: Final = 0.01


class Frames(asyncio.Protocol):
    """One end of a connection. `take(payload)` is called for each frame."""

    transport: asyncio.Transport

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self.take = take
        self.writable = asyncio.Event()
        self.writable.set()
        self._parts: list[bytes] = []
        self._have_bytes = 0
        self._need_bytes = LENGTH.size

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._parts:
            # Parts of a large frame are joined once, when all are here.
            self._parts.append(data)
            self._have_bytes += len(data)
            if self._have_bytes < self._need_bytes:
                return
            data = b"".join(self._parts)
        take, unpack_from, header = self.take, LENGTH.unpack_from, LENGTH.size
        start, end, self._need_bytes = 0, len(data), header
        while end - start >= header:
            stop = start + header + unpack_from(data, start)[0]
            if stop > end:
                self._need_bytes = stop - start
                break
            take(data[start + header : stop])
            start = stop
        self._parts = [data[start:]] if start < end else []
        self._have_bytes = end - start

    def pause_writing(self) -> None:
        """Called by the loop."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self.writable.set()


class UnixProtocol(LoopParty):
    """Listens on a socket of its own, and connects to the sockets of all its receivers."""

    def __init__(self, index: int, folder: Path) -> None:
        super().__init__(index)
        self._folder = folder
        self._server: asyncio.Server | None = None
        self._incoming: list[Frames] = []
        self._outgoing: dict[int, Frames] = {}
        self._waiting: list[bytes] = []
        self._asked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def open(self, order: Order) -> None:
        """Listen, connect; both once."""
        loop = asyncio.get_running_loop()
        if self._server is None:
            self._server = await loop.create_unix_server(self._accept, str(self._folder / str(self.index)))
        if self.index in order.senders:
            for other in order.receivers:
                if other != self.index and other not in self._outgoing:
                    self._outgoing[other] = await self._connect(self._folder / str(other))
        for frames in self._incoming:
            frames.take = self._take_for(frames, order)

    def _accept(self) -> Frames:
        frames = Frames(self.inbox.take)
        self._incoming.append(frames)
        return frames

    async def _connect(self, path: Path) -> Frames:
        while True:
            try:
                _, frames = await asyncio.get_running_loop().create_unix_connection(
                    lambda: Frames(self._answered), str(path)
                )
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(POLL_S)  # the other one is about to listen
            else:
                return frames

    def _take_for(self, frames: Frames, order: Order) -> Callable[[bytes], None]:
        if order.pattern != "ask":
            return self.inbox.take
        write, pack = frames.transport.write, LENGTH.pack
        return lambda data: write(pack(len(data)) + data)

    async def send(self, order: Order, messages: Iterable[bytes]) -> None:
        """Post all of a turn; wait where a buffer is full."""
        post, everyone = self._post, list(self._outgoing.values())
        for some in turns(messages):
            for data in some:
                post(data)
            await asyncio.sleep(0)
            for frames in everyone:
                await frames.writable.wait()

    def _post(self, data: bytes) -> None:
        waiting = self._waiting
        if not waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        waiting.append(LENGTH.pack(len(data)))
        waiting.append(data)

    def _flush(self) -> None:
        block = b"".join(self._waiting)
        self._waiting.clear()
        for frames in self._outgoing.values():
            frames.transport.write(block)

    async def ask(self, order: Order, messages: Iterable[bytes]) -> list[int]:
        """Await the answer's frame on the same connection."""
        write, now_ns = self._outgoing[1].transport.write, time.monotonic_ns
        create_future = asyncio.get_running_loop().create_future
        times_ns = []
        for data in messages:
            asked = self._asked = create_future()
            started_ns = now_ns()
            write(LENGTH.pack(len(data)) + data)
            answer = await asked
            times_ns.append(now_ns() - started_ns)
            check_answer(data, answer)
        return times_ns

    def _answered(self, data: bytes) -> None:
        self._asked.set_result(data)


class OneByOne(UnixProtocol):
    """The same without the buffer."""

    def _post(self, data: bytes) -> None:
        frame = LENGTH.pack(len(data)) + data
        for frames in self._outgoing.values():
            frames.transport.write(frame)


@asynccontextmanager
async def _start(factory: Factory, size: int, path: str) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        async with spawned(factory, size, path, "uvloop", Path(folder)):
            yield


def subjects() -> list[Subject]:
    """Two."""
    return [
        Subject("Protocol, joined", "uvloop", functools.partial(_start, UnixProtocol)),
        Subject("Protocol, one by one", "uvloop", functools.partial(_start, OneByOne)),
    ]
