"""Checks: promises while the fleet lives, after it has settled, and at the end.

Law: like the oracle, the checks see workers and launcher from outside. The oracle judges messages; this file
judges members, descriptors, joins and departures, and the launcher's answers.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from asgi_ipc.fleet.membership import Worker
from tests.faults.simulation.oracle import Offer

if TYPE_CHECKING:
    from tests.faults.simulation.program import Program
    from tests.faults.simulation.world import World


class Checks:
    """Look at one world, and report violations to `World.fail`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._joins: set[tuple[int, int]] = set()
        self._departures: set[tuple[int, int]] = set()
        self._leading: set[int] = set()

    # --- messages

    def heard(self, program: Program, sender: int, number: int, name: str, data: Any) -> None:
        """A handler was called."""
        world = self._world
        world.note("handles %s %d of w%d", name, number, sender)
        world.ledger.deliver(program.generation, sender, number, name, data)
        assert program.app is not None
        if (pid := program.app.ipc.sender) != world.programs[sender].process.pid:
            world.fail(f"w{program.generation} believes that a message of w{sender} comes from {pid}")
        if (sender, program.generation) in self._departures:
            world.fail(f"w{program.generation} handles a message of w{sender} after its on_leave")

    def due_to_hear(self, sender: Program) -> list[Program]:
        """Return the workers that must get a broadcast of `sender` now: all that have fully entered.

        A worker that gets no answer from the launcher goes on alone, with a warning.
        """
        if not sender.is_welcome:
            return []
        return [
            each
            for each in self._world.programs.values()
            if each.is_ready
            and each.has_entered
            and _is_there(each)
            and sender.generation not in each.missing
        ]

    def broadcast(self, sender: Program, offer: Offer, pids: Iterable[int], due: Iterable[Program]) -> None:
        """A broadcast has come back before its time was up."""
        if not self._world.parent.is_alive:
            return
        for each in due:
            if _is_there(each) and each.process.pid not in pids:
                self._world.fail(
                    f"broadcast {offer.number} of w{sender.generation} does not include w{each.generation}, "
                    "which has entered"
                )

    # --- who comes and goes

    def told_of_join(self, program: Program, worker: Worker) -> None:
        """`on_join` was called."""
        key = (program.generation, worker.generation)
        if key in self._joins:
            self._world.fail(f"w{key[0]} is told twice that w{key[1]} joins")
        self._joins.add(key)
        if self._world.ledger.has_delivered(worker.generation, program.generation):
            self._world.fail(f"w{key[0]} is told that w{key[1]} joins behind its first message")

    def told_of_leave(self, program: Program, worker: Worker, reason: str, lost: int) -> None:
        """`on_leave` was called."""
        world = self._world
        here, gone = program.generation, worker.generation
        world.note("is told that w%d has gone: %s, %d lost", gone, reason, lost)
        if (gone, here) in self._departures:
            world.fail(f"w{here} is told twice that w{gone} has gone")
        self._departures.add((gone, here))
        if world.programs[gone].process.is_alive:
            world.fail(f"w{here} is told that w{gone} has gone, which lives")
        delivered, written = world.ledger.has_delivered(gone, here), world.ledger.wire.whole[gone, here]
        if delivered != written:
            world.fail(f"w{here} is told that w{gone} has gone after {delivered} of {written} messages")
        least, most = world.ledger.loss(here, gone)
        if not least <= lost <= most:
            world.fail(f"w{here} is told that {lost} messages to w{gone} are lost; it is {least} to {most}")
        if reason not in self._reasons(world.programs[gone]):
            world.fail(
                f"w{here} is told that w{gone} was {reason}, not {self._reasons(world.programs[gone])}"
            )

    def _reasons(self, gone: Program) -> list[str]:
        fate = self._world.fate
        if not gone.is_clean and gone.was_heard_out:
            return ["drain_timeout"]
        if gone.process.status < 0 and not gone.has_drained:
            return ["stalled"] if gone.was_judged_stalled else ["killed"]
        reasons = ["killed"] if gone.process.status < 0 else []
        reasons += ["left"] if fate.has_terminated or fate.has_scaled_down or fate.restarts else []
        return reasons + (["replaced"] if fate.restarts or fate.has_retired else [])

    # --- what only one may do

    def begins_to_lead(self, program: Program) -> None:
        """The leader's task has begun."""
        self._world.note("begins to lead")
        if others := self._leaders():
            self._world.fail(f"w{program.generation} begins to lead while {others} do")
        self._leading.add(program.generation)

    def has_led(self, program: Program) -> None:
        """It has ended."""
        self._world.note("has led")
        self._leading.discard(program.generation)

    def _leaders(self) -> list[int]:
        """Return the workers that run the leader's task."""
        return [g for g in sorted(self._leading) if self._world.programs[g].process.is_alive]

    def _one_leads(self, alive: Iterable[Program]) -> bool:
        """Return whether all workers know the same leader, and it runs its task."""
        known = {each.app.ipc.leader for each in alive if each.app is not None}
        return known == {self._world.programs[g].process.pid for g in self._leaders()} and len(known) == 1

    # --- settled

    def is_settled(self) -> bool:
        """Return whether exactly the right number of workers is there, all ready."""
        alive = [each for each in self._world.programs.values() if each.process.is_alive]
        return (
            len(alive) == self._world.fate.size
            and all(each.is_ready and not each.is_stopping for each in alive)
            and all(each.process.is_reaped or each.process.is_alive for each in self._world.programs.values())
            and all(_knows_all(each, alive) and not self._unsaid(each) for each in alive)
            and self._one_leads(alive)
        )

    def _unsaid(self, program: Program) -> set[int]:
        """Return the workers whose joining or departure this one should have seen, and has not yet."""
        here = program.generation
        gone = {g for g in program.heard_of if not self._world.programs[g].process.is_alive}
        return {g for g in gone if (g, here) not in self._departures} | {
            g for g in program.joined if (here, g) not in self._joins
        }

    def arenas_are_empty(self) -> bool:
        """Return whether no living worker has a block that is held or not yet announced."""
        for program in self._world.programs.values():
            if program.app is None or not program.process.is_alive or not program.app.ipc._own.is_entered:
                continue
            arena = program.app.ipc._own.endpoint.outgoing._budget.arena
            if arena is not None and arena.used_bytes:
                return False
        return True

    def settled(self) -> None:
        """Check the further promises of a settled fleet."""
        world = self._world
        alive = {g: each for g, each in world.programs.items() if each.process.is_alive}
        per_worker = 3 if world.plan.bounds.arena_bytes else 2
        if len(world.parent.fds) != per_worker * len(alive):
            world.fail(f"the launcher has {len(world.parent.fds)} descriptors for {len(alive)} workers")
        for generation, each in alive.items():
            if len(each.process.fds) != 1 + len(alive):
                world.fail(f"w{generation} has {len(each.process.fds)} descriptors with {len(alive)} workers")
        if world.fate.restarts and not any(each.process.status < 0 for each in world.programs.values()):
            old = [g for g, each in alive.items() if each.started_at < world.fate.restarts[-1]]
            if old:
                world.fail(f"workers {old} are older than the last restart")

    # --- the end

    def leaver(self, program: Program) -> None:
        """A worker has left its lifespan, and is about to exit."""
        if left := program.process.fds.keys() - {program.lifeline_fd}:
            self._world.fail(f"w{program.generation} leaves descriptors open: {sorted(left)}")

    def drain_timeout(self, program: Program, unsent: int) -> None:
        """A leave has reached its deadline: may it?"""
        world = self._world
        if world.plan.has_stops:
            return
        text = f"w{program.generation} reaches its drain timeout with {unsent} not sent"
        if not world.fate.parent_was_killed:
            world.fail(text)
            return
        # Without the launcher, a missing write end will not come. Earlier losses, to workers that died, are
        # no part of this.
        late = [g for g, lost in program.unsent.items() if lost and g in program.arrived]
        if late or not unsent:
            world.fail(f"{text}, to {late}")

    def logged(self, record: logging.LogRecord) -> None:
        """The product has something to say."""
        if record.exc_info:
            self._world.fail(f"logged: {record.getMessage()}: {record.exc_info}")
        if "is stalled" in record.getMessage() and not self._world.plan.has_stops:
            self._world.fail(f"nobody was stopped: {record.getMessage()}")

    def after_all(self) -> None:
        """All have ended."""
        world = self._world
        if not world.fate.parent_was_killed:
            # A second SIGTERM may come when no worker is left.
            allowed = (0,) if world.fate.terminations < 2 else (0, 128 + signal.SIGTERM)
            if world.status not in allowed:
                world.fail(f"the launcher's exit status is {world.status}")
        for generation, each in world.programs.items():
            if each.process.status > 0 and not (world.fate.parent_was_killed and each.assignment is None):
                world.fail(f"w{generation} has exited with status {each.process.status}")
        if world.kernel.flight.count:
            world.fail(f"{world.kernel.flight.count} descriptors are in flight for ever")


def _is_there(program: Program) -> bool:
    return program.process.is_alive and not program.has_left


def _knows_all(program: Program, alive: list[Program]) -> bool:
    """Return whether these are its members, and it can write to each."""
    assert program.app is not None
    members = {worker.generation for worker in program.app.ipc.workers}
    return members == {each.generation for each in alive} and len(program.process.fds) > len(alive)
