"""Drawing: how a script comes of choices.

Law: hypothesis, or plain chance at a tenth of the time, chooses everything. The simplest script is one
sender's packets, read at once.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Final

from hypothesis import strategies as st

from tests.faults.fuzzing.damage import DAMAGES, STRAYS
from tests.faults.fuzzing.forgery import FORGERIES
from tests.faults.fuzzing.script import Change, Choices, Script
from tests.faults.fuzzing.wire import SENDERS

MAX_CHANGES: Final = 6
MAX_CUTS: Final = 5

# As many strays as damages and forgeries, so that most scripts leave some sender unharmed.
CHANGES: Final[tuple[Change, ...]] = STRAYS * 3 + DAMAGES + FORGERIES


_below = cache(lambda limit: st.integers(0, limit - 1))
_bytes = cache(lambda size: st.binary(min_size=size, max_size=size))


class _Drawn:
    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def below(self, limit: int) -> int:
        return self._draw(_below(limit))

    def raw(self, size: int) -> bytes:
        return self._draw(_bytes(size))


class _Random:
    def __init__(self, seed: str) -> None:
        source = random.Random(seed)
        self.below, self.raw = source.randrange, source.randbytes


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """A script that hypothesis chooses."""
    return _script(_Drawn(draw))


def random_script(seed: str) -> Script:
    """A script that plain chance chooses, the same for the same seed."""
    return _script(_Random(seed))


def _script(choices: Choices) -> Script:
    """A script of some senders' packets and some changes."""
    script = Script(choices)
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
