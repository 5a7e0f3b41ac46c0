"""A simulated world for the fleet: its launcher and the processes that it starts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from asgi_ipc.fleet.events import (
    Action,
    Begin,
    Buried,
    Event,
    Exit,
    Exited,
    KillProcess,
    Log,
    Said,
    Stalled,
    Started,
    StartProcess,
    StopProcess,
    Tick,
)
from asgi_ipc.fleet.machine import Fleet
from asgi_ipc.fleet.slots import Policy
from asgi_ipc.fleet.words import Beat, Drained, Failed, Ready

BEAT_S: Final = 1.0
REASONS: Final = {"left", "replaced", "killed", "stalled", "drain_timeout"}


@dataclass
class Process:
    """One simulated worker process."""

    generation: int
    slot: int
    ready: bool = False
    # Its event loop stands still: it neither beats nor does what it is told.
    frozen: bool = False
    told_to_stop: bool = False
    relieved: bool = False
    killed: bool = False
    ended: bool = False
    shown_as_stalled: bool = False


def starts(process: Process) -> bool:
    return not process.ready and not process.frozen


def beats(process: Process) -> bool:
    return process.ready and not process.frozen


def serves(process: Process) -> bool:
    return process.ready and not process.told_to_stop


def is_ending(process: Process) -> bool:
    return process.killed or (process.told_to_stop and not process.frozen)


class World:
    """The launcher, the processes and the clock. It checks whatever the fleet asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.processes: dict[int, Process] = {}
        self.newest = 0
        # Of each restart that is not over, the last generation from before it.
        self.restarts: deque[int] = deque()
        self.events: deque[Event] = deque()
        self.spawning_fails = False
        self.exit_status: int | None = None
        self.stops = 0
        # With which signal it was told to stop, and when.
        self.first_stop: tuple[int, float] | None = None
        self.requested = 0
        # After a restart without any failure, every worker is newer than this.
        self.newer_than = 0

    def begin_with(self, policy: Policy) -> None:
        self.now = 100.0
        self.policy = policy
        self.fleet = Fleet(policy)
        self.requested = policy.workers
        self.post(Begin())

    # --- the launcher

    def post(self, *events: Event) -> None:
        """One turn of the launcher's loop: these events, and those that they bring about."""
        self.events.extend(events)
        while self.events:
            event = self.events.popleft()
            for action in self.fleet.handle(event, self.now):
                self.perform(action)

    def perform(self, action: Action) -> None:
        assert self.exit_status is None, f"{action} after the end"
        match action:
            case StartProcess(generation, slot):
                self.spawn(generation, slot)
            case StopProcess(generation, starting, relieved):
                self.told_to_stop(self.processes[generation], starting, relieved)
            case KillProcess(generation):
                self.processes[generation].killed = True
            case Stalled(generation, is_stalled):
                process = self.processes[generation]
                assert process.shown_as_stalled is not is_stalled
                process.shown_as_stalled = is_stalled
            case Buried(generation, reason):
                assert reason in REASONS
                assert self.processes.pop(generation).ended
            case Exit(status):
                self.exit_status = status
                assert not self.processes
            case Log(level, text):
                assert level in {"info", "warning", "error"}
                self.told(text)

    def spawn(self, generation: int, slot: int) -> None:
        assert not self.is_stopping, "started after the stop"
        assert generation > self.newest, "a generation that was used before"
        assert slot < max(self.requested, self.policy.workers)
        self.newest = generation
        self.processes[generation] = Process(generation, slot)
        if self.spawning_fails:
            self.newer_than = 0
            self.processes[generation].ended = True
            self.events.append(Said(generation, Failed("A worker process can't be started")))
            self.events.append(Exited(generation, 1, "could not be started"))
        else:
            self.events.append(Started(generation, 1000 + generation))

    def told(self, text: str) -> None:
        if "restarting workers" in text:
            self.restarts.append(self.newest)
        elif text == "All workers have been restarted.":
            assert min(self.processes, default=self.newest + 1) > self.restarts.popleft(), (
                "one is from before the restart"
            )
        elif "giving the restart up" in text:
            self.restarts.pop()
        elif "ready." in text:
            assert {each.slot for each in self.those(serves)} >= set(range(self.requested))

    def told_to_stop(self, process: Process, starting: bool, relieved: bool) -> None:
        if process.told_to_stop:
            assert process.relieved > relieved, "told to stop twice"
            assert self.is_stopping
            process.relieved = False
            return
        process.told_to_stop = True
        process.relieved = relieved
        assert not (relieved and self.is_stopping), "nobody serves on"
        assert starting is not process.ready
        if self.is_stopping or process.slot >= self.requested:
            return
        in_its_place = self.those(lambda each: each.slot == process.slot and serves(each) and not each.killed)
        assert in_its_place or not process.ready, "stopped before its replacement was ready"

    @property
    def is_stopping(self) -> bool:
        return self.fleet._stopping

    def those(self, condition: Callable[[Process], object]) -> list[Process]:
        return [each for each in self.processes.values() if condition(each)]

    # --- what processes do

    def become_ready(self, generation: int) -> None:
        process = self.processes[generation]
        # One that was told to stop may be ready all the same, and say so.
        process.ready = not process.told_to_stop
        self.post(Said(generation, Ready()))

    def end(self, generation: int, status: int) -> None:
        process = self.processes[generation]
        process.ended = True
        if not (process.told_to_stop or process.killed):
            self.newer_than = 0
        self.post(Exited(generation, status, f"exited with {status}"))

    def obey_as(self, generation: int, clean: bool = True) -> None:
        if self.processes[generation].killed:
            self.end(generation, -9)
        else:
            self.post(Said(generation, Drained(clean, 0 if clean else 3, 0 if clean else 2)))
            self.end(generation, 0)

    # --- time

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until and self.exit_status is None:
            deadline = self.fleet.next_deadline()
            step = min(until, self.now + BEAT_S, deadline if deadline is not None else until)
            assert step >= self.now, "a deadline in the past"
            self.now = max(step, self.now)
            self.beat()
            if deadline is not None and self.now >= deadline:
                self.tick()

    def beat(self) -> None:
        self.post(*(Said(each.generation, Beat()) for each in self.those(beats)))

    def tick(self) -> None:
        self.post(Tick())
        deadline = self.fleet.next_deadline()
        assert deadline is None or deadline > self.now, "a busy loop"

    def become_quiet(self) -> None:
        """All are healthy, and there is time enough."""
        for process in self.processes.values():
            process.frozen = False
        for _ in range(1000):
            moved = False
            for generation in [each.generation for each in self.those(is_ending)]:
                self.obey_as(generation)
                moved = True
            for generation in [each.generation for each in self.those(starts)]:
                if generation in self.processes:
                    self.become_ready(generation)
                    moved = True
            if self.exit_status is not None:
                return
            self.pass_time(2 * BEAT_S)
            retries = [slot.retry_at for slot in self.fleet._slots.values() if slot.retry_at is not None]
            if (
                not moved
                and not self.those(starts)
                and not self.those(is_ending)
                and (self.is_stopping or not retries)
            ):
                return
        raise AssertionError("it never becomes quiet")
