"""Deliveries: the data of a context on its message: its sender, its size, and the wanted result.

Law: data in a context, and nothing that runs. Handlers, and the tasks and
threads that they start, find it there.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import Extra
from asgi_ipc.worker.dispatch.registry import Handler


@dataclass(frozen=True, slots=True)
class Delivery:
    """The data of a context on its message: the lifespan that handles it, its sender, and its extra."""

    owner: object
    sender: Worker
    extra: Extra | None = None


current_delivery: contextvars.ContextVar[Delivery | None] = contextvars.ContextVar(
    "asgi_ipc_delivery", default=None
)


def sender_of(context: contextvars.Context) -> Worker | None:
    """Return the sender of the message that runs in a context."""
    delivery = context.get(current_delivery)
    return delivery.sender if delivery is not None else None


def pid_of_sender(context: contextvars.Context) -> int:
    """Return its pid; 0 if no message runs there."""
    sender = sender_of(context)
    return sender.pid if sender is not None else 0


class Asked:
    """The data of a question: its handler's result is wanted."""

    __slots__ = ("answering", "data")

    def __init__(self, data: Any, answering: Callable[[Handler], Coroutine[Any, Any, None]]) -> None:
        self.data = data
        self.answering = answering


# The size of each large message of a packet, in bytes; for data other than text and bytes it can't be seen
# later.
large_bytes: contextvars.ContextVar[int] = contextvars.ContextVar("asgi_ipc_large_bytes", default=0)


def size_bytes_of(data: Any, context: contextvars.Context) -> int:
    """Return the memory of data, roughly: small data is not counted, unless it is text or bytes."""
    if type(data) is Asked:
        data = data.data
    return len(data) if type(data) is str or type(data) is bytes else context.get(large_bytes, 0)
