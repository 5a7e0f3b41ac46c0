"""Batches: looked over as msgspec would decode them, and read late from memory that may be reused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc.wire.arena import ACKNOWLEDGED_BYTES, NOTHING_COPIED, PLACE, Arena
from asgi_ipc.wire.batch import Batch
from asgi_ipc.wire.message import refuse_extension
from asgi_ipc.wire.packet import PLACED
from asgi_ipc.wire.payload import join_batch
from asgi_ipc.wire.reassembler import Reassembler
from tests import strategies
from tests.encoding import Message, Packet, encode_message, read
from tests.strategies import same

pytestmark = pytest.mark.usefixtures("each_engine")

MIB = 1024 * 1024
ARENA_BYTES = 4 * MIB

_decode = msgspec.msgpack.Decoder(list[tuple[str, Any]], ext_hook=refuse_extension).decode

# Data that is decoded late, and some that is not.
_data = st.text(max_size=300) | st.binary(max_size=300) | st.integers(-(2**63), 2**64 - 1) | strategies.data
_messages = st.tuples(st.sampled_from(["a", "b"]) | strategies.names, _data)


def whole(payload: bytes) -> list[Message] | None:
    """What msgspec finds in a batch; None: it is none."""
    try:
        return _decode(payload)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None


def one_by_one(batch: Batch, content: bytes) -> list[Message] | None:
    return read([batch] if batch.left else []) if batch.open(content, 0, len(content)) else None


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A batch of messages without extra in which some bytes were changed, cut out or put in."""
    sent = draw(st.lists(_messages, max_size=6))
    payload = bytearray(join_batch([encode_message(name, data, MIB) for name, data in sent]))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(payload)))
        until = min(place + draw(st.integers(0, 3)), len(payload))
        payload[place:until] = draw(st.binary(max_size=3))
    return bytes(payload)


@given(st.lists(mutated(), max_size=3))
def test_a_batch_is_accepted_and_read_as_msgspec_decodes_it_whole(payloads: list[bytes]) -> None:
    # One object reads one after the other, as a reader of packets does.
    batch = Batch()
    for payload in payloads:
        expected = whole(payload)
        found = one_by_one(batch, payload)
        if batch.spoilt or (expected is None and found is not None):
            # A third part: test_extra.py has what that may be.
            assert any(len(each) == 3 for each in msgspec.msgpack.decode(payload, ext_hook=lambda *_: None))
        else:
            assert (found is None) is (expected is None)
            assert same(found, expected)


@pytest.mark.parametrize("tag", range(256))
def test_every_first_byte_of_data_is_read_as_msgspec_reads_it(tag: int) -> None:
    for filler in (b"\x00", b"\x01", b"\xff"):
        for length in range(20):
            payload = join_batch([b"\x92\xa1n" + bytes([tag]) + filler * length, b"\x92\xa1n\x01"])
            assert same(one_by_one(Batch(), payload), whole(payload))


class Sender:
    """An arena, and the receiver that reads it."""

    def __init__(self) -> None:
        self.memory = bytearray(ARENA_BYTES)
        self.view = memoryview(self.memory).toreadonly()
        self.arena = Arena(self.memory)
        self.arena.open(2)
        self.reassembler = Reassembler(MIB)
        self.reassembler.attach(1, self.view)
        self.packets = 0

    def place(self, messages: list[Message]) -> list[Batch]:
        """Give the receiver these messages in one block."""
        block = self.arena.place(join_batch([encode_message(*message, MIB) for message in messages]))
        assert block is not None
        place = self.arena.announce(block, 2)
        self.arena.release(block)
        self.packets += 1
        return self.reassembler.accept(Packet(1, 2, self.packets - 1, PLACED, memoryview(place)))

    def acknowledged(self) -> dict[int, int]:
        """What the receiver would acknowledge within a second."""
        self.reassembler.note_read()
        self.reassembler.pay()
        fetched, self.reassembler.fetched = self.reassembler.fetched, {}
        return fetched


SENT: list[Message] = [("name", bytes([number]) * 1000) for number in range(4)]


def test_a_block_is_acknowledged_when_its_last_message_was_read() -> None:
    sender = Sender()
    (batch,) = sender.place(SENT)
    assert batch.each_bytes == 1009
    for number in range(4):
        assert batch.left == 4 - number
        assert sender.acknowledged() == {}
        assert batch.next()
        assert (batch.name, batch.data) == SENT[number]
    assert sender.acknowledged() == {1: 1}
    assert not batch.next()
    assert batch.data is None


def test_blocks_are_acknowledged_in_their_order() -> None:
    sender = Sender()
    (first,) = sender.place(SENT)
    (second,) = sender.place(SENT)
    second.drop_rest()
    assert sender.acknowledged() == {}
    first.drop_rest()
    assert sender.acknowledged() == {1: 2}


def test_structured_data_does_not_stay_in_the_block() -> None:
    sender = Sender()
    (batch,) = sender.place([("name", [1, 2]), ("name", b"bytes")])
    assert sender.acknowledged() == {1: 1}
    sender.memory[:] = bytes(ARENA_BYTES)
    assert read([batch]) == [("name", [1, 2]), ("name", b"bytes")]


def test_an_acknowledgement_is_due_at_once_when_much_was_read() -> None:
    sender = Sender()
    (batch,) = sender.place([("name", bytes(ACKNOWLEDGED_BYTES - 10))])
    sender.reassembler.note_read()
    assert sender.reassembler.fetched == {}
    assert batch.next()
    sender.reassembler.note_read()
    assert sender.reassembler.fetched == {1: 1}


@pytest.mark.parametrize("read_before", range(4))
def test_what_is_left_in_a_block_that_was_used_again_is_lost_and_counted_once(read_before: int) -> None:
    sender = Sender()
    (batch,) = sender.place(SENT)
    for number in range(read_before):
        assert batch.next()
        assert batch.data == SENT[number][1]
    sender.arena.forget(2)
    other = sender.arena.place(join_batch([encode_message("other", "x" * 4000, MIB)]))
    assert other is not None
    assert other.offset == 0
    assert not batch.next()
    assert (batch.data, batch.left, batch.is_overwritten) == (None, 0, True)
    assert not batch.next()
    assert sender.acknowledged() == {}
    assert sender.reassembler.drops == {"corrupt": 1}


@given(st.binary(min_size=4062, max_size=4062), st.integers(0, 3))
def test_whatever_stands_in_the_block_later_is_not_delivered(garbage: bytes, read_before: int) -> None:
    sender = Sender()
    (batch,) = sender.place(SENT)
    for _ in range(read_before):
        assert batch.next()
    # Neither serial nor length of the announced block.
    sender.memory[: 16 + len(garbage)] = b"\xff" * 16 + garbage
    assert not batch.next()
    assert batch.is_overwritten


def test_what_is_left_is_copied_before_the_arena_of_a_departed_sender_is_unmapped() -> None:
    sender = Sender()
    (batch,) = sender.place(SENT)
    assert batch.next()
    sender.reassembler.forget(1)
    assert not sender.reassembler.reading
    # Nothing holds on to the mapping.
    sender.view.release()
    sender.memory[:] = bytes(ARENA_BYTES)
    assert read([batch]) == SENT[1:]
    assert sender.reassembler.drops == {}


def test_a_block_that_is_no_batch_is_corrupt_and_acknowledged_all_the_same() -> None:
    sender = Sender()
    block = sender.arena.place(b"\xdc\x00\x01\x92\xa1n\xc1")
    assert block is not None
    place = sender.arena.announce(block, 2)
    assert sender.reassembler.accept(Packet(1, 2, 0, PLACED, memoryview(place))) == []
    assert sender.reassembler.drops == {"corrupt": 1}
    assert sender.acknowledged() == {1: block.serial}


@pytest.mark.parametrize(
    "place",
    [
        (7, 0, 10),
        (1, ARENA_BYTES - 8, 10),
        (0, ARENA_BYTES, 1),
        (0, ARENA_BYTES - 8, 0),
        (0, 0, ARENA_BYTES - 15),
        (2**64 - 1, 2**32 - 1, 2**32 - 1),
    ],
)
def test_a_place_where_no_such_block_lies_is_corrupt(place: tuple[int, int, int]) -> None:
    sender = Sender()
    assert sender.reassembler.accept(Packet(1, 2, 0, PLACED, PLACE.pack(*place))) == []
    assert sender.acknowledged() == {}
    assert sender.reassembler.drops == {"corrupt": 1}
    assert NOTHING_COPIED not in sender.acknowledged().values()
