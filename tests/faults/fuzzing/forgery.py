"""Forgery: packets with the cookie and a right CRC that no sender wrote.

Law: a writer with the cookie is trusted code, so its messages may arrive in the name that it chose. But
nothing that it writes raises, takes memory beyond the bounds, or costs another sender a message.
"""

from __future__ import annotations

from typing import Final

from asgi_ipc.wire.packet import BATCH, COPIED, FRAGMENT_FIRST, FRAGMENT_MORE, HEADER_BYTES, PLACED
from tests.faults.fuzzing.script import Change, Script
from tests.faults.fuzzing.wire import RECEIVER, SENDERS, STRANGER, forge, head, seal

# Values for a header's fields, besides the near ones.
_NUMBERS: Final = (0, 1, 2, 2**31, 2**63, 2**64 - 1)
_TOTALS: Final = (0, 1, 100, 1999, 2000, 2001, 2**31, 2**32 - 1)
_KINDS: Final = (BATCH, FRAGMENT_FIRST, FRAGMENT_MORE, PLACED, COPIED, 0, 6, 255)
_NAMES: Final = (*SENDERS, RECEIVER, STRANGER)
_LENGTHS: Final = (0, 31, 32, 33, 0xFFFF)


def _fields(write: bytes) -> list[int]:
    """length, kind, sender, receiver, number"""
    number = int.from_bytes
    return [
        number(write[8:10], "little"),
        write[10],
        number(write[12:16], "little"),
        number(write[16:20], "little"),
        number(write[20:28], "little"),
    ]


def _change_field(script: Script, fields: list[int]) -> None:
    match script.below(6):
        case 0:
            near = max(0, fields[0] + script.below(9) - 4)
            fields[0] = script.pick(_LENGTHS) if script.chance() else near
        case 1:
            fields[1] = script.pick(_KINDS)
        case 2:
            fields[2] = script.pick(_NAMES)
        case 3:
            fields[3] = script.pick(_NAMES)
        case _:
            fields[4] = _number(script, fields[4])


def _number(script: Script, near: int) -> int:
    """A packet number: mostly a little off, sometimes far."""
    if script.chance(4):
        return script.pick(_NUMBERS)
    return max(0, near + script.below(9) - 4) % 2**64


def change_field(script: Script) -> None:
    """Change a field of a header, with or without the CRC that it needs."""
    if (at := script.target()) < 0:
        return
    write = script.writes[at]
    fields = _fields(write)
    length = fields[0]
    keeps_crc = script.chance(4)
    cookie = script.pick(script.run.junk[:8]).ljust(8, b"?") if script.chance(256) else write[:8]
    if not keeps_crc:
        script.forged.add(fields[2])
        script.touched.add(fields[2])
    _change_field(script, fields)
    front = head(cookie, *fields)
    if keeps_crc:
        script.replace(at, front + write[28:])
        return
    script.forged.add(fields[2])
    script.touched.add(fields[2])
    # A shorter length leaves the rest behind the packet; a longer one claims what follows.
    end = fields[0] if HEADER_BYTES <= fields[0] <= length else len(write)
    script.replace(at, seal(front, write[HEADER_BYTES:end]) + write[end:])


def change_payload(script: Script) -> None:
    if (at := script.target()) < 0:
        return
    write = script.writes[at]
    _, kind, sender, receiver, number = _fields(write)
    payload = write[HEADER_BYTES:]
    how = script.below(4)
    if how == 0 and payload:
        payload = script.flip_bit(payload)
    elif how == 1:
        payload = payload[: script.below(len(payload) + 1)]
    elif how == 2:
        place = script.below(len(payload) + 1)
        payload = payload[:place] + script.raw(1 + script.below(8)) + payload[place:]
    else:
        total = script.pick(_TOTALS).to_bytes(4, "little")
        payload = total + payload[4:]
    _forged(script, at, sender, forge(script.run.cookie, sender, receiver, number, kind, payload))


def _forged(script: Script, at: int, sender: int, write: bytes) -> None:
    script.touched.add(sender)
    script.forged.add(sender)
    script.replace(at, write)


def _insert_forged(script: Script, at: int, sender: int, write: bytes) -> None:
    script.insert(at, write, sender)
    script.touched.add(sender)
    script.forged.add(sender)


def _identity(script: Script) -> tuple[int, int, int]:
    """In whose name a forger writes, with which number, and where."""
    at = script.place()
    sender = script.pick(_NAMES)
    near = _fields(script.writes[at - 1])[4] if at and len(script.writes[at - 1]) >= HEADER_BYTES else 0
    return sender, _number(script, near), at


def forge_packet(script: Script) -> None:
    sender, number, at = _identity(script)
    kind, payload = script.pick(script.run.forgeries)
    if script.chance(8):
        kind = script.pick(_KINDS[:5])
    _insert_forged(script, at, sender, forge(script.run.cookie, sender, RECEIVER, number, kind, payload))


def forge_raw(script: Script) -> None:
    """The payload itself is decided: where a guided fuzzer learns MessagePack."""
    sender, number, at = _identity(script)
    payload = script.raw(script.below(48))
    if script.chance():
        payload = b"\xdc\x00\x01\x92\xa1n" + payload
    _insert_forged(script, at, sender, forge(script.run.cookie, sender, RECEIVER, number, BATCH, payload))


def forge_fragments(script: Script) -> None:
    run = script.run
    sender, number, at = _identity(script)
    encoded = script.pick(run.large_forgeries)
    total = max(0, len(encoded) + script.below(9) - 4) if script.chance(4) else len(encoded)
    payload = total.to_bytes(4, "little") + encoded
    room = run.max_packet_bytes - HEADER_BYTES
    kind = FRAGMENT_FIRST
    for start in range(0, len(payload), room):
        piece = payload[start : start + room]
        number %= 2**64
        _insert_forged(script, at, sender, forge(run.cookie, sender, RECEIVER, number, kind, piece))
        kind = FRAGMENT_MORE
        number += 1
        at += 1


def embed(script: Script) -> None:
    """A packet whose payload is a whole genuine one; sometimes its own header is broken."""
    sender, number, at = _identity(script)
    inner, inner_sender = script.source()
    script.touched.add(inner_sender)
    outer = forge(script.run.cookie, sender, RECEIVER, number, BATCH, inner)
    if script.chance():
        outer = script.flip_bit(outer[:HEADER_BYTES]) + inner
    _insert_forged(script, at, sender, outer)


def replay(script: Script) -> None:
    """Return a packet that the same sender wrote at another time."""
    sender = script.pick(SENDERS)
    shipment = script.pick(script.run.shipments[sender])
    at = script.place()
    first = script.below(len(shipment.packets))
    for packet in reversed(shipment.packets[first : first + 3]):
        _insert_forged(script, at, sender, packet)


FORGERIES: Final[tuple[Change, ...]] = (
    change_field,
    change_field,
    change_payload,
    change_payload,
    forge_packet,
    forge_packet,
    forge_raw,
    forge_fragments,
    embed,
    replay,
)
