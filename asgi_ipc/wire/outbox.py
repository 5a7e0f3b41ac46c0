"""Outboxes: the messages that wait for one receiver, bounded and in order.

Law: nothing in this file asks the kernel or the clock. An outbox accepts encoded messages, and its owner
notes when each has been written. Order is the order of acceptance; messages that wait for room are served in
the order of arrival, and none overtakes.

Small messages have a short way in: while `full` is False, appending a message
to `fresh` accepts it, from any thread and without a lock; the caller calls
`settle` when FRESH_MESSAGES are there. Everything else is called under the
lock of the outbox's owner.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from asgi_ipc.wire.arena import Arena
from asgi_ipc.wire.batch import batch_capacity_bytes
from asgi_ipc.wire.message import Encoded, LargeMessage
from asgi_ipc.wire.packetizer import Cargo, Packetizer, Route
from asgi_ipc.wire.run import Run

# Two of the largest messages: one that is being written and one behind it.
MAX_OUTBOX_BYTES: Final = 32 * 1024 * 1024

# Four full outboxes: some stalled peers may not take a worker's memory.
MAX_BUDGET_BYTES: Final = 128 * 1024 * 1024

# An outbox below this does not ask the shared budget, so that peers which
# have stalled can't close the way to those which have not.
RESERVED_BYTES: Final = 256 * 1024

# Small messages that are accepted before they are counted. Some dozens share
# the cost of counting; at 4 KiB each they are 256 KiB, for which the short way leaves room.
FRESH_MESSAGES: Final = 64


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
    """The messages that wait for one receiver.

    `offer` takes a message if there is room; `wait` queues it for room. `next_packet` gives the packet to
    write next, the same one until `written` says that it is on its way.

    Attributes:
        fresh: messages accepted, and not counted yet. Callers append to it.
        full: small messages must be offered: there may be no room.
        settled_bytes: counted, and not written.
        packets: makes packets of the counted messages.
    """

    __slots__ = (
        "_accepted",
        "_budget",
        "_limit_bytes",
        "_messages",
        "_slack_bytes",
        "_waiting",
        "fresh",
        "full",
        "packets",
        "settled_bytes",
    )

    def __init__(self, route: Route, budget: Budget, limit_bytes: int = MAX_OUTBOX_BYTES) -> None:
        self.packets = Packetizer(route)
        self._budget = budget
        self._limit_bytes = limit_bytes
        self._slack_bytes = FRESH_MESSAGES * batch_capacity_bytes(route.max_packet_bytes)
        self.fresh: list[bytes] = []
        self._waiting: deque[Ticket] = deque()
        self.settled_bytes = 0
        self._messages = 0
        self._accepted = 0
        self.full = False
        self._judge()

    @property
    def backlog_bytes(self) -> int:
        """Return the bytes that were accepted and are not written."""
        return self.settled_bytes + sum(map(len, self.fresh))

    @property
    def messages(self) -> int:
        """Return the number of messages that were accepted and are not written."""
        return self._messages + len(self.fresh)

    @property
    def accepted(self) -> int:
        """Return the number of messages ever accepted."""
        return self._accepted + len(self.fresh)

    @property
    def waiting(self) -> int:
        """Return the number of messages that wait for room."""
        return len(self._waiting)

    def __bool__(self) -> bool:
        return bool(self._messages or self.fresh or self._waiting)

    def receiver_copied(self, serial: int) -> None:
        """Take the receiver's acknowledgement of everything up to a place in this worker's arena."""
        self.packets.receiver_copied(self._budget.arena, serial)

    # --- into the outbox

    def settle(self) -> int:
        """Count the fresh messages; return the bytes that wait in all."""
        fresh = self.fresh
        if fresh:
            # Other threads may append behind these meanwhile.
            count = len(fresh)
            messages = fresh[:count]
            del fresh[:count]
            self._take_small(messages, sum(map(len, messages)))
            self._judge()
        return self.settled_bytes

    def has_room(self, message: Encoded, ahead_bytes: int = 0) -> bool:
        """Return whether `offer` would take this message after others have taken `ahead_bytes` more."""
        if self.fresh:
            self.settle()
        return not self._waiting and self._fits(message, ahead_bytes)

    def offer(self, message: Encoded) -> bool:
        """Take the message if there is room and no other message waits for it."""
        if self.fresh:
            self.settle()
        if self._waiting or not self._fits(message):
            return False
        self._take(message)
        self._judge()
        return True

    def wait(self, ticket: Ticket) -> None:
        """Queue a message for room, behind all that wait already."""
        self._waiting.append(ticket)
        self._judge()

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a waiting message back, whole. False: too late, it has been accepted or refused."""
        if ticket.accepted or ticket not in self._waiting:
            return False
        self._waiting.remove(ticket)
        self._judge()
        return True

    def take_back(self, message: bytes) -> bool:
        """Undo an append to `fresh`, of this very object. False: too late, it will be written."""
        for place, each in enumerate(self.fresh):
            if each is message:
                del self.fresh[place]
                return True
        return False

    def refuse(self) -> list[Ticket]:
        """Accept nothing more, and refuse all messages that wait; accepted ones stay."""
        self.settle()
        refused = list(self._waiting)
        self._waiting.clear()
        self._judge()
        return refused

    def promote(self) -> list[Ticket]:
        """Accept waiting messages, in order, as far as there is room."""
        self.settle()
        accepted = []
        while self._waiting and self._fits(self._waiting[0].message):
            ticket = self._waiting.popleft()
            self._take(ticket.message)
            ticket.accepted = True
            accepted.append(ticket)
        self._judge()
        return accepted

    def _fits(self, message: Encoded, ahead_bytes: int = 0) -> bool:
        if isinstance(message, LargeMessage):
            size = message.size_bytes
            cost = 0 if message.holders else size
        else:
            size = cost = len(message)
        after = self.settled_bytes + size
        used = self._budget.used_bytes + ahead_bytes + cost
        return after <= self._limit_bytes and (after <= RESERVED_BYTES or used <= self._budget.limit_bytes)

    def _judge(self) -> None:
        """Open the short way while all its uncounted messages have room, whatever the other outboxes hold."""
        self.full = (
            bool(self._waiting)
            or self.settled_bytes > RESERVED_BYTES
            or self.settled_bytes + self._slack_bytes > self._limit_bytes
        )

    def _take(self, message: Encoded) -> None:
        if not isinstance(message, LargeMessage):
            self._take_small([message], len(message))
            return
        size_bytes = message.size_bytes
        if not message.holders:
            self._budget.used_bytes += size_bytes
        message.holders += 1
        self.packets.backlog.append(message)
        self.settled_bytes += size_bytes
        self._messages += 1
        self._accepted += 1

    def _take_small(self, messages: list[bytes], size_bytes: int) -> None:
        self._messages += len(messages)
        self._accepted += len(messages)
        self.settled_bytes += size_bytes
        self._budget.used_bytes += size_bytes
        self.packets.backlog.append(Run(messages, size_bytes))

    # --- out of the outbox

    def fresh_packet(self) -> tuple[bytes, int] | None:
        """Return one packet of all fresh messages, and their number, if no other waits and they fit one.

        They stay fresh until `fresh_written` is called: a lone packet skips the accounting.
        """
        # Other threads may append behind these meanwhile.
        messages = self.fresh[:]
        packet = self.packets.lone_packet(messages) if messages else None
        return (packet, len(messages)) if packet is not None else None

    def fresh_written(self, messages: int) -> None:
        """Note that the packet of `fresh_packet` is in the pipe as a whole."""
        del self.fresh[:messages]
        self._accepted += messages
        self.packets.lone_written()

    def next_packet(self) -> bytes | None:
        """Return the packet to write next, or None. It is the same one until `written` is called."""
        if self.fresh:
            self.settle()
        return self.packets.next_packet()

    def written(self) -> None:
        """Note that the packet of `next_packet` is in the pipe as a whole."""
        self._discharge(self.packets.written())
        if self.full:
            self._judge()

    def close(self) -> int:
        """Empty the outbox; return the number of accepted messages that are lost with it."""
        self.settle()
        lost = self._messages
        self._discharge(self.packets.close())
        self._judge()
        return lost

    def _discharge(self, cargo: Cargo) -> None:
        messages, size_bytes, large = cargo
        self._messages -= messages
        self.settled_bytes -= size_bytes
        self._budget.used_bytes -= size_bytes
        for message in large:
            self._messages -= 1
            self.settled_bytes -= message.size_bytes
            message.holders -= 1
            if not message.holders:
                self._budget.used_bytes -= message.size_bytes
                if message.block is not None:
                    self._budget.arena.release(message.block)
                    message.block = None
