"""ZeroMQ over ipc://, by pyzmq: PUSH to PULL, PUB to SUB, REQ to REP.

PUSH and PUB: blocking calls in processes that do nothing else; a broadcast is a PUSH to each, or one PUB.
Asyncio: zmq.asyncio on uvloop, which an ASGI worker would need. High-water marks are off, since a PUB socket
drops what exceeds them.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zmq
import zmq.asyncio

from benchmarks.cases import Shape
from benchmarks.conductor import Subject
from benchmarks.control import RUN_TIMEOUT_S, Facts, Order
from benchmarks.party import LoopParty, check_answer, facts_of, turns
from benchmarks.payloads import Inbox, payloads
from benchmarks.peers import ZEROMQ
from benchmarks.process import Factory, spawned

# From here on ZeroMQ sends the bytes themselves (its own default where copy=False).
ZERO_COPY_BYTES: Final = 64 * 1024

# The subscription to everything, as the publisher sees it.
SUBSCRIPTION: Final = b"\x01"

# The kinds of the sending socket, by pattern. An XPUB is a PUB that also receives the subscriptions.
PUSHES: Final = {"one": zmq.PUSH, "each": zmq.PUSH, "all": zmq.PUSH, "ask": zmq.REQ}
PUBLISHES: Final = {"one": zmq.XPUB, "each": zmq.XPUB, "all": zmq.XPUB}
EITHER: Final = PUSHES | {"each": zmq.XPUB, "all": zmq.XPUB}

RECEIVES: Final = {zmq.PUSH: zmq.PULL, zmq.XPUB: zmq.SUB, zmq.REQ: zmq.REP}


@dataclass(frozen=True, slots=True)
class Place:
    """What the parties of a subject share."""

    folder: Path
    kinds: Mapping[str, int]


class _Sockets:
    """The sockets of one party, opened once for each pattern. The sender binds, all receivers connect."""

    def __init__(self, context: Any, index: int, place: Place) -> None:
        self._context, self._index, self._place = context, index, place
        self._open: dict[str, tuple[list[Any], Any]] = {}

    def of(self, order: Order) -> tuple[list[Any], Any, int]:
        """Return the sending sockets, the receiving one, and the number of subscriptions still to come."""
        pattern, kind = order.pattern, self._place.kinds[order.pattern]
        is_new = pattern not in self._open
        if is_new:
            self._open[pattern] = self._sending(order, kind), self._receiving(order, kind)
        sending, receiving = self._open[pattern]
        waits = is_new and sending and kind == zmq.XPUB
        return sending, receiving, len(order.pids) - 1 if waits else 0

    def _sending(self, order: Order, kind: int) -> list[Any]:
        if self._index not in order.senders:
            return []
        receivers = [receiver for receiver in order.receivers if receiver != self._index]
        sockets = []
        for receiver in receivers if kind == zmq.PUSH else [None]:
            socket = self._socket(kind)
            if kind == zmq.XPUB:
                # Of subscribers to the same it would tell the first only.
                socket.setsockopt(zmq.XPUB_VERBOSE, 1)
            socket.bind(self._address(order, self._index, receiver))
            sockets.append(socket)
        return sockets

    def _receiving(self, order: Order, kind: int) -> Any:
        if self._index not in order.receivers:
            return None
        socket = self._socket(RECEIVES[kind])
        if kind == zmq.XPUB:
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        for source in order.senders if order.pattern == "ask" else order.sources(self._index):
            socket.connect(self._address(order, source, self._index if kind == zmq.PUSH else None))
        return socket

    def _address(self, order: Order, sender: int, receiver: int | None) -> str:
        return (
            f"ipc://{self._place.folder}/{order.pattern}-{sender}-{'all' if receiver is None else receiver}"
        )

    def _socket(self, kind: int) -> Any:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.set_hwm(0)
        return socket


class Plain:
    """Blocking calls. A party that does both sends a turn's messages and then takes those that have come."""

    def __init__(self, index: int, place: Place) -> None:
        self._index = index
        self._sockets = _Sockets(zmq.Context(), index, place)

    async def prepare(self, order: Order) -> None:
        """Open the sockets, wait for all subscriptions."""
        self._sending, self._receiving, subscribers = self._sockets.of(order)
        for _ in range(subscribers):
            assert self._sending[0].recv() == SUBSCRIPTION
        if self._receiving is not None:
            self._receiving.setsockopt(zmq.RCVTIMEO, int(RUN_TIMEOUT_S * 1000))

    async def perform(self, order: Order) -> Facts:
        """Send, receive, or both."""
        if order.pattern == "ask":
            return self._ask(order) if self._index == 0 else self._answer(order)
        inbox = Inbox(order.sources(self._index), order.count, order.size_bytes, lambda: None)
        started_ns, cpu_from_ns = 0, time.process_time_ns()
        if self._sending:
            messages = payloads(self._index, order.count, order.size_bytes)
            started_ns, cpu_from_ns = time.monotonic_ns(), time.process_time_ns()
            self._send(order, messages, inbox)
        if self._receiving is not None:
            self._take_the_rest(inbox, order.count * len(order.sources(self._index)) - inbox.taken)
        return facts_of(inbox, cpu_from_ns, started_ns)

    def _send(self, order: Order, messages: Iterable[bytes], inbox: Inbox) -> None:
        sends, copy = [socket.send for socket in self._sending], order.size_bytes < ZERO_COPY_BYTES
        if self._receiving is None and len(sends) == 1:
            (send,) = sends
            for data in messages:
                send(data, 0, copy)
            return
        for some in turns(messages):
            for data in some:
                for send in sends:
                    send(data, 0, copy)
            if self._receiving is not None:
                self._take_what_is_here(inbox)

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
        (asking,) = self._sending
        send, receive, now_ns = asking.send, asking.recv, time.monotonic_ns
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

    def __init__(self, index: int, place: Place) -> None:
        super().__init__(index)
        self._sockets = _Sockets(zmq.asyncio.Context(), index, place)

    async def open(self, order: Order) -> None:
        """Open the sockets, wait for all subscriptions; then receive in a task."""
        self._sending, self._receiving, subscribers = self._sockets.of(order)
        for _ in range(subscribers):
            assert await self._sending[0].recv() == SUBSCRIPTION
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
        (sending,) = self._sending
        send, copy = sending.send, order.size_bytes < ZERO_COPY_BYTES
        for some in turns(messages):
            for data in some:
                await send(data, 0, copy)
            await asyncio.sleep(0)

    async def ask(self, order: Order, messages: Iterable[bytes]) -> list[int]:
        """REQ, and its reply."""
        (asking,) = self._sending
        send, receive, now_ns = asking.send, asking.recv, time.monotonic_ns
        times_ns = []
        for data in messages:
            started_ns = now_ns()
            await send(data)
            answer = await receive()
            times_ns.append(now_ns() - started_ns)
            check_answer(data, answer)
        return times_ns


@asynccontextmanager
async def _start(
    factory: Factory, kinds: Mapping[str, int], loop: str, size: int, path: str
) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        async with spawned(factory, size, path, loop, Place(Path(folder), kinds)):
            yield


def _pub_is_missing(shape: Shape) -> str | None:
    return "a PUB gets no answer: see PUSH, which asks by REQ" if shape.is_round_trip else None


def subjects() -> list[Subject]:
    """Three."""
    push, pub = ZEROMQ
    return [
        Subject(push, "", functools.partial(_start, Plain, PUSHES, "")),
        Subject(pub, "", functools.partial(_start, Plain, PUBLISHES, ""), _pub_is_missing),
        Subject("ZeroMQ asyncio", "uvloop", functools.partial(_start, Asyncio, EITHER, "uvloop")),
    ]
