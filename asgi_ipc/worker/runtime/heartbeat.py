"""The heartbeat: a timer that measures how late the event loop is.

Law: one timer for everything that happens now and then, so that an idle worker wakes once a second (more
often if `--worker-hang-timeout` is short). It runs on the event loop, never in a thread: it measures the loop
itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from asgi_ipc.fleet.settings import BEAT_S


class Heartbeat:
    """Calls its `callbacks` at once and then every `period_s`, on the running loop, until closed."""

    def __init__(self, *callbacks: Callable[[], None], period_s: float = BEAT_S) -> None:
        self.callbacks = list(callbacks)
        self._period_s = period_s
        self._loop = asyncio.get_running_loop()
        # How late the last beat was, and the latest of all, in seconds.
        self.last_lag_s = 0.0
        self.max_lag_s = 0.0
        self._due = self._loop.time()
        self._handle: asyncio.TimerHandle | None = None
        self._beat()

    @property
    def lag_s(self) -> float:
        """The delay of the last beat or, if that is more, how long the next one is overdue."""
        return max(self.last_lag_s, self._loop.time() - self._due)

    def close(self) -> None:
        """Stop beating."""
        if self._handle is not None:
            self._handle.cancel()

    def _beat(self) -> None:
        now = self._loop.time()
        self.last_lag_s = max(now - self._due, 0.0)
        self.max_lag_s = max(self.max_lag_s, self.last_lag_s)
        self._due = now + self._period_s
        self._handle = self._loop.call_at(self._due, self._beat)
        for callback in self.callbacks:
            callback()
