"""Messaging: the verbs that send a message, and their waits for room.

Law: nothing is sent before everything is checked. The check of the thread and
loop stands here once, for all verbs. A sending verb is a plain function that
returns what its caller must await, or None: a coroutine for each message would
cost a fifth of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from asgi_ipc import fast
from asgi_ipc.errors import (
    NotRunningError,
    WouldBlockError,
)
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import Data, Encoded
from asgi_ipc.wire.outbox import SHORT_BYTES
from asgi_ipc.worker.features.span import Span
from asgi_ipc.worker.features.waiting import Sent, let_others_run, send_to_any, wait_for_room, wait_for_rooms
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peers import Receivers
from asgi_ipc.worker.transport.sender import MESSAGES_PER_TURN

# The constants of the compiled engine. The first verb of a turn and the one that ends it go the long way.
_before_last = MESSAGES_PER_TURN - 1
_most_short = SHORT_BYTES


def check_timeout(timeout: float | None) -> None:
    """Raise ValueError unless `timeout` is a number of seconds from 0 on, or None."""
    # NaN is not >= 0, either.
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"a timeout is a number of seconds from 0 on, or None; not {timeout!r}")


class Messaging:
    """Sends messages between `open` and `close`.

    The `_nowait` verbs work on any thread of the worker, the others on the event loop's.

    Attributes:
        span: reaches the other servers of a cluster, while there is a bridge.
    """

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._sender = outgoing.sender
        self._by_pid = outgoing.peers.by_pid
        self._by_generation = outgoing.peers.by_generation
        self._fronts = outgoing.packer.fronts
        self.span: Span | None = None
        # The event loop's thread; 0 while closed, which is no thread's.
        self._thread = 0

    def open(self) -> None:
        """Accept messages."""
        self._thread = self._outgoing.thread

    def close(self) -> None:
        """Refuse messages."""
        self._thread = 0

    @property
    def is_open(self) -> bool:
        """Return whether messages are accepted."""
        return self._thread != 0

    # --- verbs

    def send(
        self, to: int | Worker, name: str, data: Data, timeout: float | None
    ) -> Awaitable[object] | None:
        """Send one message; see `IPC.send`. Returns what must be awaited, if anything."""
        turn_messages = self._sender.turn_messages
        if (
            0 < turn_messages < _before_last
            and (timeout is None or timeout >= 0)
            and self._send_short(to, name, data)
        ):
            return None
        self.check(timeout)
        refused = self._outgoing.send(to, name, data)
        if refused is not None:
            return wait_for_room(self._outgoing, refused.peer, refused.message, timeout)
        return let_others_run(self._sender)

    def send_nowait(self, pid: int | Worker, name: str, data: Data = b"") -> None:
        """Send one message, or raise WouldBlockError; see `IPC.send_nowait`, whose place this takes."""
        if not self._send_short(pid, name, data):
            # An app may keep this method beyond the lifespan.
            self.check_open()
            refused = self._outgoing.send(pid, name, data)
            if refused is not None:
                raise WouldBlockError(refused.peer.worker.pid)

    def _send_short(self, to: int | Worker, name: str, data: Data) -> bool:
        """Send a message with text or bytes the short way. False: it must take the long way."""
        if fast.thread_id() != self._thread or type(name) is not str:
            return False
        if type(to) is int:
            peer = self._by_pid.get(to)
        elif type(to) is Worker:
            peer = self._by_generation.get(to.generation)
            if peer is not None and peer.worker is not to:
                return False
        else:
            return False
        front = self._fronts.get(name)
        if peer is None or front is None:
            return False
        if type(data) is bytes:
            body = data
            if len(body) > _most_short:
                return False
            prefix = fast.bytes_prefix(front, len(body))
        elif type(data) is str:
            # Each character takes a byte, at least.
            if len(data) > _most_short:
                return False
            body = data.encode()
            prefix = fast.text_prefix(front, len(body))
        else:
            return False
        return self._sender.post(peer, prefix, body)

    def broadcast(
        self, name: str, data: Data, *, include_self: bool, timeout: float | None, spans: bool = True
    ) -> Sent:
        """Send one message to all members; see `to_each` for the result. `spans`: on other servers, too."""
        self.check(timeout)
        message = self._outgoing.pack(name, data)
        sent = self.to_each(self._outgoing.peers.members(include_self=include_self), message, timeout)
        if self.span is not None and spans:
            self.span.broadcast(message)
        return sent

    def broadcast_nowait(
        self, name: str, data: Data, *, include_self: bool, spans: bool = True
    ) -> tuple[int, ...]:
        """Send one message to all members, or raise WouldBlockError and send it to none. From any thread."""
        message = self._outgoing.pack(name, data)
        members = self._outgoing.peers.members(include_self=include_self)
        took = tuple(self._outgoing.post_to_all(members, message))
        if self.span is not None and spans:
            self.span.broadcast(message)
        return took

    def send_any(self, name: str, data: Data, *, timeout: float | None) -> Awaitable[int]:
        """Send one message to the least busy member; its pid."""
        self.check(timeout)
        return send_to_any(self._outgoing, self._outgoing.pack(name, data), timeout)

    def to_each(self, members: Receivers, message: Encoded, timeout: float | None) -> Sent:
        """Put a message into every outbox with room; the pids of those, and what brings the other pids."""
        took, full = self._outgoing.post_to_each(members, message)
        if full:
            return tuple(took), wait_for_rooms(self._outgoing, full, message, timeout)
        return tuple(took), let_others_run(self._sender)

    # --- checks

    def check(self, timeout: float | None) -> None:
        """Check a verb's timeout, thread and loop. Raises ValueError or NotRunningError.

        The first verb of a turn checks the loop: on one thread no other loop can run before the turn ends.
        """
        if not self._sender.turn_messages or fast.thread_id() != self._thread:
            self.check_here()
        if timeout is not None and not timeout >= 0:
            check_timeout(timeout)

    def check_here(self) -> None:
        """Raise NotRunningError unless messages are accepted, and from the event loop that this runs on."""
        self.check_open()
        if fast.thread_id() != self._thread or asyncio.get_running_loop() is not self._outgoing.loop:
            raise NotRunningError(
                "ipc.lifespan was entered on another event loop; in a thread use ipc.blocking, "
                "a _nowait verb, or asyncio.run_coroutine_threadsafe()"
            )

    def check_open(self) -> None:
        """Raise NotRunningError unless messages are accepted. From any thread."""
        if not self._thread:
            raise NotRunningError("ipc.lifespan has not been entered yet, or is ending")
