"""References: the same work again must leave no object behind that it made.

    python3.11-dbg -m tests.wire.references

A debug build of Python checks the count of each object, too. The total of these says nothing: msgspec's
wheel is no debug build, and does not add to it. So blocks of memory are counted: an object that is lost keeps
its own.

Law: the work meets every compiled module of the wire, with what is right and with what is not.
"""

from __future__ import annotations

import gc
import sys
from itertools import pairwise
from typing import Any, Final

from asgi_ipc import engine
from asgi_ipc.wire.outbox import Budget, Outbox
from asgi_ipc.wire.packet import PacketParser
from asgi_ipc.wire.packetizer import Route
from asgi_ipc.wire.payload import batch_capacity_bytes
from asgi_ipc.wire.reassembler import Reassembler
from tests.encoding import accept, encode_message, large
from tests.faults.fuzzing.wire import MAX_MESSAGE_BYTES, RECEIVER, RUNS, SENDERS, forge

ROUNDS: Final = 5
REPEATS: Final = 20

# Caches of the interpreter may take some more; a leak loses at least REPEATS in each round.
NOISE: Final = REPEATS // 2


def work() -> None:
    """Send, damage, find and read what the fuzzer's runs are made of."""
    for run in RUNS:
        packets = [packet for each in run.shipments[SENDERS[0]][:4] for packet in each.packets]
        forged = [
            forge(run.cookie, SENDERS[1], RECEIVER, number, kind, payload)
            for number, (kind, payload) in enumerate(run.forgeries)
        ]
        parser = PacketParser(run.cookie, run.max_packet_bytes)
        reassembler = Reassembler(MAX_MESSAGE_BYTES)
        for chunk in (*packets, *run.junk, *forged):
            for half in (chunk[:20], chunk[20:]):
                parser.feed(half)
                while parser.find(False):
                    accept(reassembler, parser)
        reassembler.close()
        outbox = Outbox(Route(run.cookie, 1, 2, run.max_packet_bytes), Budget())
        for size in (1, 60, 300, 1500):
            encoded = encode_message("name", bytes(size), MAX_MESSAGE_BYTES)
            fits = len(encoded) <= batch_capacity_bytes(run.max_packet_bytes)
            outbox.offer(encoded if fits else large(encoded))
        while outbox.next_packet() is not None:
            outbox.written()
        outbox.close()


def growth(kept: list[Any] | None = None) -> list[int]:
    """Blocks of memory that each round has left behind. `kept` takes one more of each repeat."""
    totals: list[int] = []
    for _ in range(ROUNDS + 2):
        for _ in range(REPEATS):
            work()
            if kept is not None:
                kept.append(object())
        gc.collect()
        totals.append(sys.getallocatedblocks())
    # The first rounds fill caches.
    return [after - before for before, after in pairwise(totals[1:])]


def main() -> int:
    """1 if objects are lost, or if a loss would not be seen."""
    left, seen = growth(), growth([])
    sys.stdout.write(
        f"blocks left by each round, {engine.name()}: {left}; with one lost on purpose: {seen}\n"
    )
    return int(sorted(left)[ROUNDS // 2] > NOISE or sorted(seen)[ROUNDS // 2] <= NOISE)


if __name__ == "__main__":
    sys.exit(main())
