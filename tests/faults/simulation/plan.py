"""Plans: the settings, acts and faults of a seed.

Law: a plan is data, and the seed alone decides it. Bounds are small, so that
every limit of the product is reached by some tens of messages.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tests.faults.simulation.kernel import Limits

Step: TypeAlias = Literal["join word", "handover", "mid-fragment", "leaving", "EOF", "acknowledgement"]

# The steps of the protocol at which a worker is killed, and counted.
STEPS: Final[tuple[Step, ...]] = (
    "join word",
    "handover",
    "mid-fragment",
    "leaving",
    "EOF",
    "acknowledgement",
)

# Acts of an operator, or of the machine, on the fleet; "stop" is SIGSTOP.
Deed: TypeAlias = Literal[
    "restart",
    "more",
    "fewer",
    "terminate",
    "kill",
    "kill launcher",
    "stop",
    "stop launcher",
    "jump",
    "retire",
]


@dataclass(frozen=True, slots=True)
class Act:
    """One deed at a time of the virtual clock. `seconds`: how long, for stops and jumps."""

    when: float
    deed: Deed
    seconds: float = 0.0


class Bounds:
    """Limits of the product, which it has as constants of its modules: small ones, drawn by chance."""

    def __init__(self, chance: random.Random, page_bytes: int) -> None:
        self.outbox_bytes = chance.choice([3_000, 8_000, 1_000_000])
        # Some fleets have none; the smallest have room for a few blocks.
        self.arena_bytes = chance.choice([0, 1 << 13, 1 << 18])
        self.read_bytes = chance.choice([page_bytes // 4, page_bytes, 65536])
        self.word_read_bytes = chance.choice([7, 64, 65536])
        self.burst = chance.choice([1, 3, 64])
        self.in_flight = chance.choice([1, 3, 1000])
        self.messages_per_turn = chance.choice([1, 4, 256])
        self.budget_bytes = chance.choice([self.outbox_bytes, 3 * self.outbox_bytes])
        self.eager_bytes = chance.choice([500, 65536])
        self.unacknowledged = chance.choice([1, 2, 8])
        self.descriptors = chance.choice([2, 512])
        self.window_bytes = chance.choice([2_048, 1_000_000])
        self.acknowledged_bytes = chance.choice([1, 1_500, 100_000])
        self.block_bytes = chance.choice([300, 65_536])


@dataclass(frozen=True, slots=True)
class Traffic:
    """The messages of the app in each worker.

    Attributes:
        talkers: tasks that send while the worker serves.
        verbs: what each of them says, at most.
        pause_s: between two verbs, at most.
        large_chance, large_bytes: messages that take several packets.
        broadcast_chance: the rest goes to one worker.
        slow_s: how long a slow handler takes, at most.
    """

    talkers: int
    verbs: int
    pause_s: float
    large_chance: float
    large_bytes: int
    broadcast_chance: float
    slow_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one seed decides beforehand."""

    seed: int
    workers: int
    packet_bytes: int
    drain_timeout_s: float
    hang_timeout_s: float | None
    limits: Limits
    bounds: Bounds
    traffic: Traffic
    acts: tuple[Act, ...]
    # How long a turn takes, at most, and how often the same process goes on.
    turn_s: float
    sticky: float
    # How many die from within a call or between two turns, at which step (None: any), from when on.
    deaths: int
    death_step: Step | None
    death_chance: float
    deaths_from: float

    @property
    def has_stops(self) -> bool:
        """Return whether a process stands still longer than the others may wait."""
        return any(act.deed in ("stop", "stop launcher", "jump") for act in self.acts)


def plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    chance = random.Random(seed)
    page_bytes = chance.choice([256, 512, 512, 4096])
    packet_bytes = chance.choice([128, 200, page_bytes])
    horizon_s = chance.choice([0.05, 0.3, 1.0])
    bounds = Bounds(chance, page_bytes)
    return Plan(
        seed=seed,
        workers=chance.choice([2, 2, 3, 3, 3, 4, 5]),
        packet_bytes=packet_bytes,
        drain_timeout_s=10.0,
        hang_timeout_s=chance.choice([None, None, 4.5]),
        limits=Limits(
            page_bytes=page_bytes,
            pipe_pages=chance.choice([1, 2, 4, 16]),
            socket_bytes=chance.choice([400, 2000, 65536]),
            flight=chance.choice([2, 5, 500]),
            short_write_chance=chance.choice([0.0, 0.0, 0.05, 0.3]),
            truncate_chance=chance.choice([0.0, 0.0, 0.0, 0.1, 0.3]),
        ),
        bounds=bounds,
        traffic=_traffic(chance, packet_bytes, bounds.outbox_bytes, horizon_s),
        acts=tuple(_acts(chance, horizon_s)),
        turn_s=chance.choice([1e-6, 5e-5, 5e-4]),
        sticky=chance.choice([0.0, 0.5, 0.9]),
        deaths=chance.choice([0, 1, 1, 1, 2]),
        death_step=chance.choice([None, *STEPS]),
        death_chance=chance.choice([0.02, 0.1, 0.5]),
        deaths_from=chance.choice([0.0, horizon_s / 2]),
    )


def _traffic(chance: random.Random, packet_bytes: int, outbox_bytes: int, horizon_s: float) -> Traffic:
    verbs = chance.choice([2, 3, 6])
    return Traffic(
        talkers=chance.choice([1, 2]),
        verbs=verbs,
        pause_s=2 * horizon_s / verbs,
        large_chance=chance.choice([0.0, 0.1, 0.3]),
        # An outbox takes the largest message and another one; see worker/ipc.py.
        large_bytes=min(chance.choice([3, 6, 30]) * packet_bytes, 30_000, outbox_bytes // 2),
        broadcast_chance=chance.choice([0.1, 0.4]),
        slow_s=chance.choice([0.0, 0.002, 0.1]),
    )


def _acts(chance: random.Random, horizon_s: float) -> list[Act]:
    acts = []
    deeds: list[Deed] = ["restart", "more", "fewer", "retire", "kill", "stop", "terminate"]
    for _ in range(chance.choice([0, 1, 1, 2, 3])):
        deed = chance.choice(deeds)
        seconds = chance.choice([0.002, 0.05, 1.0, 6.0]) if deed == "stop" else 0.0
        acts.append(Act(chance.uniform(0.0, horizon_s), deed, seconds))
    rare = chance.random()
    when = chance.uniform(0.0, horizon_s)
    if rare < 0.08:
        acts.append(Act(when, "kill launcher"))
    elif rare < 0.12:
        acts.append(Act(when, "jump", chance.choice([0.7, 4.0, 20.0])))
    elif rare < 0.16:
        acts.append(Act(when, "stop launcher", chance.choice([0.05, 0.7, 6.0])))
    return sorted(acts, key=lambda act: act.when)
