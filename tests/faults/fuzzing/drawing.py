"""Drawing: the strategy of scripts.

Law: hypothesis chooses everything; the simplest script is one sender's packets, read at once.
"""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from tests.faults.fuzzing.damage import DAMAGES, STRAYS
from tests.faults.fuzzing.forgery import FORGERIES
from tests.faults.fuzzing.script import Change, Script
from tests.faults.fuzzing.wire import SENDERS

MAX_CHANGES: Final = 6
MAX_CUTS: Final = 5

# As many strays as damages and forgeries, so that most scripts leave some sender unharmed.
CHANGES: Final[tuple[Change, ...]] = STRAYS * 3 + DAMAGES + FORGERIES


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """A script of some senders' packets and some changes."""
    script = Script(draw)
    script.drains_lie = script.chance(8)
    _interleave(script, 1 + script.below(len(SENDERS)))
    # Asked each time, so that hypothesis can leave one out of the middle.
    while len(script.changes) < MAX_CHANGES and script.below(4):
        change = script.pick(CHANGES)
        script.changes.append(change.__name__)
        change(script)
    _cut_into_reads(script)
    return script


def _interleave(script: Script, senders: int) -> None:
    sources = script.sources
    queues: list[list[tuple[bytes, int]]] = []
    for sender in SENDERS[:senders]:
        shipment = script.pick(script.run.shipments[sender])
        script.sent[sender] = shipment.deliveries
        queues.append([(packet, sender) for packet in reversed(shipment.packets)])
    # One number for all turns: a choice for each packet would be most of what is drawn.
    turns = script.below(2**16)
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


def _cut_into_reads(script: Script) -> None:
    ends = [0]
    for write in script.writes:
        ends.append(ends[-1] + len(write))
    total = ends[-1]
    reads = script.reads
    for _ in range(script.below(MAX_CUTS + 1)):
        drained = script.chance()
        if script.chance():
            # A pipe can only be empty between two writes.
            reads.append((script.pick(ends), drained))
        else:
            reads.append((script.below(total + 1), drained and script.drains_lie))
    reads.sort()
    if script.chance():
        # The rest comes first, and that there is no more is seen later.
        reads.append((total, False))
    reads.append((total, True))
