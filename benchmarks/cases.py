"""Cases: the list of measurements.

Law: a shape is one line of SHAPES. Nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.control import Handler, Pattern, Verb

KIB: Final = 1024
MIB: Final = 1024 * KIB

SIZES: Final = {"10B": 10, "1KiB": KIB, "10KiB": 10 * KIB, "1MiB": MIB}

# Cases that share a fleet take turns on it. One to one and round trips need two
# parties, and a third that makes the load.
PAIR: Final = 3

# The rate of another worker while round trips are timed "under load".
LOAD_PER_S: Final = 10_000


# How many others are asked at once.
ASKED: Final = (4, 16)

# How many subscribers of one worker have all taken what another one publishes.
SUBSCRIPTIONS: Final = (1, 100, 10_000)

# How cost grows: every worker in turn broadcasts a burst to all others, as if it told them of a request that
# it has served. The more workers there are, the longer each pauses: all receive the same number of messages a
# second at any size, in packets of as many, and about as many deliveries go out of each.
GROWTH: Final = (2, 4, 8, 16, 32, 64)
BURST: Final = 20
RECEIVED_PER_S: Final = 2_000


@dataclass(frozen=True, slots=True)
class Shape:
    """Senders, receivers and amounts.

    Attributes:
        fleet: how many processes there are.
        parties: how many of them take part.
        one_cpu: all of them on the same CPU.
        load_per_s: what the third sends to the second meanwhile.
        burst: messages that each sender sends at once before it pauses; 0 for no pause.
        pause_s: from one burst of a sender to its next.
        asks_all: a round trip is a question to all others, until the last has answered.
        subscriptions: a round trip is a publication, until so many subscribers of the other have taken it
            and the last of them has answered; and how many subscribe to other topics there.
    """

    name: str
    pattern: Pattern
    fleet: int
    parties: int
    size_bytes: int
    one_cpu: bool = False
    load_per_s: int = 0
    burst: int = 0
    pause_s: float = 0.0
    asks_all: bool = False
    subscriptions: int = 0
    other_subscriptions: int = 0

    @property
    def is_ours_alone(self) -> bool:
        """True if no peer is measured with this shape."""
        return bool(self.load_per_s or self.burst or self.asks_all or self.subscriptions)

    @property
    def is_round_trip(self) -> bool:
        """True if the case measures times, not a rate."""
        return self.pattern == "ask"


@dataclass(frozen=True, slots=True)
class Case:
    """A shape; and the verb and handler of the public API that it is done with, if that is measured."""

    shape: Shape
    verb: Verb = "own"
    handler: Handler = "plain"

    @property
    def name(self) -> str:
        """For the tables, and for --only."""
        parts = [self.shape.name, *[self.verb] * (self.verb != "own"), *["async"] * (self.handler == "async")]
        return "-".join(parts)


def _shapes() -> Iterator[Shape]:
    for size, size_bytes in SIZES.items():
        yield Shape(f"A-{size}", "one", PAIR, 2, size_bytes)
    for receivers in (5, 20):
        for size, size_bytes in SIZES.items():
            if size_bytes < MIB:
                yield Shape(f"B{receivers}-{size}", "each", receivers + 1, receivers + 1, size_bytes)
    yield Shape("B8-1MiB", "each", 9, 9, MIB)
    for size, size_bytes in SIZES.items():
        if size_bytes < MIB:
            yield Shape(f"C4-{size}", "all", 4, 4, size_bytes)
    yield Shape("D-free", "ask", PAIR, 2, 10)
    yield Shape("D-one-cpu", "ask", PAIR, 2, 10, one_cpu=True)
    yield Shape("D-load", "ask", PAIR, 3, 10, load_per_s=LOAD_PER_S)
    for others in ASKED:
        yield Shape(f"H{others}", "ask", others + 1, 2, 10, asks_all=True)
    for count in SUBSCRIPTIONS:
        yield Shape(f"I-{count}", "ask", PAIR, 2, 10, subscriptions=count)
    yield Shape("I-1-of-10000", "ask", PAIR, 2, 10, subscriptions=1, other_subscriptions=9_999)
    for workers in GROWTH:
        yield Shape(
            f"G-{workers}", "all", workers, workers, 10, burst=BURST, pause_s=workers * BURST / RECEIVED_PER_S
        )


SHAPES: Final = tuple(_shapes())


def _cases() -> Iterator[Case]:
    for shape in SHAPES:
        if shape.asks_all:
            yield Case(shape, "gather")
            continue
        if shape.subscriptions:
            yield Case(shape, "publish")
            continue
        yield Case(shape, "nowait")
        if shape.burst:
            continue
        yield Case(shape, "await")
        if shape.is_round_trip:
            yield Case(shape, "request")
        else:
            yield Case(shape, "nowait", "async")


# Verb and handler vary independently, so async handlers are measured with one verb only. In round trips
# `await` has an async handler that awaits its reply, and `nowait` a plain one.
CASES: Final = tuple(_cases())
