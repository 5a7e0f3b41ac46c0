"""Deliveries: what a context knows of the message that runs in it: who sent it, its size, what is wanted.

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
    """What a handler's context knows of its message: the IPC that handles it, its sender, and its extra."""

    ipc: object
    sender: Worker
    extra: Extra | None = None


current_delivery: contextvars.ContextVar[Delivery | None] = contextvars.ContextVar(
    "asgi_ipc_delivery", default=None
)


def sender_of(context: contextvars.Context) -> Worker | None:
    """Whose message runs in that context."""
    delivery = context.get(current_delivery)
    return delivery.sender if delivery is not None else None


def pid_of_sender(context: contextvars.Context) -> int:
    """Its pid; 0: nobody's message runs there."""
    sender = sender_of(context)
    return sender.pid if sender is not None else 0


class Asked:
    """A question's data, in place of data: its handler's result is wanted."""

    __slots__ = ("answering", "data")

    def __init__(self, data: Any, answering: Callable[[Handler], Coroutine[Any, Any, None]]) -> None:
        self.data = data
        self.answering = answering


# How large each message is that came here, in bytes, where they are large; of other data than text and bytes
# that can't be seen any more.
large_bytes: contextvars.ContextVar[int] = contextvars.ContextVar("asgi_ipc_large_bytes", default=0)


def size_bytes_of(data: Any, context: contextvars.Context) -> int:
    """What data holds in memory, about: small data counts as nothing, unless it is text or bytes."""
    if type(data) is Asked:
        data = data.data
    return len(data) if type(data) is str or type(data) is bytes else context.get(large_bytes, 0)
