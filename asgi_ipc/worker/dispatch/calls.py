"""Calls: async handlers under way, from their first step to their end.

Law: a call is stepped inside a task, in its own context (see steps.py). What
has suspended is in flight and counted; what ends without suspending is
neither. An ordered handler's calls wait in its lane. Which message comes next
is the dispatcher's.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from asgi_ipc.logs import logger
from asgi_ipc.printable import printable
from asgi_ipc.worker.dispatch.backpressure import InFlight
from asgi_ipc.worker.dispatch.conversion_errors import ConversionError
from asgi_ipc.worker.dispatch.delivery import Asked, pid_of_sender, size_bytes_of
from asgi_ipc.worker.dispatch.registry import Handler
from asgi_ipc.worker.dispatch.steps import FINISHED, first_step, further_steps

# How long a cancelled handler may clean up, when a leave has reached its deadline.
CANCEL_GRACE_S: Final = 0.5

# Names for which data that does not fit is told of, and how much of what is said: as much as a line takes.
MAX_MISFIT_NAMES: Final = 100
MAX_REASON: Final = 1000


@dataclass(eq=False, slots=True)
class Call:
    """An async handler under way: what it runs in, and the bytes of data that it holds."""

    handler: Handler
    context: contextvars.Context
    size_bytes: int
    has_begun: bool = True


# A call that has suspended, its coroutine, and what that waits for.
Suspended: TypeAlias = tuple[Call, Coroutine[Any, Any, Any], object]


class Calls:
    """The async handlers under way in one worker.

    `on_end` is called when one has ended.
    """

    def __init__(self, in_flight: InFlight, on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._in_flight = in_flight
        self._on_end = on_end
        # What has suspended.
        self._calls: dict[asyncio.Task[Any], Call] = {}
        # Handlers whose lane is not empty.
        self._lanes: set[Handler] = set()
        self.errors = 0
        # Handlers that were cancelled, by whomever: those of `errors`, and no withdrawn question.
        self.cancelled = 0
        # By which log lines name this worker; a member of a fleet in one process has one of its own.
        self.pid = os.getpid()
        # Data that its handler does not take, and the names of which that has been told.
        self.invalid_data = 0
        self._misfits: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._calls)

    def cancel(self) -> tuple[list[asyncio.Task[Any]], int]:
        """Cancel what is in flight; its tasks, and how many in their lanes never began."""
        tasks = list(self._calls)
        unhandled = 0
        for task in tasks:
            handler = self._calls[task].handler
            unhandled += len(handler.lane)
            handler.lane.clear()
            handler.behind.clear()
            task.cancel()
        return tasks, unhandled

    # --- from the first step on

    def begin(
        self, handler: Handler, context: contextvars.Context, data: Any, task: asyncio.Task[Any]
    ) -> Suspended | None:
        """An async handler's first step, in a dispatcher's task; or its place behind its last call."""
        if handler.ordered and handler.running:
            size_bytes = size_bytes_of(data, context)
            self._in_flight.add(1, size_bytes)
            handler.lane.append((context, data, size_bytes))
            self._lanes.add(handler)
            return None
        try:
            coroutine: Coroutine[Any, Any, Any] = (
                handler.function(data) if type(data) is not Asked else data.answering(handler)
            )
            waits_for = first_step(coroutine, context)
        except (KeyboardInterrupt, SystemExit):
            raise
        except asyncio.CancelledError:
            self._was_cancelled(handler)
            waits_for = FINISHED
        except BaseException as error:  # noqa: BLE001  # the app's own
            self.failed(handler, context, error)
            waits_for = FINISHED
        if waits_for is FINISHED:
            return None
        call = self._calls[task] = Call(handler, context, size_bytes_of(data, context))
        handler.running = True
        self._in_flight.add(1, call.size_bytes)
        return call, coroutine, waits_for

    async def finish(self, task: asyncio.Task[Any], suspended: Suspended) -> Any:
        """The rest of a call, in its task; its result, if anybody waits for that."""
        call, coroutine, waits_for = suspended
        del suspended
        try:
            return await further_steps(coroutine, call.context, waits_for)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except asyncio.CancelledError:
            self._was_cancelled(call.handler)
            raise
        except BaseException as error:  # noqa: BLE001  # the app's own
            self.failed(call.handler, call.context, error)
        finally:
            self._end(task)

    def adopt(
        self, handler: Handler, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context
    ) -> None:
        """Run what a plain function has given back like any other coroutine."""
        self._in_flight.add(1, 0)
        self._spawn(Call(handler, context, 0), coroutine, context)

    def _spawn(
        self, call: Call, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context | None = None
    ) -> None:
        """Run what is counted already in a task of its own."""
        call.handler.running = True
        task = self._loop.create_task(coroutine, context=context)
        self._calls[task] = call
        task.add_done_callback(self._spawned_ended)

    def _spawned_ended(self, task: asyncio.Task[Any]) -> None:
        call = self._calls[task]
        if task.cancelled():
            if call.has_begun:
                self._was_cancelled(call.handler)
        elif (error := task.exception()) is not None:
            self.failed(call.handler, call.context, error)
        self._end(task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        """A call in flight is over; whoever waits behind it begins."""
        ended = self._calls.pop(task)
        handler = ended.handler
        handler.running = False
        self._in_flight.add(-1, -ended.size_bytes)
        if handler.lane:
            context, _, size_bytes = handler.lane[0]
            call = Call(handler, context, size_bytes, has_begun=False)
            self._spawn(call, self._leave_lane(call))
        self._on_end()

    async def _leave_lane(self, call: Call) -> None:
        """An ordered handler's next call, and behind its first step whoever has waited for that."""
        handler = call.handler
        call.has_begun = True
        _, data, _ = handler.lane.popleft()
        if not handler.lane:
            self._lanes.discard(handler)
        try:
            coroutine: Coroutine[Any, Any, Any] = (
                handler.function(data) if type(data) is not Asked else data.answering(handler)
            )
            waits_for = first_step(coroutine, call.context)
        finally:
            handler.lane_left += 1
            while handler.behind and handler.behind[0][0] <= handler.lane_left:
                handler.behind.popleft()[1]()
        if waits_for is not FINISHED:
            await further_steps(coroutine, call.context, waits_for)

    # --- behind others

    def with_lanes_of(self, pid: int) -> list[Handler]:
        """The ordered handlers for whose next calls messages from this worker wait."""
        return [
            handler
            for handler in self._lanes
            if any(pid_of_sender(entry[0]) == pid for entry in handler.lane)
        ]

    # --- what goes wrong

    def _was_cancelled(self, handler: Handler) -> None:
        self.errors += 1
        self.cancelled += 1
        logger.warning("worker [%d]: handler %r was cancelled", self.pid, handler.name)

    def failed(self, handler: Handler, context: contextvars.Context, error: BaseException) -> None:
        sender = pid_of_sender(context)
        if isinstance(error, ConversionError):
            self._did_not_fit(handler.name, sender, error)
            return
        self.errors += 1
        what = f"handler {handler.name!r} of a message from worker {sender}" if sender else handler.name
        logger.error("worker [%d]: %s failed", self.pid, what, exc_info=error)

    def _did_not_fit(self, name: str, sender: int, misfit: ConversionError) -> None:
        """The handler has not been called."""
        self.invalid_data += 1
        if name not in self._misfits and len(self._misfits) < MAX_MISFIT_NAMES:
            # Once for each name, as of those that nobody hears: whoever sends may go on and on.
            self._misfits.add(name)
            reason = printable(misfit.reason[:MAX_REASON])
            logger.warning(
                "worker [%d]: data from worker %d does not fit handler %r: %s",
                self.pid,
                sender,
                name,
                reason,
            )
