"""Strays and damage: foreign bytes in a pipe, and changes to a packet, without a forger's right CRC.

Law: a stray harms no sender, or it is no stray. It is made of genuine packets as they were sent, never of
changed ones.
"""

from __future__ import annotations

from typing import Final

from tests.faults.fuzzing.script import Change, Decisions, Script, flip_bit
from tests.faults.fuzzing.wire import PEERS


def stray_junk(script: Script, decisions: Decisions) -> None:
    junk = script.run.junk
    script.insert(script.place(decisions), junk[decisions.byte() % len(junk)], 0)


def stray_raw(script: Script, decisions: Decisions) -> None:
    # Shorter than a header, so that no guided fuzzer writes a packet here.
    script.insert(script.place(decisions), decisions.raw(1 + decisions.byte() % 16), 0)


def stray_cut(script: Script, decisions: Decisions) -> None:
    packet, sender = script.source(decisions)
    script.insert(script.place(decisions), packet[: 1 + decisions.below(len(packet) - 1)], sender)


def stray_flipped(script: Script, decisions: Decisions) -> None:
    packet, sender = script.source(decisions)
    script.insert(script.place(decisions), flip_bit(packet, decisions), sender)


def stray_burst(script: Script, decisions: Decisions) -> None:
    packet, sender = script.source(decisions)
    stray = packet[: 1 + decisions.below(len(packet) - 1)]
    at = script.place(decisions)
    for _ in range(2 + decisions.byte() % 7):
        script.insert(at, stray, sender)


def repeat_later(script: Script, decisions: Decisions) -> None:
    if script.writes:
        at = decisions.byte() % len(script.writes)
        later = at + 1 + decisions.byte() % (len(script.writes) - at)
        script.insert(later, script.writes[at], script.owners[at])


# --- damage, which costs its owners messages


def flip(script: Script, decisions: Decisions) -> None:
    if (at := script.target(decisions)) >= 0:
        script.replace(at, flip_bit(script.writes[at], decisions))


def cut(script: Script, decisions: Decisions) -> None:
    if (at := script.target(decisions)) >= 0:
        script.replace(at, script.writes[at][: decisions.below(len(script.writes[at]))])


def drop(script: Script, decisions: Decisions) -> None:
    if (at := script.target(decisions)) >= 0:
        script.replace(at, b"")
        del script.writes[at], script.owners[at]


def repeat_anywhere(script: Script, decisions: Decisions) -> None:
    if (at := script.target(decisions)) >= 0:
        script.touched.add(script.owners[at])
        script.insert(script.place(decisions), script.writes[at], script.owners[at])


def swap(script: Script, decisions: Decisions) -> None:
    if (at := script.target(decisions)) >= 0 and (other := script.target(decisions)) >= 0:
        writes, owners = script.writes, script.owners
        writes[at], writes[other] = writes[other], writes[at]
        owners[at], owners[other] = owners[other], owners[at]
        script.touched |= {script.owners[at], script.owners[other]}


def splice(script: Script, decisions: Decisions) -> None:
    """Write something in the middle of a write, as no atomic one could be."""
    if (at := script.target(decisions)) >= 0:
        write = script.writes[at]
        place = decisions.below(len(write) + 1)
        if decisions.byte() & 1:
            inside, sender = script.source(decisions)
            script.touched.add(sender)
        else:
            inside = script.run.junk[decisions.byte() % len(script.run.junk)]
        script.replace(at, write[:place] + inside + write[place:])


def tail(script: Script, decisions: Decisions) -> None:
    packet, sender = script.source(decisions)
    script.touched.add(sender)
    script.insert(script.place(decisions), packet[decisions.below(len(packet)) :], sender)


def join_halves(script: Script, decisions: Decisions) -> None:
    if (at := script.target(decisions)) >= 0:
        write = script.writes[at]
        packet, sender = script.source(decisions)
        script.touched.add(sender)
        script.replace(at, write[: decisions.below(len(write))] + packet[decisions.below(len(packet)) :])


def overwrite(script: Script, decisions: Decisions) -> None:
    if (at := script.target(decisions)) >= 0:
        write = script.writes[at]
        place = decisions.below(len(write))
        content = decisions.raw(1 + decisions.byte() % 8)
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
