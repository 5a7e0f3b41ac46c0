"""Outboxes: the messages that wait for one receiver, bounded and in order.

Law: nothing in this file asks the kernel or the clock. An outbox accepts encoded messages, and its owner
notes when each has been written. Order is the order of acceptance; messages that wait for room are served in
the order of arrival, and none overtakes.
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


class Budget:
    """Bytes in all outboxes of one worker, and its arena. Bytes that several outboxes share count once."""

    __slots__ = ("arena", "limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int = MAX_BUDGET_BYTES, arena: Arena | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.arena = arena or Arena(bytearray())
        self.used_bytes = 0


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
        packets: makes packets of them.
    """

    __slots__ = ("_budget", "_limit_bytes", "_run", "_waiting", "accepted", "packets")

    def __init__(self, route: Route, budget: Budget, limit_bytes: int = MAX_OUTBOX_BYTES) -> None:
        self.packets = Packetizer(route)
        self._run = self.packets.run
        self._budget = budget
        self._limit_bytes = limit_bytes
        self._waiting: deque[Ticket] = deque()
        self.accepted = 0

    @property
    def backlog_bytes(self) -> int:
        """Return the bytes that were accepted and are not written."""
        return self._run.size_bytes + self.packets.cargo.size_bytes

    @property
    def messages(self) -> int:
        """Return the number of messages that were accepted and are not written."""
        return self._run.messages + self.packets.cargo.messages

    @property
    def waiting(self) -> int:
        """Return the number of messages that wait for room."""
        return len(self._waiting)

    def __bool__(self) -> bool:
        return bool(self.messages or self._waiting)

    def receiver_copied(self, serial: int) -> None:
        """Take the receiver's acknowledgement of everything up to a place in this worker's arena."""
        self.packets.receiver_copied(self._budget.arena, serial)

    # --- into the outbox

    def has_room(self, message: Encoded, ahead_bytes: int = 0) -> bool:
        """Return whether `offer` would take this message after others have taken `ahead_bytes` more."""
        return not self._waiting and self._fits(message, ahead_bytes + _cost(message))

    def offer(self, message: Encoded) -> bool:
        """Take the message if there is room and no other message waits for it."""
        cost_bytes = _cost(message)
        if self._waiting or not self._fits(message, cost_bytes):
            return False
        self._take(message, cost_bytes)
        return True

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
            if not self._fits(ticket.message, cost_bytes):
                break
            self._waiting.popleft()
            self._take(ticket.message, cost_bytes)
            ticket.accepted = True
            accepted.append(ticket)
        return accepted

    def _fits(self, message: Encoded, cost_bytes: int) -> bool:
        after = self.backlog_bytes + len(message)
        if after > self._limit_bytes:
            return False
        budget = self._budget
        return after <= RESERVED_BYTES or budget.used_bytes + cost_bytes <= budget.limit_bytes

    def _take(self, message: Encoded, cost_bytes: int) -> None:
        self.accepted += 1
        self._budget.used_bytes += cost_bytes
        if not isinstance(message, LargeMessage):
            self._run.append(b"", message)
        elif message.size_bytes <= SHORT_BYTES and not message.is_shared:
            self._run.append(message.prefix, message.body)
        else:
            message.holders += 1
            self._run.append_large(message)

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
        self._discharge(self.packets.close())
        return lost

    def _discharge(self, cargo: Cargo) -> None:
        """Give back to the budget what was written or is lost."""
        budget = self._budget
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
