"""Batches: messages to bytes and back, what can't be carried, and packets put together again."""

from __future__ import annotations

import datetime
import decimal
import enum
import struct
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc.errors import InvalidNameError, MessageTooLargeError
from asgi_ipc.wire.message import MAX_DEPTH, MAX_NAME_BYTES, check_name
from asgi_ipc.wire.outbox import Budget, Outbox
from asgi_ipc.wire.packet import (
    BATCH,
    FRAGMENT_FIRST,
    FRAGMENT_MORE,
    HEADER_BYTES,
    MIN_PACKET_BYTES,
    PacketParser,
)
from asgi_ipc.wire.packetizer import Route
from asgi_ipc.wire.payload import (
    batch_capacity_bytes,
    first_fragment,
    join_batch,
)
from asgi_ipc.wire.reassembler import Reassembler
from tests import strategies
from tests.encoding import Message, Packet, accept, decode_batch, encode_message, find_all, large
from tests.strategies import same

pytestmark = pytest.mark.usefixtures("each_engine")

MIB = 1024 * 1024


def carried(data: object) -> Any:
    """What a receiver gets of `data`."""
    ((name, arrived),) = decode_batch(join_batch([encode_message("name", data, MIB)]))
    assert name == "name"
    return arrived


def nested(levels: int, leaf: object) -> object:
    for _ in range(levels):
        leaf = [leaf]
    return leaf


# --- messages there and back


@given(st.lists(st.tuples(strategies.names, strategies.data), max_size=8))
def test_a_batch_is_decoded_as_it_was_encoded(messages: list[Message]) -> None:
    payload = join_batch([encode_message(name, data, MIB) for name, data in messages])
    assert same(decode_batch(payload), messages)
    assert same(decode_batch(memoryview(payload)), messages)


@given(
    st.datetimes(
        min_value=datetime.datetime(1, 1, 3),
        max_value=datetime.datetime(9999, 12, 29),
        timezones=st.timezones() | st.just(datetime.UTC),
    )
)
def test_a_datetime_with_a_time_zone_arrives_as_the_same_instant(moment: datetime.datetime) -> None:
    arrived = carried(moment)
    assert arrived.astimezone(datetime.UTC) == moment.astimezone(datetime.UTC)
    assert arrived.tzinfo is not None


class Shape(msgspec.Struct):
    sides: int


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("data", "arrives"),
    [
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abc"), b"abc"),
        ((1, (2, "3")), [1, [2, "3"]]),
        ({"deep": [bytearray(b"x")]}, {"deep": [b"x"]}),
        (Shape(3), {"sides": 3}),
        ([Point(1), {"key": (Point(2),)}], [{"x": 1}, {"key": [{"x": 2}]}]),
        (-(2**63), -(2**63)),
        (2**64 - 1, 2**64 - 1),
        ("", ""),
        (b"", b""),
        ("\ud7ff\ue000\U0010ffff\x00", "\ud7ff\ue000\U0010ffff\x00"),
        ({"a": 1, b"a": 2, None: 3, True: 4, 2.5: 5}, {"a": 1, b"a": 2, None: 3, True: 4, 2.5: 5}),
    ],
)
def test_other_buffers_arrive_as_bytes_and_tuples_as_lists(data: object, arrives: object) -> None:
    assert same(carried(data), arrives)


# --- what can't be carried


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Label(str):
    __slots__ = ()


class Pair(NamedTuple):
    left: int
    right: int


class Nowhere(datetime.tzinfo):
    """A time zone that does not know its offset: Python calls such a datetime naive."""

    def utcoffset(self, moment: datetime.datetime | None) -> None:
        return None

    def dst(self, moment: datetime.datetime | None) -> None:
        return None

    def tzname(self, moment: datetime.datetime | None) -> str:
        return "nowhere"


def _endless() -> list[object]:
    inside: list[object] = []
    inside.append(inside)
    return inside


def _endless_dict() -> dict[str, object]:
    inside: dict[str, object] = {}
    inside["self"] = [inside]
    return inside


def _released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


UNCARRIED: list[tuple[object, type[Exception]]] = [
    ({1, 2}, TypeError),
    (frozenset(), TypeError),
    (object(), TypeError),
    (uuid.UUID(int=1), TypeError),
    (decimal.Decimal("1.5"), TypeError),
    (1j, TypeError),
    (range(3), TypeError),
    (iter([]), TypeError),
    (len, TypeError),
    (ValueError("x"), TypeError),
    (Colour.RED, TypeError),
    (Number.ONE, TypeError),
    (Label("text"), TypeError),
    (Pair(1, 2), TypeError),
    (Shape, TypeError),
    (Point, TypeError),
    (OrderedDict(a=1), TypeError),
    (msgspec.msgpack.Ext(1, b"x"), TypeError),
    (msgspec.Raw(b"\x01"), TypeError),
    (datetime.date(2020, 1, 1), TypeError),
    (datetime.time(1), TypeError),
    (datetime.timedelta(1), TypeError),
    (datetime.datetime(2020, 1, 1), ValueError),
    (datetime.datetime(2020, 1, 1, tzinfo=Nowhere()), ValueError),
    (datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1))), OverflowError),
    (2**64, OverflowError),
    (-(2**63) - 1, OverflowError),
    ({2**64: 1}, OverflowError),
    ("\ud800", ValueError),
    ({"\udfff": 1}, ValueError),
    (_endless(), ValueError),
    (_endless_dict(), ValueError),
    (nested(MAX_DEPTH + 1, 1), ValueError),
    (memoryview(b"abcd")[::2], ValueError),
    (_released(), ValueError),
    ({(1, 2): 3}, TypeError),
    ({Label("key"): 3}, TypeError),
    ({Number.ONE: 3}, TypeError),
    ({frozenset(): 3}, TypeError),
    ({datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC): 3}, TypeError),
]


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: [1, data], lambda data: {"key": (data,)}])
@pytest.mark.parametrize(("data", "error"), UNCARRIED, ids=lambda each: type(each).__name__)
def test_what_messagepack_cannot_give_back_raises_in_the_sender(
    data: object, error: type[Exception], wrap: Callable[[object], object]
) -> None:
    with pytest.raises(error):
        encode_message("name", wrap(data), MIB)


@pytest.mark.parametrize(
    "leaf",
    [1, "x", b"x", None, datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)],
    ids=lambda each: type(each).__name__,
)
def test_data_nested_as_deep_as_allowed_arrives(leaf: object) -> None:
    data = nested(MAX_DEPTH, leaf)
    assert same(carried(data), data)


@pytest.mark.parametrize("leaf", [[], {}, ()], ids=["list", "dict", "tuple"])
def test_an_empty_container_is_a_level_too(leaf: object) -> None:
    carried(nested(MAX_DEPTH - 1, leaf))
    with pytest.raises(ValueError, match="nested more than 100"):
        encode_message("name", nested(MAX_DEPTH, leaf), MIB)


# --- sizes

OVERHEAD_BYTES = len(encode_message("name", "", MIB))


@given(st.integers(0, 40), strategies.data)
def test_a_message_of_exactly_the_limit_is_taken_and_a_byte_more_is_not(excess: int, data: object) -> None:
    size_bytes = len(encode_message("name", data, MIB))
    assert len(encode_message("name", data, size_bytes + excess)) == size_bytes
    with pytest.raises(MessageTooLargeError) as caught:
        encode_message("name", data, size_bytes - 1 - excess)
    assert caught.value.max_bytes == size_bytes - 1 - excess
    assert caught.value.max_bytes < caught.value.size_bytes <= size_bytes


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
@pytest.mark.parametrize("text", [True, False])
def test_a_long_text_is_measured_as_it_is_encoded(letter: str, text: bool) -> None:
    data = letter * 1000 if text else (letter * 1000).encode()
    size_bytes = len(encode_message("name", data, MIB))
    assert len(encode_message("name", data, size_bytes)) == size_bytes
    for limit in (size_bytes - 1, 1000, 999, 10, 1):
        with pytest.raises(MessageTooLargeError):
            encode_message("name", data, limit)


# --- names


@given(strategies.names)
def test_a_printable_name_up_to_the_limit_is_taken(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("letter", ["a", "é", "語", "\U0001f600"])
def test_a_name_may_have_254_bytes_of_utf8_and_no_more(letter: str) -> None:
    size = len(letter.encode())
    longest = letter * (MAX_NAME_BYTES // size) + "a" * (MAX_NAME_BYTES % size)
    assert len(longest.encode()) == 254
    check_name(longest)
    with pytest.raises(InvalidNameError, match="254 bytes"):
        check_name(longest + "a")


@pytest.mark.parametrize("place", ["{}", "{}name", "name{}", "na{}me"])
@pytest.mark.parametrize("code", [*range(32), *range(127, 160)])
def test_a_name_has_no_control_characters(code: int, place: str) -> None:
    with pytest.raises(InvalidNameError, match="control"):
        check_name(place.format(chr(code)))


@pytest.mark.parametrize("name", [" ", "\u2028", "\u202e", "\xa0", "\u200b", "a b", "\ufffe", "\x7e"])
def test_what_is_unprintable_but_no_control_character_is_taken(name: str) -> None:
    check_name(name)
    assert decode_batch(join_batch([encode_message(name, None, MIB)])) == [(name, None)]


@pytest.mark.parametrize("name", [None, b"name", 1, ["name"], Label("name"), Colour.RED, Number.ONE])
def test_a_name_that_is_no_plain_text_is_refused(name: object) -> None:
    with pytest.raises(InvalidNameError) as caught:
        check_name(name)
    assert caught.value.name is name


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(InvalidNameError, match="at least one"):
        check_name("")


@pytest.mark.parametrize("name", ["\ud800", "name\udfff", "x" * 200 + "\ud800"])
def test_a_name_with_a_lone_surrogate_is_refused(name: str) -> None:
    with pytest.raises(InvalidNameError, match="Unicode"):
        check_name(name)


def test_data_with_a_lone_surrogate_is_not_blamed_on_the_name() -> None:
    for name in ("name", "é"):
        with pytest.raises(UnicodeEncodeError):
            encode_message(name, "\ud800", MIB)


# --- packets to messages: rule by rule

FIRST_MESSAGE: Message = ("first", 1)
LARGE_MESSAGE: Message = ("large", "x" * 500)


def batch(number: int, *messages: Message, sender: int = 1) -> Packet:
    payload = join_batch([encode_message(name, data, MIB) for name, data in messages])
    return Packet(sender, 2, number, BATCH, memoryview(payload))


def fragments(number: int, message: Message = LARGE_MESSAGE, sender: int = 1) -> Iterator[Packet]:
    """`message` in pieces of 100 bytes."""
    data = memoryview(encode_message(*message, MIB))
    yield Packet(sender, 2, number, FRAGMENT_FIRST, memoryview(first_fragment(len(data), data[:100])))
    for start in range(100, len(data), 100):
        number += 1
        yield Packet(sender, 2, number, FRAGMENT_MORE, data[start : start + 100])


def test_a_repeated_packet_is_dropped_and_counted() -> None:
    reassembler = Reassembler(MIB)
    assert accept(reassembler, batch(0, FIRST_MESSAGE)) == [FIRST_MESSAGE]
    assert accept(reassembler, batch(0, FIRST_MESSAGE)) == []
    assert reassembler.drops == {"repeat": 1}


def test_each_missing_packet_is_counted_and_the_stream_goes_on() -> None:
    reassembler = Reassembler(MIB)
    accept(reassembler, batch(0, FIRST_MESSAGE))
    assert accept(reassembler, batch(4, FIRST_MESSAGE)) == [FIRST_MESSAGE]
    assert reassembler.drops == {"gap": 3}


def test_a_late_packet_does_not_arrive_behind_its_successors() -> None:
    reassembler = Reassembler(MIB)
    accept(reassembler, batch(1, FIRST_MESSAGE))
    assert accept(reassembler, batch(0, ("late", None))) == []
    assert reassembler.drops == {"gap": 1, "repeat": 1}


def test_a_large_message_arrives_with_its_last_fragment() -> None:
    reassembler = Reassembler(MIB)
    *early, last = fragments(0)
    assert [accept(reassembler, packet) for packet in early] == [[] for _ in early]
    assert reassembler.partial_bytes == 100 * len(early)
    assert accept(reassembler, last) == [LARGE_MESSAGE]
    assert (reassembler.partial_bytes, reassembler.drops) == (0, {})


@pytest.mark.parametrize("missing", range(6))
def test_a_large_message_with_a_missing_fragment_is_dropped_whole(missing: int) -> None:
    reassembler = Reassembler(MIB)
    packets = list(fragments(0))
    assert len(packets) == 6
    for packet in packets[:missing] + packets[missing + 1 :]:
        assert accept(reassembler, packet) == []
    assert accept(reassembler, batch(6, FIRST_MESSAGE)) == [FIRST_MESSAGE]
    assert reassembler.drops["gap"] == 1
    assert reassembler.drops.get("partial", 0) == (1 if missing else 0)
    assert reassembler.partial_bytes == 0


def test_fragments_of_several_senders_do_not_mix() -> None:
    reassembler = Reassembler(MIB)
    other: Message = ("other", b"y" * 500)
    arrived = []
    for pair in zip(fragments(0), fragments(0, other, sender=9), strict=True):
        arrived += [message for packet in pair for message in accept(reassembler, packet)]
    assert arrived == [LARGE_MESSAGE, other]


def test_a_message_of_exactly_the_limit_is_put_together_and_a_larger_one_is_not() -> None:
    size_bytes = len(encode_message(*LARGE_MESSAGE, MIB))
    for limit, arrives, drops in (
        (size_bytes, [LARGE_MESSAGE], {}),
        (size_bytes - 1, [], {"too_large": 1}),
    ):
        reassembler = Reassembler(limit)
        assert [m for packet in fragments(0) for m in accept(reassembler, packet)] == arrives
        assert accept(reassembler, batch(6, FIRST_MESSAGE)) == [FIRST_MESSAGE]
        assert (reassembler.drops, reassembler.partial_bytes) == (drops, 0)


def test_more_bytes_than_the_first_fragment_said_are_dropped() -> None:
    reassembler = Reassembler(MIB)
    first = Packet(1, 2, 0, FRAGMENT_FIRST, memoryview(first_fragment(10, memoryview(b"12345"))))
    accept(reassembler, first)
    assert accept(reassembler, Packet(1, 2, 1, FRAGMENT_MORE, memoryview(b"678901"))) == []
    assert reassembler.drops == {"partial": 1}
    assert reassembler.partial_bytes == 0


@pytest.mark.parametrize("payload", [b"", b"\x05", b"\x05\0\0\0", b"\0\0\0\0piece"])
def test_a_first_fragment_that_begins_nothing_is_counted_as_corrupt(payload: bytes) -> None:
    reassembler = Reassembler(MIB)
    assert accept(reassembler, Packet(1, 2, 0, FRAGMENT_FIRST, memoryview(payload))) == []
    assert reassembler.drops == {"corrupt": 1}


def test_pieces_that_continue_nothing_are_corrupt_once_and_what_follows_is_not_harmed() -> None:
    reassembler = Reassembler(MIB)
    stray = memoryview(b"piece")
    for number in range(3):
        assert accept(reassembler, Packet(1, 2, number, FRAGMENT_MORE, stray)) == []
    assert accept(reassembler, batch(3, FIRST_MESSAGE)) == [FIRST_MESSAGE]
    assert reassembler.drops == {"corrupt": 1}
    assert accept(reassembler, Packet(1, 2, 4, FRAGMENT_MORE, stray)) == []
    assert [m for packet in fragments(5) for m in accept(reassembler, packet)] == [LARGE_MESSAGE]
    assert accept(reassembler, Packet(1, 2, 11, FRAGMENT_MORE, stray)) == []
    assert reassembler.drops == {"corrupt": 3}


@pytest.mark.parametrize("beginning", [None, b"\5", b"\0\0\0\0piece", b"\xff\xff\xff\xffpiece"])
def test_pieces_of_what_was_dropped_are_not_counted_again(beginning: bytes | None) -> None:
    reassembler = Reassembler(MIB)
    if beginning is not None:
        accept(reassembler, Packet(1, 2, 0, FRAGMENT_FIRST, memoryview(beginning)))
    for number in (1, 2):
        assert accept(reassembler, Packet(1, 2, number, FRAGMENT_MORE, memoryview(b"piece"))) == []
    assert sum(reassembler.drops.values()) == 1
    assert accept(reassembler, batch(3, FIRST_MESSAGE)) == [FIRST_MESSAGE]


def test_at_the_end_all_that_is_unfinished_is_dropped_and_counted() -> None:
    reassembler = Reassembler(MIB)
    for sender in (1, 9):
        accept(reassembler, next(fragments(0, sender=sender)))
    accept(reassembler, batch(0, FIRST_MESSAGE, sender=5))
    reassembler.close()
    assert (reassembler.partial_bytes, reassembler.drops) == (0, {"partial": 2})


def test_a_timestamp_that_no_datetime_can_hold_is_counted_as_corrupt() -> None:
    # The year 10000, as MessagePack's 96-bit timestamp (fuzzing found that msgspec raises ValueError here).
    timestamp = b"\xc7\x0c\xff" + bytes(4) + (253_402_300_800).to_bytes(8, "big")
    reassembler = Reassembler(MIB)
    payload = join_batch([b"\x92\xa1n" + timestamp])
    assert accept(reassembler, Packet(1, 2, 0, BATCH, memoryview(payload))) == []
    assert reassembler.drops == {"corrupt": 1}


@pytest.mark.parametrize("start", [batch, lambda number, message: next(fragments(number, message))])
def test_a_message_that_begins_before_the_last_is_complete_ends_that_one(
    start: Callable[[int, Message], Packet],
) -> None:
    reassembler = Reassembler(MIB)
    accept(reassembler, next(fragments(0)))
    accept(reassembler, start(1, LARGE_MESSAGE))
    assert reassembler.drops == {"partial": 1}
    assert reassembler.partial_bytes in (0, 100)


def test_what_a_departed_sender_left_unfinished_is_dropped() -> None:
    reassembler = Reassembler(MIB)
    accept(reassembler, next(fragments(0)))
    reassembler.forget(1)
    reassembler.forget(1)
    reassembler.forget(77)
    assert (reassembler.partial_bytes, reassembler.drops) == (0, {"partial": 1})


_GARBAGE = st.binary(max_size=60) | st.builds(
    lambda tail: b"\xdc\x00\x01\x92\xa1n" + tail, st.binary(max_size=30)
)


@given(st.lists(st.tuples(st.integers(1, 2), st.integers(0, 9), strategies.kinds, _GARBAGE), max_size=12))
def test_no_payload_whatever_raises_or_takes_more_than_one_message_per_sender(
    received: list[tuple[int, int, int, bytes]],
) -> None:
    limit = 100
    reassembler = Reassembler(limit)
    for sender, number, kind, payload in received:
        for name, _ in accept(reassembler, Packet(sender, 2, number, kind, memoryview(payload))):
            assert type(name) is str
        assert 0 <= reassembler.partial_bytes <= 2 * limit
    reassembler.forget(1)
    reassembler.forget(2)
    assert reassembler.partial_bytes == 0


def test_the_first_fragments_total_allocates_nothing() -> None:
    reassembler = Reassembler(2**32 - 1)
    payload = struct.pack("<I", 2**32 - 1) + b"x"
    accept(reassembler, Packet(1, 2, 0, FRAGMENT_FIRST, memoryview(payload)))
    assert reassembler.partial_bytes == 1


# --- messages to packets to messages, with all that may happen between

COOKIE = b"batches!"
_SMALL = st.integers(0, 100) | st.binary(max_size=40)
_LARGE = st.integers(60, 9000).map(lambda size: "x" * size)
_messages = st.lists(st.tuples(st.sampled_from(["hello", "reply"]), _SMALL | _LARGE), max_size=12)


@dataclass(frozen=True)
class Shipment:
    """One sender's packets, each with the messages that it begins and those that it completes."""

    messages: list[Message]
    packets: list[bytes]
    # Indexes into `packets`: all that the message travelled in.
    parts: list[range]


def ship(sender: int, messages: list[Message], max_packet_bytes: int, burst: int) -> Shipment:
    """Put the messages into an outbox, and empty it after each `burst`."""
    outbox = Outbox(Route(COOKIE, sender, 1, max_packet_bytes), Budget())
    packets: list[bytes] = []

    def write_all() -> None:
        while (packet := outbox.next_packet()) is not None:
            packets.append(packet)
            outbox.written()

    for index, (name, data) in enumerate(messages):
        encoded = encode_message(name, data, MIB)
        small = len(encoded) <= batch_capacity_bytes(max_packet_bytes)
        assert outbox.offer(encoded if small else large(encoded))
        if index % burst == burst - 1:
            write_all()
    write_all()
    assert all(len(packet) <= max_packet_bytes for packet in packets)
    return Shipment(messages, packets, list(_parts(packets)))


def _parts(packets: list[bytes]) -> Iterator[range]:
    """Which packets each message is in, as read off the packets alone."""
    first = 0
    for index, packet in enumerate(packets):
        kind, payload = packet[10], packet[HEADER_BYTES:]
        if kind == BATCH:
            yield from [range(index, index + 1)] * len(decode_batch(payload))
        else:
            first = index if kind == FRAGMENT_FIRST else first
            if index + 1 == len(packets) or packets[index + 1][10] != FRAGMENT_MORE:
                yield range(first, index + 1)


@st.composite
def faults(draw: st.DrawFn, count: int) -> list[int]:
    """Which of `count` packets arrive, in which order: some never, some again."""
    arriving = []
    for index in range(count):
        if draw(st.integers(0, 5)) != 0:
            arriving.append(index)
        if arriving and draw(st.integers(0, 5)) == 0:
            arriving.append(draw(st.sampled_from(arriving)))
    return arriving


@given(st.data(), st.lists(_messages, min_size=1, max_size=3), st.integers(MIN_PACKET_BYTES, 4096))
def test_all_messages_of_all_senders_arrive_in_order_whatever_the_interleaving(
    data: st.DataObject, sent: list[list[Message]], max_packet_bytes: int
) -> None:
    burst = data.draw(st.integers(1, 5))
    shipments = [ship(sender, each, max_packet_bytes, burst) for sender, each in enumerate(sent)]
    turns = [sender for sender, each in enumerate(shipments) for _ in each.packets]
    queues = [iter(each.packets) for each in shipments]
    stream = b"".join(next(queues[sender]) for sender in data.draw(st.permutations(turns)))
    parser = PacketParser(COOKIE, max_packet_bytes)
    reassembler = Reassembler(MIB)
    arrived: list[list[Message]] = [[] for _ in sent]
    for chunk in data.draw(strategies.chunked(stream)):
        for packet in find_all(parser, chunk, drained=False):
            arrived[packet.sender] += accept(reassembler, packet)
    assert same(arrived, sent)
    assert (parser.skips, reassembler.drops, reassembler.partial_bytes) == (0, {}, 0)


@given(st.data(), st.lists(_messages, min_size=1, max_size=3), st.integers(MIN_PACKET_BYTES, 4096))
def test_lost_and_repeated_packets_cost_their_own_messages_and_no_others(
    data: st.DataObject, sent: list[list[Message]], max_packet_bytes: int
) -> None:
    burst = data.draw(st.integers(1, 5))
    shipments = [ship(sender, each, max_packet_bytes, burst) for sender, each in enumerate(sent)]
    arriving = [data.draw(faults(len(each.packets))) for each in shipments]
    turns = [sender for sender, each in enumerate(arriving) for _ in each]
    queues = [iter(each) for each in arriving]
    reassembler = Reassembler(MIB)
    arrived: list[list[Message]] = [[] for _ in sent]
    for sender in data.draw(st.permutations(turns)):
        packet = shipments[sender].packets[next(queues[sender])]
        (parsed,) = find_all(PacketParser(COOKIE, max_packet_bytes), packet, drained=True)
        arrived[sender] += accept(reassembler, parsed)
    gaps = repeats = 0
    for sender, shipment in enumerate(shipments):
        came = set(arriving[sender])
        whole = [
            message
            for message, part in zip(shipment.messages, shipment.parts, strict=True)
            if came.issuperset(part)
        ]
        assert same(arrived[sender], whole)
        # What is missing behind the last arrival is not known to be missing.
        gaps += max(came, default=-1) + 1 - len(came)
        repeats += len(arriving[sender]) - len(came)
    assert reassembler.drops.get("gap", 0) == gaps
    assert reassembler.drops.get("repeat", 0) == repeats
    assert set(reassembler.drops) <= {"gap", "repeat", "partial"}
