"""Subscribers: the many subscriptions of one worker; a run ends when all have taken every publication.

Law: each is a task with a subscription of its own, as a connection's would
be. Those of other topics are open, and get nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

from asgi_ipc import Subscription, ipc
from benchmarks.control import Order

TOPIC: Final = "topic"


class Subscribers:
    """The subscriptions of a run, and the tasks that take from them."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._left = 0
        self._count = 0

    async def open(self, order: Order) -> None:
        """End those of the last run; subscribe for this one."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stack.aclose()
        self._stack = AsyncExitStack()
        self._left = self._count = order.subscriptions
        subscriptions = [ipc.subscribe(TOPIC) for _ in range(order.subscriptions)]
        others = [ipc.subscribe(f"other {number}") for number in range(order.other_subscriptions)]
        await asyncio.gather(*(self._stack.enter_async_context(each) for each in subscriptions + others))
        self._tasks = [asyncio.create_task(self._take(each)) for each in subscriptions]

    async def _take(self, subscription: Subscription) -> None:
        async for message in subscription:
            self._left -= 1
            if not self._left:
                self._left = self._count
                assert message.sender is not None
                ipc.send_nowait(message.sender, "answer", message.data)
