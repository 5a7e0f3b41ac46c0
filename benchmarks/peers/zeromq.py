"""ZeroMQ over ipc://, by pyzmq: PUSH to PULL, PUB to SUB, REQ to REP.

Plain: blocking calls in processes that do nothing else. Asyncio: zmq.asyncio
on uvloop, which an ASGI worker would need. High-water marks are off, since a
PUB socket drops what exceeds them.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import zmq
import zmq.asyncio

from benchmarks.conductor import Subject
from benchmarks.control import RUN_TIMEOUT_S, Facts, Order
from benchmarks.party import LoopParty, check_answer, turns
from benchmarks.payloads import Inbox, payloads
from benchmarks.process import Factory, spawned

# From here on ZeroMQ sends the bytes themselves (its own default where copy=False).
ZERO_COPY_BYTES: Final = 64 * 1024

# The subscription to everything, as the publisher sees it.
SUBSCRIPTION: Final = b"\x01"

SENDING: Final = {"one": zmq.PUSH, "each": zmq.XPUB, "all": zmq.XPUB, "ask": zmq.REQ}
RECEIVING: Final = {"one": zmq.PULL, "each": zmq.SUB, "all": zmq.SUB, "ask": zmq.REP}


class _Sockets:
    """The sockets of one party, opened once for each pattern. The sender binds, all receivers connect.

    The publisher is an XPUB: a PUB that also receives the subscriptions.
    """

    def __init__(self, context: Any, index: int, folder: Path) -> None:
        self._context, self._index, self._folder = context, index, folder
        self._open: dict[str, tuple[Any, Any]] = {}

    def of(self, order: Order) -> tuple[Any, Any, int]:
        """Return the sending socket, the receiving one, and the number of subscriptions still to come."""
        pattern, subscribers = order.pattern, 0
        if pattern not in self._open:
            sending = receiving = None
            if self._index in order.senders:
                sending = self._socket(SENDING[pattern])
                if SENDING[pattern] == zmq.XPUB:
                    # Of subscribers to the same it would tell the first only.
                    sending.setsockopt(zmq.XPUB_VERBOSE, 1)
                sending.bind(f"ipc://{self._folder}/{pattern}-{self._index}")
                subscribers = len(order.pids) - 1 if SENDING[pattern] == zmq.XPUB else 0
            sources = order.senders if pattern == "ask" else order.sources(self._index)
            if self._index in order.receivers:
                receiving = self._socket(RECEIVING[pattern])
                if RECEIVING[pattern] == zmq.SUB:
                    receiving.setsockopt(zmq.SUBSCRIBE, b"")
                for source in sources:
                    receiving.connect(f"ipc://{self._folder}/{pattern}-{source}")
            self._open[pattern] = sending, receiving
        return *self._open[pattern], subscribers

    def _socket(self, kind: int) -> Any:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.set_hwm(0)
        return socket


class Plain:
    """Blocking calls. A party that does both sends a turn's messages and then takes those that have come."""

    def __init__(self, index: int, folder: Path) -> None:
        self._index = index
        self._sockets = _Sockets(zmq.Context(), index, folder)

    async def prepare(self, order: Order) -> None:
        """Open the sockets, wait for all subscriptions."""
        self._sending, self._receiving, subscribers = self._sockets.of(order)
        for _ in range(subscribers):
            assert self._sending.recv() == SUBSCRIPTION
        if self._receiving is not None:
            self._receiving.setsockopt(zmq.RCVTIMEO, int(RUN_TIMEOUT_S * 1000))

    async def perform(self, order: Order) -> Facts:
        """Send, receive, or both."""
        if order.pattern == "ask":
            return self._ask(order) if self._index == 0 else self._answer(order)
        inbox = Inbox(order.sources(self._index), order.count, order.size_bytes, lambda: None)
        expected = order.count * len(order.sources(self._index))
        started_ns = 0
        if self._sending is not None:
            messages = payloads(self._index, order.count, order.size_bytes)
            send, copy = self._sending.send, order.size_bytes < ZERO_COPY_BYTES
            started_ns = time.monotonic_ns()
            if self._receiving is None:
                for data in messages:
                    send(data, 0, copy)
            else:
                for some in turns(messages):
                    for data in some:
                        send(data, 0, copy)
                    self._take_what_is_here(inbox)
        if expected:
            self._take_the_rest(inbox, expected - inbox.taken)
        return Facts(
            started_ns=started_ns,
            ended_ns=inbox.ended_ns,
            taken=inbox.taken,
            wrong=inbox.wrong,
            wrong_at=inbox.wrong_at,
        )

    def _take_what_is_here(self, inbox: Inbox) -> None:
        receive, take = self._receiving.recv, inbox.take
        with suppress(zmq.Again):
            while True:
                take(receive(zmq.NOBLOCK))

    def _take_the_rest(self, inbox: Inbox, count: int) -> None:
        receive, take = self._receiving.recv, inbox.take
        with suppress(zmq.Again):  # the time-out: the counts tell
            for _ in range(count):
                take(receive())

    def _ask(self, order: Order) -> Facts:
        send, receive, now_ns = self._sending.send, self._sending.recv, time.monotonic_ns
        times_ns = []
        for data in payloads(0, order.count, order.size_bytes):
            started_ns = now_ns()
            send(data)
            answer = receive()
            times_ns.append(now_ns() - started_ns)
            check_answer(data, answer)
        return Facts(times_ns=times_ns)

    def _answer(self, order: Order) -> Facts:
        send, receive = self._receiving.send, self._receiving.recv
        for _ in range(order.count):
            send(receive())
        return Facts()


class Asyncio(LoopParty):
    """The same, awaited."""

    def __init__(self, index: int, folder: Path) -> None:
        super().__init__(index)
        self._sockets = _Sockets(zmq.asyncio.Context(), index, folder)

    async def open(self, order: Order) -> None:
        """Open the sockets, wait for all subscriptions; then receive in a task."""
        self._sending, self._receiving, subscribers = self._sockets.of(order)
        for _ in range(subscribers):
            assert await self._sending.recv() == SUBSCRIPTION
        if self._receiving is not None:
            self._task = asyncio.create_task(
                self._answer(order) if order.pattern == "ask" else self._take(order)
            )

    async def _take(self, order: Order) -> None:
        receive, take = self._receiving.recv, self.inbox.take
        for _ in range(order.count * len(order.sources(self.index))):
            take(await receive())

    async def _answer(self, order: Order) -> None:
        send, receive = self._receiving.send, self._receiving.recv
        for _ in range(order.count):
            await send(await receive())

    async def send(self, order: Order, messages: Iterable[bytes]) -> None:
        """One after the other."""
        send, copy = self._sending.send, order.size_bytes < ZERO_COPY_BYTES
        for some in turns(messages):
            for data in some:
                await send(data, 0, copy)
            await asyncio.sleep(0)

    async def ask(self, order: Order, messages: Iterable[bytes]) -> list[int]:
        """REQ, and its reply."""
        send, receive, now_ns = self._sending.send, self._sending.recv, time.monotonic_ns
        times_ns = []
        for data in messages:
            started_ns = now_ns()
            await send(data)
            answer = await receive()
            times_ns.append(now_ns() - started_ns)
            check_answer(data, answer)
        return times_ns


@asynccontextmanager
async def _start(factory: Factory, loop: str, size: int, path: str) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        async with spawned(factory, size, path, loop, Path(folder)):
            yield


def subjects() -> list[Subject]:
    """Two."""
    return [
        Subject("ZeroMQ", "", functools.partial(_start, Plain, "")),
        Subject("ZeroMQ", "uvloop", functools.partial(_start, Asyncio, "uvloop")),
    ]
