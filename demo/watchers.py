"""The watchers: the pages that this worker tells what all workers receive.

Law: whoever reads too slowly is told so and asked to start afresh; nobody
waits for a page, and nothing here knows a socket.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any, Final

# Some seconds of heavy traffic, and a megabyte at most.
MAX_WAITING: Final = 1000


class Watcher:
    """What one page has not been told yet.

    Attributes:
        token: names this watcher among those of this worker; never reused.
        overflowed: something could not be kept for it; it must start afresh.
    """

    def __init__(self, token: int) -> None:
        self.token = token
        self.overflowed = False
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(MAX_WAITING)

    def put(self, message: dict[str, Any]) -> None:
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self.overflowed = True

    async def take(self, timeout_s: float) -> list[dict[str, Any]]:
        """All that waits, in order; after `timeout_s` without any, none."""
        try:
            async with asyncio.timeout(timeout_s):
                taken = [await self._queue.get()]
        except TimeoutError:
            return []
        while not self._queue.empty():
            taken.append(self._queue.get_nowait())
        return taken


class Watchers:
    """The watchers of one worker."""

    def __init__(self) -> None:
        self._tokens = itertools.count(1)
        self._watchers: dict[int, Watcher] = {}

    def open(self) -> Watcher:
        watcher = Watcher(next(self._tokens))
        self._watchers[watcher.token] = watcher
        return watcher

    def close(self, watcher: Watcher) -> None:
        self._watchers.pop(watcher.token, None)

    def tell(self, token: int, message: dict[str, Any]) -> None:
        """Tell one of them; it may have gone by now."""
        if token in self._watchers:
            self._watchers[token].put(message)

    def tell_all(self, message: dict[str, Any]) -> None:
        for watcher in self._watchers.values():
            watcher.put(message)
