"""Packets: encoded and found again, in pieces of any size and between stray bytes."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from asgi_ipc.wire.packet import (
    BATCH,
    COOKIE_BYTES,
    FRAGMENT_MORE,
    HEADER_BYTES,
    MIN_PACKET_BYTES,
    PacketParser,
    encode_packet,
)
from tests.encoding import Packet, find_all
from tests.strategies import chunked, cookies, generations, kinds, packets, strays

pytestmark = pytest.mark.usefixtures("each_engine")

COOKIE = b"\x01cookie\xff"
MAX = MIN_PACKET_BYTES


def whole(packet: Packet, cookie: bytes) -> bytes:
    """The bytes that this packet was found in."""
    return encode_packet(
        cookie, packet.sender, packet.receiver, packet.number, packet.kind, bytes(packet.payload)
    )


def packet_of(number: int, payload: bytes = b"payload") -> bytes:
    return encode_packet(COOKIE, 1, 2, number, BATCH, payload)


def numbers(found: list[Packet]) -> list[int]:
    return [packet.number for packet in found]


@given(cookies, generations, generations, st.integers(0, 2**64 - 1), kinds, st.binary(max_size=MAX - 32))
def test_a_packet_is_parsed_as_it_was_encoded(
    cookie: bytes, sender: int, receiver: int, number: int, kind: int, payload: bytes
) -> None:
    parser = PacketParser(cookie, MAX)
    encoded = encode_packet(cookie, sender, receiver, number, kind, payload)
    assert find_all(parser, encoded, drained=True) == [Packet(sender, receiver, number, kind, payload)]
    assert len(encoded) == HEADER_BYTES + len(payload)
    assert (parser.skips, parser.skipped_bytes, parser.buffered_bytes) == (0, 0, 0)


# (is it a packet, its bytes), in the order in which they were written
Stream = list[tuple[bool, bytes]]


@st.composite
def streams(draw: st.DrawFn, cookie: bytes, max_packet_bytes: int) -> Stream:
    good = packets(cookie, max_packet_bytes).map(lambda each: (True, each))
    stray = strays(cookie, max_packet_bytes).map(lambda each: (False, each))
    stream = draw(st.lists(good | stray, max_size=10))
    for (is_good, content), (_, following) in pairwise(stream):
        # Cut short, and made whole by the first bytes of what follows: then it is a packet by every measure.
        assume(is_good or not _is_completed(content, following, cookie, max_packet_bytes))
    return stream


def _is_completed(stray: bytes, following: bytes, cookie: bytes, max_packet_bytes: int) -> bool:
    parser = PacketParser(cookie, max_packet_bytes)
    return bool(find_all(parser, stray + following[:COOKIE_BYTES], drained=True))


@given(st.data(), cookies)
def test_every_packet_between_stray_bytes_arrives_and_the_rest_is_counted(
    data: st.DataObject, cookie: bytes
) -> None:
    stream = data.draw(streams(cookie, MAX))
    chunks = data.draw(chunked(b"".join(content for _, content in stream)))
    parser = PacketParser(cookie, MAX)
    found = []
    for chunk in chunks:
        found += [whole(packet, cookie) for packet in find_all(parser, chunk, drained=False)]
        assert parser.buffered_bytes < MAX
    found += [whole(packet, cookie) for packet in find_all(parser, b"", drained=True)]
    assert found == [content for good, content in stream if good]
    assert parser.skipped_bytes == sum(len(content) for good, content in stream if not good)
    assert parser.skips == sum(not good for good, _ in groupby(stream, key=lambda item: item[0]))
    assert parser.buffered_bytes == 0


@given(st.data(), cookies)
def test_a_read_that_emptied_the_pipe_delays_no_packet_that_it_brought(
    data: st.DataObject, cookie: bytes
) -> None:
    stream = data.draw(streams(cookie, MAX))
    parser = PacketParser(cookie, MAX)
    while stream:
        # One read of whole writes: nothing else can be in a pipe that is empty behind it.
        count = data.draw(st.integers(1, len(stream)))
        read, stream = stream[:count], stream[count:]
        chunks = data.draw(chunked(b"".join(content for _, content in read), max_chunks=2))
        found = [packet for chunk in chunks[:-1] for packet in find_all(parser, chunk, drained=False)]
        found += find_all(parser, chunks[-1], drained=True)
        assert [whole(packet, cookie) for packet in found] == [content for good, content in read if good]
        assert parser.buffered_bytes == 0


@given(st.data(), cookies)
def test_what_follows_brings_every_earlier_packet_out_without_a_drained_pipe(
    data: st.DataObject, cookie: bytes
) -> None:
    stream = data.draw(streams(cookie, MAX))
    good = [content for is_good, content in stream if is_good]
    # No stray can claim more than one packet's bytes, so as many more free all before them.
    tail = encode_packet(cookie, 1, 2, 3, BATCH, b"x")
    followed = b"".join(content for _, content in stream) + tail * (MAX // len(tail) + 1)
    parser = PacketParser(cookie, MAX)
    found: list[Packet] = []
    for chunk in data.draw(chunked(followed)):
        found += find_all(parser, chunk, drained=False)
    assert [whole(packet, cookie) for packet in found][: len(good)] == good


def test_half_a_packet_then_one_good_message_then_silence_delivers_the_message() -> None:
    for length in range(1, len(packet_of(1))):
        parser = PacketParser(COOKIE, MAX)
        assert numbers(find_all(parser, packet_of(1)[:length] + packet_of(2), drained=True)) == [2]
        assert (parser.skips, parser.skipped_bytes) == (1, length)


def test_half_a_packet_that_was_read_before_the_good_one_does_not_hold_it_up() -> None:
    parser = PacketParser(COOKIE, MAX)
    assert find_all(parser, packet_of(1)[:-1], drained=False) == []
    assert parser.buffered_bytes == len(packet_of(1)) - 1
    assert numbers(find_all(parser, packet_of(2), drained=True)) == [2]


def test_an_incomplete_packet_waits_for_its_rest_while_the_pipe_has_more() -> None:
    parser = PacketParser(COOKIE, MAX)
    assert find_all(parser, packet_of(1)[:35], drained=False) == []
    assert numbers(find_all(parser, packet_of(1)[35:], drained=False)) == [1]
    assert parser.skips == 0


def test_one_run_of_stray_bytes_counts_once_however_it_arrives() -> None:
    parser = PacketParser(COOKIE, MAX)
    for _ in range(100):
        assert find_all(parser, b"x", drained=True) == []
    assert (parser.skips, parser.skipped_bytes) == (1, 100)
    find_all(parser, packet_of(1) + b"y" + packet_of(2), drained=True)
    assert (parser.skips, parser.skipped_bytes) == (2, 101)


def test_a_packet_of_exactly_the_largest_size_is_one_and_a_larger_one_is_none() -> None:
    largest = packet_of(1, bytes(MAX - HEADER_BYTES))
    larger = packet_of(2, bytes(MAX - HEADER_BYTES + 1))
    empty = packet_of(3, b"")
    parser = PacketParser(COOKIE, MAX)
    assert numbers(find_all(parser, largest + larger + empty, drained=True)) == [1, 3]
    assert parser.skipped_bytes == MAX + 1


def test_no_single_flipped_bit_is_ever_read_as_a_packet() -> None:
    packet = packet_of(7)
    for place in range(len(packet) * 8):
        flipped = bytearray(packet)
        flipped[place // 8] ^= 1 << place % 8
        parser = PacketParser(COOKIE, MAX)
        assert numbers(find_all(parser, bytes(flipped) + packet_of(8), drained=True)) == [8]


def test_a_packet_may_carry_the_bytes_of_other_packets() -> None:
    inner = packet_of(1)
    parser = PacketParser(COOKIE, MAX)
    (found,) = find_all(parser, packet_of(2, inner + inner), drained=True)
    assert bytes(found.payload) == inner + inner


def test_a_cookie_that_looks_like_padding_is_found_all_the_same() -> None:
    cookie = bytes(COOKIE_BYTES)
    packet = encode_packet(cookie, 0, 0, 0, BATCH, bytes(20))
    for length in range(1, 70):
        parser = PacketParser(cookie, MAX)
        assert len(find_all(parser, bytes(length) + packet, drained=True)) == 1
        assert parser.skipped_bytes == length


def test_what_is_fed_before_all_was_found_comes_behind_it() -> None:
    parser = PacketParser(COOKIE, MAX)
    parser.feed(packet_of(1) + packet_of(2) + packet_of(3)[:10])
    assert parser.find(drained=False)
    assert parser.number == 1
    assert numbers(find_all(parser, packet_of(3)[10:], drained=True)) == [2, 3]
    assert parser.skips == 0


def test_a_long_run_of_strays_takes_no_memory() -> None:
    parser = PacketParser(COOKIE, MAX)
    for _ in range(50):
        find_all(parser, COOKIE * 1000, drained=False)
        assert parser.buffered_bytes < MAX
    assert parser.skipped_bytes + parser.buffered_bytes == 50 * 1000 * COOKIE_BYTES


@pytest.mark.parametrize("cookie", [b"", b"1234567", b"123456789"])
def test_a_cookie_of_another_length_is_refused(cookie: bytes) -> None:
    with pytest.raises(ValueError, match="8 bytes"):
        PacketParser(cookie, MAX)


def test_a_fragment_keeps_its_kind() -> None:
    parser = PacketParser(COOKIE, MAX)
    packet = encode_packet(COOKIE, 1, 2, 3, FRAGMENT_MORE, memoryview(b"piece"))
    (found,) = find_all(parser, packet, drained=True)
    assert (found.kind, bytes(found.payload)) == (FRAGMENT_MORE, b"piece")
