"""Acting: which member of a test's fleet stands for an app's IPC, in this context.

Law: asked only where an IPC is not running itself, so a worker never pays for
it. Nothing in the product sets it; `asgi_ipc.testing` does, for each member's
context, and handlers, tasks and threads inherit it from there.
"""

from __future__ import annotations

import contextvars
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asgi_ipc.worker.ipc import IPC
    from asgi_ipc.worker.running import Running


@dataclass(frozen=True, slots=True)
class Acting:
    """`member` stands for `ipc`."""

    ipc: IPC
    member: IPC


acting: contextvars.ContextVar[Acting | None] = contextvars.ContextVar("asgi_ipc_acting", default=None)


def member_for(ipc: Running) -> IPC | None:
    """Who stands for that one here; None: nobody."""
    now = acting.get()
    return now.member if now is not None and now.ipc is ipc else None
