"""Handlers: what is called for each message, in order, each in its own context.

Law: handlers start in the order of arrival across all names and both kinds.
An async handler runs to its first await before the next message's handler is
called. What a handler raises is logged and counted, and the next message
arrives.

Plain handlers are called where their message is read. At the first async one
a *dispatcher* takes over: a task that steps coroutines (see steps.py) and
calls plain handlers until nothing waits. A handler that suspends keeps that
task as its own, and another dispatcher goes on behind it.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from operator import length_hint
from typing import Any, Final, TypeAlias

from asgi_ipc.errors import InvalidNameError
from asgi_ipc.logs import logger
from asgi_ipc.wire.batch import Message
from asgi_ipc.wire.message import check_name
from asgi_ipc.worker.dispatch.backpressure import InFlight
from asgi_ipc.worker.dispatch.calls import CANCEL_GRACE_S, Calls, Suspended
from asgi_ipc.worker.dispatch.delivery import Asked
from asgi_ipc.worker.dispatch.registry import Handler, Registry

# Names without a handler that are told of, one line each; more would be noise.
MAX_UNHEARD_NAMES: Final = 100

# Messages handled before the loop gets its turn back, at about a microsecond
# each for a handler that does next to nothing.
MESSAGES_PER_TURN: Final = 256

# Dispatchers that one which must stay with its handler leaves behind, while
# messages wait: with two, many handlers that suspend start within few turns.
SUCCESSORS: Final = 2


# The messages of a packet that are still to be handled, and what their handlers run in. In place of a
# name there may be the handler itself, which somebody else has looked up.
_Entry: TypeAlias = tuple[contextvars.Context, Iterator[tuple[str | Handler, Any]]]


def _spread(function: Callable[..., Any], news: tuple[Any, ...]) -> Any:
    return function(*news)


class Dispatcher:
    """Calls the handlers of one running worker.

    `on_full` and `on_room` tell the reader when to pause and to go on.
    """

    def __init__(self, registry: Registry, on_full: Callable[[], None], on_room: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._handlers = registry.handlers
        # The package's own messages: what becomes of each, and who handles it with what, if somebody does.
        self.own: dict[str, Callable[[contextvars.Context, Any], tuple[Handler, Any] | None]] = {}
        self._on_full = on_full
        self._on_room = on_room
        self.in_flight = InFlight(self._bound_changed)
        self.calls = Calls(self.in_flight, self._check_idle)
        # The reader must pause.
        self.is_full = False
        # What has arrived and waits for its turn: messages, or an announcement in their order.
        self._queue: deque[_Entry | Callable[[], None]] = deque()
        # Somebody takes from the queue now; and how many dispatchers are about to.
        self._running = False
        self._coming = 0
        # How many messages may be handled before another turn of the loop, and whether that is asked for.
        self._left = MESSAGES_PER_TURN
        self._scheduled = False
        # How many turns have ended before the queue did.
        self._late = 0
        self._closed = False
        # Whoever waits until nothing does.
        self._idle: asyncio.Event | None = None
        self._unheard: set[str] = set()
        self.received = 0
        self.discarded = 0
        self.invalid_names = 0
        # Arrived, and not given to a handler before `close`.
        self.unhandled = 0

    @property
    def handler_errors(self) -> int:
        """Handlers that raised or were cancelled."""
        return self.calls.errors

    # --- in

    def accept(self, context: contextvars.Context, messages: list[Message]) -> None:
        """Take the messages of one packet; their handlers start in this turn or in later ones."""
        if self._closed:
            self.unhandled += len(messages)
            return
        self._queue.append((context, iter(messages)))
        self._go_on()

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
        if self._closed or not watchers:
            return
        self._queue.append(functools.partial(self._announce, watchers, news, context, behind))
        self._go_on()

    def behind(self, callback: Callable[[], None]) -> None:
        """Call this when all that has been accepted so far has been given to its handlers."""
        if self._closed:
            callback()
            return
        self._queue.append(callback)
        self._go_on()

    async def idle(self) -> None:
        """Wait until nothing waits and no handler runs: at the moment in which this returns."""
        # Between the end of the last handler and this task's turn, another message may have come.
        while self.is_busy:
            idle = self._idle = self._idle or asyncio.Event()
            await idle.wait()

    async def close(self) -> int:
        """Cancel the handlers in flight, let them clean up; how many. What waits is dropped and counted."""
        cancelled = self.stop()
        await self.cleaned_up(cancelled)
        return len(cancelled)

    def stop(self) -> list[asyncio.Task[Any]]:
        """Cancel the handlers in flight; these. What waits is dropped and counted."""
        self._closed = True
        self._tell_reader()
        for entry in self._queue:
            if isinstance(entry, tuple):
                self.unhandled += sum(isinstance(name, str) for name, _ in entry[1])
        self._queue.clear()
        cancelled, unhandled = self.calls.cancel()
        self.unhandled += unhandled
        return cancelled

    async def cleaned_up(self, cancelled: list[asyncio.Task[Any]]) -> None:
        """Let these clean up, for a moment."""
        if self._coming:
            # These find nothing to do any more.
            await asyncio.sleep(0)
        if cancelled:
            await asyncio.wait(cancelled, timeout=CANCEL_GRACE_S)

    # --- whose turn it is

    def _go_on(self) -> None:
        """Something waits: see to it, unless somebody does already."""
        if not self._running and not self._coming and not self._scheduled:
            self._advance(None)
            self._check_idle()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._scheduled = False
        self._left = MESSAGES_PER_TURN
        if self._queue and not self._coming:
            self._advance(None)
        self._check_idle()

    def _turn_is_over(self) -> None:
        """What waits must wait for another turn; for the second time, more shall wait in the pipe."""
        self._late += 1
        self._tell_reader()
        self._schedule()

    def _summon(self, dispatchers: int = 1) -> None:
        for _ in range(dispatchers):
            self._coming += 1
            self._loop.create_task(self._dispatch())

    async def _dispatch(self) -> None:
        """Handle what waits, of both kinds, until a handler suspends: then this task is that handler's."""
        self._coming -= 1
        task = asyncio.current_task()
        assert task is not None
        suspended = self._advance(task)
        if suspended is not None:
            if self._queue and self._left and not self.in_flight.is_blocked:
                self._summon(min(SUCCESSORS, self._waiting_messages() - self._coming))
            await self.calls.finish(task, suspended)
        else:
            self._check_idle()

    def _waiting_messages(self) -> int:
        """At least so many, if there are several."""
        head = self._queue[0]
        return len(self._queue) - 1 + (length_hint(head[1]) if isinstance(head, tuple) else 1)

    def _advance(self, task: asyncio.Task[Any] | None) -> Suspended | None:
        """Start what waits, in order, as far as the bounds of this turn allow.

        Without a task up to the first async handler, for which a dispatcher is summoned; in a dispatcher's
        up to the first that suspends.
        """
        queue, handlers, in_flight, begin = self._queue, self._handlers, self.in_flight, self.calls.begin
        left = begun = self._left
        # Whoever keeps a task for longer than his handler runs shall not come to cancel the next.
        holders = sys.getrefcount(task) if task is not None else 0
        entry: _Entry | None = None
        self._running = True
        try:
            while queue and left and not in_flight.is_blocked:
                head = queue.popleft()
                if not isinstance(head, tuple):
                    head()
                    continue
                entry = head
                context, messages = entry
                for name, data in messages:
                    left -= 1
                    handler = handlers.get(name)  # type: ignore[arg-type]
                    if handler is None:
                        # From here on known by itself: it is not looked for twice.
                        handler, data = self._stand_in(context, name, data)  # noqa: PLW2901
                        name = handler  # type: ignore[assignment]  # noqa: PLW2901
                    if handler is None:
                        pass
                    elif not handler.is_async:
                        own = context.copy()
                        try:
                            result = own.run(handler.function, data)
                        except (KeyboardInterrupt, SystemExit):
                            self._schedule()
                            raise
                        except BaseException as error:  # noqa: BLE001  # the app's own
                            self.calls.failed(handler, own, error)
                        else:
                            if result is not None and inspect.iscoroutine(result):
                                self.calls.adopt(handler, result, own)
                    elif task is None:
                        if length_hint(messages):
                            queue.appendleft(entry)
                        entry = (context, iter([(name, data)]))
                        left += 1
                        self._summon()
                        return None
                    else:
                        try:
                            suspended = begin(handler, context.copy(), data, task)
                        except (KeyboardInterrupt, SystemExit):
                            self._schedule()
                            raise
                        if suspended is not None:
                            return suspended
                        if task.cancelling() or sys.getrefcount(task) != holders:
                            self._summon()
                            return None
                    if not left or in_flight.is_blocked:
                        break
                else:
                    entry = None
            return None
        finally:
            # None of the entries in the queue is empty.
            if entry is not None and length_hint(entry[1]):
                queue.appendleft(entry)
            self._running = False
            self._left = left
            self.received += begun - left
            if self._late and not queue:
                self._late = 0
                self._tell_reader()
            elif queue and not left:
                self._turn_is_over()

    def _stand_in(
        self, context: contextvars.Context, name: str | Handler, data: Any
    ) -> tuple[Handler | None, Any]:
        """Whom a name means that has no handler, and with what: nobody, which is counted, unless it is one
        of the package's own messages, or has been looked up."""
        if isinstance(name, Handler):
            if type(data) is not Asked:
                # A watcher of the fleet, and no message.
                self.received -= 1
            return name, data
        if name in self.own:
            return self._own_message(context, name, data) or (None, None)
        # A name that has a handler was checked when it was registered, so here is where the others are.
        try:
            check_name(name)
        except InvalidNameError:
            self.invalid_names += 1
            return None, None
        self.discarded += 1
        if name not in self._unheard and len(self._unheard) < MAX_UNHEARD_NAMES:
            # Once for each name: it may be a slip of the pen, or meant for other workers only.
            self._unheard.add(name)
            logger.warning("worker [%d] has no handler for messages named %r", self.calls.pid, name)
        return None, None

    def _own_message(self, context: contextvars.Context, name: str, data: Any) -> tuple[Handler, Any] | None:
        try:
            return self.own[name](context, data)
        except (TypeError, ValueError):
            # Nobody of ours has sent that.
            self.invalid_names += 1
            return None

    def _announce(
        self, watchers: Sequence[Handler], news: tuple[Any, ...], context: contextvars.Context, behind: int
    ) -> None:
        lanes = self.calls.with_lanes_of(behind)
        waits = len(lanes)

        def passed() -> None:
            nonlocal waits
            waits -= 1
            if not waits:
                tell()

        def tell() -> None:
            calls = []
            for watcher in watchers:
                function = functools.partial(_spread, watcher.function)
                calls.append((Handler(watcher.name, function, watcher.is_async), news))
            self._queue.appendleft((context, iter(calls)))
            self._go_on()

        for handler in lanes:
            handler.behind.append((handler.lane_left + len(handler.lane), passed))
        if not lanes:
            tell()

    def _bound_changed(self) -> None:
        self._tell_reader()
        if self._queue and not self.in_flight.is_blocked:
            self._schedule()

    def _tell_reader(self) -> None:
        is_full = self.in_flight.is_blocked or self._late > 1 or self._closed
        if is_full != self.is_full:
            self.is_full = is_full
            (self._on_full if is_full else self._on_room)()

    @property
    def is_busy(self) -> bool:
        """Whether something waits, or a handler runs."""
        return bool(self._queue or self.calls or self._coming or self._running)

    def _check_idle(self) -> None:
        if self._idle is not None and not self.is_busy:
            self._idle.set()
            self._idle = None
