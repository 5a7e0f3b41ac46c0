"""Peer: one worker that this one sends to, and what moves its packets.

Law: only state. The event loop's thread changes it; other threads read `leaving` under a lock.
"""

from __future__ import annotations

import contextvars

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.outbox import Outbox


class Writer:
    """Moves packets from one outbox to its receiver. This one stands for a write end that has not arrived.

    It lets messages wait; PipeWriter and LoopbackWriter move them.
    """

    def flush(self) -> None:
        """Move the packets of the outbox, now or soon."""

    def write_alone(self, packet: bytes) -> bool:
        """Write a packet that is in no outbox now. False: it can't be written now."""
        return False

    def unread_bytes(self) -> int:
        """How many bytes are under way."""
        return 0

    def close_when_empty(self) -> None:
        """Move the rest of the outbox, then close."""

    def close(self) -> None:
        """Stop for good."""


class Peer:
    """One worker that this one sends to, or itself.

    Attributes:
        context: handlers of its messages run in copies of this.
        dirty: it is in the list of peers to flush at the end of this turn.
        quiet: the last turn brought it few messages.
        wrote_in: the last turn that wrote it a lone message.
        leaving: it can't be addressed any more.
        lost: accepted messages that never left its outbox, counted after it has gone.
    """

    __slots__ = ("context", "dirty", "leaving", "lost", "outbox", "quiet", "worker", "writer", "wrote_in")

    def __init__(self, worker: Worker, outbox: Outbox, context: contextvars.Context) -> None:
        self.worker = worker
        self.outbox = outbox
        self.context = context
        self.writer: Writer = Writer()
        self.dirty = False
        self.quiet = True
        self.wrote_in = 0
        self.leaving = False
        self.lost = 0
