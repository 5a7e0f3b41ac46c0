"""The wire: the writes of genuine senders, strays, and forgers.

Law: this file makes all data once per process, from constants, so an execution only chooses and joins.
Genuine packets come from the real Outbox; forged ones are packed here, by hand, so that no fault in
`encode_packet` can excuse itself.
"""

from __future__ import annotations

import datetime
import random
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from asgi_ipc.wire.outbox import Budget, Outbox
from asgi_ipc.wire.packet import BATCH, FRAGMENT_FIRST, HEADER_BYTES, MIN_PACKET_BYTES
from asgi_ipc.wire.packetizer import Route
from asgi_ipc.wire.payload import batch_capacity_bytes
from tests.encoding import Message, MessageWithExtra, encode_message, large

RECEIVER: Final = 7
SENDERS: Final = (11, 12, 2**32 - 1)
# The members that the receiver knows, including itself.
PEERS: Final = frozenset({RECEIVER, *SENDERS})
STRANGER: Final = 77

# Small, so that a few fragments reach and exceed it.
MAX_MESSAGE_BYTES: Final = 2000

SHIPMENTS_PER_SENDER: Final = 24

_HEAD: Final = struct.Struct("<8sHBBIIQ")
_CRC: Final = struct.Struct("<I")
_TOTAL: Final = struct.Struct("<I")
_canonical: Final = msgspec.msgpack.Encoder().encode


def canonical(messages: list[Message]) -> bytes:
    """Messages as bytes that tell 1 from 1.0 and True, and one NaN from another."""
    messages = [(*each, each.extra) if isinstance(each, MessageWithExtra) else each for each in messages]  # type: ignore[misc]
    try:
        return _canonical(messages)
    except (TypeError, ValueError, OverflowError, RecursionError):
        # A forger may write what no sender could encode.
        return repr(messages).encode("utf-8", "backslashreplace")


def head(cookie: bytes, length: int, kind: int, sender: int, receiver: int, number: int) -> bytes:
    """A header up to its CRC, true or not."""
    return _HEAD.pack(cookie, length & 0xFFFF, kind, 0, sender, receiver, number)


def seal(front: bytes, payload: bytes) -> bytes:
    """The header completed by the right CRC, and the payload."""
    return b"".join((front, _CRC.pack(zlib.crc32(payload, zlib.crc32(front))), payload))


def forge(cookie: bytes, sender: int, receiver: int, number: int, kind: int, payload: bytes) -> bytes:
    """Return a packet that any writer with the cookie could write."""
    return seal(head(cookie, HEADER_BYTES + len(payload), kind, sender, receiver, number), payload)


@dataclass(frozen=True, slots=True)
class Shipment:
    """A sender's packets from number 0, and what each packet that completes messages delivers."""

    packets: tuple[bytes, ...]
    deliveries: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One cookie and packet size, with all that an execution chooses from."""

    cookie: bytes
    max_packet_bytes: int
    shipments: dict[int, tuple[Shipment, ...]]
    # Without a sender: no part of it may ever be accepted.
    junk: tuple[bytes, ...]
    # (kind, payload) of packets whose CRC will be right.
    forgeries: tuple[tuple[int, bytes], ...]
    # Messages of a forger that are larger than a packet, encoded.
    large_forgeries: tuple[bytes, ...]
    # The meanings of genuine payloads, known without decoding them.
    meanings: dict[bytes, bytes]


# --- genuine packets


def _data(rng: random.Random, cookie: bytes, serial: int) -> Any:
    """Data of every kind; `serial` makes each message the only one of its content."""
    match rng.randrange(12):
        case 0:
            return serial
        case 1:
            return -(2**63) + serial
        case 2:
            return f"text {serial}"
        case 3:
            return serial + 0.5
        case 4:
            return [serial, None, True, {"key": [float("nan"), 2**64 - 1]}]
        case 5:
            return {serial: "integer", str(serial): b"bytes", None: []}
        case 6:
            return datetime.datetime(2024, 2, 29, 12, 0, 0, serial, datetime.UTC)
        case 7:
            # Looks like the beginning of a packet to a reader that is out of step.
            return b"%d" % serial + cookie + struct.pack("<HB", 64, BATCH)
        case 8:
            return b"%d" % serial + cookie * 3
        case 9:
            return [serial, "\u00e9\U0001f600" * rng.randrange(1, 60)]
        case 10:
            return b"%d" % serial + rng.randbytes(rng.randrange(60, 600))
        case _:
            return f"{serial}" + "x" * rng.randrange(60, 400)


def _messages(rng: random.Random, cookie: bytes) -> list[Message]:
    names = ("hello", "n", "\u00fcber", "a" * 50)
    messages: list[Message] = []
    for serial in range(rng.randrange(1, 5)):
        message: Message = (rng.choice(names), _data(rng, cookie, serial))
        if rng.random() < 0.2:
            message = MessageWithExtra(message)
            message.extra = {"trace": f"00-{serial}", "credit": serial}
        messages.append(message)
    return messages


def _ship(
    rng: random.Random, cookie: bytes, sender: int, max_packet_bytes: int, meanings: dict[bytes, bytes]
) -> Shipment:
    outbox = Outbox(Route(cookie, sender, RECEIVER, max_packet_bytes), Budget())
    waiting: list[tuple[Message, bytes]] = []
    packets: list[bytes] = []
    deliveries: list[bytes] = []
    messages = _messages(rng, cookie)
    for message in messages:
        extra = message.extra if isinstance(message, MessageWithExtra) else None
        encoded = encode_message(*message, MAX_MESSAGE_BYTES, extra)
        small = len(encoded) <= batch_capacity_bytes(max_packet_bytes)
        assert outbox.offer(encoded if small else large(encoded))
        waiting.append((message, encoded))
        if rng.random() < 0.3 and message is not messages[-1]:
            continue
        while (packet := outbox.next_packet()) is not None:
            before = outbox.messages
            outbox.written()
            packets.append(packet)
            if done := before - outbox.messages:
                says = canonical([message for message, _ in waiting[:done]])
                deliveries.append(says)
                payload = struct.pack(">BH", 0xDC, done) + b"".join(each for _, each in waiting[:done])
                meanings[payload] = says
                del waiting[:done]
    return Shipment(tuple(packets), tuple(deliveries))


# --- what strays


def _junk(rng: random.Random, cookie: bytes, max_packet_bytes: int) -> tuple[bytes, ...]:
    foreign = bytes(byte ^ 0x5A for byte in cookie)
    sender = SENDERS[0]
    small = b"\xdc\x00\x01\x92\xa4junk\x01"
    return (
        *(cookie[:size] for size in range(1, 9)),
        *(cookie[size:] for size in (1, 2, 5)),
        cookie * 2,
        cookie * 6 + cookie[:5],
        *(rng.randbytes(size) for size in (1, 7, 31, 32, 33, 200)),
        bytes(1),
        bytes(40),
        b"\xff" * 40,
        b"a line of a log that lost its way\n",
        forge(foreign, sender, RECEIVER, 0, BATCH, small),
        forge(foreign[:4] + cookie[4:], sender, RECEIVER, 0, BATCH, small),
        *(forge(cookie, sender, RECEIVER, 0, kind, small) for kind in (0, 6, 255)),
        # Longer than any packet, with the right CRC.
        forge(cookie, sender, RECEIVER, 0, BATCH, b"U" * (max_packet_bytes - HEADER_BYTES + 1)),
        forge(cookie, sender, RECEIVER, 0, BATCH, small + b"U" * 4096),
        # Shorter than a header, with the CRC of nothing.
        *(seal(head(cookie, length, BATCH, sender, RECEIVER, 0), b"") for length in (0, 31)),
        # Claims what others write behind it.
        *(
            head(cookie, length, BATCH, sender, RECEIVER, 0) + b"crc?"
            for length in (33, 100, max_packet_bytes, 0xFFFF)
        ),
        head(cookie, max_packet_bytes, BATCH, sender, RECEIVER, 0),
    )


# --- what is forged

_EXTRAS: Final = (
    b"\x80",
    b"\x81\xa1k\x01",
    b"\x82\xa1k\x01\xa1k\x02",
    b"\xc0",
    b"\x01",
    b"\x90",
    b"\x81\x01\x01",
    b"\x81\xc4\x01k\x01",
    b"\x81\xa1\xff\x01",
    b"\x81\xa1k\xd4\x05\x01",
    b"\x81\xa1k\xa1\xff",
    b"\xde\x00\x10" + b"".join(b"\xa1%c\x01" % key for key in range(65, 81)),
    b"\xde\x00\x11" + b"".join(b"\xa1%c\x01" % key for key in range(65, 82)),
    # The rest is missing.
    b"\x81\xa1k",
    b"",
)
_ONE: Final = b"\xdc\x00\x01"
_NAMED: Final = _ONE + b"\x92\xa1n"


# Payloads for one packet: what MessagePack allows and no sender writes, and what it forbids.
_BATCHES: Final = (
    b"",
    b"\xdc",
    b"\xdc\x00\x00",
    b"\x90",
    b"\x91\x92\xa1n\x01",
    b"\xdd\x00\x00\x00\x01\x92\xa1n\x01",
    # Wrong shapes.
    b"\xc0",
    b"\x80",
    _ONE + b"\x01",
    _ONE + b"\x91\xa1n",
    _ONE + b"\x93\xa1n\x01\x01",
    _ONE + b"\x81\xa1n\x01",
    _ONE + b"\x92\x01\x01",
    _ONE + b"\x92\xc0\x01",
    _ONE + b"\x92\xc4\x01n\x01",
    b"\xdc\x00\x02\x92\xa1n\x01\x92\x01\x01",
    # Extra: right, empty, and none; what is none costs no other message.
    *(_ONE + b"\x93\xa1n\x01" + extra for extra in _EXTRAS),
    *(b"\xdc\x00\x03\x92\xa1n\x01\x93\xa1n\x02" + extra + b"\x92\xa1n\x03" for extra in _EXTRAS),
    b"\xdc\x00\x02\x93\xa1n\x01\x80\x92\x01\x01",
    _ONE + b"\x94\xa1n\x01\x80\x01",
    _NAMED + b"\x01\x01",
    # Names that no sender may use.
    _ONE + b"\x92\xa0\x01",
    _ONE + b"\x92\xa3a\x00b\x01",
    _ONE + b"\x92\xa2\xc2\x85\x01",
    _ONE + b"\x92\xa2\xff\xfe\x01",
    _ONE + b"\x92\xa3\xed\xa0\x80\x01",
    # Text and keys that are none.
    _NAMED + b"\xa2\xff\xfe",
    _NAMED + b"\xa3\xed\xa0\x80",
    _NAMED + b"\x81\xa2\xff\xfe\x01",
    _NAMED + b"\x81\x80\x01",
    _NAMED + b"\x81\x91\x80\x01",
    _NAMED + b"\x81\x92\x01\x02\x01",
    _NAMED + b"\x81\xd4\x05\x01\x01",
    _NAMED + b"\x82\xcb\x7f\xf8\x00\x00\x00\x00\x00\x01" * 2 + b"\x01",
    _NAMED + b"\x82\x01\x02\x01\x03",
    # Lengths far beyond what is there.
    *(b"%c\xff\xff\xff\xff" % code for code in (0xDD, 0xDF)),
    *(_NAMED + b"%c\xff\xff\xff\xff\x01" % code for code in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)),
    *(_NAMED + b"%c\xff\xff\x01" % code for code in (0xC5, 0xC8, 0xDA, 0xDC, 0xDE)),
    b"\xdc\xff\xff" + b"\x92\xa1n\x01" * 10,
    _NAMED + b"\xdc\xff\xff" * 20,
    # Nested.
    _NAMED + b"\x91" * 80 + b"\x01",
    _NAMED + b"\x81\x01" * 40 + b"\x01",
    _NAMED + b"\x81" + b"\x91" * 40 + b"\x01\x01",
    _NAMED + b"\x81\x91" * 40 + b"\x01",
    # Extensions and timestamps, those out of the calendar among them.
    _NAMED + b"\xd4\x05\x01",
    _NAMED + b"\xc7\x00\x7f",
    _NAMED + b"\xc1",
    _NAMED + b"\xd6\xff\xff\xff\xff\xff",
    _NAMED + b"\xd7\xff" + b"\xff" * 8,
    _NAMED + b"\xc7\x05\xff" + b"\xff" * 5,
    *(
        _NAMED + b"\xc7\x0c\xff" + struct.pack(">Iq", nanoseconds, seconds)
        for nanoseconds, seconds in (
            (0, -62135596800),
            (0, -62135596801),
            (999_999_000, 253402300799),
            (999_999_999, 253402300799),
            (0, 253402300800),
            (10**9, 0),
            (1, 2**63 - 1),
            (1, -(2**63)),
        )
    ),
)
_FIRSTS: Final = (
    b"",
    b"\x05\x00\x00",
    b"\x05\x00\x00\x00",
    b"\x00\x00\x00\x00piece",
    b"\xff\xff\xff\xffpiece",
    _TOTAL.pack(MAX_MESSAGE_BYTES) + b"piece",
    _TOTAL.pack(MAX_MESSAGE_BYTES + 1) + b"piece",
    _TOTAL.pack(4) + b"\x92\xa1n\x01",
    _TOTAL.pack(5) + b"\x92\xa1n\x01",
    _TOTAL.pack(3) + b"\x92\xa1n\x01",
    _TOTAL.pack(5) + b"\x93\xa1n\x01\x01",
)
_FORGERIES: Final = (*((BATCH, each) for each in _BATCHES), *((FRAGMENT_FIRST, each) for each in _FIRSTS))
_LARGE_FORGERIES: Final = (
    b"\x92\xa1n\xdb" + struct.pack(">I", 400) + b"y" * 400,
    b"\x92\xa1n\xdb" + struct.pack(">I", 2**32 - 1) + b"y" * 400,
    b"\x92\xd9\xff" + b"n" * 255 + b"\x01",
    b"\x92\xa1n" + b"\x91" * 600 + b"\x01",
    # Deeper than any stack that is left, and far from where that begins.
    b"\x92\xa1n" + b"\x91" * 1700 + b"\x01",
    b"\x92\xa1n" + b"\x81\x01" * 850 + b"\x01",
    b"\x92\xa1n\xc6" + struct.pack(">I", MAX_MESSAGE_BYTES - 8) + bytes(MAX_MESSAGE_BYTES - 8),
    b"\x92\xa1n\xc6" + struct.pack(">I", MAX_MESSAGE_BYTES - 7) + bytes(MAX_MESSAGE_BYTES - 7),
    b"\x92\xa1n" + b"\x92\x01\x02" * 200,
    # Extra of 1,024 bytes, and of one more.
    *(b"\x93\xa1n\x01\x81\xa1k\xc5" + struct.pack(">H", size) + bytes(size) for size in (1018, 1019)),
    bytes(300),
)


def _run(cookie: bytes, max_packet_bytes: int) -> Run:
    rng = random.Random(cookie)
    meanings: dict[bytes, bytes] = {}
    shipments = {
        sender: tuple(
            _ship(rng, cookie, sender, max_packet_bytes, meanings) for _ in range(SHIPMENTS_PER_SENDER)
        )
        for sender in SENDERS
    }
    junk = _junk(rng, cookie, max_packet_bytes)
    return Run(cookie, max_packet_bytes, shipments, junk, _FORGERIES, _LARGE_FORGERIES, meanings)


# A cookie is random; these are the ones that are hardest to search for: one
# that overlaps itself and is MessagePack, one that looks like padding.
RUNS: Final = (
    _run(b"\x9e\x01cook\xff\x00", MIN_PACKET_BYTES),
    _run(b"\xa1n\xa1n\xa1n\xa1n", MIN_PACKET_BYTES),
    _run(bytes(8), 200),
    _run(b"\xdc\x00\x01\x92\xa1nab", 512),
)
