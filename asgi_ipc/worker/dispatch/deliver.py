"""Deliver: starts the handler of one message after the other, each in a context of its own.

Law: it stops where something must be decided, and says why; the dispatcher decides. Handlers start in the
order of the messages. Messages go around the dispatcher only while nothing waits there.
"""

from __future__ import annotations

import contextvars
import enum
from collections.abc import Callable
from types import CoroutineType
from typing import Any, TypeAlias

import asgi_ipc.fast as fast
from asgi_ipc.wire.batch import Batch
from asgi_ipc.worker.dispatch.backpressure import InFlight
from asgi_ipc.worker.dispatch.delivery import add_extra
from asgi_ipc.worker.dispatch.handler import Handler
from asgi_ipc.worker.dispatch.steps import Steps

_coroutine_type = CoroutineType


class Reason(enum.Enum):
    """Why no message follows until somebody has decided."""

    UNKNOWN = enum.auto()  # there is no handler of that name
    ORDERED = enum.auto()  # the handler may have to wait for its last call; it has not been called
    WAITS = enum.auto()  # the outcome is the task of an async handler that waits
    COROUTINE = enum.auto()  # the outcome is a coroutine, returned by a plain handler
    FAILED = enum.auto()  # the outcome is what the handler has raised


# What is to be decided about the last message of a batch: with its handler, the context of the call, and the
# outcome.
Stop: TypeAlias = tuple[Reason, Handler | None, contextvars.Context, Any]


# What the dispatcher does with messages that have to wait.
Wait: TypeAlias = Callable[[contextvars.Context, Batch], None]

# What the dispatcher does behind a batch: it decides, if that is why the deliverer stopped, and goes on.
GoOn: TypeAlias = "Callable[[contextvars.Context, Batch, Stop | None], None]"


class Deliverer:
    """Starts handlers.

    Attributes:
        left: messages that may still be handled before the loop gets its turn back.
        received: messages whose turn has come, without announcements.
        is_running: handlers are being started.
        is_watched: something waits in the dispatcher, or for it.
    """

    __slots__ = (
        "_go_on",
        "_handlers",
        "_in_flight",
        "_steps",
        "_wait",
        "is_running",
        "is_watched",
        "left",
        "received",
    )

    def __init__(
        self,
        handlers: dict[str, Handler],
        steps: Steps,
        in_flight: InFlight,
        wait: Wait,
        go_on: GoOn,
        left: int,
    ) -> None:
        self._handlers = handlers
        self._steps = steps
        self._in_flight = in_flight
        self._wait = wait
        self._go_on = go_on
        self.left = left
        self.received = 0
        self.is_running = False
        self.is_watched = False

    def accept(self, context: contextvars.Context, batch: Batch) -> None:
        """Take messages that arrived together; their handlers start in this turn or in later ones."""
        if self.is_running or self.is_watched:
            self._wait(context, batch)
            return
        self.is_running = True
        try:
            stop = self.deliver(context, batch, self._handlers)
        finally:
            self.is_running = False
        if stop is not None or self.is_watched or batch.left:
            self._go_on(context, batch, stop)

    def deliver(
        self, context: contextvars.Context, batch: Batch, handlers: dict[str, Handler]
    ) -> Stop | None:
        """Start handlers until something must be decided; None: the batch is empty, or a bound is reached."""
        before = self.left
        stop = self._start(context, batch, handlers)
        if handlers is self._handlers:
            self.received += before - self.left
        return stop

    def _start(self, context: contextvars.Context, batch: Batch, handlers: dict[str, Handler]) -> Stop | None:
        while self.left and not self._in_flight.is_blocked and batch.next():
            self.left -= 1
            handler = handlers.get(batch.name)
            if handler is None:
                return Reason.UNKNOWN, None, context, None
            own = fast.copied(context)
            if batch.extra is not None:
                own.run(add_extra, batch.extra)
            if handler.ordered:
                return Reason.ORDERED, handler, own, None
            try:
                if handler.is_async:
                    outcome = self._steps.take(handler.function(batch.data), own)
                    if outcome is not None:
                        return Reason.WAITS, handler, own, outcome
                else:
                    outcome = fast.call_in(own, handler.function, batch.data)
                    if outcome is not None and isinstance(outcome, _coroutine_type):
                        return Reason.COROUTINE, handler, own, outcome
            except BaseException as error:  # noqa: BLE001  # the app's own
                return Reason.FAILED, handler, own, error
        return None
