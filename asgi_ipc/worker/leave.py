"""Leave: how one worker leaves the fleet, once, within one deadline.

Law: first the leader's tasks end, then nothing new is accepted, then everything is read, handled and written,
then everything is closed. The rest at the deadline is counted, logged and reported to the launcher.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from asgi_ipc.fleet.words import Drained, Leaving, Resigned
from asgi_ipc.logs import logger
from asgi_ipc.worker.dispatch.dispatcher import Dispatcher
from asgi_ipc.worker.features.leader import Leading
from asgi_ipc.worker.standalone import LauncherLink
from asgi_ipc.worker.transport.incoming import Incoming
from asgi_ipc.worker.transport.outgoing import Outgoing

# How long a leave may take when the launcher has died: all workers are out within the promised 5 s.
ORPHAN_DRAIN_TIMEOUT_S: Final = 4.0


class Leave:
    """One worker's leave: `resign`, then `run`. It takes at most `timeout_s` from the start of `resign`.

    `close_features` closes what is built on messages.

    Attributes:
        is_over: everything is closed.
    """

    def __init__(
        self,
        launcher: LauncherLink,
        leading: Leading,
        dispatcher: Dispatcher,
        outgoing: Outgoing,
        incoming: Incoming,
        close_features: Callable[[], None],
        timeout_s: float,
    ) -> None:
        self._launcher = launcher
        self._leading = leading
        self._dispatcher = dispatcher
        self._outgoing = outgoing
        self._incoming = incoming
        self._close_features = close_features
        self._timeout_s = timeout_s
        # From `resign` on: when the leave must be over, and the timeout that waits for that now.
        self._by: float | None = None
        self._deadline: asyncio.Timeout | None = None
        self._was_cancelled = False
        self.is_over = False

    @property
    def is_under_way(self) -> bool:
        """Return whether the leave has begun and is not over."""
        return self._by is not None and not self.is_over

    def orphaned(self) -> None:
        """Give a leave under way a nearer deadline, since the launcher has died."""
        if self._by is not None:
            self._by = min(self._by, self._outgoing.loop.time() + ORPHAN_DRAIN_TIMEOUT_S)
            if self._deadline is not None:
                self._deadline.reschedule(self._by)

    async def resign(self) -> None:
        """End the leader's tasks. This begins the leave's time."""
        timeout_s = self._timeout_s
        if not self._launcher.is_open:
            timeout_s = min(timeout_s, ORPHAN_DRAIN_TIMEOUT_S)
        self._by = self._outgoing.loop.time() + timeout_s
        try:
            async with self._in_time():
                await self._leading.end()
        except TimeoutError:
            # No other worker may run them until this process has ended.
            logger.warning("drain timeout: %s not ended", ", ".join(self._leading.running))
        except asyncio.CancelledError:
            self._by = self._outgoing.loop.time()
            self._was_cancelled = True
            raise
        else:
            self._launcher.send(Resigned())

    async def run(self) -> None:
        """Read and handle the messages of others, write the accepted messages, close."""
        # The others will have no way to acknowledge their copies.
        self._outgoing.hurry()
        self._launcher.send(Leaving())
        cancelled_before = self._dispatcher.calls.cancelled
        clean = True
        try:
            async with self._in_time():
                await self._drain()
        except TimeoutError:
            clean = False
        except asyncio.CancelledError:
            # Everything is closed and counted all the same.
            self._was_cancelled = True
            await self._end(False, cancelled_before)
            raise
        await self._end(clean, cancelled_before)

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout_at(self._by) as self._deadline:
                yield
        finally:
            self._deadline = None

    async def _drain(self) -> None:
        # Flushing without reading deadlocks: two leavers would wait on each other's full pipes.
        await self._incoming.eof.wait()
        while True:
            await self._dispatcher.idle()
            if self._outgoing.is_empty():
                return
            self._outgoing.progress.clear()
            await self._outgoing.progress.wait()

    async def _end(self, clean: bool, cancelled_before: int) -> None:
        """Cancel the handlers that still run, give them a moment to clean up, and close."""
        # A loop that is being ended has cancelled handlers together with this task.
        cancelled = self._dispatcher.calls.cancelled - cancelled_before
        left = self._dispatcher.stop()
        try:
            await self._dispatcher.cleaned_up(left)
        finally:
            # Also if this task is cancelled again, as anyio does in each turn.
            self._close(clean, cancelled + len(left))

    def _close(self, clean: bool, cancelled: int) -> None:
        """Close everything; count, log and report the remaining messages, if there are any."""
        self.is_over = True
        self._close_features()
        unsent = self._outgoing.close()
        self._incoming.close()
        unhandled = self._dispatcher.unhandled
        if self._was_cancelled and not (unsent or unhandled or cancelled):
            # Others may have had more to send, but nothing was left to do here.
            clean = self._incoming.eof.is_set()
        if not clean:
            logger.warning(
                "%s: %d messages not sent, %d not handled, %d handlers cancelled",
                "leave cancelled by the app" if self._was_cancelled else "drain timeout",
                unsent,
                unhandled,
                cancelled,
            )
        self._launcher.send(Drained(clean, unsent, unhandled, self._was_cancelled))
