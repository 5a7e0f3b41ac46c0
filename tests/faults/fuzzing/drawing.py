"""Drawing: decisions to a script.

Law: the same decisions draw the same script, in every process and on every
machine. A decision is one byte where that is enough, so that a mutation of
the bytes changes one thing.
"""

from __future__ import annotations

from typing import Final

from tests.faults.fuzzing.damage import DAMAGES, STRAYS
from tests.faults.fuzzing.forgery import FORGERIES
from tests.faults.fuzzing.script import Change, Decisions, Script
from tests.faults.fuzzing.wire import SENDERS, SHIPMENTS_PER_SENDER

MAX_CHANGES: Final = 6
MAX_CUTS: Final = 5

# As many strays as damages and forgeries, so that most scripts leave some sender unharmed.
CHANGES: Final[tuple[Change, ...]] = STRAYS * 3 + DAMAGES + FORGERIES


def build(source: bytes) -> Script:
    """The script that these decisions make."""
    decisions = Decisions(source)
    first = decisions.byte()
    script = Script(first & 3)
    script.drains_lie = first & 0x1C == 0x1C
    _interleave(script, decisions, 1 + (first >> 5) % len(SENDERS))
    for _ in range(decisions.below(MAX_CHANGES + 1)):
        CHANGES[decisions.byte() % len(CHANGES)](script, decisions)
    _cut_into_reads(script, decisions)
    return script


def _interleave(script: Script, decisions: Decisions, senders: int) -> None:
    sources = script.sources
    queues: list[list[tuple[bytes, int]]] = []
    for sender in SENDERS[:senders]:
        shipment = script.run.shipments[sender][decisions.byte() % SHIPMENTS_PER_SENDER]
        script.sent[sender] = shipment.deliveries
        queues.append([(packet, sender) for packet in reversed(shipment.packets)])
    turns = decisions.byte() | decisions.byte() << 8
    while len(queues) > 1:
        turn = turns % len(queues)
        turns = turns >> 1 | (turns & 1) << 15
        queue = queues[turn]
        sources.append(queue.pop())
        if not queue:
            del queues[turn]
    sources += reversed(queues[0])
    script.writes += [packet for packet, _ in sources]
    script.owners += [sender for _, sender in sources]


def _cut_into_reads(script: Script, decisions: Decisions) -> None:
    ends = [0]
    for write in script.writes:
        ends.append(ends[-1] + len(write))
    total = ends[-1]
    reads = script.reads
    for _ in range(decisions.below(MAX_CUTS + 1)):
        how = decisions.byte()
        if how & 1:
            # A pipe can only be empty between two writes.
            reads.append((ends[decisions.byte() % len(ends)], how & 2 != 0))
        else:
            place = (how >> 2 << 8 | decisions.byte()) % (total + 1)
            reads.append((place, how & 2 != 0 and script.drains_lie))
    reads.sort()
    if decisions.byte() & 1:
        # The rest comes first, and that there is no more is seen later.
        reads.append((total, False))
    reads.append((total, True))
