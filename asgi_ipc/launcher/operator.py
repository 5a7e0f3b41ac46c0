"""The operator: signals, changed files, and the end of the process that started the server, as events.

Law: nothing is decided here. The parent of a server that runs for a while, such as a test, holds the write
end of a pipe and says nothing; the kernel closes that end when the parent ends, however it does. The
descriptor is the launcher's alone: no worker inherits it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from asgi_ipc.fleet.events import Event, ParentGone, RestartRequested, ScaleRequested, StopRequested
from asgi_ipc.launcher.process import OPERATORS_SIGNALS
from asgi_ipc.logs import server_logger as logger

READ_BYTES: Final = 4096

_SIGNALS: Final = (
    *OPERATORS_SIGNALS,
    signal.SIGCHLD,
    # Harmless under uvicorn, so harmless here; the default of most is to end the process.
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)


class Operator:
    """Listens until it is closed.

    Args:
        post: is given each event.
        reap: is called when a child has ended.
        changes: gives the reason for each restart besides signals (`--reload`).
        parent: the read end of the parent's pipe.
    """

    def __init__(
        self,
        post: Callable[[Event], None],
        reap: Callable[[], None],
        changes: Callable[[], AsyncIterator[str]] | None,
        parent: int | None,
    ) -> None:
        self._post, self._reap, self._parent = post, reap, parent
        self._loop = asyncio.get_running_loop()
        self._handlers_before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, partial(self._signalled, number))
        # The parent may have blocked them; this does not concern workers and their children.
        self._mask_before = signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if parent is not None:
            self._loop.add_reader(parent, self._hear_parent, parent)
        self._watching = None if changes is None else asyncio.create_task(self._watch(changes))

    async def close(self) -> None:
        """Leave signals as they were before."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        if self._parent is not None:
            self._loop.remove_reader(self._parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask_before)
        for number, handler in self._handlers_before.items():
            self._loop.remove_signal_handler(number)
            if handler is not None:  # None: it was no handler of Python's
                signal.signal(number, handler)

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        match number:
            case signal.SIGINT | signal.SIGTERM:
                self._post(StopRequested(number, name))
            case signal.SIGHUP:
                self._post(RestartRequested(f"Received {name}"))
            case signal.SIGTTIN:
                self._post(ScaleRequested(1))
            case signal.SIGTTOU:
                self._post(ScaleRequested(-1))
            case signal.SIGCHLD:
                self._reap()
            case _:
                logger.debug("Received %s, which means nothing here.", name)

    def _hear_parent(self, fd: int) -> None:
        try:
            has_gone = not os.read(fd, READ_BYTES)
        except BlockingIOError:
            has_gone = False
        except ConnectionResetError:
            has_gone = True
        if has_gone:
            self._loop.remove_reader(fd)
            self._post(ParentGone())

    async def _watch(self, changes: Callable[[], AsyncIterator[str]]) -> None:
        try:
            async for reason in changes():
                self._post(RestartRequested(reason))
        except (OSError, RuntimeError):
            # The server goes on; who edits must know that nothing watches any more.
            logger.exception("Files are not watched any more; restart with SIGHUP.")
