"""Forgery: packets with the cookie and a right CRC that no sender wrote.

Law: a writer with the cookie is trusted code, so its messages may arrive in the name that it chose. But
nothing that it writes raises, takes memory beyond the bounds, or costs another sender a message.
"""

from __future__ import annotations

from typing import Final

from asgi_ipc.wire.packet import BATCH, COPIED, FRAGMENT_FIRST, FRAGMENT_MORE, HEADER_BYTES, PLACED
from tests.faults.fuzzing.script import Change, Decisions, Script, flip_bit
from tests.faults.fuzzing.wire import RECEIVER, SENDERS, SHIPMENTS_PER_SENDER, STRANGER, forge, head, seal

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


def _change_field(decisions: Decisions, fields: list[int]) -> None:
    which = decisions.byte() % 6
    choice = decisions.byte()
    near = choice % 9 - 4
    match which:
        case 0:
            fields[0] = _LENGTHS[choice % 5] if choice & 0x80 else max(0, fields[0] + near)
        case 1:
            fields[1] = _KINDS[choice % len(_KINDS)]
        case 2:
            fields[2] = _NAMES[choice % len(_NAMES)]
        case 3:
            fields[3] = _NAMES[choice % len(_NAMES)]
        case _:
            fields[4] = _number(fields[4], choice)


def _number(near: int, choice: int) -> int:
    """A packet number: mostly a little off, sometimes far."""
    return (
        _NUMBERS[choice % len(_NUMBERS)] if choice & 0xC0 == 0xC0 else max(0, near + choice % 9 - 4) % 2**64
    )


def change_field(script: Script, decisions: Decisions) -> None:
    """Change a field of a header, with or without the CRC that it needs."""
    if (at := script.target(decisions)) < 0:
        return
    write = script.writes[at]
    fields = _fields(write)
    length = fields[0]
    keeps_crc = decisions.byte() & 3 == 0
    cookie = script.run.junk[decisions.byte() % 8].ljust(8, b"?") if decisions.byte() == 255 else write[:8]
    if not keeps_crc:
        script.forged.add(fields[2])
        script.touched.add(fields[2])
    _change_field(decisions, fields)
    front = head(cookie, *fields)
    if keeps_crc:
        script.replace(at, front + write[28:])
        return
    script.forged.add(fields[2])
    script.touched.add(fields[2])
    # A shorter length leaves the rest behind the packet; a longer one claims what follows.
    end = fields[0] if HEADER_BYTES <= fields[0] <= length else len(write)
    script.replace(at, seal(front, write[HEADER_BYTES:end]) + write[end:])


def change_payload(script: Script, decisions: Decisions) -> None:
    if (at := script.target(decisions)) < 0:
        return
    write = script.writes[at]
    _, kind, sender, receiver, number = _fields(write)
    payload = write[HEADER_BYTES:]
    how = decisions.byte() & 3
    if how == 0 and payload:
        payload = flip_bit(payload, decisions)
    elif how == 1:
        payload = payload[: decisions.below(len(payload) + 1)]
    elif how == 2:
        place = decisions.below(len(payload) + 1)
        payload = payload[:place] + decisions.raw(1 + decisions.byte() % 8) + payload[place:]
    else:
        total = _TOTALS[decisions.byte() % len(_TOTALS)].to_bytes(4, "little")
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


def _identity(script: Script, decisions: Decisions) -> tuple[int, int, int]:
    """In whose name a forger writes, with which number, and where."""
    at = script.place(decisions)
    sender = _NAMES[decisions.byte() % len(_NAMES)]
    near = _fields(script.writes[at - 1])[4] if at and len(script.writes[at - 1]) >= HEADER_BYTES else 0
    return sender, _number(near, decisions.byte()), at


def forge_packet(script: Script, decisions: Decisions) -> None:
    sender, number, at = _identity(script, decisions)
    kind, payload = script.run.forgeries[decisions.byte() % len(script.run.forgeries)]
    choice = decisions.byte()
    if choice & 0xE0 == 0:
        kind = _KINDS[choice % 5]
    _insert_forged(script, at, sender, forge(script.run.cookie, sender, RECEIVER, number, kind, payload))


def forge_raw(script: Script, decisions: Decisions) -> None:
    """The payload itself is decided: where a guided fuzzer learns MessagePack."""
    sender, number, at = _identity(script, decisions)
    payload = decisions.raw(decisions.byte() % 48)
    if decisions.byte() & 1:
        payload = b"\xdc\x00\x01\x92\xa1n" + payload
    _insert_forged(script, at, sender, forge(script.run.cookie, sender, RECEIVER, number, BATCH, payload))


def forge_fragments(script: Script, decisions: Decisions) -> None:
    run = script.run
    sender, number, at = _identity(script, decisions)
    encoded = run.large_forgeries[decisions.byte() % len(run.large_forgeries)]
    choice = decisions.byte()
    total = len(encoded) if choice & 0xC0 else max(0, len(encoded) + choice % 9 - 4)
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


def embed(script: Script, decisions: Decisions) -> None:
    """A packet whose payload is a whole genuine one; sometimes its own header is broken."""
    sender, number, at = _identity(script, decisions)
    inner, inner_sender = script.source(decisions)
    script.touched.add(inner_sender)
    outer = forge(script.run.cookie, sender, RECEIVER, number, BATCH, inner)
    if decisions.byte() & 1:
        outer = flip_bit(outer[:HEADER_BYTES], decisions) + inner
    _insert_forged(script, at, sender, outer)


def replay(script: Script, decisions: Decisions) -> None:
    """Return a packet that the same sender wrote at another time."""
    sender = SENDERS[decisions.byte() % len(SENDERS)]
    shipment = script.run.shipments[sender][decisions.byte() % SHIPMENTS_PER_SENDER]
    at = script.place(decisions)
    first = decisions.byte() % len(shipment.packets)
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
