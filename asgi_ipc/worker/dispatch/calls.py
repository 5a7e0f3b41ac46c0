"""Calls: the async handlers under way.

Law: each call is a task of its own, entered at once (steps.py). A call that
waits is in flight and counted; a call that ends without waiting is neither.
The calls of an ordered handler wait in its lane. The dispatcher decides which
message comes next.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from asgi_ipc.logs import logger
from asgi_ipc.printable import printable
from asgi_ipc.worker.dispatch.backpressure import InFlight
from asgi_ipc.worker.dispatch.conversion_errors import ConversionError
from asgi_ipc.worker.dispatch.delivery import large_bytes, pid_of_sender, size_bytes_of
from asgi_ipc.worker.dispatch.handler import Function, Handler
from asgi_ipc.worker.dispatch.steps import Steps

# How long a cancelled handler may clean up, when a leave has reached its deadline.
CANCEL_GRACE_S: Final = 0.5

# Names for which data that does not fit is logged, and how many characters of the reason: one line each.
MAX_MISFIT_NAMES: Final = 100
MAX_REASON: Final = 1000


@dataclass(eq=False, slots=True)
class Call:
    """An async handler in flight."""

    handler: Handler
    context: contextvars.Context
    size_bytes: int


@dataclass(eq=False, slots=True)
class Waiting:
    """A call in the lane of an ordered handler. `then` is called when it has started."""

    call: Call
    function: Function
    data: Any
    then: list[Callable[[], None]] = field(default_factory=list)


class Calls:
    """The async handlers under way in one worker. `on_end` is called when one has ended.

    Attributes:
        steps: takes the first step of each.
        pid: names this worker in log lines; a member of a fleet in one process has a pid of its own.
        errors: handlers that raised or were cancelled.
        cancelled: the cancelled ones of them.
        invalid_data: messages whose data does not fit their handler.
    """

    def __init__(self, in_flight: InFlight, on_end: Callable[[], None]) -> None:
        self.pid = os.getpid()
        self.errors = 0
        self.cancelled = 0
        self.invalid_data = 0
        self._in_flight = in_flight
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self.steps = Steps(self._loop)
        self._calls: dict[asyncio.Task[Any], Call] = {}
        # By the ordered handlers that have a call under way: the calls that wait for its end.
        self._lanes: dict[Handler, deque[Waiting]] = {}
        self._misfits: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._calls or self._lanes)

    def cancel(self) -> tuple[list[asyncio.Task[Any]], int]:
        """Cancel the calls in flight; their tasks, and how many calls in lanes never began."""
        tasks = list(self._calls)
        unhandled = sum(map(len, self._lanes.values()))
        self._lanes.clear()
        for task in tasks:
            task.cancel()
        return tasks, unhandled

    # --- from the first step on

    def begin(self, handler: Handler, function: Function, context: contextvars.Context, data: Any) -> None:
        """Call `function` for an async handler; if that is ordered, behind its last call."""
        if handler.ordered:
            self._begin_in_lane(handler, function, context, data)
        elif (task := self._start(handler, context, function, data)) is not None:
            self.waits(handler, context, task, data)

    def waits(
        self, handler: Handler, context: contextvars.Context, task: asyncio.Task[Any], data: Any
    ) -> None:
        """Count a call that waits until it ends."""
        call = Call(handler, context, size_bytes_of(data, context.get(large_bytes, 0)))
        self._in_flight.add(1, call.size_bytes)
        self._follow(task, call)

    def adopt(
        self, handler: Handler, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context
    ) -> None:
        """Run a coroutine that a plain function has returned like an async handler."""
        task = self._start(handler, context, lambda _: coroutine, None)
        if task is not None:
            self._in_flight.add(1, 0)
            self._follow(task, Call(handler, context, 0))

    def _start(
        self, handler: Handler, context: contextvars.Context, function: Function, data: Any
    ) -> asyncio.Task[Any] | None:
        """The task of a call that waits; None if it has ended."""
        task: asyncio.Task[Any] | None = None
        try:
            task = self.steps.take(function(data), context)
        except (KeyboardInterrupt, SystemExit):
            self._lanes.pop(handler, None)
            raise
        except BaseException as error:  # noqa: BLE001  # the app's own
            self.ended_with(handler, context, error)
        return task

    def _follow(self, task: asyncio.Task[Any], call: Call) -> None:
        self._calls[task] = call
        task.add_done_callback(self._ended, context=call.context)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        call = self._calls.pop(task)
        if task.cancelled():
            self._was_cancelled(call.handler)
        elif (error := task.exception()) is not None and not isinstance(
            error, KeyboardInterrupt | SystemExit
        ):
            self.failed(call.handler, call.context, error)
        self._in_flight.add(-1, -call.size_bytes)
        if call.handler.ordered:
            self._end_in_lane(call.handler)
        self._on_end()

    # --- one after the other

    def _begin_in_lane(
        self, handler: Handler, function: Function, context: contextvars.Context, data: Any
    ) -> None:
        call = Call(handler, context, size_bytes_of(data, context.get(large_bytes, 0)))
        waiting = Waiting(call, function, data)
        self._in_flight.add(1, call.size_bytes)
        lane = self._lanes.get(handler)
        if lane is not None:
            lane.append(waiting)
        else:
            self._lanes[handler] = deque()
            self._start_in_lane(waiting)

    def _start_in_lane(self, waiting: Waiting) -> None:
        call = waiting.call
        task = self._start(call.handler, call.context, waiting.function, waiting.data)
        if task is not None:
            self._follow(task, call)
        else:
            self._in_flight.add(-1, -call.size_bytes)
            self._end_in_lane(call.handler)
        for then in waiting.then:
            then()

    def _end_in_lane(self, handler: Handler) -> None:
        lane = self._lanes.get(handler)
        if lane:
            # Each in a turn of its own: thousands may wait, and none of them need suspend.
            self._loop.call_soon(self._next_in_lane, handler)
        elif lane is not None:
            del self._lanes[handler]

    def _next_in_lane(self, handler: Handler) -> None:
        lane = self._lanes.get(handler)
        if lane:
            self._start_in_lane(lane.popleft())
            self._on_end()

    def last_waiting_from(self, pid: int) -> Waiting | None:
        """A call in a lane behind which no other of that lane has a message from this worker."""
        for lane in self._lanes.values():
            for waiting in reversed(lane):
                if pid_of_sender(waiting.call.context) == pid:
                    return waiting
        return None

    # --- what goes wrong

    def _was_cancelled(self, handler: Handler) -> None:
        self.errors += 1
        self.cancelled += 1
        logger.warning("worker [%d]: handler %r was cancelled", self.pid, handler.name)

    def ended_with(self, handler: Handler, context: contextvars.Context, error: BaseException) -> None:
        """Count and log what an async handler has raised before it waited."""
        if isinstance(error, asyncio.CancelledError):
            self._was_cancelled(handler)
        else:
            self.failed(handler, context, error)

    def failed(self, handler: Handler, context: contextvars.Context, error: BaseException) -> None:
        """Count and log what a handler has raised."""
        sender = pid_of_sender(context)
        if isinstance(error, ConversionError):
            self._did_not_fit(handler.name, sender, error)
            return
        self.errors += 1
        what = f"handler {handler.name!r} of a message from worker {sender}" if sender else handler.name
        logger.error("worker [%d]: %s failed", self.pid, what, exc_info=error)

    def _did_not_fit(self, name: str, sender: int, misfit: ConversionError) -> None:
        """Count data for which the handler was not called, and log it once for each name."""
        self.invalid_data += 1
        if name not in self._misfits and len(self._misfits) < MAX_MISFIT_NAMES:
            self._misfits.add(name)
            reason = printable(misfit.reason[:MAX_REASON])
            logger.warning(
                "worker [%d]: data from worker %d does not fit handler %r: %s",
                self.pid,
                sender,
                name,
                reason,
            )
