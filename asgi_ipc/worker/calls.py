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
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from asgi_ipc.protocol.membership import Worker
from asgi_ipc.protocol.printable import printable
from asgi_ipc.worker.flow import Flow
from asgi_ipc.worker.logs import logger
from asgi_ipc.worker.misfits import MisfitError
from asgi_ipc.worker.registry import Handler
from asgi_ipc.worker.steps import FINISHED, first_step, further_steps

# How long a cancelled handler may clean up, when a leave has reached its deadline.
CANCEL_GRACE_S: Final = 0.5

# Names for which data that does not fit is told of, and how much of what is said: as much as a line takes.
MAX_MISFIT_NAMES: Final = 100
MAX_REASON: Final = 1000


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where a message came from: what `sender` and `reply` ask for. `ipc` is who handles it."""

    ipc: object
    sender: Worker


current_delivery: contextvars.ContextVar[Delivery | None] = contextvars.ContextVar(
    "asgi_ipc_delivery", default=None
)


def sender_of(context: contextvars.Context) -> Worker | None:
    """Whose message runs in that context."""
    delivery = context.get(current_delivery)
    return delivery.sender if delivery is not None else None


def _pid_of_sender(context: contextvars.Context) -> int:
    sender = sender_of(context)
    return sender.pid if sender is not None else 0


class Asked:
    """A question's data, in place of data: its handler's result is wanted."""

    __slots__ = ("answering", "data")

    def __init__(self, data: Any, answering: Callable[[Handler], Coroutine[Any, Any, None]]) -> None:
        self.data = data
        self.answering = answering


def _size_bytes(data: Any) -> int:
    if type(data) is Asked:
        data = data.data
    return len(data) if type(data) is str or type(data) is bytes else 0


@dataclass(eq=False, slots=True)
class Call:
    """An async handler under way: what it runs in, and the bytes of data that it holds."""

    handler: Handler
    context: contextvars.Context
    size_bytes: int
    has_begun: bool = True
    in_verb: bool = False


# A call that has suspended, its coroutine, and what that waits for.
Suspended: TypeAlias = tuple[Call, Coroutine[Any, Any, Any], object]


_NOTHING: Final = nullcontext()


class Calls:
    """The async handlers under way in one worker.

    `on_room` is called when handlers may start that could not before, and
    `on_end` when one has ended.
    """

    def __init__(self, flow: Flow, on_room: Callable[[], None], on_end: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._flow = flow
        self._on_room = on_room
        self._on_end = on_end
        # What has suspended; and what is in its first step, in which task and with which data.
        self._calls: dict[asyncio.Task[Any], Call] = {}
        self._stepping: tuple[asyncio.Task[Any], Handler, contextvars.Context, Any] | None = None
        # Handlers whose lane is not empty.
        self._lanes: set[Handler] = set()
        self.errors = 0
        # By which log lines name this worker; a member of a fleet in one process has one of its own.
        self.pid = os.getpid()
        # Data that its handler does not take, and the names of which that has been told.
        self.invalid_data = 0
        self._misfits: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._calls)

    async def cancel(self) -> tuple[int, int]:
        """Cancel what is in flight, let it clean up; how many, and how many in their lanes never began."""
        tasks = list(self._calls)
        unhandled = 0
        for task in tasks:
            handler = self._calls[task].handler
            unhandled += len(handler.lane)
            handler.lane.clear()
            handler.behind.clear()
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_GRACE_S)
        return len(tasks), unhandled

    # --- from the first step on

    def begin(
        self, handler: Handler, context: contextvars.Context, data: Any, task: asyncio.Task[Any]
    ) -> Suspended | None:
        """An async handler's first step, in a dispatcher's task; or its place behind its last call."""
        if handler.ordered and handler.running:
            size_bytes = _size_bytes(data)
            self._count(handler, 1, size_bytes)
            handler.lane.append((context, data, size_bytes))
            self._lanes.add(handler)
            return None
        self._stepping = (task, handler, context, data)
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
        finally:
            self._stepping = None
        if waits_for is FINISHED:
            if self._calls and task in self._calls:
                self._end(task)
            return None
        call = self._calls.get(task) or self._register(task, handler, context, data)
        return call, coroutine, waits_for

    def _register(
        self, task: asyncio.Task[Any], handler: Handler, context: contextvars.Context, data: Any
    ) -> Call:
        """It is in flight: it has suspended, or is about to."""
        call = self._calls[task] = Call(handler, context, _size_bytes(data))
        handler.running = True
        self._count(handler, 1, call.size_bytes)
        return call

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
        self._count(handler, 1, 0)
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
        self._count(handler, -1, -ended.size_bytes)
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
            if any(_pid_of_sender(entry[0]) == pid for entry in handler.lane)
        ]

    # --- what goes wrong

    def _was_cancelled(self, handler: Handler) -> None:
        self.errors += 1
        logger.warning("worker [%d]: handler %r was cancelled", self.pid, handler.name)

    def failed(self, handler: Handler, context: contextvars.Context, error: BaseException) -> None:
        sender = _pid_of_sender(context)
        if isinstance(error, MisfitError):
            self._did_not_fit(handler.name, sender, error)
            return
        self.errors += 1
        what = f"handler {handler.name!r} of a message from worker {sender}" if sender else handler.name
        logger.error("worker [%d]: %s failed", self.pid, what, exc_info=error)

    def _did_not_fit(self, name: str, sender: int, misfit: MisfitError) -> None:
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

    # --- how much is under way

    def _count(self, handler: Handler, calls: int, size_bytes: int) -> None:
        if self._flow.count(handler, calls, size_bytes):
            self._on_room()

    def waiting(self) -> AbstractContextManager[None]:
        """Around a wait inside a verb: a handler that waits there is not in flight meanwhile."""
        if not self._calls and self._stepping is None:
            return _NOTHING
        task = asyncio.current_task()
        call = self._calls.get(task) if task is not None else None
        if call is None and self._stepping is not None and self._stepping[0] is task:
            call = self._register(*self._stepping)
        return _NOTHING if call is None or call.in_verb else self._exempt(call)

    @contextmanager
    def _exempt(self, call: Call) -> Iterator[None]:
        self._set_exempt(call, in_verb=True)
        try:
            yield
        finally:
            self._set_exempt(call, in_verb=False)

    def _set_exempt(self, call: Call, *, in_verb: bool) -> None:
        call.in_verb = in_verb
        if self._flow.set_exempt(call.handler, call.size_bytes, in_verb=in_verb):
            self._on_room()
