"""broadcaster with its Redis backend; the one in memory does not leave the process.

By the URL that its documentation shows, so on the loopback interface. It carries only text, which the
payloads are. In 0.3.1 the first subscription gets nothing with a current redis-py (its listener ends before
the subscription is known, and only the next one wakes it), so one extra subscription comes before the counted
ones.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from broadcaster import Broadcast
from redis.asyncio import Redis

from benchmarks.conductor import Subject
from benchmarks.control import Order
from benchmarks.party import LoopParty, check_answer
from benchmarks.peers import services
from benchmarks.peers.redis_pubsub import channels_of, until_all_are_subscribed
from benchmarks.process import spawned
from benchmarks.servers import HOST

BEFORE_ALL: Final = "before-all"


class Broadcaster(LoopParty):
    """A Broadcast, and a task for each channel that it is subscribed to."""

    def __init__(self, index: int, place: services.Place) -> None:
        super().__init__(index)
        self._broadcast: Any = Broadcast(f"redis://{HOST}:{place.port}")
        self._redis: Any = Redis(unix_socket_path=place.path)
        self._is_connected = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._asked: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def open(self, order: Order) -> None:
        """Subscribe to every source, and see that it works."""
        if not self._is_connected:
            self._is_connected = True
            await self._broadcast.connect()
            await self._subscribe(BEFORE_ALL)
        for channel in channels_of(order, self.index):
            if channel not in self._tasks:
                await self._subscribe(channel)
                await until_all_are_subscribed(self._redis, order, [channel])

    async def _subscribe(self, channel: str) -> None:
        subscribed = asyncio.Event()
        self._tasks[channel] = asyncio.create_task(self._listen(channel, subscribed))
        await subscribed.wait()

    async def _listen(self, channel: str, subscribed: asyncio.Event) -> None:
        async with self._broadcast.subscribe(channel=channel) as subscriber:
            subscribed.set()
            async for event in subscriber:
                match channel:
                    case "questions":
                        await self._broadcast.publish("answers", event.message)
                    case "answers":
                        self._asked.set_result(event.message)
                    case _:
                        self.inbox.take(event.message.encode())

    async def send(self, order: Order, messages: Iterable[bytes]) -> None:
        """One after the other; there is no other way."""
        publish, channel = self._broadcast.publish, f"{order.pattern}-{self.index}"
        for data in messages:
            await publish(channel=channel, message=data.decode())

    async def ask(self, order: Order, messages: Iterable[bytes]) -> list[int]:
        """A question on one channel, its answer on another."""
        publish, now_ns = self._broadcast.publish, time.monotonic_ns
        create_future = asyncio.get_running_loop().create_future
        times_ns = []
        for data in messages:
            asked = self._asked = create_future()
            started_ns = now_ns()
            await publish(channel="questions", message=data.decode())
            answer = await asked
            times_ns.append(now_ns() - started_ns)
            check_answer(data, answer.encode())
        return times_ns


@asynccontextmanager
async def _start(size: int, path: str) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        async with services.redis(Path(folder)) as place, spawned(Broadcaster, size, path, "uvloop", place):
            yield


def subjects() -> list[Subject]:
    """One."""
    return [Subject("broadcaster", "uvloop", _start)]
