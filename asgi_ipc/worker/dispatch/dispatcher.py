"""The dispatcher: calls the handler of each message, in order, each in its own context.

Law: handlers start in the order of arrival across all names and both kinds. An async handler runs to its
first await before the next message's handler is called. An exception of a handler is logged and counted, and
the next message arrives.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from asgi_ipc.errors import InvalidNameError
from asgi_ipc.logs import logger
from asgi_ipc.wire.batch import Batch
from asgi_ipc.wire.message import check_name
from asgi_ipc.worker.dispatch.backpressure import InFlight
from asgi_ipc.worker.dispatch.calls import CANCEL_GRACE_S, Calls
from asgi_ipc.worker.dispatch.deliver import Deliverer, Reason, Stop
from asgi_ipc.worker.dispatch.delivery import current_sender
from asgi_ipc.worker.dispatch.entries import Entry, announcement
from asgi_ipc.worker.dispatch.handler import Function, Handler
from asgi_ipc.worker.dispatch.registry import Registry

# Names without a handler that are logged, one line each; more lines would be noise.
MAX_UNHEARD_NAMES: Final = 100

# Messages handled before the loop gets its turn back, at about a microsecond
# each for a handler that does next to nothing.
MESSAGES_PER_TURN: Final = 256


class Dispatcher:
    """Calls the handlers of one running worker.

    `on_full` and `on_room` tell the reader when to pause and to go on, `on_turn` that messages which waited
    have been read.

    Attributes:
        is_full: the reader must pause: the bound on handlers in flight is reached, or messages wait for more
            than one turn, or the dispatcher has stopped.
        accept: `accept(context, batch)` takes messages that arrived together; their handlers start in this
            turn or in later ones.
        discarded: messages without a handler.
        unhandled: messages that had arrived when the dispatcher stopped, or arrived later.
        node: the server that this worker belongs to.
    """

    def __init__(
        self,
        registry: Registry,
        on_full: Callable[[], None],
        on_room: Callable[[], None],
        on_turn: Callable[[], None],
    ) -> None:
        self.is_full = False
        self.node = ""
        self.discarded = 0
        self.invalid_names = 0
        self.unhandled = 0
        self.in_flight = InFlight(self._bound_changed)
        self.calls = Calls(self.in_flight, self._check_idle)
        self._on_full = on_full
        self._on_room = on_room
        self._on_turn = on_turn
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._handlers = registry.handlers
        self._own_handlers: list[Handler] = []
        self._queue: deque[Entry] = deque()
        self._is_stopped = False
        self._deliverer = Deliverer(
            self._handlers, self.calls.steps, self.in_flight, self._wait, self._advance, MESSAGES_PER_TURN
        )
        self.accept = self._deliverer.accept
        # Whether the next turn of the loop is asked for.
        self._is_scheduled = False
        # Turns that have ended before the queue was empty, since it was empty.
        self._late_turns = 0
        self._idle: asyncio.Event | None = None
        self._unheard: set[str] = set()

    @property
    def is_busy(self) -> bool:
        """Whether something waits, or a handler runs."""
        return bool(self._queue or self.calls or self._deliverer.is_running)

    @property
    def received(self) -> int:
        """Return how many messages' turn has come."""
        return self._deliverer.received

    # --- in

    def receive(self, name: str, function: Function, *, from_afar: bool = False) -> None:
        """Have a plain function handle one of the package's own messages, until the dispatcher stops.

        No app can register its name. A message for which the function raises TypeError or ValueError is
        counted like one with an invalid name; so is one of a worker of another server, unless `from_afar`.
        """
        handler = Handler(name, partial(self._handle_own, function, from_afar), is_async=False)
        self._handlers[name] = handler
        self._own_handlers.append(handler)

    def behind(self, callback: Callable[[], None]) -> None:
        """Call this when everything accepted so far has been given to its handlers."""
        if self._is_stopped:
            callback()
            return
        self._queue.append(announcement(Handler("callback", callback, False), (), self._context))
        self._go_on()

    def announce(
        self,
        watchers: Sequence[Handler],
        news: tuple[Any, ...],
        context: contextvars.Context,
        pid: int = 0,
    ) -> None:
        """Call the watchers of the fleet, behind everything accepted so far.

        `pid`: messages of this worker that wait in the lanes of ordered handlers start before that, too.
        """
        if watchers and not self._is_stopped:
            self.behind(partial(self._announce, watchers, news, context, pid))

    def _announce(
        self, watchers: Sequence[Handler], news: tuple[Any, ...], context: contextvars.Context, pid: int
    ) -> None:
        waiting = self.calls.last_waiting_from(pid) if pid else None
        if waiting is not None:
            # There may be more of them, in other lanes.
            waiting.then.append(partial(self._announce, watchers, news, context, pid))
            return
        self._queue.extendleft(announcement(watcher, news, context) for watcher in reversed(watchers))
        self._go_on()

    # --- the end

    async def idle(self) -> None:
        """Wait until nothing waits and no handler runs: at the moment in which this returns."""
        # Between the end of the last handler and this task's turn, another message may have come.
        while self.is_busy:
            idle = self._idle = self._idle or asyncio.Event()
            self._deliverer.is_watched = True
            await idle.wait()

    async def close(self) -> int:
        """Cancel the handlers in flight, let them clean up; how many. Count and drop waiting messages."""
        cancelled = self.stop()
        await self.cleaned_up(cancelled)
        return len(cancelled)

    def stop(self) -> list[asyncio.Task[Any]]:
        """Cancel the handlers in flight; their tasks. Waiting messages are dropped and counted."""
        self._is_stopped = self._deliverer.is_watched = True
        self._tell_reader()
        for handler in self._own_handlers:
            # After a loop that was closed without a word, another worker may have begun in this process.
            if self._handlers.get(handler.name) is handler:
                del self._handlers[handler.name]
        for entry in self._queue:
            if entry.handlers is self._handlers:
                self.unhandled += entry.batch.left
            entry.batch.drop_rest()
        self._queue.clear()
        cancelled, unhandled = self.calls.cancel()
        self.unhandled += unhandled
        return cancelled

    async def cleaned_up(self, cancelled: list[asyncio.Task[Any]]) -> None:
        """Let these clean up, for a moment."""
        if cancelled:
            await asyncio.wait(cancelled, timeout=CANCEL_GRACE_S)

    # --- whose turn it is

    def _go_on(self) -> None:
        """Start what was put into the queue, if it is its turn."""
        self._deliverer.is_watched = True
        if not self._deliverer.is_running and not self._is_scheduled:
            self._advance()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._is_scheduled = False
        self._deliverer.left = MESSAGES_PER_TURN
        self._advance()
        self._on_turn()

    def _wait(self, context: contextvars.Context, batch: Batch) -> None:
        """Take messages that others may be before."""
        if self._is_stopped:
            self.unhandled += batch.left
            batch.drop_rest()
        else:
            self._queue.append(Entry(context, batch, self._handlers))
            self._go_on()

    def _advance(
        self,
        context: contextvars.Context | None = None,
        batch: Batch | None = None,
        stop: Stop | None = None,
    ) -> None:
        """Go on with this batch and what waits, in order, as far as the bounds allow."""
        self._deliverer.is_running = True
        try:
            if context is not None and batch is not None:
                self._start(context, batch, self._handlers, stop)
            while self._queue and self._deliverer.left and not self.in_flight.is_blocked:
                self._start(*self._queue.popleft())
        finally:
            self._deliverer.is_running = False
            self._end_turn()
        self._check_idle()

    def _start(
        self,
        context: contextvars.Context,
        batch: Batch,
        handlers: dict[str, Handler],
        stop: Stop | None = None,
    ) -> None:
        """Start the handlers of a batch; what the bounds don't allow waits, before everything else."""
        deliver = self._deliverer.deliver
        try:
            if stop is not None:
                self._decide(stop, batch)
            while (stop := deliver(context, batch, handlers)) is not None:
                self._decide(stop, batch)
        finally:
            if batch.left:
                self._queue.appendleft(Entry(context, batch, handlers))

    def _decide(self, stop: Stop, batch: Batch) -> None:
        """Do what the last message of the batch needs beyond a call."""
        reason, handler, context, outcome = stop
        calls = self.calls
        if handler is None:
            self._discard(batch.name)
        elif reason is Reason.WAITS:
            calls.waits(handler, context, outcome, batch.data)
        elif reason is Reason.ORDERED:
            calls.begin(handler, handler.function, context, batch.data)
        elif reason is Reason.COROUTINE:
            calls.adopt(handler, outcome, context)
        elif isinstance(outcome, KeyboardInterrupt | SystemExit):
            raise outcome
        elif handler.is_async:
            calls.ended_with(handler, context, outcome)
        else:
            calls.failed(handler, context, outcome)

    def _end_turn(self) -> None:
        self._deliverer.is_watched = bool(self._queue) or self._is_stopped or self._idle is not None
        if not self._queue:
            if self._late_turns:
                self._late_turns = 0
                self._tell_reader()
        elif not self.in_flight.is_blocked:
            # For the second time, later messages must wait in the pipe. A handler that exits comes here, too.
            self._late_turns += not self._deliverer.left
            self._tell_reader()
            self._schedule()

    def _bound_changed(self) -> None:
        self._tell_reader()
        if self._queue and not self.in_flight.is_blocked:
            self._schedule()

    def _tell_reader(self) -> None:
        is_full = self.in_flight.is_blocked or self._late_turns > 1 or self._is_stopped
        if is_full != self.is_full:
            self.is_full = is_full
            (self._on_full if is_full else self._on_room)()

    def _check_idle(self) -> None:
        if self._idle is not None and not self.is_busy:
            self._idle.set()
            self._idle = None

    # --- special messages

    def _handle_own(self, function: Function, from_afar: bool, data: Any) -> None:
        try:
            if not from_afar and current_sender().node != self.node:
                raise ValueError("no other server says this")
            function(data)
        except (TypeError, ValueError):
            # No code of this package has sent that.
            self.invalid_names += 1

    def _discard(self, name: str) -> None:
        """Count a message without a handler, and log its name once: it may be misspelt."""
        # A name with a handler was checked when it was registered.
        try:
            check_name(name)
        except InvalidNameError:
            self.invalid_names += 1
            return
        self.discarded += 1
        if name not in self._unheard and len(self._unheard) < MAX_UNHEARD_NAMES:
            self._unheard.add(name)
            logger.warning("worker [%d] has no handler for messages named %r", self.calls.pid, name)
