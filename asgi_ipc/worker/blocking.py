"""Blocking: the awaited verbs, for code that runs in a thread and can't await.

Law: a verb runs where it always runs, on the event loop, in the caller's
context; the thread waits for it. Nothing here is decided or sent.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, overload

from asgi_ipc.errors import NotRunningError
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import Data
from asgi_ipc.worker.features.messaging import Sent, check_timeout
from asgi_ipc.worker.features.requests import Gathered
from asgi_ipc.worker.lifespan import Lifespan

T = TypeVar("T")

# A waiting thread checks its event loop so often: a loop that is closed, and not ended in order, reports
# nothing. And how late a loop may be that turns: one that waits for this very thread never ends a verb
# itself.
LOOK_S: Final = 1.0


class Blocking:
    """`ipc.blocking`: each verb as on `ipc`, but it returns its result when it has one.

    For `def` routes, which frameworks run in threads, and any other thread than the event loop's. `sender`
    and `reply` work in threads that a handler has started with `asyncio.to_thread`.

    Each raises as on `ipc`, and NotRunningError on the event loop's own thread, which it would block for
    ever, when `ipc.lifespan` ends while it waits, or when the loop stands still until `timeout` is over, and
    for another second or two. The timeout begins with the call.
    """

    def __init__(self, here: Callable[[], Lifespan]) -> None:
        self._here = here

    def send(self, pid: int | Worker, name: str, data: Data = b"", *, timeout: float | None = 5.0) -> None:
        """As `await ipc.send(...)`."""
        self._wait(
            "send", timeout, lambda here, left_s: _done(here.endpoint.messaging.send(pid, name, data, left_s))
        )

    def broadcast(
        self, name: str, data: Data = b"", *, include_self: bool = True, timeout: float | None = 5.0
    ) -> tuple[int, ...]:
        """As `await ipc.broadcast(...)`."""
        return self._wait(
            "broadcast",
            timeout,
            lambda here, left_s: _all(
                here.endpoint.messaging.broadcast(name, data, include_self=include_self, timeout=left_s)
            ),
        )

    def reply(self, name: str, data: Data = b"", *, timeout: float | None = 5.0) -> None:
        """As `await ipc.reply(...)`."""
        self._wait(
            "reply",
            timeout,
            lambda here, left_s: _done(here.endpoint.replying.send(here.addressee, name, data, left_s)),
        )

    @overload
    def request(
        self,
        pid: int | Worker,
        name: str,
        data: Data = b"",
        *,
        reply_type: type[T],
        timeout: float | None = 5.0,
    ) -> T: ...
    @overload
    def request(
        self,
        pid: int | Worker,
        name: str,
        data: Data = b"",
        *,
        reply_type: Any = None,
        timeout: float | None = 5.0,
    ) -> Any: ...

    def request(
        self,
        pid: int | Worker,
        name: str,
        data: Data = b"",
        *,
        reply_type: Any = None,
        timeout: float | None = 5.0,
    ) -> Any:
        """As `await ipc.request(...)`."""
        return self._wait(
            "request",
            timeout,
            lambda here, left_s: here.endpoint_here.questions.ask(pid, name, data, left_s, reply_type),
        )

    @overload
    def gather(
        self,
        name: str,
        data: Data = b"",
        *,
        reply_type: type[T],
        timeout: float | None = 5.0,
        include_self: bool = True,
    ) -> Gathered[T]: ...
    @overload
    def gather(
        self,
        name: str,
        data: Data = b"",
        *,
        reply_type: Any = None,
        timeout: float | None = 5.0,
        include_self: bool = True,
    ) -> Gathered[Any]: ...

    def gather(
        self,
        name: str,
        data: Data = b"",
        *,
        reply_type: Any = None,
        timeout: float | None = 5.0,
        include_self: bool = True,
    ) -> Gathered[Any]:
        """As `await ipc.gather(...)`."""
        return self._wait(
            "gather",
            timeout,
            lambda here, left_s: here.endpoint_here.questions.ask_all(
                name, data, left_s, reply_type, include_self=include_self
            ),
        )

    def send_any(self, name: str, data: Data = b"", *, timeout: float | None = 5.0) -> int:
        """As `await ipc.send_any(...)`."""
        return self._wait(
            "send_any",
            timeout,
            lambda here, left_s: here.endpoint.messaging.send_any(name, data, timeout=left_s),
        )

    def publish(self, topic: str, data: Data = b"", *, timeout: float | None = 5.0) -> tuple[int, ...]:
        """As `await ipc.publish(...)`."""
        return self._wait(
            "publish", timeout, lambda here, left_s: _all(here.endpoint.topics.publish(topic, data, left_s))
        )

    # --- waiting

    def _wait(
        self, name: str, timeout: float | None, verb: Callable[[Lifespan, float | None], Awaitable[T]]
    ) -> T:
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
            return await verb(self._here(), left_s)

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


async def _done(waits: Awaitable[object] | None) -> None:
    if waits is not None:
        await waits


async def _all(sent: Sent) -> tuple[int, ...]:
    took, late = sent
    return took if late is None else (*took, *await late)
