"""Extra: the third part of a message, from the packer to the reassembler."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc.wire.message import MAX_EXTRA_BYTES, MAX_EXTRA_KEYS, Extra, Packer
from asgi_ipc.wire.packet import BATCH, FRAGMENT_FIRST, FRAGMENT_MORE
from asgi_ipc.wire.payload import first_fragment, join_batch
from asgi_ipc.wire.reassembler import Reassembler
from tests import strategies
from tests.encoding import Message, MessageWithExtra, Packet, accept, as_bytes, encode_message
from tests.strategies import same

pytestmark = pytest.mark.usefixtures("each_engine")

MIB = 1024 * 1024
FIRST_MESSAGE: Message = ("first", 1)
LARGE_MESSAGE: Message = ("large", "x" * 500)


def extras(messages: list[Message]) -> list[Extra | None]:
    return [each.extra if isinstance(each, MessageWithExtra) else None for each in messages]


_messages = st.tuples(strategies.names, strategies.data)
_extra_maps = st.dictionaries(st.text(max_size=8), st.integers(0, 9) | st.text(max_size=8), max_size=16)


@given(st.lists(st.tuples(_messages, st.none() | _extra_maps), min_size=1, max_size=8))
def test_each_message_keeps_its_own_extra_in_a_batch(sent: list[tuple[Message, Extra | None]]) -> None:
    reassembler = Reassembler(MIB)
    payload = join_batch([encode_message(*message, MIB, extra) for message, extra in sent])
    arrived = accept(reassembler, Packet(1, 2, 0, BATCH, memoryview(payload)))
    assert same([tuple(each) for each in arrived], [message for message, _ in sent])
    assert extras(arrived) == [extra or None for _, extra in sent]
    assert reassembler.drops == {}


def test_a_message_in_fragments_keeps_its_extra() -> None:
    encoded = encode_message(*LARGE_MESSAGE, MIB, {"k": [1, None]})
    reassembler = Reassembler(MIB)
    half = len(encoded) // 2
    first = Packet(1, 2, 0, FRAGMENT_FIRST, memoryview(first_fragment(len(encoded), encoded[:half])))
    assert accept(reassembler, first) == []
    arrived = accept(reassembler, Packet(1, 2, 1, FRAGMENT_MORE, memoryview(encoded[half:])))
    assert arrived == [LARGE_MESSAGE]
    assert extras(arrived) == [{"k": [1, None]}]


@pytest.mark.parametrize(
    "extra",
    [
        None,
        5,
        ["k", 1],
        {1: "a key that is no text"},
        {b"k": 1},
        {str(number): 1 for number in range(MAX_EXTRA_KEYS + 1)},
        {"k": bytes(MAX_EXTRA_BYTES)},
        {"k": msgspec.msgpack.Ext(5, b"x")},
    ],
)
def test_a_malformed_extra_costs_its_own_message_only(extra: object) -> None:
    reassembler = Reassembler(MIB)
    spoilt = msgspec.msgpack.encode(("spoilt", 1, extra))
    good = encode_message(*FIRST_MESSAGE, MIB, {"k": 1})
    payload = join_batch([good, spoilt, encode_message("last", 2, MIB)])
    arrived = accept(reassembler, Packet(1, 2, 0, BATCH, memoryview(payload)))
    assert arrived == [FIRST_MESSAGE, ("last", 2)]
    assert extras(arrived) == [{"k": 1}, None]
    assert reassembler.drops == {"corrupt": 1}


@pytest.mark.parametrize(
    "message", [("name",), ("name", 1, {}, 2), (b"name", 1, {}), ("name", msgspec.msgpack.Ext(5, b"x"), {})]
)
def test_any_other_shape_is_no_batch(message: tuple[object, ...]) -> None:
    reassembler = Reassembler(MIB)
    payload = join_batch([encode_message(*FIRST_MESSAGE, MIB), msgspec.msgpack.encode(message)])
    assert accept(reassembler, Packet(1, 2, 0, BATCH, memoryview(payload))) == []
    assert reassembler.drops == {"corrupt": 1}


def test_extra_is_checked_in_the_sender_and_costs_nothing_when_it_is_absent() -> None:
    packer = Packer(MIB, 100)
    assert packer.pack("n", 1) == packer.pack("n", 1, {}) == packer.pack("n", 1, None)
    assert packer.wrap("n", (1,), 2) == packer.wrap("n", (1,), 2, {})
    wrapped = packer.wrap("n", (1,), 2, {"k": 3})
    assert isinstance(wrapped, bytes)
    assert msgspec.msgpack.decode(wrapped) == ["n", [1, 2], {"k": 3}]
    # Text and bytes above the size of a packet have a way of their own, which has no room for it.
    large = packer.pack("n", bytes(500), {"k": 3})
    assert msgspec.msgpack.decode(as_bytes(large)) == ["n", bytes(500), {"k": 3}]
    for wrong in ({1: 2}, {"k": object()}, {"k": {1, 2}}):
        with pytest.raises(TypeError):
            packer.pack("n", 1, wrong)  # type: ignore[arg-type]
    for large_extra in ({str(number): 1 for number in range(17)}, {"k": bytes(MAX_EXTRA_BYTES)}):
        with pytest.raises(ValueError, match="too large"):
            packer.wrap("n", (), 1, large_extra)
