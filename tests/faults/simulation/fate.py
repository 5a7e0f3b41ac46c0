"""Fate: the process that dies, the call in which it dies, and the other events of a plan.

Law: it strikes where the plan says: most seeds name a step of the protocol, and a process that reaches that
step may die in any call, before the step or after it.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from tests.faults.simulation.kernel import Process
from tests.faults.simulation.plan import Act

if TYPE_CHECKING:
    from tests.faults.simulation.program import Program
    from tests.faults.simulation.world import World

# A plan without a step lets its victims die anywhere; calls are many.
ANYWHERE: Final = 0.02


class Fate:
    """The plan's deaths and acts, on the processes of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._plan = world.plan
        self._deaths_left = world.plan.deaths
        self._parent_dies = False
        # How many workers there should be, as far as it was asked for.
        self.size = world.plan.workers
        self.terminations = 0
        self.restarts: list[float] = []
        self.has_scaled_down = False
        self.has_retired = False

    @property
    def has_terminated(self) -> bool:
        """Return whether the launcher got the signal to end."""
        return self.terminations > 0

    @property
    def parent_was_killed(self) -> bool:
        """Return whether the launcher was ended."""
        return self._world.parent.status < 0

    # --- in calls and between turns

    def strikes(self, process: Process) -> bool:
        """Return whether this process dies here."""
        if not process.number:
            return self._parent_dies and self._world.chance.random() < 0.2
        plan = self._plan
        if not self._deaths_left or self._world.kernel.now < plan.deaths_from:
            return False
        if plan.death_step is None:
            if self._world.chance.random() >= plan.death_chance * ANYWHERE:
                return False
        elif (
            self._world.chance.random() >= plan.death_chance
            or plan.death_step not in self._world.programs[process.number].steps()
        ):
            return False
        self._deaths_left -= 1
        return True

    # --- acts

    def perform(self, act: Act) -> None:
        """Carry out an act on a process that allows it."""
        world = self._world
        parent = world.parent
        world.kernel.note("operator", "%s", act.deed)
        match act.deed:
            case "jump":
                world.kernel.now += act.seconds
            case "stop launcher":
                self._stop(parent, act.seconds)
            case "stop":
                if (victim := self._anyone()) is not None:
                    self._stop(victim.process, act.seconds)
            case "kill":
                if (victim := self._anyone()) is not None:
                    world.kernel.kill(victim.process, signal.SIGKILL)
            case "retire":
                if (victim := self._anyone()) is not None:
                    self.has_retired = True
                    victim.loop.call_soon(victim.retire)
            case "kill launcher":
                self._parent_dies = True
            case "terminate":
                self.terminate()
            case "restart" | "more" | "fewer" if parent.is_alive:
                self._ask(act.deed)

    def terminate(self) -> None:
        """SIGTERM for the launcher."""
        if self._world.parent.is_alive:
            self.terminations += 1
            self._world.kernel.kill(self._world.parent, signal.SIGTERM)

    def _ask(self, deed: str) -> None:
        parent, kernel = self._world.parent, self._world.kernel
        if deed == "restart":
            self.restarts.append(kernel.now)
            kernel.kill(parent, signal.SIGHUP)
        elif deed == "more":
            self.size += 1
            kernel.kill(parent, signal.SIGTTIN)
        else:
            self.size = max(self.size - 1, 1)
            self.has_scaled_down = True
            kernel.kill(parent, signal.SIGTTOU)

    def _stop(self, process: Process, seconds: float) -> None:
        if process.is_alive:
            self._world.kernel.note(process.name, "is stopped for %g s", seconds)
            process.is_stopped = True
            self._world.later(seconds, lambda: self._go_on(process))

    def _go_on(self, process: Process) -> None:
        process.is_stopped = False

    def _anyone(self) -> Program | None:
        alive = [each for each in self._world.programs.values() if each.process.is_alive]
        return self._world.chance.choice(alive) if alive else None
