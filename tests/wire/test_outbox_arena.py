"""An outbox with an arena, and the receiver that reads it: everything arrives once, in order, unaltered."""

from __future__ import annotations

import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from asgi_ipc.wire.arena import NOTHING_COPIED, Arena
from asgi_ipc.wire.batch import Batch
from asgi_ipc.wire.message import LargeMessage, Packer
from asgi_ipc.wire.outbox import Budget, Outbox
from asgi_ipc.wire.packet import PLACED, PacketParser
from asgi_ipc.wire.packetizer import Route
from asgi_ipc.wire.reassembler import Reassembler
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)
from tests.encoding import find_all, read

pytestmark = pytest.mark.usefixtures("each_engine")

COOKIE = b"outboxes"
PACKET_BYTES = 4096
CAPACITY_BYTES = 4061
ARENA_BYTES = 1024 * 1024
MAX_MESSAGE_BYTES = 512 * 1024
RECEIVERS = 3

_which = st.integers(0, RECEIVERS - 1)
_sizes = st.sampled_from([0, 1, 30, 1000, 4000, 4100, 10_000, 70_000, 200_000, 300_000])


class Pair:
    """One outbox, its receiver, and what has not come to light yet."""

    def __init__(self, receiver: int, budget: Budget) -> None:
        self.outbox = Outbox(Route(COOKIE, 1, receiver, PACKET_BYTES), budget)
        self.parser = PacketParser(COOKIE, PACKET_BYTES)
        self.reassembler = Reassembler(MAX_MESSAGE_BYTES)
        self.accepted: list[tuple[str, bytes]] = []
        self.arrived: list[tuple[str, bytes]] = []
        # Read from the pipe, and left in the arena.
        self.batches: list[Batch] = []
        self.in_pipe: list[bytes] = []
        self.gone = False

    def write(self) -> bool:
        packet = self.outbox.next_packet()
        if packet is not None:
            assert self.outbox.next_packet() == packet
            self.in_pipe.append(packet)
            self.outbox.written()
        return packet is not None

    def read(self) -> None:
        for encoded in self.in_pipe:
            for packet in find_all(self.parser, encoded, drained=True):
                self.batches += self.reassembler.accept(packet)
        self.in_pipe.clear()

    def decode(self) -> None:
        before = len(self.arrived)
        self.arrived += read(self.batches)
        self.batches.clear()
        self.reassembler.note_read()
        # What came before was compared then.
        assert self.arrived[before:] == self.accepted[before : len(self.arrived)]
        assert not self.reassembler.drops

    def acknowledge(self, *, everything: bool = True) -> None:
        if everything:
            self.reassembler.pay()
        for _, serial in self.reassembler.fetched.items():
            self.outbox.receiver_copied(serial)
        self.reassembler.fetched.clear()


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        memory = bytearray(ARENA_BYTES)
        self.readable = memoryview(memory).toreadonly()
        self.arena = Arena(memory)
        self.budget = Budget(arena=self.arena)
        self.pairs = [Pair(receiver, self.budget) for receiver in range(RECEIVERS)]
        self.pack = Packer(MAX_MESSAGE_BYTES, CAPACITY_BYTES).pack
        self.random = random.Random(0)

    @rule(which=_which)
    def maps(self, which: int) -> None:
        pair = self.pairs[which]
        if not pair.gone:
            pair.reassembler.attach(1, self.readable)
            pair.outbox.receiver_copied(NOTHING_COPIED)

    @rule(which=st.lists(_which, min_size=1, unique=True), size=_sizes, count=st.integers(1, 70))
    def send(self, which: list[int], size: int, count: int) -> None:
        for _ in range(count if size <= CAPACITY_BYTES else 1 + count % 3):
            data = self.random.randbytes(size)
            message = self.pack("name", data)
            for pair in (self.pairs[each] for each in which):
                if pair.gone:
                    continue
                if isinstance(message, LargeMessage):
                    message.is_shared = len(which) > 1
                assert pair.outbox.offer(message)
                pair.accepted.append(("name", data))

    @rule(which=_which, count=st.integers(1, 100))
    def write(self, which: int, count: int) -> None:
        for _ in range(count):
            if self.pairs[which].gone or not self.pairs[which].write():
                break

    @rule(which=_which)
    def read(self, which: int) -> None:
        self.pairs[which].read()

    @rule(which=_which)
    def decode(self, which: int) -> None:
        self.pairs[which].decode()

    @rule(which=_which, everything=st.booleans())
    def acknowledge(self, which: int, everything: bool) -> None:
        if not self.pairs[which].gone:
            self.pairs[which].acknowledge(everything=everything)

    @rule(which=_which)
    def loses_patience(self, which: int) -> None:
        self.pairs[which].outbox.packets.is_patient = False

    @rule(which=_which)
    def dies(self, which: int) -> None:
        pair = self.pairs[which]
        if not pair.gone:
            lost = pair.outbox.close()
            pair.read()
            pair.decode()
            assert len(pair.arrived) + lost == len(pair.accepted)
            pair.gone = True
            self.arena.forget(which)

    def teardown(self) -> None:
        for pair in self.pairs:
            while not pair.gone and (pair.write() or pair.outbox):
                pair.read()
                pair.decode()
                pair.acknowledge()
            pair.read()
            pair.decode()
            pair.acknowledge()
            assert pair.gone or len(pair.arrived) == len(pair.accepted)
        assert self.arena.used_bytes == 0
        assert self.budget.used_bytes == 0


def test_any_sequence_of_calls_delivers_everything_once_and_frees_every_block() -> None:
    run_state_machine_as_test(Machine)


@pytest.mark.parametrize("size", [500, 1024, 2000, 10_000, 33_000])
def test_many_messages_are_cut_into_blocks_none_twice(size: int) -> None:
    memory = bytearray(ARENA_BYTES)
    pair = Pair(1, Budget(arena=Arena(memory)))
    pair.reassembler.attach(1, memoryview(memory))
    pair.outbox.receiver_copied(NOTHING_COPIED)
    pack = Packer(MAX_MESSAGE_BYTES, CAPACITY_BYTES).pack
    for number in range(300):
        message = pack("name", number.to_bytes(size, "big"))
        assert pair.outbox.offer(message)
        pair.accepted.append(("name", number.to_bytes(size, "big")))
    kinds: set[int] = set()
    while pair.write():
        (packet,) = find_all(PacketParser(COOKIE, PACKET_BYTES), pair.in_pipe[0], drained=True)
        kinds.add(packet.kind)
        pair.read()
        pair.decode()
        pair.acknowledge()
    assert pair.arrived == pair.accepted
    assert PLACED in kinds
