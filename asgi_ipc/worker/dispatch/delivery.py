"""Deliveries: the data of a context on its message: its sender, its size, its extra.

Law: data in a context, and nothing that runs. Handlers, and the tasks and
threads that they start, find it there.
"""

from __future__ import annotations

import contextvars
from dataclasses import dataclass
from typing import Any

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import Extra


@dataclass(frozen=True, slots=True)
class Delivery:
    """The data of a context on its message: the lifespan that handles it, its sender, and its extra."""

    owner: object
    sender: Worker
    extra: Extra | None = None


current_delivery: contextvars.ContextVar[Delivery | None] = contextvars.ContextVar(
    "asgi_ipc_delivery", default=None
)

# How large each message was that is delivered in this context, in bytes; 0: small. Decoded data shows its
# size only if it is text or bytes.
large_bytes: contextvars.ContextVar[int] = contextvars.ContextVar("asgi_ipc_large_bytes", default=0)


def add_extra(extra: Extra) -> None:
    """Give the message that is handled in this context its extra."""
    delivery = current_delivery.get()
    if delivery is not None:
        current_delivery.set(Delivery(delivery.owner, delivery.sender, extra))


def current_sender() -> Worker:
    """The sender of the message that is handled here. Raises TypeError if none is."""
    delivery = current_delivery.get()
    if delivery is None:
        raise TypeError("no message is handled here")
    return delivery.sender


def pid_of_sender(context: contextvars.Context) -> int:
    """The pid of the sender of the message that is handled in a context; 0: none is."""
    delivery = context.get(current_delivery)
    return delivery.sender.pid if delivery is not None else 0


def size_bytes_of(data: Any, large_bytes: int) -> int:
    """About how much memory data holds. Small data counts as nothing, unless it is text or bytes."""
    return len(data) if type(data) is str or type(data) is bytes else large_bytes
