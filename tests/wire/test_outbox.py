"""Outboxes: bounds to the byte, order, waiting, and the budget that they share."""

from __future__ import annotations

import sys
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asgi_ipc.wire.message import Encoded, LargeMessage
from asgi_ipc.wire.outbox import (
    MAX_OUTBOX_BYTES,
    RESERVED_BYTES,
    SHORT_BYTES,
    Budget,
    Outbox,
    Ticket,
)
from asgi_ipc.wire.packet import BATCH, FRAGMENT_FIRST, HEADER_BYTES, PacketParser
from asgi_ipc.wire.packetizer import Route
from asgi_ipc.wire.payload import BATCH_HEADER_BYTES, TOTAL_BYTES, batch_capacity_bytes
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)
from tests.encoding import Packet, as_bytes, find_all, large
from tests.serving import run_python

pytestmark = pytest.mark.usefixtures("each_engine")

COOKIE = b"outboxes"
PACKET_BYTES = 4096
SMALL_BYTES = PACKET_BYTES - HEADER_BYTES - BATCH_HEADER_BYTES


def an_outbox(budget: Budget | None = None, limit_bytes: int = MAX_OUTBOX_BYTES) -> Outbox:
    return Outbox(Route(COOKIE, 1, 2, PACKET_BYTES), budget or Budget(), limit_bytes)


def a_wait(outbox: Outbox, message: Encoded) -> Ticket:
    """A message that waits for room."""
    ticket = Ticket(message)
    outbox.wait(ticket)
    return ticket


def parsed(packet: bytes) -> Packet:
    (found,) = find_all(PacketParser(COOKIE, PACKET_BYTES), packet, drained=True)
    return found


def write_all(outbox: Outbox) -> list[Packet]:
    written = []
    while (packet := outbox.next_packet()) is not None:
        written.append(parsed(packet))
        outbox.written()
    return written


# --- bounds


# In a process of its own: what this one has allocated and freed before would be in the figure.
_FILL = """
import sys
from asgi_ipc.wire.message import LargeMessage, Packer
from asgi_ipc.wire.outbox import Budget, Outbox
from asgi_ipc.wire.packetizer import Route
from tests.processes import own_bytes

outbox = Outbox(Route(b"outboxes", 1, 2, 4096), Budget())
before = own_bytes()
pack = Packer(2**24, 4061).pack
while outbox.offer(pack("n", bytearray(int(sys.argv[1])))):
    pass
print(own_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("size_bytes", [4_200, 5_000, 16_384, 100_000, 1_048_576])
def test_a_full_outbox_costs_memory_as_its_bound_says(size_bytes: int) -> None:
    assert int(run_python("-c", _FILL, str(size_bytes)).stdout) <= MAX_OUTBOX_BYTES + 10 * 1024 * 1024


def test_an_outbox_is_full_at_exactly_its_limit() -> None:
    outbox = an_outbox(limit_bytes=1000)
    assert outbox.offer(bytes(600))
    assert not outbox.has_room(bytes(401))
    assert not outbox.offer(bytes(401))
    assert outbox.has_room(bytes(400))
    assert outbox.offer(bytes(400))
    assert not outbox.offer(b"x")
    assert (outbox.backlog_bytes, outbox.messages) == (1000, 2)


def test_room_is_back_only_when_the_packet_is_written() -> None:
    outbox = an_outbox(limit_bytes=1000)
    outbox.offer(bytes(1000))
    outbox.next_packet()
    assert not outbox.offer(b"x")
    outbox.written()
    assert outbox.offer(b"x")


def test_a_large_message_holds_its_room_until_its_last_fragment_is_written() -> None:
    outbox = an_outbox(limit_bytes=10_000)
    assert outbox.offer(large(bytes(10_000)))
    while outbox.next_packet() is not None:
        assert outbox.backlog_bytes == 10_000
        assert outbox.messages == 1
        outbox.written()
    assert (outbox.backlog_bytes, outbox.messages, bool(outbox)) == (0, 0, False)


def test_the_largest_message_fits_an_empty_outbox() -> None:
    assert an_outbox().has_room(large(bytes(16 * 1024 * 1024)))
    assert an_outbox().has_room(large(bytes(MAX_OUTBOX_BYTES)))
    assert not an_outbox().has_room(large(bytes(MAX_OUTBOX_BYTES + 1)))


def test_a_message_in_several_outboxes_counts_once_in_their_budget() -> None:
    budget = Budget(limit_bytes=2_500_000)
    first, second, third = (an_outbox(budget) for _ in range(3))
    message = large(bytes(2_000_000))
    assert first.offer(message)
    assert second.offer(message)
    assert (budget.used_bytes, message.holders) == (2_000_000, 2)
    assert not third.offer(large(bytes(2_000_000)))
    assert third.offer(message)
    write_all(first)
    third.close()
    assert budget.used_bytes == 2_000_000
    write_all(second)
    assert (budget.used_bytes, message.holders) == (0, 0)


def test_the_budget_is_used_up_at_exactly_its_limit() -> None:
    budget = Budget(limit_bytes=2_000_000)
    outbox = an_outbox(budget)
    assert outbox.offer(large(bytes(1_500_000)))
    assert not outbox.offer(large(bytes(500_001)))
    assert outbox.offer(large(bytes(500_000)))
    assert budget.used_bytes == 2_000_000


def test_room_in_the_budget_is_what_other_outboxes_leave_of_it() -> None:
    budget = Budget(limit_bytes=2_000_000)
    outbox = an_outbox(budget)
    assert outbox.offer(large(bytes(1_990_000)))
    assert outbox.has_room(bytes(1000), 9_000)
    assert not outbox.has_room(bytes(1000), 9_001)


def test_a_small_outbox_goes_on_when_the_others_have_used_up_the_budget() -> None:
    budget = Budget(limit_bytes=100_000)
    assert an_outbox(budget).offer(large(bytes(100_000)))
    outbox = an_outbox(budget)
    assert outbox.offer(large(bytes(RESERVED_BYTES - 1)))
    assert not outbox.offer(b"xx")
    assert outbox.offer(b"x")
    assert outbox.backlog_bytes == RESERVED_BYTES
    assert not outbox.offer(b"x")
    write_all(outbox)
    assert outbox.offer(b"x")


# --- order


def test_whoever_waits_is_served_in_order_and_nobody_overtakes() -> None:
    outbox = an_outbox(limit_bytes=1000)
    outbox.offer(bytes(900))
    first, second = a_wait(outbox, bytes(1000)), a_wait(outbox, b"x")
    assert outbox.promote() == []
    assert not outbox.has_room(b"y")
    assert not outbox.offer(b"y")
    write_all(outbox)
    assert outbox.promote() == [first]
    assert (first.accepted, second.accepted, outbox.waiting) == (True, False, 1)
    write_all(outbox)
    assert outbox.promote() == [second]
    assert outbox.waiting == 0


def test_a_wait_that_is_withdrawn_leaves_nothing_and_frees_the_way() -> None:
    outbox = an_outbox(limit_bytes=1000)
    outbox.offer(bytes(900))
    first, second = a_wait(outbox, bytes(1000)), a_wait(outbox, b"x")
    assert outbox.withdraw(first)
    assert outbox.promote() == [second]
    assert not outbox.withdraw(second)
    assert outbox.messages == 2
    assert [packet.payload[-1:] for packet in write_all(outbox)] == [b"x"]


def test_an_equal_message_that_waits_is_another_one() -> None:
    outbox = an_outbox(limit_bytes=1000)
    outbox.offer(bytes(1000))
    first, second = a_wait(outbox, b"same"), a_wait(outbox, b"same")
    assert outbox.withdraw(second)
    write_all(outbox)
    assert outbox.promote() == [first]


def test_those_who_wait_can_be_sent_away_and_what_is_accepted_stays() -> None:
    outbox = an_outbox(limit_bytes=1000)
    outbox.offer(bytes(1000))
    tickets = [a_wait(outbox, b"a"), a_wait(outbox, b"b")]
    assert outbox.refuse() == tickets
    assert outbox.refuse() == []
    assert not any(ticket.accepted or outbox.withdraw(ticket) for ticket in tickets)
    assert (outbox.messages, outbox.waiting) == (1, 0)
    write_all(outbox)
    assert outbox.promote() == []


def test_small_messages_share_a_packet_and_a_large_one_travels_alone_between_them() -> None:
    outbox = an_outbox()
    messages: list[Encoded] = [b"a", b"bb", large(bytes(5000)), b"ccc", b"d"]
    for message in messages:
        assert outbox.offer(message)
    first, begin, more, last = write_all(outbox)
    assert bytes(first.payload) == b"\xdc\x00\x02abb"
    assert begin.kind == FRAGMENT_FIRST
    assert bytes(begin.payload[TOTAL_BYTES:]) + bytes(more.payload) == bytes(5000)
    assert bytes(last.payload) == b"\xdc\x00\x02cccd"
    assert [packet.number for packet in (first, begin, more, last)] == [0, 1, 2, 3]


def test_what_is_offered_while_a_packet_waits_does_not_change_that_packet() -> None:
    outbox = an_outbox()
    outbox.offer(b"first")
    packet = outbox.next_packet()
    outbox.offer(b"second")
    assert outbox.next_packet() == packet
    assert [bytes(each.payload[BATCH_HEADER_BYTES:]) for each in write_all(outbox)] == [b"first", b"second"]


@pytest.mark.parametrize("max_packet_bytes", [128, 129, 512, 4095, 4096])
def test_the_largest_small_message_fills_one_packet_to_the_byte(max_packet_bytes: int) -> None:
    outbox = Outbox(Route(COOKIE, 1, 2, max_packet_bytes), Budget())
    outbox.offer(bytes(batch_capacity_bytes(max_packet_bytes)))
    packet = outbox.next_packet()
    assert packet is not None
    assert len(packet) == max_packet_bytes


def test_a_message_that_is_one_byte_too_long_for_the_packet_begins_the_next() -> None:
    for second, packets in ((SMALL_BYTES - 100, 1), (SMALL_BYTES - 99, 2)):
        outbox = an_outbox()
        outbox.offer(bytes(100))
        outbox.offer(bytes(second))
        assert len(write_all(outbox)) == packets


@pytest.mark.parametrize("excess", range(-8, 3))
def test_a_large_message_ends_with_a_fragment_that_is_not_empty(excess: int) -> None:
    piece = PACKET_BYTES - HEADER_BYTES
    for fragments in (1, 2, 3):
        data = bytes(range(256)) * 50
        data = data[: fragments * piece - TOTAL_BYTES + excess]
        outbox = an_outbox()
        outbox.offer(large(data))
        packets = write_all(outbox)
        assert len(packets) == fragments + (excess > 0)
        assert all(packet.payload for packet in packets)
        assert b"".join(packet.payload for packet in packets)[TOTAL_BYTES:] == data


def test_closing_counts_every_accepted_message_as_lost_even_one_half_written() -> None:
    budget = Budget()
    outbox = an_outbox(budget)
    for message in (large(bytes(9000)), b"a", b"b", large(bytes(9000)), b"c"):
        outbox.offer(message)
    outbox.next_packet()
    outbox.written()
    assert outbox.close() == 5
    assert (outbox.messages, outbox.backlog_bytes, budget.used_bytes) == (0, 0, 0)
    assert outbox.next_packet() is None
    assert outbox.close() == 0


def test_only_a_message_above_the_bound_of_the_short_way_is_held_as_a_large_one() -> None:
    for size_bytes in (SHORT_BYTES, SHORT_BYTES + 1):
        budget = Budget()
        outbox = an_outbox(budget)
        message = LargeMessage(b"12", bytes(size_bytes - 2), size_bytes)
        assert outbox.offer(message)
        assert message.holders == (size_bytes > SHORT_BYTES)
        assert budget.used_bytes == outbox.backlog_bytes == size_bytes
        packets = write_all(outbox)
        # Without an arena both travel in fragments.
        assert packets[0].kind == FRAGMENT_FIRST
        assert b"".join(packet.payload for packet in packets)[TOTAL_BYTES:] == b"12" + bytes(size_bytes - 2)
        assert (budget.used_bytes, outbox.backlog_bytes, outbox.messages) == (0, 0, 0)


# --- any sequence of calls, against a simple model

LIMIT_BYTES = 450_000
BUDGET_BYTES = 660_000
OUTBOXES = 3

_which = st.integers(0, OUTBOXES - 1)
_small = st.integers(1, SMALL_BYTES) | st.sampled_from([1, 10, SMALL_BYTES // 2, SMALL_BYTES])
_large = st.integers(SMALL_BYTES + 1, LIMIT_BYTES) | st.sampled_from(
    [SMALL_BYTES + 1, RESERVED_BYTES - 1, RESERVED_BYTES, RESERVED_BYTES + 1, 300_000, LIMIT_BYTES]
)


def size(message: Encoded) -> int:
    return len(message)


def content(message: Encoded) -> bytes:
    return as_bytes(message)


@dataclass(eq=False)
class Model:
    """One outbox as its documentation describes it."""

    accepted: deque[Encoded] = field(default_factory=deque)
    waiting: list[tuple[Ticket, Encoded]] = field(default_factory=list)
    # What has been written of the first accepted message.
    written: bytes = b""
    packets: int = 0

    @property
    def backlog_bytes(self) -> int:
        return sum(map(size, self.accepted))


class OutboxMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(BUDGET_BYTES)
        self.outboxes = [
            Outbox(Route(COOKIE, 1, receiver, PACKET_BYTES), self.budget, LIMIT_BYTES)
            for receiver in range(OUTBOXES)
        ]
        self.models = [Model() for _ in range(OUTBOXES)]
        self.tickets: list[tuple[int, Ticket]] = []
        self.shared: list[LargeMessage] = []
        self.letters = 0

    def bytes_of(self, size_bytes: int) -> bytes:
        self.letters += 1
        return bytes([self.letters % 256]) * size_bytes

    def used_bytes(self) -> int:
        held = [message for model in self.models for message in model.accepted]
        shared = {id(message): message for message in held if isinstance(message, LargeMessage)}
        return sum(size(each) for each in held if isinstance(each, bytes)) + sum(map(size, shared.values()))

    def fits(self, which: int, message: Encoded) -> bool:
        is_held = any(message is each for model in self.models for each in model.accepted)
        cost = 0 if is_held and isinstance(message, LargeMessage) else size(message)
        after = self.models[which].backlog_bytes + size(message)
        return after <= LIMIT_BYTES and (after <= RESERVED_BYTES or self.used_bytes() + cost <= BUDGET_BYTES)

    def offer_to(self, which: int, message: Encoded) -> None:
        model = self.models[which]
        expected = not model.waiting and self.fits(which, message)
        assert self.outboxes[which].has_room(message) is expected
        assert self.outboxes[which].offer(message) is expected
        if expected:
            model.accepted.append(message)

    # --- in

    @rule(which=_which, size_bytes=_small, count=st.integers(1, 30))
    def offer_small(self, which: int, size_bytes: int, count: int) -> None:
        for _ in range(count):
            self.offer_to(which, self.bytes_of(size_bytes))

    @rule(which=_which, size_bytes=_large, is_shared=st.booleans())
    def offer_large(self, which: int, size_bytes: int, is_shared: bool) -> None:
        message = large(self.bytes_of(size_bytes))
        message.is_shared = is_shared
        self.offer_to(which, message)

    @rule(which=st.lists(_which, min_size=1, unique=True), size_bytes=_large)
    def share(self, which: list[int], size_bytes: int) -> None:
        message = large(self.bytes_of(size_bytes))
        self.shared.append(message)
        for each in which:
            self.offer_to(each, message)

    @precondition(lambda self: self.shared)
    @rule(which=_which, data=st.data())
    def share_again(self, which: int, data: st.DataObject) -> None:
        self.offer_to(which, data.draw(st.sampled_from(self.shared)))

    # --- waiting

    @rule(which=_which, size_bytes=_small | _large, share=st.booleans())
    def wait(self, which: int, size_bytes: int, share: bool) -> None:
        message: Encoded = self.bytes_of(size_bytes)
        if size_bytes > SMALL_BYTES:
            message = self.shared[-1] if share and self.shared else large(content(message))
        ticket = a_wait(self.outboxes[which], message)
        self.tickets.append((which, ticket))
        self.models[which].waiting.append((ticket, message))

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        which, ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        waiting = self.models[which].waiting
        still_waits = any(each is ticket for each, _ in waiting)
        assert self.outboxes[which].withdraw(ticket) is still_waits
        self.models[which].waiting = [entry for entry in waiting if entry[0] is not ticket]

    @rule(which=_which)
    def promote(self, which: int) -> None:
        model = self.models[which]
        expected = []
        while model.waiting and self.fits(which, model.waiting[0][1]):
            ticket, message = model.waiting.pop(0)
            model.accepted.append(message)
            expected.append(ticket)
        assert self.outboxes[which].promote() == expected
        assert all(ticket.accepted for ticket in expected)

    @rule(which=_which)
    def refuse(self, which: int) -> None:
        refused = self.outboxes[which].refuse()
        assert refused == [ticket for ticket, _ in self.models[which].waiting]
        assert not any(ticket.accepted for ticket in refused)
        self.models[which].waiting.clear()
        self.tickets = [(each, ticket) for each, ticket in self.tickets if ticket not in refused]

    # --- out

    @rule(which=_which, count=st.integers(1, 40))
    def write(self, which: int, count: int) -> None:
        for _ in range(count):
            if not self.write_one(which):
                break

    def write_one(self, which: int) -> bool:
        outbox, model = self.outboxes[which], self.models[which]
        encoded = outbox.next_packet()
        assert (encoded is None) is (not model.accepted)
        if encoded is None:
            return False
        assert len(encoded) <= PACKET_BYTES
        assert outbox.next_packet() == encoded
        outbox.written()
        packet = parsed(encoded)
        assert (packet.sender, packet.receiver, packet.number) == (1, which, model.packets)
        model.packets += 1
        if packet.kind == BATCH:
            assert not model.written
            count = int.from_bytes(packet.payload[1:BATCH_HEADER_BYTES], "big")
            batch = [model.accepted.popleft() for _ in range(count)]
            assert all(isinstance(message, bytes) for message in batch)
            assert b"".join(map(content, batch)) == packet.payload[BATCH_HEADER_BYTES:]
            return True
        message = model.accepted[0]
        assert isinstance(message, LargeMessage)
        payload = bytes(packet.payload)
        assert (packet.kind == FRAGMENT_FIRST) is (not model.written)
        if packet.kind == FRAGMENT_FIRST:
            assert int.from_bytes(payload[:TOTAL_BYTES], "little") == len(as_bytes(message))
            payload = payload[TOTAL_BYTES:]
        model.written += payload
        assert as_bytes(message).startswith(model.written)
        if len(model.written) == len(as_bytes(message)):
            model.accepted.popleft()
            model.written = b""
        return True

    @rule(which=_which)
    def peek(self, which: int) -> None:
        # A packet that is offered is sealed: what comes behind it may not change it.
        self.outboxes[which].next_packet()

    @rule(which=_which)
    def close(self, which: int) -> None:
        model = self.models[which]
        assert self.outboxes[which].close() == len(model.accepted)
        model.accepted.clear()
        model.written = b""

    # --- always

    @invariant()
    def the_counters_say_what_is_there(self) -> None:
        for outbox, model in zip(self.outboxes, self.models, strict=True):
            assert outbox.messages == len(model.accepted)
            assert outbox.backlog_bytes == model.backlog_bytes <= LIMIT_BYTES
            assert outbox.waiting == len(model.waiting)
            assert bool(outbox) is bool(model.accepted or model.waiting)
        assert self.budget.used_bytes == self.used_bytes() <= BUDGET_BYTES + OUTBOXES * RESERVED_BYTES

    def teardown(self) -> None:
        for which in range(OUTBOXES):
            while self.write_one(which):
                pass
        assert self.budget.used_bytes == 0
        assert all(message.holders == 0 for message in self.shared)


def test_any_sequence_of_calls_agrees_with_the_model() -> None:
    run_state_machine_as_test(OutboxMachine)


# --- from other threads


def test_room_for_one_short_message_is_left_to_the_owner() -> None:
    budget = Budget()
    outbox = an_outbox(budget, limit_bytes=SHORT_BYTES + 1000)
    for _ in range(2):
        assert outbox.has_room_handed(bytes(500), 500)
        outbox.hand_over(bytes(500), 500)
    assert not outbox.has_room_handed(b"x", 1)
    assert (outbox.handed, outbox.handed_bytes, outbox.backlog_bytes, budget.handed_bytes) == (
        2,
        1000,
        0,
        1000,
    )
    # The owner did not look at what was handed over meanwhile.
    assert outbox.offer(bytes(SHORT_BYTES))
    outbox.take_handed()
    assert (outbox.handed, outbox.handed_bytes, budget.handed_bytes) == (0, 0, 0)
    assert (outbox.backlog_bytes, budget.used_bytes) == (SHORT_BYTES + 1000, SHORT_BYTES + 1000)
    assert not outbox.offer(b"x")


def test_nothing_is_handed_over_while_others_wait_for_room() -> None:
    outbox = an_outbox(limit_bytes=2 * SHORT_BYTES)
    outbox.offer(bytes(2 * SHORT_BYTES))
    ticket = a_wait(outbox, b"waits")
    write_all(outbox)
    assert not outbox.has_room_handed(b"x", 1)
    assert outbox.promote() == [ticket]
    assert outbox.has_room_handed(b"x", 1)


def test_a_lone_message_leaves_no_trace_but_its_number() -> None:
    outbox = an_outbox()
    packet = outbox.lone_packet(b"pre", b"fix")
    assert packet is not None
    # It is not on its way: the next one has the same number.
    assert outbox.lone_packet(b"pre", b"fix") == packet
    outbox.lone_written()
    assert (outbox.accepted, outbox.messages, outbox.backlog_bytes, bool(outbox)) == (1, 0, 0, False)
    outbox.offer(b"next")
    assert outbox.lone_packet(b"pre", b"fix") is None
    (behind,) = write_all(outbox)
    assert (parsed(packet).number, behind.number) == (0, 1)
    assert outbox.lone_packet(b"", bytes(SMALL_BYTES + 1)) is None
    outbox.packets.copied = 7
    assert outbox.lone_packet(b"pre", b"fix") is None
