"""Outboxes: what waits for one receiver, bounded and in order.

Law: nothing in this file asks the kernel or the clock. An outbox accepts
encoded messages, gives back packets one at a time, and is told when each has
been written. Order is the order of acceptance; whoever waits for room is
served in the order of arrival, and nobody overtakes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, TypeAlias

from asgi_ipc.protocol.batch import (
    MAX_BATCH_MESSAGES,
    TOTAL_BYTES,
    batch_capacity_bytes,
    first_fragment,
    join_batch,
)
from asgi_ipc.protocol.packet import BATCH, FRAGMENT_FIRST, FRAGMENT_MORE, HEADER_BYTES, encode_packet

# Two of the largest messages: one that is being written and one behind it.
MAX_OUTBOX_BYTES: Final = 32 * 1024 * 1024

# Four full outboxes: some stalled peers may not take a worker's memory.
MAX_BUDGET_BYTES: Final = 128 * 1024 * 1024

# An outbox below this does not ask the shared budget, so that peers which
# have stalled can't close the way to those which have not.
RESERVED_BYTES: Final = 64 * 1024


class LargeMessage:
    """An encoded message larger than a packet; its bytes are shared by all outboxes that hold it."""

    __slots__ = ("data", "holders")

    def __init__(self, data: bytes) -> None:
        # A copy of just its size: what the encoder gives back was grown by half at a time and cut, and on
        # the heap the cuts add up. 32 MiB of messages of 5,000 bytes held 49 MiB; copied, 36.
        self.data = bytes(memoryview(data))
        self.holders = 0


Encoded: TypeAlias = bytes | LargeMessage


def size_bytes(message: Encoded) -> int:
    """How large a message is, encoded."""
    return len(message.data) if isinstance(message, LargeMessage) else len(message)


class Budget:
    """Bytes in all outboxes of one worker. What several outboxes share counts once."""

    __slots__ = ("limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int = MAX_BUDGET_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0


@dataclass(frozen=True, slots=True)
class Route:
    """From whom to whom, in which run, in packets of which size."""

    cookie: bytes
    sender: int
    receiver: int
    max_packet_bytes: int


@dataclass(eq=False, slots=True)
class _Batch:
    """Small messages that share the next packet: its payload, how many, and their bytes."""

    payload: bytes
    messages: int
    size_bytes: int


@dataclass(eq=False, slots=True)
class _Fragments:
    """A large message under way: what of it has been written, and what the packet now offered reaches to."""

    message: LargeMessage
    written_bytes: int = 0
    offered_bytes: int = 0


@dataclass(eq=False, slots=True)
class Ticket:
    """A message that waits for room. `accepted` turns True when it is in the outbox."""

    message: Encoded
    accepted: bool = False


class Outbox:
    """What waits for one receiver.

    `offer` takes a message if there is room; `wait` queues it for room.
    `next_packet` is the packet to write next, the same one until `written`
    says that it is on its way. Small messages share packets; a message larger
    than a packet travels alone, in fragments.
    """

    __slots__ = (
        "_budget",
        "_capacity_bytes",
        "_limit_bytes",
        "_number",
        "_open",
        "_open_bytes",
        "_packet",
        "_route",
        "_sealed",
        "_waiting",
        "backlog_bytes",
        "messages",
    )

    def __init__(self, route: Route, budget: Budget, limit_bytes: int = MAX_OUTBOX_BYTES) -> None:
        self._route = route
        self._budget = budget
        self._limit_bytes = limit_bytes
        self._capacity_bytes = batch_capacity_bytes(route.max_packet_bytes)
        self._number = 0
        self._open: list[bytes] = []
        self._open_bytes = 0
        self._sealed: deque[_Batch | _Fragments] = deque()
        self._packet: bytes | None = None
        self._waiting: deque[Ticket] = deque()
        self.backlog_bytes = 0
        self.messages = 0

    @property
    def waiting(self) -> int:
        """How many messages wait for room."""
        return len(self._waiting)

    def __bool__(self) -> bool:
        return bool(self.messages or self._waiting)

    # --- into the outbox

    def has_room(self, message: Encoded, ahead_bytes: int = 0) -> bool:
        """Whether `offer` would take this message now, when other outboxes of the same budget have
        taken `ahead_bytes` more."""
        return not self._waiting and self._fits(message, ahead_bytes)

    def offer(self, message: Encoded) -> bool:
        """Take the message if there is room and nobody waits for it already."""
        if self._waiting or not self._fits(message):
            return False
        self._take(message)
        return True

    def wait(self, message: Encoded) -> Ticket:
        """Queue the message for room, behind all that wait already."""
        ticket = Ticket(message)
        self._waiting.append(ticket)
        return ticket

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a waiting message back, whole. False: too late, it has been accepted.

        Not for a ticket that `refuse` has sent away.
        """
        if ticket.accepted:
            return False
        self._waiting.remove(ticket)
        return True

    def refuse(self) -> list[Ticket]:
        """Send away all that wait; what has been accepted stays."""
        refused = list(self._waiting)
        self._waiting.clear()
        return refused

    def promote(self) -> list[Ticket]:
        """Accept those who wait, in order, as far as there is room."""
        accepted = []
        while self._waiting and self._fits(self._waiting[0].message):
            ticket = self._waiting.popleft()
            self._take(ticket.message)
            ticket.accepted = True
            accepted.append(ticket)
        return accepted

    def _fits(self, message: Encoded, ahead_bytes: int = 0) -> bool:
        if isinstance(message, LargeMessage):
            size = len(message.data)
            cost = 0 if message.holders else size
        else:
            size = cost = len(message)
        after = self.backlog_bytes + size
        used = self._budget.used_bytes + ahead_bytes + cost
        return after <= self._limit_bytes and (after <= RESERVED_BYTES or used <= self._budget.limit_bytes)

    def _take(self, message: Encoded) -> None:
        self.messages += 1
        if isinstance(message, LargeMessage):
            self._seal()
            size = len(message.data)
            if not message.holders:
                self._budget.used_bytes += size
            message.holders += 1
            self._sealed.append(_Fragments(message))
        else:
            size = len(message)
            if self._open_bytes + size > self._capacity_bytes or len(self._open) == MAX_BATCH_MESSAGES:
                self._seal()
            self._open.append(message)
            self._open_bytes += size
            self._budget.used_bytes += size
        self.backlog_bytes += size

    def _seal(self) -> None:
        if self._open:
            self._sealed.append(_Batch(join_batch(self._open), len(self._open), self._open_bytes))
            self._open = []
            self._open_bytes = 0

    # --- out of the outbox

    def next_packet(self) -> bytes | None:
        """The packet to write next, or None. The same one until `written` is called."""
        if self._packet is None:
            if not self._sealed:
                if not self._open:
                    return None
                self._seal()
            item = self._sealed[0]
            if isinstance(item, _Batch):
                self._packet = self._encode(BATCH, item.payload)
            else:
                self._packet = self._next_fragment(item)
        return self._packet

    def _next_fragment(self, item: _Fragments) -> bytes:
        data = memoryview(item.message.data)
        start = item.written_bytes
        room = self._route.max_packet_bytes - HEADER_BYTES
        if start == 0:
            item.offered_bytes = room - TOTAL_BYTES
            return self._encode(FRAGMENT_FIRST, first_fragment(len(data), data[: item.offered_bytes]))
        item.offered_bytes = min(start + room, len(data))
        return self._encode(FRAGMENT_MORE, data[start : item.offered_bytes])

    def _encode(self, kind: int, payload: bytes | memoryview) -> bytes:
        route = self._route
        return encode_packet(route.cookie, route.sender, route.receiver, self._number, kind, payload)

    def written(self) -> None:
        """The packet that `next_packet` gave is in the pipe, whole."""
        self._packet = None
        self._number += 1
        item = self._sealed[0]
        if isinstance(item, _Fragments) and item.offered_bytes < len(item.message.data):
            item.written_bytes = item.offered_bytes
            return
        self._sealed.popleft()
        self._discharge(item)

    def close(self) -> int:
        """Empty the outbox; the number of accepted messages that are lost with it."""
        self._seal()
        lost = self.messages
        while self._sealed:
            self._discharge(self._sealed.popleft())
        self._packet = None
        return lost

    def _discharge(self, item: _Batch | _Fragments) -> None:
        if isinstance(item, _Batch):
            size = item.size_bytes
            self.messages -= item.messages
            self._budget.used_bytes -= size
        else:
            message = item.message
            size = len(message.data)
            self.messages -= 1
            message.holders -= 1
            if not message.holders:
                self._budget.used_bytes -= size
        self.backlog_bytes -= size
