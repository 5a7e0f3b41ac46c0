"""Deliver: starts the handler of one message after the other, each in a context of its own.

Law: it stops where something must be decided, and says why; the dispatcher decides. Handlers start in the
order of the messages.
"""

from __future__ import annotations

import contextvars
import enum
from collections.abc import Mapping
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


class Deliverer:
    """Starts handlers.

    Attributes:
        left: messages that may still be handled before the loop gets its turn back.
    """

    __slots__ = ("_in_flight", "_steps", "left")

    def __init__(self, steps: Steps, in_flight: InFlight, left: int) -> None:
        self._steps = steps
        self._in_flight = in_flight
        self.left = left

    def deliver(
        self, batch: Batch, context: contextvars.Context, handlers: Mapping[str, Handler]
    ) -> Stop | None:
        """Start handlers until something must be decided; None: the batch is empty, or a bound is reached."""
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
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001  # the app's own
                return Reason.FAILED, handler, own, error
        return None
