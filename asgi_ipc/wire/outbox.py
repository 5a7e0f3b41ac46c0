"""Outboxes: what waits for one receiver, bounded and in order.

Law: nothing in this file asks the kernel or the clock. An outbox accepts
encoded messages, gives back packets one at a time, and is told when each has
been written. Order is the order of acceptance; whoever waits for room is
served in the order of arrival, and nobody overtakes.

Small messages have a short way in: while `full` is False, whoever appends to
`fresh` has had a message accepted, from any thread and without a lock, and
calls `settle` when FRESH_MESSAGES are there. Everything else is called under
the lock of the outbox's owner.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Final

from asgi_ipc.wire.arena import BLOCK_HEADER_BYTES, NOTHING_COPIED, PLACE, Arena
from asgi_ipc.wire.batch import (
    BATCH_HEADER_BYTES,
    ONE_MESSAGE,
    TOTAL_BYTES,
    batch_capacity_bytes,
    first_fragment,
    join_batch,
    pack_serial,
)
from asgi_ipc.wire.message import Encoded, LargeMessage
from asgi_ipc.wire.packet import (
    BATCH,
    COPIED,
    FRAGMENT_FIRST,
    FRAGMENT_MORE,
    HEADER_BYTES,
    PLACED,
    encode_packet,
)

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

# Small messages that share a block of the arena, when more of them wait than fit one packet. With what stands
# before them they fill a power of two; docs/decisions/0009 has what other sizes gave.
BLOCK_BYTES: Final = 128 * 1024 - BLOCK_HEADER_BYTES - BATCH_HEADER_BYTES

# What one packet announces, at most, beside its last block: the receiver has that much in its own memory
# at once.
PLACED_BYTES: Final = 256 * 1024


class Budget:
    """Bytes in all outboxes of one worker, and its arena. Bytes that several outboxes share count once."""

    __slots__ = ("arena", "limit_bytes", "used_bytes")

    def __init__(self, limit_bytes: int = MAX_BUDGET_BYTES, arena: Arena | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.arena = arena or Arena(bytearray())
        self.used_bytes = 0


@dataclass(frozen=True, slots=True)
class Route:
    """From whom to whom, in which run, in packets of which size."""

    cookie: bytes
    sender: int
    receiver: int
    max_packet_bytes: int


class _Run:
    """Small messages that were counted together, and their bytes; what has gone of them is not there."""

    __slots__ = ("messages", "size_bytes")

    def __init__(self, messages: list[bytes], size_bytes: int) -> None:
        self.messages = messages
        self.size_bytes = size_bytes

    def cut(self, capacity_bytes: int) -> list[_Run]:
        """The same in runs that fit one packet each."""
        ends = list(accumulate(map(len, self.messages)))
        runs = []
        start = before = 0
        while start < len(ends):
            stop = bisect_right(ends, before + capacity_bytes, start)
            runs.append(_Run(self.messages[start:stop], ends[stop - 1] - before))
            start, before = stop, ends[stop - 1]
        return runs


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
    than a packet travels alone, in fragments, or is placed in the arena.

    Attributes:
        fresh: accepted, and not counted yet. To be appended to.
        full: small messages must be offered: there may be no room.
        copied: the last place in the receiver's arena that is to be acknowledged, before anything else.
        settled_bytes: what has been counted, and not written.
        must_wait: there is nothing to write before the receiver has copied something.
        is_patient: what the arena has no room for waits for the receiver's word; else it travels in packets.
    """

    __slots__ = (
        "_accepted",
        "_arena",
        "_budget",
        "_capacity_bytes",
        "_encode",
        "_limit_bytes",
        "_messages",
        "_number",
        "_offered",
        "_offered_bytes",
        "_packet",
        "_placed",
        "_queue",
        "_route",
        "_slack_bytes",
        "_waiting",
        "_written_bytes",
        "copied",
        "fresh",
        "full",
        "is_patient",
        "must_wait",
        "settled_bytes",
    )

    def __init__(self, route: Route, budget: Budget, limit_bytes: int = MAX_OUTBOX_BYTES) -> None:
        self._route = route
        self._budget = budget
        self._limit_bytes = limit_bytes
        self._capacity_bytes = batch_capacity_bytes(route.max_packet_bytes)
        self._slack_bytes = FRESH_MESSAGES * self._capacity_bytes
        self._number = 0
        self._encode = partial(encode_packet, route.cookie, route.sender, route.receiver)
        self.fresh: list[bytes] = []
        self._queue: deque[_Run | LargeMessage] = deque()
        self._packet: bytes | None = None
        # Of the packet now offered: its small messages and their bytes, and large ones that it places. Or it
        # has a piece of the large one at the front: what of that has been written, and what it reaches to.
        self._offered: tuple[int, int] | None = None
        self._placed: list[LargeMessage] = []
        self._written_bytes = self._offered_bytes = 0
        self._arena: Arena | None = None
        self.copied: int | None = None
        self.is_patient = True
        self.must_wait = False
        self._waiting: deque[Ticket] = deque()
        self.settled_bytes = 0
        self._messages = 0
        self._accepted = 0
        self.full = False
        self._judge()

    @property
    def backlog_bytes(self) -> int:
        """What has been accepted and not written."""
        return self.settled_bytes + sum(map(len, self.fresh))

    @property
    def messages(self) -> int:
        """How many have been accepted and not written."""
        return self._messages + len(self.fresh)

    @property
    def accepted(self) -> int:
        """How many have ever been accepted."""
        return self._accepted + len(self.fresh)

    @property
    def waiting(self) -> int:
        """How many messages wait for room."""
        return len(self._waiting)

    def __bool__(self) -> bool:
        return bool(self._messages or self.fresh or self._waiting)

    def receiver_copied(self, serial: int) -> None:
        """The receiver has copied what was placed for it up to there. The first time, that is nothing: it can
        read this worker's arena now."""
        arena, receiver = self._budget.arena, self._route.receiver
        if serial == NOTHING_COPIED:
            self._arena = arena
            arena.open(receiver)
        elif arena.copied(receiver, serial):
            self.must_wait = False

    # --- into the outbox

    def settle(self) -> int:
        """Count what is fresh; how many bytes wait in all."""
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
        """Whether `offer` would take this message now, when other outboxes of the same budget have
        taken `ahead_bytes` more."""
        if self.fresh:
            self.settle()
        return not self._waiting and self._fits(message, ahead_bytes)

    def offer(self, message: Encoded) -> bool:
        """Take the message if there is room and nobody waits for it already."""
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
        """Accept nothing more, and send away all that wait; what has been accepted stays."""
        self.settle()
        refused = list(self._waiting)
        self._waiting.clear()
        self._judge()
        return refused

    def promote(self) -> list[Ticket]:
        """Accept those who wait, in order, as far as there is room."""
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
        """Open the short way while all that it may bring uncounted has room, whatever the others have."""
        self.full = (
            bool(self._waiting)
            or self.settled_bytes > RESERVED_BYTES
            or self.settled_bytes + self._slack_bytes > self._limit_bytes
        )

    def _take(self, message: Encoded) -> None:
        if isinstance(message, LargeMessage):
            size = message.size_bytes
            if not message.holders:
                self._budget.used_bytes += size
            message.holders += 1
            self._queue.append(message)
            self.settled_bytes += size
            self._messages += 1
            self._accepted += 1
        else:
            self._take_small([message], len(message))

    def _take_small(self, messages: list[bytes], size_bytes: int) -> None:
        self._messages += len(messages)
        self._accepted += len(messages)
        self.settled_bytes += size_bytes
        self._budget.used_bytes += size_bytes
        self._queue.append(_Run(messages, size_bytes))

    # --- out of the outbox

    def fresh_packet(self) -> tuple[bytes, int] | None:
        """The packet of what is fresh, and how many messages that is, if nothing else waits and it fits one.

        It stays fresh until `fresh_written` is called: what comes alone goes without being counted first.
        """
        if self._queue or self._packet is not None or self.copied is not None or not self.fresh:
            return None
        # Other threads may append behind these meanwhile.
        messages = self.fresh[:]
        if sum(map(len, messages)) > self._capacity_bytes:
            return None
        return self._encode(self._number, BATCH, join_batch(messages)), len(messages)

    def fresh_written(self, messages: int) -> None:
        """The packet that `fresh_packet` gave is in the pipe, whole."""
        del self.fresh[:messages]
        self._accepted += messages
        self._number += 1

    def next_packet(self) -> bytes | None:
        """The packet to write next, or None. The same one until `written` is called."""
        if self._packet is None:
            if self.copied is not None:
                self._packet = self._encode(self._number, COPIED, pack_serial(self.copied))
                self.copied = None
                self._offered = (0, 0)
                return self._packet
            if self.must_wait and self.is_patient:
                return None
            if self.fresh:
                self.settle()
            if not self._queue:
                return None
            if self._arena is not None:
                places = self._next_places(self._arena)
                if places or places is None:
                    self._packet = self._encode(self._number, PLACED, places) if places else None
                    return self._packet
            head = self._queue[0]
            self._packet = self._next_batch() if isinstance(head, _Run) else self._next_fragment(head)
        return self._packet

    def _next_places(self, arena: Arena) -> bytes | None:
        """Write what comes next into the arena; where. Empty: it travels in packets. None: it must wait."""
        receiver = self._route.receiver
        places: list[bytes] = []
        small = small_bytes = placed_bytes = 0
        most = self._capacity_bytes // PLACE.size
        while self._queue and len(places) < most and placed_bytes < PLACED_BYTES:
            head = self._queue[0]
            if isinstance(head, _Run):
                head = self._gather(BLOCK_BYTES)
                length = head.size_bytes
                if length <= self._capacity_bytes:
                    break
            else:
                length = head.size_bytes
                if self._written_bytes or not arena.fits(length + BATCH_HEADER_BYTES):
                    break
            if not arena.may_hold(receiver, length):
                if self.is_patient and not places:
                    self.must_wait = True
                    return None
                break
            if isinstance(head, _Run):
                batch = join_batch(head.messages)
                block = arena.place(b"", batch)
                if block is None:
                    break
                places.append(arena.announce(block, receiver))
                arena.release(block)
                small += len(head.messages)
                small_bytes += length
            else:
                if head.block is None:
                    head.block = arena.place(ONE_MESSAGE + head.prefix, head.body)
                if head.block is None:
                    break
                places.append(arena.announce(head.block, receiver))
                self._placed.append(head)
            placed_bytes += length
            self._queue.popleft()
        if places:
            self._offered = (small, small_bytes)
        return b"".join(places)

    def _gather(self, limit_bytes: int) -> _Run:
        """Make one run of those at the front, of up to so many bytes; it stays there."""
        queue = self._queue
        first = queue.popleft()
        assert isinstance(first, _Run)
        if first.size_bytes > limit_bytes:
            queue.extendleft(reversed(first.cut(limit_bytes)))
            first = queue.popleft()
            assert isinstance(first, _Run)
        while queue:
            follows = queue[0]
            if not isinstance(follows, _Run) or first.size_bytes + follows.size_bytes > limit_bytes:
                break
            queue.popleft()
            first.messages += follows.messages
            first.size_bytes += follows.size_bytes
        queue.appendleft(first)
        return first

    def _next_batch(self) -> bytes:
        queue = self._queue
        messages: list[bytes] = []
        room = self._capacity_bytes
        while queue:
            run = queue[0]
            if not isinstance(run, _Run):
                break
            if run.size_bytes > room:
                if run.size_bytes <= self._capacity_bytes:
                    break
                queue.popleft()
                queue.extendleft(reversed(run.cut(self._capacity_bytes)))
                continue
            queue.popleft()
            messages += run.messages
            room -= run.size_bytes
        self._offered = (len(messages), self._capacity_bytes - room)
        return self._encode(self._number, BATCH, join_batch(messages))

    def _next_fragment(self, message: LargeMessage) -> bytes:
        start = self._written_bytes
        room = self._route.max_packet_bytes - HEADER_BYTES
        if start == 0:
            self._offered_bytes = room - TOTAL_BYTES
            piece = first_fragment(message.size_bytes, message.piece(0, self._offered_bytes))
            return self._encode(self._number, FRAGMENT_FIRST, piece)
        self._offered_bytes = min(start + room, message.size_bytes)
        return self._encode(self._number, FRAGMENT_MORE, message.piece(start, self._offered_bytes))

    def written(self) -> None:
        """The packet that `next_packet` gave is in the pipe, whole."""
        self._packet = None
        self._number += 1
        if self._offered is not None:
            self._discharge_offered(self._offered)
        else:
            message = self._queue[0]
            assert isinstance(message, LargeMessage)
            if self._offered_bytes < message.size_bytes:
                self._written_bytes = self._offered_bytes
                return
            self._queue.popleft()
            self._written_bytes = 0
            self._discharge_large(message)
        if self.full:
            self._judge()

    def close(self) -> int:
        """Empty the outbox; the number of accepted messages that are lost with it."""
        self.settle()
        lost = self._messages
        if self._offered is not None:
            self._discharge_offered(self._offered)
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, _Run):
                self._discharge_small(len(item.messages), item.size_bytes)
            else:
                self._discharge_large(item)
        self._packet = None
        self._written_bytes = 0
        self._judge()
        return lost

    def _discharge_offered(self, offered: tuple[int, int]) -> None:
        self._offered = None
        self._discharge_small(*offered)
        if self._placed:
            for message in self._placed:
                self._discharge_large(message)
            self._placed.clear()

    def _discharge_small(self, messages: int, size_bytes: int) -> None:
        self._messages -= messages
        self.settled_bytes -= size_bytes
        self._budget.used_bytes -= size_bytes

    def _discharge_large(self, message: LargeMessage) -> None:
        size = message.size_bytes
        self._messages -= 1
        self.settled_bytes -= size
        message.holders -= 1
        if not message.holders:
            self._budget.used_bytes -= size
            if message.block is not None:
                self._budget.arena.release(message.block)
                message.block = None
