"""A hand-written asyncio Protocol over Unix sockets: what a user would write in place of this package.

One by one: bare bytes, and `transport.write` for each message and connection, as a first version does.
Joined: what it takes to get the same as from this package. A frame is the MessagePack of a name, its sender
and data, encoded when it is sent; the receiver looks the name up in a table of handlers. The frames of a turn
are joined.
"""

from __future__ import annotations

import asyncio
import functools
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.conductor import Subject
from benchmarks.control import Order
from benchmarks.peers import JOINED, ONE_BY_ONE
from benchmarks.process import Factory, spawned
from benchmarks.unix_protocol import JOINED_BYTES, LENGTH, Frames, UnixProtocol


class OneByOne(UnixProtocol):
    """Without a buffer of its own."""

    def _post(self, data: bytes) -> None:
        frame = LENGTH.pack(len(data)) + data
        for frames in self._outgoing.values():
            frames.transport.write(frame)


class Joined(UnixProtocol):
    """With a name, a table of handlers, a sender and MessagePack data.

    Attributes:
        sender: that of the message that is being handled.
    """

    def __init__(self, index: int, folder: Path) -> None:
        super().__init__(index, folder)
        self.sender = 0
        self._pid = os.getpid()
        self._encode = msgspec.msgpack.Encoder().encode

    def _post(self, data: bytes) -> None:
        body = self._encode(("message", self._pid, data))
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self._waiting += LENGTH.pack(len(body)), body
        self._waiting_bytes += len(body)
        if self._waiting_bytes > JOINED_BYTES:
            self._flush()

    def _frame(self, name: str, data: bytes) -> bytes:
        return super()._frame(name, self._encode((name, self._pid, data)))

    def _take_for(self, frames: Frames, order: Order) -> Callable[[bytes], None]:
        def answer(data: Any) -> None:
            frames.transport.write(self._frame("answer", data))

        return self._by_name({"message": self.inbox.take, "question": answer})

    def _answers(self) -> Callable[[bytes], None]:
        return self._by_name({"answer": self._answered})

    def _by_name(self, handlers: Mapping[str, Callable[[Any], None]]) -> Callable[[bytes], None]:
        decode = msgspec.msgpack.Decoder(tuple[str, int, Any]).decode

        def take(frame: bytes) -> None:
            name, self.sender, data = decode(frame)
            handlers[name](data)

        return take


@asynccontextmanager
async def _start(factory: Factory, size: int, path: str) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        async with spawned(factory, size, path, "uvloop", Path(folder)):
            yield


def subjects() -> list[Subject]:
    """Two."""
    return [
        Subject(JOINED, "uvloop", functools.partial(_start, Joined)),
        Subject(ONE_BY_ONE, "uvloop", functools.partial(_start, OneByOne)),
    ]
