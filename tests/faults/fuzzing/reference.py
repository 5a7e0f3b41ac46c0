"""The reference: the packets of a stream and their messages, computed in another way.

Law: written from the rules, not from the code. The parser and the reassembler go forward and remember; this
file looks at the whole stream at once. It uses the same library only to decode MessagePack, without types,
and only for payloads of forgers.
"""

from __future__ import annotations

import struct
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from asgi_ipc.wire.message import MAX_EXTRA_BYTES, MAX_EXTRA_KEYS
from asgi_ipc.wire.packet import BATCH, COPIED, FRAGMENT_FIRST, FRAGMENT_MORE, HEADER_BYTES, PLACED
from tests.encoding import Message
from tests.faults.fuzzing.wire import MAX_MESSAGE_BYTES, Run, canonical

_ext: Final = msgspec.msgpack.Ext
_decode: Final = msgspec.msgpack.Decoder().decode
_parts: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_HEADER: Final = struct.Struct("<8sHBxIIQI")
_TOTAL_BYTES: Final = 4
# The units that COPIED and PLACED carry, once or several times.
_SERIAL_BYTES: Final = 8
_PLACE_BYTES: Final = 16
_ONE_MESSAGE: Final = b"\xdc\x00\x01"


class Found(NamedTuple):
    """A packet of the stream, field by field as the parser gives it."""

    sender: int
    receiver: int
    number: int
    kind: int
    payload: bytes


@dataclass(slots=True)
class Scan:
    """The expected result of the parser."""

    packets: list[Found]
    # The place of each packet in the stream.
    places: list[int]
    # How many of them are due at each read that emptied the pipe.
    due: list[int]
    skips: int
    skipped_bytes: int


def scan(run: Run, stream: bytes, reads: list[tuple[int, bool]]) -> Scan:
    """The packets of a stream: from the left, none across a read that emptied the pipe."""
    packets: list[Found] = []
    places: list[int] = []
    due: list[int] = []
    cookie, largest = run.cookie, run.max_packet_bytes
    taken = taken_until = skips = position = 0
    for end, drained in reads:
        if not drained:
            continue
        position = stream.find(cookie, position, end)
        while 0 <= position <= end - HEADER_BYTES:
            _, length, kind, sender, receiver, number, crc = _HEADER.unpack_from(stream, position)
            stop = position + length
            if (
                HEADER_BYTES <= length <= largest
                and stop <= end
                and BATCH <= kind <= COPIED
                and zlib.crc32(stream[position : position + 28] + stream[position + 32 : stop]) == crc
            ):
                payload = stream[position + HEADER_BYTES : stop]
                packets.append(Found(sender, receiver, number, kind, payload))
                places.append(position)
                skips += position > taken_until
                taken += length
                taken_until = stop
                position = stream.find(cookie, stop, end)
            else:
                position = stream.find(cookie, position + 1, end)
        position = end
        due.append(len(packets))
    skips += len(stream) > taken_until
    return Scan(packets, places, due, skips, len(stream) - taken)


def completed_by_chance(found: Scan, writes: list[bytes], owners: list[int]) -> set[int]:
    """Return the senders that may lose packets because the next write's first bytes completed a cut one.

    When the missing bytes equal the first bytes of the next write, the stream holds the cut packet whole, and
    the next write seems to begin later. The bytes do not show that both shared them.
    """
    harmed: set[int] = set()
    for packet, place in zip(found.packets, found.places, strict=True):
        stop = place + HEADER_BYTES + len(packet.payload)
        start = 0
        for write, owner in zip(writes, owners, strict=True):
            end = start + len(write)
            if start <= place < end < stop:
                harmed.add(packet.sender)
            elif place < start < stop:
                harmed.add(owner)
            start = end
    return harmed


class Delivery(NamedTuple):
    """The delivery that one packet caused."""

    sender: int
    number: int
    messages: bytes


@dataclass(slots=True)
class Expectation:
    """The expected deliveries, drops and partial bytes of the reassembler."""

    deliveries: list[Delivery]
    partial_bytes: int = 0
    drops: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def expect(run: Run, packets: list[Found]) -> Expectation:
    """Return the expectation for the packets that reach the reassembler, in their order."""
    senders: dict[int, list[tuple[int, Found]]] = {}
    for index, packet in enumerate(packets):
        senders.setdefault(packet.sender, []).append((index, packet))
    expectation = Expectation([])
    delivered: list[tuple[int, Delivery]] = []
    for own in senders.values():
        _expect_of_one(run, _without_repeats(own, expectation.drops), delivered, expectation)
    delivered.sort()
    expectation.deliveries = [delivery for _, delivery in delivered]
    return expectation


def _without_repeats(own: list[tuple[int, Found]], drops: dict[str, int]) -> list[tuple[int, Found]]:
    highest = -1
    counting = []
    for entry in own:
        number = entry[1].number
        if number <= highest:
            drops["repeat"] += 1
            continue
        if number > highest + 1:
            drops["gap"] += number - highest - 1
        highest = number
        counting.append(entry)
    return counting


def _expect_of_one(
    run: Run,
    own: list[tuple[int, Found]],
    delivered: list[tuple[int, Delivery]],
    expectation: Expectation,
) -> None:
    drops = expectation.drops
    # The number of a piece that would continue what was dropped already.
    excused = -1
    at = 0
    while at < len(own):
        index, packet = own[at]
        follows = packet.number == (own[at - 1][1].number + 1 if at else 0)
        at += 1
        if packet.kind == FRAGMENT_MORE:
            if follows and packet.number != excused:
                # It continues nothing.
                drops["corrupt"] += 1
            excused = packet.number + 1
            continue
        if packet.kind == COPIED:
            if len(packet.payload) % _SERIAL_BYTES:
                drops["corrupt"] += 1
            if not follows or packet.number == excused:
                excused = packet.number + 1
            continue
        if packet.kind == PLACED:
            # No arena is mapped here.
            places, rest = divmod(len(packet.payload), _PLACE_BYTES)
            if places or rest:
                drops["corrupt"] += 1 if rest else places
            excused = -1
            continue
        if packet.kind == BATCH:
            said = _meaning(run, packet.payload)
        else:
            total = int.from_bytes(packet.payload[:_TOTAL_BYTES], "little")
            excused = packet.number + 1
            if len(packet.payload) <= _TOTAL_BYTES or not total:
                drops["corrupt"] += 1
                continue
            if total > MAX_MESSAGE_BYTES:
                drops["too_large"] += 1
                continue
            pieces, at = _pieces(own, at, total, drops)
            encoded = b"".join(pieces)
            if len(encoded) < total and at == len(own):
                expectation.partial_bytes += len(encoded)
                continue
            if len(encoded) != total:
                drops["partial"] += 1
                excused = own[at - 1][1].number + 1
                continue
            excused = -1
            index, packet = own[at - 1]
            said = _meaning(run, _ONE_MESSAGE + encoded)
        says, spoilt = said
        if spoilt:
            drops["corrupt"] += spoilt
        if says:
            delivered.append((index, Delivery(packet.sender, packet.number, says)))


def _pieces(
    own: list[tuple[int, Found]], at: int, total: int, drops: dict[str, int]
) -> tuple[list[bytes], int]:
    """Return the payloads of the first fragment, before `at`, and its continuations; and the place behind.

    Acknowledgements may stand between them.
    """
    number = own[at - 1][1].number
    pieces = [own[at - 1][1].payload[_TOTAL_BYTES:]]
    have = len(pieces[0])
    while have < total and at < len(own):
        packet = own[at][1]
        number += 1
        if packet.number != number or packet.kind not in (FRAGMENT_MORE, COPIED):
            break
        if packet.kind == COPIED:
            if len(packet.payload) % _SERIAL_BYTES:
                drops["corrupt"] += 1
            at += 1
            continue
        pieces.append(packet.payload)
        have += len(packet.payload)
        at += 1
    return pieces, at


def _meaning(run: Run, payload: bytes) -> tuple[bytes, int]:
    """The messages that a payload says, canonically, b"" for none; and how many `corrupt` it counts.

    What is no batch counts one, and so does each message with an extra that is none.
    """
    known = run.meanings.get(payload)
    if known is not None:
        return known, 0
    messages: list[Message] = []
    spoilt = 0
    try:
        for encoded in _parts(payload):
            name, data, *extra = _parts(encoded)
            if len(extra) > 1:
                return b"", 1
            message = (_decode(name), _decode(data))
            if type(message[0]) is not str or _has_extension(message[1]):
                return b"", 1
            if extra and (carried := _extra(extra[0])) is None:
                spoilt += 1
                continue
            messages.append((*message, carried) if extra else message)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - whatever the library can't read is no batch
        return b"", 1
    return (canonical(messages) if messages else b""), spoilt


def _extra(encoded: msgspec.Raw) -> dict[str, Any] | None:
    """What a third part says, or None if it is no extra."""
    if len(bytes(encoded)) > MAX_EXTRA_BYTES:
        return None
    try:
        extra = _decode(encoded)
    except Exception:  # noqa: BLE001 - as above
        return None
    is_map = type(extra) is dict and len(extra) <= MAX_EXTRA_KEYS
    return extra if is_map and all(type(key) is str for key in extra) and not _has_extension(extra) else None


def _has_extension(data: Any) -> bool:
    """Return whether the data has an extension type other than the timestamp, which no sender can send."""
    rest = [data]
    while rest:
        each = rest.pop()
        if isinstance(each, _ext):
            return True
        if isinstance(each, dict):
            rest += each.keys()
            rest += each.values()
        elif isinstance(each, list):
            rest += each
    return False


assert FRAGMENT_FIRST == BATCH + 1 == FRAGMENT_MORE - 1, "scan() takes the kinds for a range"
