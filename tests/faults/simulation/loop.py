"""The loop: asyncio's own, of one process, on the kernel's clock and descriptors, one turn at a time.

Law: a turn does the same as `BaseEventLoop._run_once`: it takes the ready descriptors, then the due timers,
then runs the handles that were ready before the turn. It asks the simulated kernel instead of the system;
ready descriptors come in any order, as from epoll.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Protocol

from tests.faults.simulation.files import File
from tests.faults.simulation.kernel import Kernel, Process


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


class SimLoop(asyncio.BaseEventLoop):
    """The event loop of one process. `on_error` gets the uncaught exceptions."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self, kernel: Kernel, process: Process, on_error: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._kernel = kernel
        self._process = process
        self._on_error = on_error
        self._readers: dict[int, asyncio.Handle] = {}
        self._writers: dict[int, asyncio.Handle] = {}
        self._signals: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}
        self._tasks: list[asyncio.Task[Any]] = []
        process.watched = lambda fd: fd in self._readers or fd in self._writers

    # --- what asyncio asks for

    def time(self) -> float:
        return self._kernel.now

    def is_running(self) -> bool:
        # An eager task is entered at once only on a loop that says that it runs.
        return asyncio._get_running_loop() is self

    def add_reader(  # type: ignore[override]  # typeshed ties the arguments to the callback
        self, fd: int | _HasFileno, callback: Callable[..., Any], *args: Any
    ) -> None:
        self._watch(self._readers, fd, callback, args)

    def add_writer(  # type: ignore[override]  # typeshed ties the arguments to the callback
        self, fd: int | _HasFileno, callback: Callable[..., Any], *args: Any
    ) -> None:
        self._watch(self._writers, fd, callback, args)

    def remove_reader(self, fd: int | _HasFileno) -> bool:
        return self._unwatch(self._readers, fd)

    def remove_writer(self, fd: int | _HasFileno) -> bool:
        return self._unwatch(self._writers, fd)

    def add_signal_handler(  # type: ignore[override]  # typeshed ties the arguments to the callback
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        self._signals[sig] = (callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        return self._signals.pop(sig, None) is not None

    def create_task(  # type: ignore[override]  # typeshed has one signature for each version
        self, coro: Any, *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = super().create_task(coro, name=name, context=context)
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._process.is_alive:
            self._on_error(context)

    def _write_to_self(self) -> None:
        # call_soon_threadsafe, from the only thread there is.
        pass

    def _watch(
        self,
        table: dict[int, asyncio.Handle],
        fd: int | _HasFileno,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        number = fd if isinstance(fd, int) else fd.fileno()
        self._process.file(number)
        self._unwatch(table, number)
        table[number] = asyncio.Handle(callback, args, self, None)

    def _unwatch(self, table: dict[int, asyncio.Handle], fd: int | _HasFileno) -> bool:
        handle = table.pop(fd if isinstance(fd, int) else fd.fileno(), None)
        if handle is None:
            return False
        handle.cancel()
        return True

    # --- what the scheduler asks for

    def is_due(self) -> bool:
        """Return whether a turn would do something."""
        if self._ready:
            return True
        if self._scheduled and self._scheduled[0].when() <= self._kernel.now:
            return True
        # Asked more often than anything else, so without a generator.
        fds = self._process.fds
        for fd in self._readers:
            if fds[fd].is_readable():
                return True
        for fd in self._writers:  # noqa: SIM110
            if fds[fd].is_writable():
                return True
        return False

    def next_timer(self) -> float | None:
        """When a turn will have something to do, if nothing else happens."""
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)
        return self._scheduled[0].when() if self._scheduled else None

    def is_reading(self, file: File) -> bool:
        """Return whether this loop waits for something to read there."""
        return any(self._process.fds.get(fd) is file for fd in self._readers)

    def signal(self, number: int) -> bool:
        """A signal for its handler; False if it has none."""
        if number not in self._signals:
            return False
        callback, args = self._signals[number]
        self.call_soon(callback, *args)
        return True

    def turn(self) -> None:
        """One iteration. Raises Killed if the process ends in it."""
        ready = self._ready
        ready.extend(self._select())
        due = self._kernel.now
        while self._scheduled and self._scheduled[0].when() <= due:
            ready.append(heapq.heappop(self._scheduled))
        asyncio._set_running_loop(self)
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            asyncio._set_running_loop(None)

    def _select(self) -> list[asyncio.Handle]:
        fds = self._process.fds
        found = [handle for fd, handle in self._readers.items() if fds[fd].is_readable()]
        found += [handle for fd, handle in self._writers.items() if fds[fd].is_writable()]
        if len(found) > 1:
            self._kernel.chance.shuffle(found)
        return found

    def bury(self) -> None:
        """Its process has ended: unwind what it was doing, to no effect."""
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _unwind(task)
        self._tasks.clear()
        self._readers.clear()
        self._writers.clear()
        self._signals.clear()
        self.close()


def _unwind(task: asyncio.Task[Any]) -> None:
    coroutine = task.get_coro()
    # Its finally-blocks call a kernel that is deaf to the dead.
    with suppress(BaseException):
        coroutine.close()
