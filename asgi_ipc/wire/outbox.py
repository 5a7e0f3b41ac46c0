"""Outboxes: the messages that wait for one receiver, bounded and in order.

Law: nothing in this file asks the kernel or the clock. An outbox accepts encoded messages, and its owner
notes when each has been written. Order is the order of acceptance; messages that wait for room are served in
the order of arrival, and none overtakes. One thread owns an outbox; others only hand messages over, under a
lock of theirs.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from asgi_ipc.wire.arena import Arena
from asgi_ipc.wire.message import Encoded, LargeMessage
from asgi_ipc.wire.packetizer import Cargo, Packetizer, Route

# Two of the largest messages: one that is being written and one behind it.
MAX_OUTBOX_BYTES: Final = 32 * 1024 * 1024

# Four full outboxes: some stalled peers may not take a worker's memory.
MAX_BUDGET_BYTES: Final = 128 * 1024 * 1024

# An outbox below this does not ask the shared budget, so that peers which
# have stalled can't close the way to those which have not.
RESERVED_BYTES: Final = 256 * 1024

# Larger messages than this travel alone. Several smaller ones share a block of the arena, and its
# acknowledgement, unless they go to several receivers, which share the block.
SHORT_BYTES: Final = 32 * 1024


_reserved_bytes = RESERVED_BYTES


class Budget:
    """Bytes in all outboxes of one worker, and its arena. Bytes that several outboxes share count once.

    Attributes:
        used_bytes: accepted and not written.
        handed_bytes: handed over by other threads and not accepted yet.
    """

    __slots__ = ("arena", "handed_bytes", "limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int = MAX_BUDGET_BYTES, arena: Arena | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.arena = arena or Arena(bytearray())
        self.used_bytes = 0
        self.handed_bytes = 0


@dataclass(eq=False, slots=True)
class Ticket:
    """A message that waits for room. `accepted` turns True when it is in the outbox."""

    message: Encoded
    accepted: bool = False


class Outbox:
    """The messages that wait for one receiver, counted exactly.

    `offer` takes a message if there is room; `wait` queues it for room. `next_packet` gives the packet to
    write next, the same one until `written` says that it is on its way.

    Attributes:
        accepted: the number of messages ever accepted.
        messages, backlog_bytes: those of them that are not written.
        handed_bytes: handed over by other threads and not accepted yet.
        packets: makes packets of them.
    """

    __slots__ = (
        "_budget",
        "_handed",
        "_limit_bytes",
        "_run",
        "_waiting",
        "accepted",
        "backlog_bytes",
        "handed_bytes",
        "messages",
        "packets",
    )

    def __init__(self, route: Route, budget: Budget, limit_bytes: int = MAX_OUTBOX_BYTES) -> None:
        self.packets = Packetizer(route)
        self._run = self.packets.run
        self._budget = budget
        self._limit_bytes = limit_bytes
        self._waiting: deque[Ticket] = deque()
        # Each with what it takes from the budget.
        self._handed: deque[tuple[Encoded, int]] = deque()
        self.accepted = 0
        self.messages = 0
        self.backlog_bytes = 0
        self.handed_bytes = 0

    @property
    def waiting(self) -> int:
        """Return the number of messages that wait for room."""
        return len(self._waiting)

    @property
    def handed(self) -> int:
        """Return the number of messages that other threads have handed over and that are not accepted."""
        return len(self._handed)

    def __bool__(self) -> bool:
        return bool(self.messages or self._waiting or self._handed)

    def receiver_copied(self, serial: int) -> None:
        """Take the receiver's acknowledgement of everything up to a place in this worker's arena."""
        self.packets.receiver_copied(self._budget.arena, serial)

    # --- into the outbox

    def has_room(self, message: Encoded, ahead_bytes: int = 0) -> bool:
        """Return whether `offer` would take this message after others have taken `ahead_bytes` more."""
        return self.has_room_for(len(message), ahead_bytes + _cost(message))

    def has_room_for(self, size_bytes: int, cost_bytes: int) -> bool:
        """Return whether a message of that size has room. `cost_bytes`: what it takes from the budget."""
        return not self._waiting and self._fits(size_bytes, cost_bytes)

    def lone_packet(self, prefix: bytes, body: bytes) -> bytes | None:
        """Return the packet of a message that need not wait for others, to be written at once, or None."""
        if self.messages or self._waiting:
            return None
        return self.packets.lone_packet(prefix, body)

    def lone_written(self) -> None:
        """Note that the packet of `lone_packet` is in the pipe as a whole."""
        self.accepted += 1
        self.packets.lone_written()

    def offer(self, message: Encoded) -> bool:
        """Take the message if there is room and no other message waits for it."""
        cost_bytes = _cost(message)
        if not self.has_room_for(len(message), cost_bytes):
            return False
        self._take(message, cost_bytes)
        return True

    def append(self, prefix: bytes, body: bytes, size_bytes: int) -> None:
        """Take a short message, in two parts, for which there is room. The size is that of both."""
        self.accepted += 1
        self.messages += 1
        self.backlog_bytes += size_bytes
        self._budget.used_bytes += size_bytes
        self._run.append(prefix, body, size_bytes)

    def wait(self, ticket: Ticket) -> None:
        """Queue a message for room, behind all that wait already."""
        self._waiting.append(ticket)

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a waiting message back, whole. False: too late, it has been accepted or refused."""
        if ticket.accepted or ticket not in self._waiting:
            return False
        self._waiting.remove(ticket)
        return True

    def refuse(self) -> list[Ticket]:
        """Accept nothing more, and refuse all messages that wait; accepted ones stay."""
        refused = list(self._waiting)
        self._waiting.clear()
        return refused

    def promote(self) -> list[Ticket]:
        """Accept waiting messages, in order, as far as there is room."""
        accepted = []
        while self._waiting:
            ticket = self._waiting[0]
            cost_bytes = _cost(ticket.message)
            if not self._fits(len(ticket.message), cost_bytes):
                break
            self._waiting.popleft()
            self._take(ticket.message, cost_bytes)
            ticket.accepted = True
            accepted.append(ticket)
        return accepted

    def _fits(self, size_bytes: int, cost_bytes: int) -> bool:
        after = self.backlog_bytes + size_bytes
        if after > self._limit_bytes:
            return False
        budget = self._budget
        return after <= _reserved_bytes or budget.used_bytes + cost_bytes <= budget.limit_bytes

    def _take(self, message: Encoded, cost_bytes: int) -> None:
        if not isinstance(message, LargeMessage):
            self.append(b"", message, len(message))
        elif message.size_bytes <= SHORT_BYTES and not message.is_shared:
            self.append(message.prefix, message.body, message.size_bytes)
        else:
            self.accepted += 1
            self.messages += 1
            self.backlog_bytes += message.size_bytes
            self._budget.used_bytes += cost_bytes
            message.holders += 1
            self._run.append_large(message)

    # --- from other threads, under a lock

    def has_room_handed(self, message: Encoded, cost_bytes: int) -> bool:
        """Return whether `hand_over` may be called. Its owner may accept one short message meanwhile."""
        size_bytes = self.handed_bytes + len(message) + SHORT_BYTES
        return self.has_room_for(size_bytes, self._budget.handed_bytes + cost_bytes + SHORT_BYTES)

    def hand_over(self, message: Encoded, cost_bytes: int) -> None:
        """Put a message where the owner takes it."""
        self._handed.append((message, cost_bytes))
        self.handed_bytes += len(message)
        self._budget.handed_bytes += cost_bytes

    def take_handed(self) -> None:
        """Accept all that was handed over; the room for it was kept. By the owner."""
        while self._handed:
            message, cost_bytes = self._handed.popleft()
            self.handed_bytes -= len(message)
            self._budget.handed_bytes -= cost_bytes
            self._take(message, _cost(message))

    # --- out of the outbox

    def next_packet(self) -> bytes | None:
        """Return the packet to write next, or None. It is the same one until `written` is called."""
        return self.packets.next_packet()

    def written(self) -> None:
        """Note that the packet of `next_packet` is in the pipe as a whole."""
        self._discharge(self.packets.written())

    def close(self) -> int:
        """Empty the outbox; return the number of accepted messages that are lost with it."""
        lost = self.messages
        self._discharge(Cargo(lost, self.backlog_bytes, self.packets.close()))
        return lost

    def _discharge(self, cargo: Cargo) -> None:
        """Give back to the budget what was written or is lost."""
        budget = self._budget
        self.messages -= cargo.messages
        self.backlog_bytes -= cargo.size_bytes
        budget.used_bytes -= cargo.size_bytes
        for message in cargo.large:
            message.holders -= 1
            if message.holders:
                # It stays in other outboxes.
                budget.used_bytes += message.size_bytes
            elif message.block is not None:
                budget.arena.release(message.block)
                message.block = None


def _cost(message: Encoded) -> int:
    """Return the bytes that a message takes from the budget: none if another outbox has it already."""
    return 0 if isinstance(message, LargeMessage) and message.holders else len(message)
