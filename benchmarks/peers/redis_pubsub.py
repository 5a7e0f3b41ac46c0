"""Redis pub/sub on a Unix socket, by redis-py's asyncio client with hiredis.

Pipelined: a turn's messages in one pipeline without a transaction, which is the fastest way there is.
Awaited: one `publish` after the other, as most apps do. The server's limit on the output buffer of a
subscriber is off, or it would disconnect receivers that are slower than their sender.
"""

from __future__ import annotations

import asyncio
import functools
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from benchmarks.conductor import Subject
from benchmarks.control import Order
from benchmarks.party import MESSAGES_PER_TURN, LoopParty, check_answer, turns
from benchmarks.peers import services
from benchmarks.process import Factory, spawned

# Of large messages a pipeline holds fewer, or it would hold hundreds of MiB.
PIPELINE_BYTES: Final = 1024 * 1024


def channels_of(order: Order, index: int) -> list[str]:
    """Return the channels of a party: one for each source, or the one of its questions or answers."""
    if order.pattern == "ask":
        return ["answers" if index == 0 else "questions"]
    return [f"{order.pattern}-{source}" for source in order.sources(index)]


async def until_all_are_subscribed(redis: Any, order: Order, channels: list[str]) -> None:
    """A client does not wait for the server's word; PUBSUB NUMSUB has it."""
    expected = len(order.pids) - 1
    while any(count < expected for _, count in await redis.pubsub_numsub(*channels)):
        pass  # ask again


class Awaited(LoopParty):
    """A client, and its subscription."""

    def __init__(self, index: int, place: services.Place) -> None:
        super().__init__(index)
        self._redis: Any = Redis(unix_socket_path=place.path)
        self._pubsub: Any = self._redis.pubsub(ignore_subscribe_messages=True)
        self._channels: set[str] = set()
        self._hear: Callable[[bytes], None] = lambda data: None
        self._asked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def open(self, order: Order) -> None:
        """Subscribe to every source; one task listens to all."""
        channels = channels_of(order, self.index)
        self._is_answering = order.pattern == "ask" and self.index in order.receivers
        self._hear = self._answered if order.pattern == "ask" else self.inbox.take
        if channels and not self._channels.issuperset(channels):
            await self._pubsub.subscribe(*channels)
            self._channels.update(channels)
            if self._task is None:
                self._task = asyncio.create_task(self._listen())
            await until_all_are_subscribed(self._redis, order, channels)

    async def _listen(self) -> None:
        publish = self._redis.publish
        async for message in self._pubsub.listen():
            if self._is_answering:
                await publish("answers", message["data"])
            else:
                self._hear(message["data"])

    def _answered(self, data: bytes) -> None:
        self._asked.set_result(data)

    async def send(self, order: Order, messages: Iterable[bytes]) -> None:
        """One after the other."""
        publish, channel = self._redis.publish, f"{order.pattern}-{self.index}"
        for data in messages:
            await publish(channel, data)

    async def ask(self, order: Order, messages: Iterable[bytes]) -> list[int]:
        """A question on one channel, its answer on another."""
        publish, now_ns = self._redis.publish, time.monotonic_ns
        create_future = asyncio.get_running_loop().create_future
        times_ns = []
        for data in messages:
            asked = self._asked = create_future()
            started_ns = now_ns()
            await publish("questions", data)
            answer = await asked
            times_ns.append(now_ns() - started_ns)
            check_answer(data, answer)
        return times_ns


class Pipelined(Awaited):
    """The same with pipelines."""

    async def send(self, order: Order, messages: Iterable[bytes]) -> None:
        """A turn's messages at a time."""
        channel = f"{order.pattern}-{self.index}"
        length = max(1, min(MESSAGES_PER_TURN, PIPELINE_BYTES // order.size_bytes))
        for some in turns(messages, length):
            pipeline = self._redis.pipeline(transaction=False)
            for data in some:
                pipeline.publish(channel, data)
            await pipeline.execute()


@asynccontextmanager
async def _start(factory: Factory, size: int, path: str) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        async with services.redis(Path(folder)) as place, spawned(factory, size, path, "uvloop", place):
            yield


def subjects() -> list[Subject]:
    """Two."""
    return [
        Subject("Redis pipelined", "uvloop", functools.partial(_start, Pipelined)),
        Subject("Redis awaited", "uvloop", functools.partial(_start, Awaited)),
    ]
