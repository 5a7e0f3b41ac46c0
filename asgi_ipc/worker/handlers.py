"""Handlers: what is called for each message, in order, each in its own context.

Law: handlers start in the order of arrival across all names and both kinds.
An async handler runs to its first await before the next message's handler is
called. What a handler raises is logged and counted, and the next message
arrives.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from asgi_ipc.errors import InvalidNameError
from asgi_ipc.protocol.batch import Message
from asgi_ipc.protocol.membership import Worker
from asgi_ipc.protocol.message import check_name
from asgi_ipc.worker.logs import logger
from asgi_ipc.worker.registry import Handler, Registry

# Handlers that have started and not finished. At a few KiB each, a thousand
# keep a worker busy and cost it a few MiB.
MAX_IN_FLIGHT: Final = 1_000

# Large data held by handlers in flight, in bytes: four of the largest messages.
MAX_IN_FLIGHT_BYTES: Final = 64 * 1024 * 1024

# Handlers that wait inside a verb of ipc don't count as in flight, since only
# the pipe can bring what they wait for; this bounds them instead.
MAX_IN_VERBS: Final = 10_000

# How long a cancelled handler may clean up, when a leave has reached its deadline.
CANCEL_GRACE_S: Final = 0.5

# Names without a handler that are told of, one line each; more would be noise.
MAX_UNHEARD_NAMES: Final = 100

# Messages handled before the loop gets its turn back, at about a microsecond
# each for a handler that does next to nothing.
MESSAGES_PER_TURN: Final = 256


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where a message came from: what `sender` and `reply` ask for. `ipc` is who handles it."""

    ipc: object
    sender: Worker


current_delivery: contextvars.ContextVar[Delivery | None] = contextvars.ContextVar(
    "asgi_ipc_delivery", default=None
)


def _spread(function: Callable[..., Any], news: tuple[Any, ...]) -> Any:
    return function(*news)


def _sender(context: contextvars.Context) -> int:
    delivery = context.get(current_delivery)
    return delivery.sender.pid if delivery is not None else 0


class Dispatcher:
    """Calls the handlers of one running worker.

    `on_full` and `on_room` tell the reader when to pause and to go on.
    """

    def __init__(self, registry: Registry, on_full: Callable[[], None], on_room: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._handlers = registry.handlers
        self._on_full = on_full
        self._on_room = on_room
        # What has arrived and waits for its turn: messages of one packet, or an announcement in their order.
        self._queue: deque[tuple[contextvars.Context, list[Message]] | Callable[[], None]] = deque()
        self._position = 0
        self._scheduled = False
        # How many messages may still be handled in this turn of the loop.
        self._left = MESSAGES_PER_TURN
        # Tasks run their first step in the turn after the one that creates them; what must start
        # behind them is scheduled behind them.
        self._behind_tasks = False
        self._spawned = 0
        # What runs: its handler, the bytes of its data, and the pid that sent it.
        self._tasks: dict[asyncio.Task[Any], tuple[Handler, int, int]] = {}
        self._in_verbs: set[asyncio.Task[Any]] = set()
        self._exempt_calls = 0
        # Plain handlers that were put behind tasks that have yet to begin.
        self._deferred = 0
        # Handlers whose lane is not empty.
        self._lanes: set[Handler] = set()
        self._running = False
        self._closed = False
        self._in_flight = 0
        self._in_flight_bytes = 0
        # The bound on what is in flight is reached, and: messages wait for a later turn. Either pauses
        # the reader, and so does the end; only the first keeps handlers from starting.
        self._blocked = False
        self._behind = False
        self._full = False
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self._unheard: set[str] = set()
        self.received = 0
        self.discarded = 0
        self.invalid_names = 0
        # Arrived, and not given to a handler before `close`.
        self.unhandled = 0
        self.handler_errors = 0

    @property
    def is_full(self) -> bool:
        """Whether more messages must wait in the pipe."""
        return self._full

    # --- in

    def accept(self, context: contextvars.Context, messages: list[Message]) -> None:
        """Take the messages of one packet; their handlers start in this turn or in later ones."""
        if self._closed:
            self.unhandled += len(messages)
            return
        self._queue.append((context, messages))
        self._idle.clear()
        if len(self._queue) == 1 and not self._running:
            self._run()

    def announce(
        self,
        watchers: Sequence[Handler],
        news: tuple[Any, ...],
        context: contextvars.Context,
        behind: int = 0,
    ) -> None:
        """Call those who watch the fleet, in the order of what has been accepted.

        `behind`: a pid, whose messages in the lanes of ordered handlers start before that, too.
        """
        if self._closed:
            return
        self._queue.append(functools.partial(self._announce, watchers, news, context, behind))
        self._idle.clear()
        if len(self._queue) == 1 and not self._running:
            self._run()

    async def idle(self) -> None:
        """Wait until nothing waits and no handler runs: at the moment in which this returns."""
        # Between the end of the last handler and this task's turn, another message may have come.
        while not self._idle.is_set():
            await self._idle.wait()

    async def close(self) -> int:
        """Cancel the handlers in flight, let them clean up; how many. What waits is dropped and counted."""
        self._closed = True
        self._tell_flow()
        waiting = sum(len(entry[1]) for entry in self._queue if not callable(entry))
        self.unhandled += waiting - self._position
        self._queue.clear()
        self._position = 0
        if self._deferred:
            # Plain handlers whose turn has come are in the loop's own queue.
            await asyncio.sleep(0)
        tasks = list(self._tasks)
        for task in tasks:
            handler = self._tasks[task][0]
            self.unhandled += len(handler.lane)
            handler.lane.clear()
            handler.behind.clear()
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_GRACE_S)
        return len(tasks)

    # --- the loop over messages

    def _run(self) -> None:
        """Start what the bounds of this turn allow; the next turn begins with new ones."""
        self._running = True
        try:
            self._start_some()
        finally:
            # Even if a handler ends the process: what it does last may need the others.
            self._running = False
            if self._left < MESSAGES_PER_TURN:
                self._schedule()
        self._check_idle()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._scheduled = False
        self._left = MESSAGES_PER_TURN
        if self._queue:
            self._run()
        self._behind = bool(self._queue)
        self._tell_flow()

    def _start_some(self) -> None:
        queue = self._queue
        while queue:
            head = queue[0]
            if callable(head):
                queue.popleft()
                head()
                continue
            context, messages = head
            while self._position < len(messages):
                if self._blocked or not self._left:
                    return
                self._left -= 1
                name, data = messages[self._position]
                self._position += 1
                self._start(context, name, data)
            self._position = 0
            queue.popleft()

    def _call_deferred(self, handler: Handler, context: contextvars.Context, data: Any) -> None:
        self._deferred -= 1
        self._call(handler, context, data)
        self._check_idle()

    def _start(self, context: contextvars.Context, name: str, data: Any) -> None:
        handler = self._handlers.get(name)
        self.received += 1
        if handler is None:
            self._discard(name)
            return
        self._begin(handler, context.copy(), data)

    def _begin(self, handler: Handler, context: contextvars.Context, data: Any) -> None:
        if handler.is_async:
            size = len(data) if type(data) is str or type(data) is bytes else 0
            self._count(handler, 1, size)
            if handler.ordered and handler.running:
                handler.lane.append((context, data, size))
                self._lanes.add(handler)
            else:
                self._spawn(handler, context, data, size)
        elif self._behind_tasks or self._deferred:
            # Behind the first steps of tasks that have yet to begin, and what waits behind those.
            self._deferred += 1
            self._loop.call_soon(self._call_deferred, handler, context, data)
        else:
            self._call(handler, context, data)

    def _discard(self, name: str) -> None:
        # A name that has a handler was checked when it was registered, so here is where the others are.
        try:
            check_name(name)
        except InvalidNameError:
            self.invalid_names += 1
            return
        self.discarded += 1
        if name not in self._unheard and len(self._unheard) < MAX_UNHEARD_NAMES:
            # Once for each name: it may be a slip of the pen, or meant for other workers only.
            self._unheard.add(name)
            logger.warning("worker [%d] has no handler for messages named %r", os.getpid(), name)

    def _announce(
        self, watchers: Sequence[Handler], news: tuple[Any, ...], context: contextvars.Context, behind: int
    ) -> None:
        lanes = [
            handler for handler in self._lanes if any(_sender(entry[0]) == behind for entry in handler.lane)
        ]
        waits = len(lanes)

        def passed() -> None:
            nonlocal waits
            waits -= 1
            if not waits:
                call_all()

        def call_all() -> None:
            for watcher in watchers:
                function = functools.partial(_spread, watcher.function)
                self._begin(Handler(watcher.name, function, watcher.is_async), context.copy(), news)

        for handler in lanes:
            handler.behind.append((handler.lane_left + len(handler.lane), passed))
        if not lanes:
            call_all()

    def _call(self, handler: Handler, context: contextvars.Context, data: Any) -> None:
        try:
            result = context.run(handler.function, data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # the app's own
            self._failed(handler, _sender(context), error)
            return
        if result is not None and inspect.iscoroutine(result):
            # A plain function that gave back a coroutine: run it like any other.
            self._count(handler, 1, 0)
            self._track(handler, self._loop.create_task(result, context=context), 0, context)

    def _spawn(self, handler: Handler, context: contextvars.Context, data: Any, size: int) -> None:
        handler.running = True
        try:
            coroutine: Coroutine[Any, Any, Any] = handler.function(data)
        except Exception as error:  # noqa: BLE001  # the app's own
            self._failed(handler, _sender(context), error)
            self._finished(handler, size)
            return
        self._track(handler, self._loop.create_task(coroutine, context=context), size, context)

    def _track(
        self, handler: Handler, task: asyncio.Task[Any], size: int, context: contextvars.Context
    ) -> None:
        self._tasks[task] = (handler, size, _sender(context))
        task.add_done_callback(self._task_done)
        self._spawned += 1
        if not self._behind_tasks:
            self._behind_tasks = True
            self._loop.call_soon(self._tasks_have_begun, self._spawned)

    def _tasks_have_begun(self, spawned: int) -> None:
        """So many of them; those that were created behind this call's place in the queue have not."""
        if spawned == self._spawned:
            self._behind_tasks = False
        else:
            self._loop.call_soon(self._tasks_have_begun, self._spawned)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        handler, size, sender = self._tasks.pop(task)
        if task.cancelled():
            logger.warning("worker [%d]: handler %r was cancelled", os.getpid(), handler.name)
            self.handler_errors += 1
        elif (error := task.exception()) is not None:
            self._failed(handler, sender, error)
        self._finished(handler, size)

    def _finished(self, handler: Handler, size: int) -> None:
        handler.running = False
        self._count(handler, -1, -size)
        if handler.lane:
            self._spawn(handler, *handler.lane.popleft())
            handler.lane_left += 1
            while handler.behind and handler.behind[0][0] <= handler.lane_left:
                handler.behind.popleft()[1]()
        if not handler.lane:
            self._lanes.discard(handler)
        self._check_idle()

    def _failed(self, handler: Handler, sender: int, error: BaseException) -> None:
        self.handler_errors += 1
        what = f"handler {handler.name!r} of a message from worker {sender}" if sender else handler.name
        logger.error("worker [%d]: %s failed", os.getpid(), what, exc_info=error)

    # --- how much is under way

    def _count(self, handler: Handler, count: int, size_bytes: int) -> None:
        """Count handlers in flight; those queued behind one that waits in a verb are exempt with it."""
        if handler.in_verb and handler.ordered:
            self._exempt_calls += count
            self._judge()
            return
        self._in_flight += count
        self._in_flight_bytes += size_bytes
        self._judge()

    def _judge(self) -> None:
        blocked = (
            self._in_flight >= MAX_IN_FLIGHT
            or self._in_flight_bytes >= MAX_IN_FLIGHT_BYTES
            or self._exempt_calls >= MAX_IN_VERBS
        )
        if blocked == self._blocked:
            return
        self._blocked = blocked
        self._tell_flow()
        if not blocked and self._queue:
            self._schedule()

    def _tell_flow(self) -> None:
        """Pause the reader while messages wait here: the pipe shall fill, not this process's memory."""
        full = self._blocked or self._behind or self._closed
        if full == self._full:
            return
        self._full = full
        if full:
            self._on_full()
        else:
            self._on_room()

    def _check_idle(self) -> None:
        if not self._queue and not self._tasks and not self._deferred:
            self._idle.set()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around a wait inside a verb: a handler that waits there is not in flight meanwhile."""
        task = asyncio.current_task()
        entry = self._tasks.get(task) if task is not None else None
        if task is None or entry is None or task in self._in_verbs:
            yield
            return
        handler, size, _ = entry
        self._in_verbs.add(task)
        self._set_exempt(handler, size, in_verb=True)
        try:
            yield
        finally:
            self._in_verbs.discard(task)
            self._set_exempt(handler, size, in_verb=False)

    def _set_exempt(self, handler: Handler, size_bytes: int, *, in_verb: bool) -> None:
        """Move a call, and those queued behind it, out of what is in flight, or back."""
        calls = 1
        if handler.ordered:
            calls += len(handler.lane)
            size_bytes += sum(entry[2] for entry in handler.lane)
        sign = -1 if in_verb else 1
        handler.in_verb = in_verb
        self._exempt_calls -= sign * calls
        self._in_flight += sign * calls
        self._in_flight_bytes += sign * size_bytes
        self._judge()
