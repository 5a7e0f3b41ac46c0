"""Packets by both engines: the same bytes, the same finds, the same counts and errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc.wire.packet import MIN_PACKET_BYTES
from tests.encoding import Packet, find_all
from tests.engines import variant
from tests.strategies import chunked, cookies, packets, strays

MODULE = "asgi_ipc.wire.packet"


@pytest.fixture(scope="module")
def both() -> tuple[Any, Any]:
    return variant(MODULE, "pure"), variant(MODULE, "native")


def outcome(call: Callable[[], Any]) -> tuple[str, object]:
    """What a call returns, or the type and the text of what it raises."""
    try:
        return "returned", call()
    except Exception as error:  # noqa: BLE001  (any error is an outcome)
        return type(error).__name__, str(error)


@given(st.data(), cookies, st.integers(MIN_PACKET_BYTES, 300))
def test_both_find_the_same_in_a_mutated_stream(
    both: tuple[Any, Any], data: st.DataObject, cookie: bytes, max_packet_bytes: int
) -> None:
    pieces = packets(cookie, max_packet_bytes) | strays(cookie, max_packet_bytes)
    stream = bytearray(b"".join(data.draw(st.lists(pieces, max_size=8))))
    places = st.tuples(st.integers(0, max(len(stream) - 1, 0)), st.integers(0, 255))
    for place, byte in data.draw(st.lists(places, max_size=4)) if stream else []:
        stream[place] = byte
    parsers = [each.PacketParser(cookie, max_packet_bytes) for each in both]
    for chunk in data.draw(chunked(bytes(stream))):
        drained = data.draw(st.booleans())
        found = [find_all(each, chunk, drained=drained) for each in parsers]
        assert found[0] == found[1]
        counts = [(each.buffered_bytes, each.skips, each.skipped_bytes) for each in parsers]
        assert counts[0] == counts[1]


@given(
    st.binary(max_size=10) | st.just(b"12345678"),
    *[st.integers(-(2**70), 2**70) | st.integers(0, 2**32 - 1)] * 3,
    st.integers(-1, 256),
    st.binary(max_size=200) | st.just(bytes(2**16)),
)
def test_both_encode_the_same_bytes_or_raise_the_same_error(
    both: tuple[Any, Any], cookie: bytes, sender: int, receiver: int, number: int, kind: int, payload: bytes
) -> None:
    for given_payload in (payload, memoryview(payload)):
        values = (cookie, sender, receiver, number, kind, given_payload)
        reference, native = (outcome(partial(each.encode_packet, *values)) for each in both)
        assert reference == native


@pytest.mark.parametrize("cookie", [b"", b"1234567", b"123456789"])
def test_both_refuse_a_cookie_of_another_length_with_the_same_words(
    both: tuple[Any, Any], cookie: bytes
) -> None:
    reference, native = (outcome(partial(each.PacketParser, cookie, 128)) for each in both)
    assert reference == native
    assert reference[0] == "ValueError"


def test_both_count_beyond_32_bits(both: tuple[Any, Any]) -> None:
    highest = (b"12345678", 2**32 - 1, 2**32 - 1, 2**64 - 1, 1, b"")
    for each in both:
        packet = each.encode_packet(*highest)
        (found,) = find_all(each.PacketParser(b"12345678", 128), packet, drained=True)
        assert found == Packet(2**32 - 1, 2**32 - 1, 2**64 - 1, 1, b"")
