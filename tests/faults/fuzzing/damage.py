"""Strays and damage: foreign bytes in a pipe, and changes to a packet, without a forger's right CRC.

Law: a stray harms no sender, or it is no stray. It is made of genuine packets as they were sent, never of
changed ones.
"""

from __future__ import annotations

from typing import Final

from tests.faults.fuzzing.script import Change, Script
from tests.faults.fuzzing.wire import PEERS


def stray_junk(script: Script) -> None:
    script.insert(script.place(), script.pick(script.run.junk), 0)


def stray_raw(script: Script) -> None:
    # Shorter than a header, so that no guided fuzzer writes a packet here.
    script.insert(script.place(), script.raw(1 + script.below(16)), 0)


def stray_cut(script: Script) -> None:
    packet, sender = script.source()
    script.insert(script.place(), packet[: 1 + script.below(len(packet) - 1)], sender)


def stray_flipped(script: Script) -> None:
    packet, sender = script.source()
    script.insert(script.place(), script.flip_bit(packet), sender)


def stray_burst(script: Script) -> None:
    packet, sender = script.source()
    stray = packet[: 1 + script.below(len(packet) - 1)]
    at = script.place()
    for _ in range(2 + script.below(7)):
        script.insert(at, stray, sender)


def repeat_later(script: Script) -> None:
    if script.writes:
        at = script.below(len(script.writes))
        later = at + 1 + script.below(len(script.writes) - at)
        script.insert(later, script.writes[at], script.owners[at])


# --- damage, which costs its owners messages


def flip(script: Script) -> None:
    if (at := script.target()) >= 0:
        script.replace(at, script.flip_bit(script.writes[at]))


def cut(script: Script) -> None:
    if (at := script.target()) >= 0:
        script.replace(at, script.writes[at][: script.below(len(script.writes[at]))])


def drop(script: Script) -> None:
    if (at := script.target()) >= 0:
        script.replace(at, b"")
        del script.writes[at], script.owners[at]


def repeat_anywhere(script: Script) -> None:
    if (at := script.target()) >= 0:
        script.touched.add(script.owners[at])
        script.insert(script.place(), script.writes[at], script.owners[at])


def swap(script: Script) -> None:
    if (at := script.target()) >= 0 and (other := script.target()) >= 0:
        writes, owners = script.writes, script.owners
        writes[at], writes[other] = writes[other], writes[at]
        owners[at], owners[other] = owners[other], owners[at]
        script.touched |= {script.owners[at], script.owners[other]}


def splice(script: Script) -> None:
    """Write something in the middle of a write, as no atomic one could be."""
    if (at := script.target()) >= 0:
        write = script.writes[at]
        place = script.below(len(write) + 1)
        if script.chance():
            inside, sender = script.source()
            script.touched.add(sender)
        else:
            inside = script.pick(script.run.junk)
        script.replace(at, write[:place] + inside + write[place:])


def tail(script: Script) -> None:
    packet, sender = script.source()
    script.touched.add(sender)
    script.insert(script.place(), packet[script.below(len(packet)) :], sender)


def join_halves(script: Script) -> None:
    if (at := script.target()) >= 0:
        write = script.writes[at]
        packet, sender = script.source()
        script.touched.add(sender)
        script.replace(at, write[: script.below(len(write))] + packet[script.below(len(packet)) :])


def overwrite(script: Script) -> None:
    if (at := script.target()) >= 0:
        write = script.writes[at]
        place = script.below(len(write))
        content = script.raw(1 + script.below(8))
        script.replace(at, write[:place] + content + write[place + len(content) :])
        # A guided fuzzer learns the right CRC from the comparison, and may name any sender.
        script.touched.update(PEERS)
        script.forged.update(PEERS)


STRAYS: Final[tuple[Change, ...]] = (
    stray_junk,
    stray_raw,
    stray_cut,
    stray_flipped,
    stray_burst,
    repeat_later,
)
DAMAGES: Final[tuple[Change, ...]] = (
    flip,
    cut,
    drop,
    repeat_anywhere,
    swap,
    splice,
    tail,
    join_halves,
    overwrite,
)
