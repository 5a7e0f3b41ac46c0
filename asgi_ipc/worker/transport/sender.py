"""The sender: the short way of a message into an outbox, and the moments in which outboxes are written.

Law: on the event loop's thread only. A quiet message, which comes alone, is packed and written at once,
without a list and a callback; an outbox that is filling is written at once, too. Everything else is written
at the end of the turn, so that messages share packets.
"""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import Final

from asgi_ipc.wire.outbox import Budget
from asgi_ipc.worker.transport.peer import Peer

# An outbox that reaches this is written at once instead of at the end of the
# turn: it fills a packet of places in the arena, and a pipe of the default size.
EAGER_BYTES: Final = 256 * 1024

# A turn that brings a peer more messages than this is followed by others
# like it: then the first message of the next turn waits for those behind it.
QUIET_MESSAGES: Final = 4

# An awaited verb yields to the loop once a turn has sent so many messages: a task that sends in a loop would
# keep all others waiting. A large message counts as several, so that they yield after 1 MiB.
MESSAGES_PER_TURN: Final = 256
BYTES_AS_ONE_MESSAGE: Final = 4096

# One more receiver of a broadcast costs about this fraction of a message:
# yielding too often leaves its packets almost empty.
RECEIVERS_AS_ONE_MESSAGE: Final = 8

# The constants of the compiled engine.
_eager_bytes = EAGER_BYTES
_quiet_messages = QUIET_MESSAGES
_bytes_as_one_message = BYTES_AS_ONE_MESSAGE
_receivers_as_one_message = RECEIVERS_AS_ONE_MESSAGE


class Sender:
    """Puts messages of up to `short_bytes` into outboxes, and has them written.

    Attributes:
        turn: counts the turns of the loop that read or sent something.
        turn_messages: the messages accepted in this turn of the loop; a large one counts as several, a quiet
            one not at all.
    """

    __slots__ = (
        "_budget",
        "_dirty",
        "_end_is_due",
        "_lock",
        "_loop",
        "_short_bytes",
        "turn",
        "turn_messages",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, lock: Lock, budget: Budget, short_bytes: int) -> None:
        self._loop = loop
        self._lock = lock
        self._budget = budget
        self._short_bytes = short_bytes
        self._dirty: list[Peer] = []
        self._end_is_due = False
        self.turn = 1
        self.turn_messages = 0

    # --- the short way

    def post(self, peer: Peer, prefix: bytes, body: bytes) -> bool:
        """Accept a short message, in two parts, for a peer. False: it must take the long way."""
        size_bytes = len(prefix) + len(body)
        if not self._has_room(peer, size_bytes, 0):
            return False
        if (
            peer.quiet
            and not peer.dirty
            and peer.wrote_in != self.turn
            and self._write_alone(peer, prefix, body)
        ):
            return True
        peer.outbox.append(prefix, body, size_bytes)
        self.accepted(peer)
        self.turn_messages += 1 + size_bytes // _bytes_as_one_message
        return True

    def post_to_all(self, peers: tuple[Peer, ...], message: bytes) -> bool:
        """Accept one short message for each of these peers, or for none. False: it must take the long way."""
        size_bytes = len(message)
        ahead_bytes = 0
        # Other threads leave room for one short message that comes without the lock; these are several.
        with self._lock:
            for peer in peers:
                if not self._has_room(peer, size_bytes, ahead_bytes):
                    return False
                ahead_bytes += size_bytes
            for peer in peers:
                peer.outbox.append(b"", message, size_bytes)
        # Without the lock: a peer may turn out to be gone.
        for peer in peers:
            self.accepted(peer)
        self.turn_messages += 1 + len(peers) // _receivers_as_one_message
        return True

    def _has_room(self, peer: Peer, size_bytes: int, ahead_bytes: int) -> bool:
        """Return whether a message may take the short way now. What other threads handed over comes first."""
        if size_bytes > self._short_bytes or peer.leaving or self._budget.handed_bytes:
            return False
        return peer.outbox.has_room_for(size_bytes, ahead_bytes + size_bytes)

    def _write_alone(self, peer: Peer, prefix: bytes, body: bytes) -> bool:
        packet = peer.outbox.lone_packet(prefix, body)
        if packet is None or not peer.writer.write_alone(packet):
            return False
        peer.outbox.lone_written()
        peer.wrote_in = self.turn
        return True

    # --- when outboxes are written

    def accepted(self, peer: Peer) -> None:
        """Have the outbox of a peer written, now or when the turn ends."""
        is_quiet = not peer.dirty and peer.quiet
        self.touch(peer)
        if (is_quiet or peer.outbox.backlog_bytes >= _eager_bytes) and not peer.outbox.packets.must_wait:
            peer.writer.flush()

    def touch(self, peer: Peer) -> None:
        """Note that there is something for a peer, which is written when the turn ends."""
        if not self._end_is_due:
            self._end_is_due = True
            self._loop.call_soon(self._end)
        if not peer.dirty:
            peer.dirty = True
            self._dirty.append(peer)

    def begin_turn(self) -> None:
        """Note that the loop has read something: what a handler sends now may be quiet again."""
        self.turn += 1

    def _end(self) -> None:
        self._end_is_due = False
        self.turn += 1
        self.turn_messages = 0
        dirty, self._dirty = self._dirty, []
        for peer in dirty:
            peer.dirty = False
        for peer in dirty:
            waiting = peer.outbox.messages
            peer.quiet = waiting <= _quiet_messages
            if waiting or peer.outbox.packets.copied is not None:
                peer.writer.flush()
