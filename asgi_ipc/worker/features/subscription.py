"""Subscriptions: the publications that wait for one subscriber.

Law: a bounded queue that never sends. A slow subscriber learns how many it has missed, or holds up the
publishers, as it has chosen.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, TypeAlias, get_args

from msgspec import structs

from asgi_ipc.errors import SubscriptionOverflowError
from asgi_ipc.wire.message import check_name
from asgi_ipc.worker.features.publication import Entry, Publication
from asgi_ipc.worker.features.topics import Topics

Overflow: TypeAlias = Literal["wait", "drop_oldest", "drop_newest", "close"]
"""The fate of a publication for which a subscription has no room."""

# The bytes that may wait in one subscription: two of the largest messages under the default limit.
MAX_WAITING_BYTES: Final = 32 * 1024 * 1024

# A subscriber that never finds its queue empty lets others have a turn after so many, as `send` does.
YIELD_AFTER_MESSAGES: Final = 256


class Subscription:
    """The publications of one topic, as an async context manager and iterator; `ipc.subscribe` makes it.

    Enter it once, and iterate it in one task at a time. It ends with the lifespan; publications that wait
    then can still be taken.
    """

    def __init__(
        self,
        topics: Callable[[], Topics],
        topic: str,
        *,
        overflow: Overflow,
        max_messages: int,
        until_stop: bool,
    ) -> None:
        check_name(topic, "topic")
        if overflow not in get_args(Overflow):
            raise ValueError(f"overflow is one of {', '.join(get_args(Overflow))}; not {overflow!r}")
        if type(max_messages) is not int or max_messages < 1:
            raise ValueError(f"max_messages is a number from 1 on; not {max_messages!r}")
        self.topic: Final = topic
        self.until_stop: Final = until_stop
        self._find_topics = topics
        self._topics: Topics | None = None
        self._overflow = overflow
        self._max_messages = max_messages
        # Each with its bytes. The last `_beyond` of them exceed the bound and count as in flight.
        self._queue: deque[Entry] = deque()
        self._beyond = 0
        self._beyond_bytes = 0
        # The bytes within the bound.
        self._waiting_bytes = 0
        # Lost after the last one in the queue.
        self._missed = 0
        self._taken = 0
        self._has_ended = False
        self._has_overflowed = False
        # The iterating task, while the queue is empty.
        self._waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Subscription to {self.topic!r}: {len(self._queue)} waiting>"

    # --- the subscriber's side

    async def __aenter__(self) -> Subscription:
        if self._topics is not None:
            raise RuntimeError("a subscription can be entered once; make another with ipc.subscribe()")
        topics = self._topics = self._find_topics()
        if self.until_stop and topics.stopped:
            # The request came on a connection that was accepted before the stop.
            self.end()
            return self
        topics.add(self)
        try:
            await topics.known(self.topic)
        except BaseException:
            self._leave(topics)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._topics is not None
        self._leave(self._topics)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Publication:
        topics = self._topics
        if topics is None:
            raise RuntimeError("enter the subscription first: async with ipc.subscribe(topic) as messages")
        if self._taken >= YIELD_AFTER_MESSAGES:
            # Before taking anything: a cancelled wait loses nothing.
            self._taken = 0
            await asyncio.sleep(0)
        while not self._queue:
            if self._has_overflowed:
                raise SubscriptionOverflowError(self.topic, self._max_messages, self._missed)
            if self._has_ended:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise RuntimeError("a subscription is iterated by one task at a time")
            self._taken = 0
            self._waiter = topics.new_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._taken += 1
        return self._take()

    def _take(self) -> Publication:
        taken, size_bytes = self._queue.popleft()
        self._waiting_bytes -= size_bytes
        while self._beyond and not self._is_full():
            size_bytes = self._queue[-self._beyond][1]
            self._waiting_bytes += size_bytes
            self._hold(-1, -size_bytes)
        return taken

    def _leave(self, topics: Topics) -> None:
        topics.remove(self)
        self._queue.clear()
        self._waiting_bytes = 0
        self.end()
        self._hold(-self._beyond, -self._beyond_bytes)

    # --- the worker's side

    def put(self, entry: Entry) -> None:
        """Take a publication, or lose one. Beyond the bound it counts like a handler in flight."""
        if self._beyond or self._has_overflowed or self._is_full():
            match self._overflow:
                case "wait":
                    self._queue.append(self._noted(entry))
                    self._hold(1, entry[1])
                    return
                case "drop_oldest":
                    while self._queue and self._is_full():
                        self._lose_oldest()
                case "drop_newest" | "close":
                    if self._overflow == "close":
                        self._has_overflowed = self._has_ended = True
                    self._missed += 1
                    self._count_lost()
                    return
        self._queue.append(self._noted(entry))
        self._waiting_bytes += entry[1]
        self._wake()

    def _noted(self, entry: Entry) -> Entry:
        """The publication, with how many were lost before it."""
        if not self._missed:
            return entry
        missed, self._missed = self._missed, 0
        return structs.replace(entry[0], missed=missed), entry[1]

    def lost(self, count: int) -> None:
        """Note publications that were lost on their way here."""
        self._missed += count

    def end(self) -> None:
        """End the subscription."""
        self._has_ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _is_full(self) -> bool:
        waiting = len(self._queue) - self._beyond
        return waiting >= self._max_messages or (waiting > 0 and self._waiting_bytes >= MAX_WAITING_BYTES)

    def _lose_oldest(self) -> None:
        lost, size_bytes = self._queue.popleft()
        self._waiting_bytes -= size_bytes
        if self._queue:
            first, size_bytes = self._queue[0]
            self._queue[0] = structs.replace(first, missed=first.missed + lost.missed + 1), size_bytes
        else:
            self._missed += lost.missed + 1
        self._count_lost()

    def _count_lost(self) -> None:
        assert self._topics is not None
        self._topics.overflowed += 1

    def _hold(self, publications: int, size_bytes: int) -> None:
        assert self._topics is not None
        self._beyond += publications
        self._beyond_bytes += size_bytes
        self._topics.in_flight.add(publications, size_bytes)
