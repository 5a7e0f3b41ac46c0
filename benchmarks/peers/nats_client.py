"""NATS, by nats-py: publish and subscribe through a nats-server on the loopback interface.

Subscriptions without limits: beyond them the client drops. `publish` puts a
message into the client's buffer; the flusher task writes it.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats

from benchmarks.conductor import Subject
from benchmarks.control import Order
from benchmarks.party import LoopParty, check_answer, turns
from benchmarks.peers import services
from benchmarks.process import spawned
from benchmarks.servers import HOST


class Nats(LoopParty):
    """A client."""

    def __init__(self, index: int, place: services.Place) -> None:
        super().__init__(index)
        self._url = f"nats://{HOST}:{place.port}"
        self._client: Any = None
        self._subscribed: set[str] = set()

    async def open(self, order: Order) -> None:
        """Connect; subscribe to every source, and have that confirmed by the server."""
        if self._client is None:
            self._client = await nats.connect(self._url, skip_subject_validation=True)
        if order.pattern not in self._subscribed:
            self._subscribed.add(order.pattern)
            for source in order.sources(self.index):
                await self._subscribe(f"{order.pattern}.{source}", self._take)
            if order.pattern == "ask" and self.index in order.receivers:
                await self._subscribe("question", self._answer)
        await self._client.flush()

    async def _subscribe(self, subject: str, callback: Any) -> None:
        await self._client.subscribe(subject, cb=callback, pending_msgs_limit=0, pending_bytes_limit=0)

    async def _take(self, message: Any) -> None:
        self.inbox.take(message.data)

    async def _answer(self, message: Any) -> None:
        await message.respond(message.data)

    async def send(self, order: Order, messages: Iterable[bytes]) -> None:
        """Publish a turn's messages at a time."""
        publish, subject = self._client.publish, f"{order.pattern}.{self.index}"
        for some in turns(messages):
            for data in some:
                await publish(subject, data)
            await asyncio.sleep(0)
        await self._client.flush()

    async def ask(self, order: Order, messages: Iterable[bytes]) -> list[int]:
        """A request, and its reply."""
        request, now_ns = self._client.request, time.monotonic_ns
        times_ns = []
        for data in messages:
            started_ns = now_ns()
            answer = await request("question", data, timeout=5)
            times_ns.append(now_ns() - started_ns)
            check_answer(data, answer.data)
        return times_ns


@asynccontextmanager
async def _start(size: int, path: str) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        async with services.nats(Path(folder)) as place, spawned(Nats, size, path, "uvloop", place):
            yield


def subjects() -> list[Subject]:
    """One."""
    return [Subject("NATS", "uvloop", _start)]
