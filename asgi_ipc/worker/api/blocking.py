"""Blocking: how a thread that can't await calls a verb.

Law: a verb runs where it always runs, on the event loop, in the caller's
context; the thread waits for it. Nothing here is decided or sent.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

from asgi_ipc.errors import NotRunningError
from asgi_ipc.worker.features.messaging import check_timeout
from asgi_ipc.worker.lifespan import Lifespan

P = ParamSpec("P")
T = TypeVar("T")
I = TypeVar("I")  # noqa: E741

# A waiting thread checks its event loop so often: a loop that is closed, and not ended in order, reports
# nothing. And how late a loop may be that turns: one that waits for this very thread never ends a verb
# itself.
LOOK_S: Final = 1.0


def blocking(
    verb: Callable[Concatenate[I, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Waiting[I], P], T]:
    """Return the method that waits for an awaited verb with a `timeout`; all else is as on the verb."""
    default_s: float | None = inspect.signature(verb).parameters["timeout"].default

    @functools.wraps(verb)
    def method(self: Waiting[I], /, *args: P.args, **options: P.kwargs) -> T:
        timeout: Any = options.pop("timeout", default_s)
        call: Callable[..., Coroutine[Any, Any, T]] = functools.partial(verb, self._ipc, *args, **options)
        return self._wait(verb.__name__, timeout, call)

    return method


class Waiting(Generic[I]):
    """Waits for the verbs of an `ipc`. `here` finds its lifespan, or that of a member that acts for it."""

    def __init__(self, ipc: I, here: Callable[[], Lifespan]) -> None:
        self._ipc = ipc
        self._here = here

    def _wait(self, name: str, timeout: float | None, call: Callable[..., Coroutine[Any, Any, T]]) -> T:
        """The result of a verb that runs on the event loop, with what is left of `timeout` when it begins."""
        outgoing = self._here().endpoint.outgoing
        if threading.get_ident() == outgoing.thread:
            raise NotRunningError(
                f"ipc.blocking.{name}() would block the event loop that it waits for; "
                f"here use `await ipc.{name}()`"
            )
        check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        # Taken by the loop when it begins, or by this thread when it gives up: nothing is sent after that.
        first = threading.Lock()
        running: asyncio.Task[Any] | None = None

        async def begin() -> T:
            nonlocal running
            running = asyncio.current_task()
            if not first.acquire(blocking=False):
                raise asyncio.CancelledError
            left_s = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            return await call(timeout=left_s)

        coroutine = begin()
        try:
            try:
                # Its task gets a copy of this thread's context.
                future = asyncio.run_coroutine_threadsafe(coroutine, outgoing.loop)
            except RuntimeError:
                coroutine.close()
                raise NotRunningError("the event loop is closed") from None
            while not concurrent.futures.wait([future], LOOK_S).done:
                if outgoing.loop.is_closed():
                    if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                        coroutine.close()
                    raise NotRunningError("the event loop is closed")
                if deadline is not None and time.monotonic() >= deadline + LOOK_S:
                    what = "nothing was sent" if first.acquire(blocking=False) else "it has begun"
                    raise NotRunningError(
                        f"the event loop stands still: ipc.blocking.{name}() waited {timeout:g} s; {what}"
                    )
            return future.result()
        except concurrent.futures.CancelledError:
            raise NotRunningError("ipc.lifespan has ended") from None
        finally:
            # If this was interrupted, no thread waits any more. `future` may not be known yet.
            first.acquire(blocking=False)
            if running is not None and not running.done():
                with suppress(RuntimeError):  # the loop is closed
                    outgoing.loop.call_soon_threadsafe(running.cancel)
