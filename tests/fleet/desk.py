"""The desk at which tests sit: a fleet, its clock, and what it has asked for last."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

from msgspec.structs import replace

from asgi_ipc.fleet.events import (
    Action,
    Begin,
    Event,
    Exited,
    Log,
    RestartRequested,
    Said,
    ScaleRequested,
    Started,
    StartProcess,
    StopProcess,
    StopRequested,
    Tick,
)
from asgi_ipc.fleet.machine import Fleet
from asgi_ipc.fleet.processes import Phase
from asgi_ipc.fleet.slots import EARLY_DEATH_S, Policy
from asgi_ipc.fleet.words import Beat, Failed, Ready, Retiring

A = TypeVar("A")

HUP = RestartRequested("Received SIGHUP")
TERM = StopRequested(15, "SIGTERM")
INT = StopRequested(2, "SIGINT")
MORE = ScaleRequested(1)
FEWER = ScaleRequested(-1)


@dataclass
class Desk:
    """A fleet, a clock that stands where it is put, and what was asked for last."""

    fleet: Fleet
    now: float = 1000.0
    actions: list[Action] = field(default_factory=list)

    def hear(self, *events: Event) -> list[Action]:
        """All that the fleet answers to these events. Processes that it asks for run at once."""
        self.actions = []
        for event in events:
            answer = self.fleet.handle(event, self.now)
            self.actions += answer
            for start in of(StartProcess, answer):
                self.fleet.handle(Started(start.generation, 1000 + start.generation), self.now)
        return self.actions

    def later(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.hear(Tick())

    def ready(self, *generations: int) -> list[Action]:
        return self.hear(*(Said(generation, Ready()) for generation in generations))

    def retires(self, *generations: int) -> list[Action]:
        return self.hear(*(Said(generation, Retiring()) for generation in generations))

    def beats(self, *generations: int) -> list[Action]:
        return self.hear(*(Said(generation, Beat()) for generation in generations))

    def dies(self, generation: int, status: int = 1, reason: str | None = None) -> list[Action]:
        said = [Said(generation, Failed(reason))] if reason is not None else []
        return self.hear(*said, Exited(generation, status, "exited"))

    @property
    def phases(self) -> dict[int, Phase]:
        return {generation: process.phase for generation, process in self.fleet._processes.items()}

    @property
    def texts(self) -> list[str]:
        return [log.text for log in of(Log, self.actions)]


def of(kind: type[A], actions: list[Action]) -> list[A]:
    return [action for action in actions if isinstance(action, kind)]


def starts(actions: list[Action]) -> list[StartProcess]:
    """What is started, but not in which restart round."""
    return of(StartProcess, deeds(actions))


def deeds(actions: list[Action]) -> list[Action]:
    """Without the log lines, the restart rounds, and who is relieved; tests of their own ask of these."""
    return [_bare(action) for action in actions if not isinstance(action, Log)]


def _bare(action: Action) -> Action:
    match action:
        case StartProcess():
            return replace(action, round=0)
        case StopProcess():
            return replace(action, relieved=False)
        case _:
            return action


def a_start(workers: int, **policy: Any) -> Desk:
    desk = Desk(Fleet(Policy(workers, **policy)))
    desk.hear(Begin())
    return desk


def a_fleet(workers: int, **policy: Any) -> Desk:
    """A fleet whose workers 1 to n have been ready for a while."""
    desk = a_start(workers, **policy)
    desk.ready(*range(1, workers + 1))
    desk.now += EARLY_DEATH_S
    desk.beats(*range(1, workers + 1))
    return desk
