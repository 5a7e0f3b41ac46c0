"""A hand-written asyncio Protocol over Unix sockets, with bare bytes: the base of two peers and of Y6.

Frames of a 4-byte length and the payload; the receiver cuts each chunk into all its frames. The messages of a
turn of the loop are joined and written to each connection, at most about 64 KiB at a time: what is much
larger falls out of the cache in between.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, cast

from benchmarks.control import Order
from benchmarks.party import MESSAGES_PER_TURN, LoopParty, check_answer, turns

LENGTH: Final = struct.Struct("<I")

POLL_S: Final = 0.01

# A socket takes about three times as much.
JOINED_BYTES: Final = 64 * 1024

# Of large messages a turn has fewer, or hundreds of MiB would wait in a transport.
TURN_BYTES: Final = 4 * 1024 * 1024


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
        self._waiting_bytes = 0
        self._asked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def open(self, order: Order) -> None:
        """Listen, connect; both once."""
        if self._server is None:
            loop, accept = asyncio.get_running_loop(), lambda: self._accept(order)
            self._server = await loop.create_unix_server(accept, str(self._folder / str(self.index)))
        if self.index in order.senders:
            for other in order.receivers:
                if other != self.index and other not in self._outgoing:
                    self._outgoing[other] = await self._connect(self._folder / str(other))
        for frames in self._incoming:
            frames.take = self._take_for(frames, order)

    def _accept(self, order: Order) -> Frames:
        # All connections to a party are made in its first run.
        frames = Frames(self.inbox.take)
        frames.take = self._take_for(frames, order)
        self._incoming.append(frames)
        return frames

    async def _connect(self, path: Path) -> Frames:
        while True:
            try:
                _, frames = await asyncio.get_running_loop().create_unix_connection(
                    lambda: Frames(self._answers()), str(path)
                )
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(POLL_S)  # the other one is about to listen
            else:
                return frames

    def _take_for(self, frames: Frames, order: Order) -> Callable[[bytes], None]:
        if order.pattern != "ask":
            return self.inbox.take
        return lambda data: frames.transport.write(self._frame("answer", data))

    def _answers(self) -> Callable[[bytes], None]:
        return self._answered

    def _frame(self, name: str, data: bytes) -> bytes:
        # Bare bytes have no name.
        return LENGTH.pack(len(data)) + data

    async def send(self, order: Order, messages: Iterable[bytes]) -> None:
        """Post all of a turn; wait where a buffer is full."""
        post, everyone = self._post, list(self._outgoing.values())
        length = max(1, min(MESSAGES_PER_TURN, TURN_BYTES // order.size_bytes))
        for some in turns(messages, length):
            for data in some:
                post(data)
            await asyncio.sleep(0)
            for frames in everyone:
                await frames.writable.wait()

    def _post(self, data: bytes) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting += LENGTH.pack(len(data)), data
        self._waiting_bytes += len(data)
        if self._waiting_bytes > JOINED_BYTES:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        block = b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        for frames in self._outgoing.values():
            frames.transport.write(block)

    async def ask(self, order: Order, messages: Iterable[bytes]) -> list[int]:
        """Await the answer's frame on the same connection."""
        write, frame, now_ns = self._outgoing[1].transport.write, self._frame, time.monotonic_ns
        create_future = asyncio.get_running_loop().create_future
        times_ns = []
        for data in messages:
            asked = self._asked = create_future()
            started_ns = now_ns()
            write(frame("question", data))
            answer = await asked
            times_ns.append(now_ns() - started_ns)
            check_answer(data, answer)
        return times_ns

    def _answered(self, data: bytes) -> None:
        self._asked.set_result(data)
