"""Seeds: the plan of each, and the nasty schedules that have a name.

Law: a named schedule only makes its event likely, by settings, acts and times; a probe sees whether it has
happened (see probes.py). So a name outlives every change of the product's turns.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Final

from tests.faults.simulation.plan import Act, Plan, plan
from tests.faults.simulation.probes import (
    DEATH_BEHIND_PAUSED_READER,
    LATE_ACKNOWLEDGEMENT,
    LEAVE_CROSSING_JOIN,
    PACKET_BEFORE_DESCRIPTOR,
)
from tests.faults.simulation.world import World

# Every so many seeds, one is shaped for a named event.
SHAPED_EVERY: Final = 10


def _packet_before_descriptor(plain: Plan) -> Plan:
    """A member stands still while another one joins, until it is given up; then the newcomer talks to it.

    When it goes on, its pipe and its lifeline are both readable, and it may read the pipe first.
    """
    return replace(
        plain,
        workers=3,
        hang_timeout_s=None,
        acts=(Act(0.1, "stop", 6.0), Act(0.12, "more")),
        traffic=replace(plain.traffic, talkers=2, verbs=6, pause_s=0.8, broadcast_chance=0.4, slow_s=0.0),
        deaths=0,
    )


def _leave_crossing_join(plain: Plan) -> Plan:
    """Some workers leave while others join, and a leaver has a turn under way when the newcomer is announced.

    Turns are slow for that, and all processes share one processor: at one small read a turn they carry some
    50 kB/s, and their messages must fit into the drain timeout.
    """
    traffic = plain.traffic
    return replace(
        plain,
        workers=4,
        acts=(
            *(Act(0.1 + place / 100, "more") for place in range(3)),
            Act(0.12, "fewer"),
            Act(0.15, "restart"),
        ),
        traffic=replace(
            traffic,
            talkers=2,
            verbs=3,
            pause_s=0.02,
            large_bytes=min(traffic.large_bytes, 6 * plain.packet_bytes),
        ),
        turn_s=0.002,
    )


def _death_behind_paused_reader(plain: Plan) -> Plan:
    """Readers pause at one message in flight, handlers are slow, and a worker is killed meanwhile."""
    bounds = copy(plain.bounds)
    bounds.in_flight = 1
    return replace(
        plain,
        bounds=bounds,
        traffic=replace(plain.traffic, talkers=2, verbs=6, pause_s=0.02, slow_s=0.1),
        acts=(Act(0.1, "kill"), Act(0.15, "kill")),
    )


def _late_acknowledgement(plain: Plan) -> Plan:
    """A member stands still for longer than a newcomer waits for its answer."""
    return replace(
        plain,
        workers=2,
        hang_timeout_s=None,
        acts=(Act(0.1, "stop", 6.0), Act(0.12, "more"), Act(0.13, "more")),
        deaths=0,
    )


NAMED: Final[dict[str, Callable[[Plan], Plan]]] = {
    PACKET_BEFORE_DESCRIPTOR: _packet_before_descriptor,
    LEAVE_CROSSING_JOIN: _leave_crossing_join,
    DEATH_BEHIND_PAUSED_READER: _death_behind_paused_reader,
    LATE_ACKNOWLEDGEMENT: _late_acknowledgement,
}


def plan_of(seed: int) -> Plan:
    """The plan of a seed: most are plain, some are shaped for a named event."""
    plain = plan(seed)
    if seed % SHAPED_EVERY:
        return plain
    shapes = list(NAMED.values())
    return shapes[seed // SHAPED_EVERY % len(shapes)](plain)


def find(name: str, tries: int = 50) -> World:
    """The first run of a named schedule in which its event is seen, or whatever fails before. LookupError."""
    for seed in range(tries):
        world = World(NAMED[name](plan(seed)))
        world.run()
        if world.events[name] or world.failures:
            return world
    raise LookupError(f"{name} is in none of {tries} seeds")
