"""The fleet in a simulated world: processes that start, fail, hang and die, and a restless operator."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgi_ipc.fleet.events import (
    Action,
    Begin,
    Buried,
    Event,
    Exit,
    Exited,
    KillProcess,
    LauncherSlept,
    Log,
    RestartRequested,
    Said,
    ScaleRequested,
    Stalled,
    Started,
    StartProcess,
    StopProcess,
    StopRequested,
    Tick,
)
from asgi_ipc.fleet.machine import Fleet
from asgi_ipc.fleet.processes import Phase
from asgi_ipc.fleet.slots import SAME_STOP_S, Policy
from asgi_ipc.fleet.words import Beat, Drained, Failed, Ready, Retiring
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)

MOST_WORKERS: Final = 5
BEAT_S: Final = 1.0
REASONS: Final = {"left", "replaced", "killed", "stalled", "drain_timeout"}

# Trouble comes seldom enough for something to be built up that it can hurt.
_spared = st.sampled_from([True, True, True, False])


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
    shown_as_stalled: bool = False


class FleetMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.processes: dict[int, Process] = {}
        self.started: set[int] = set()
        # Of each restart that is not over, the last generation from before it.
        self.restarts: deque[int] = deque()
        self.buried: set[int] = set()
        self.events: deque[Event] = deque()
        self.spawning_fails = False
        self.exit_status: int | None = None
        self.stops = 0
        # With which signal it was told to stop, and when.
        self.first_stop: tuple[int, float] | None = None
        self.requested = 0
        # After a restart without any failure, every worker is newer than this.
        self.newer_than = 0

    @initialize(
        workers=st.integers(1, 3),
        hang_timeout_s=st.sampled_from([None, 2.0, 10.0]),
        stop_timeout_s=st.sampled_from([None, 5.0]),
        outlive=st.booleans(),
        settled=st.sampled_from([True, True, False]),
    )
    def begin(
        self,
        workers: int,
        hang_timeout_s: float | None,
        stop_timeout_s: float | None,
        outlive: bool,
        settled: bool,
    ) -> None:
        self.now = 100.0
        self.policy = Policy(workers, hang_timeout_s, stop_timeout_s, outlive)
        self.fleet = Fleet(self.policy)
        self.requested = workers
        self.post(Begin())
        if settled:
            for generation in list(self.processes):
                self.become_ready(generation)
            self.pass_time(1.0)

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
                assert generation not in self.buried
                self.buried.add(generation)
            case Exit(status):
                self.exit_status = status
                assert self.buried == self.started
                assert not self.processes
            case Log(level, text):
                assert level in {"info", "warning", "error"}
                assert text
                self.told(text)

    def spawn(self, generation: int, slot: int) -> None:
        assert not self.is_stopping, "started after the stop"
        assert generation not in self.started, "a generation that was used before"
        assert generation > max(self.started, default=0)
        assert slot < max(self.requested, self.policy.workers)
        self.started.add(generation)
        self.processes[generation] = Process(generation, slot)
        if self.spawning_fails:
            self.newer_than = 0
            del self.processes[generation]
            self.events.append(Said(generation, Failed("A worker process can't be started")))
            self.events.append(Exited(generation, 1, "could not be started"))
        else:
            self.events.append(Started(generation, 1000 + generation))

    def told(self, text: str) -> None:
        if "restarting workers" in text:
            self.restarts.append(max(self.started))
        elif text == "All workers have been restarted.":
            oldest_new = self.restarts.popleft()
            # Who is buried in this very turn has gone.
            old = {g for g in self.processes if g <= oldest_new} - self.buried
            assert not old, f"{old} are from before the restart"
        elif "giving the restart up" in text:
            self.restarts.pop()
        elif "ready." in text:
            serving = {each.slot for each in self.processes.values() if each.ready and not each.told_to_stop}
            assert serving >= set(range(self.requested))

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
        in_its_place = [
            each
            for each in self.processes.values()
            if each.slot == process.slot and each.ready and not each.told_to_stop and not each.killed
        ]
        assert in_its_place or not process.ready, "stopped before its replacement was ready"

    @property
    def is_stopping(self) -> bool:
        return self.fleet._stopping

    # --- what processes do

    def some(self, data: st.DataObject, among: list[Process]) -> int:
        return data.draw(st.sampled_from([each.generation for each in among]))

    def starting(self) -> list[Process]:
        return [each for each in self.processes.values() if not each.ready and not each.frozen]

    def serving(self) -> list[Process]:
        return [each for each in self.processes.values() if each.ready and not each.frozen]

    def ending(self) -> list[Process]:
        return [
            each for each in self.processes.values() if each.killed or (each.told_to_stop and not each.frozen)
        ]

    @precondition(lambda self: self.starting())
    @rule(data=st.data())
    def is_ready(self, data: st.DataObject) -> None:
        self.become_ready(self.some(data, self.starting()))

    def become_ready(self, generation: int) -> None:
        process = self.processes[generation]
        # One that was told to stop may be ready all the same, and say so.
        process.ready = not process.told_to_stop
        self.post(Said(generation, Ready()))

    @precondition(lambda self: self.starting())
    @rule(data=st.data(), spared=_spared, reason=st.sampled_from(["syntax error", "no database"]))
    def fail(self, data: st.DataObject, spared: bool, reason: str) -> None:
        if spared:
            return
        generation = self.some(data, self.starting())
        self.post(Said(generation, Failed(reason)))
        self.end(generation, 3)

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), spared=_spared, status=st.sampled_from([-9, -11, 0, 1]))
    def die(self, data: st.DataObject, spared: bool, status: int) -> None:
        if spared:
            return
        self.end(self.some(data, list(self.processes.values())), status)

    def end(self, generation: int, status: int) -> None:
        process = self.processes.pop(generation)
        if not (process.told_to_stop or process.killed):
            self.newer_than = 0
        self.post(Exited(generation, status, f"exited with {status}"))

    @precondition(lambda self: self.ending())
    @rule(data=st.data(), clean=st.booleans())
    def obey(self, data: st.DataObject, clean: bool) -> None:
        self.obey_as(self.some(data, self.ending()), clean)

    def obey_as(self, generation: int, clean: bool = True) -> None:
        if self.processes[generation].killed:
            self.end(generation, -9)
        else:
            self.post(Said(generation, Drained(clean, 0 if clean else 3, 0 if clean else 2)))
            self.end(generation, 0)

    @precondition(lambda self: self.serving())
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        self.post(Said(self.some(data, self.serving()), Retiring()))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), thawed=st.booleans())
    def freeze_or_thaw(self, data: st.DataObject, thawed: bool) -> None:
        self.processes[self.some(data, list(self.processes.values()))].frozen = not thawed

    @rule(works=_spared)
    def spawning_breaks_or_works_again(self, works: bool) -> None:
        self.spawning_fails = not works

    # --- time

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 3.5, 10.0, 40.0]))
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
        self.post(*(Said(each.generation, Beat()) for each in self.serving()))

    def tick(self) -> None:
        self.post(Tick())
        deadline = self.fleet.next_deadline()
        assert deadline is None or deadline > self.now, "a busy loop"

    @rule(seconds=st.sampled_from([0.75, 30.0]))
    def launcher_sleeps(self, seconds: float) -> None:
        judged = {each.generation for each in self.processes.values() if each.shown_as_stalled or each.frozen}
        self.now += seconds
        self.post(LauncherSlept(seconds))
        self.beat()
        self.tick()
        for each in self.processes.values():
            assert each.generation in judged or not each.shown_as_stalled, "judged by time it did not have"

    # --- the operator

    @rule()
    def restart(self) -> None:
        if not self.is_stopping:
            self.newer_than = max(self.started)
        self.post(RestartRequested("Received SIGHUP"))

    @precondition(lambda self: self.requested < MOST_WORKERS)
    @rule()
    def more(self) -> None:
        if not self.is_stopping:
            self.requested += 1
        self.post(ScaleRequested(1))

    @rule()
    def fewer(self) -> None:
        if not self.is_stopping:
            self.requested = max(self.requested - 1, 1)
        self.post(ScaleRequested(-1))

    @rule(spared=_spared, again=_spared, signal=st.sampled_from([2, 15]))
    def stop(self, spared: bool, again: bool, signal: int) -> None:
        if not (spared or again) and self.exit_status is None:
            first, told_at = self.first_stop or (signal, self.now)
            killed_before = {g for g, process in self.processes.items() if process.killed}
            is_same = first != signal and self.now < told_at + SAME_STOP_S
            was_told = self.first_stop is not None
            self.first_stop = first, told_at
            self.stops += 1
            self.post(StopRequested(signal, f"signal {signal}"))
            assert self.is_stopping
            if was_told and is_same:
                assert {g for g, process in self.processes.items() if process.killed} == killed_before
            elif was_told:
                assert all(process.killed for process in self.processes.values())

    # --- always

    @invariant()
    def the_fleet_knows_every_process_and_its_phase(self) -> None:
        known = self.fleet._processes
        assert known.keys() == self.processes.keys() == self.started - self.buried
        for generation, process in self.processes.items():
            phase = known[generation].phase
            assert known[generation].slot == process.slot
            assert (phase is Phase.STOPPING) is (process.told_to_stop or process.killed)
            assert phase is not Phase.READY or process.ready

    @invariant()
    def each_slot_has_a_worker_or_waits_for_one_and_few_are_replaced_at_a_time(self) -> None:
        if self.is_stopping:
            return
        slots = self.fleet._slots
        assert slots.keys() == set(range(self.requested))
        meant = {generation for slot in slots.values() for generation in (slot.live, slot.incoming)}
        assert {g for g, each in self.fleet._processes.items() if each.phase is not Phase.STOPPING} <= meant
        for slot in slots.values():
            waits = slot.incoming is None and (slot.retry_at is not None or self.policy.outlive_failed_start)
            assert waits if slot.live is None else slot.incoming != slot.live
        replaced = [slot for slot in slots.values() if slot.incoming is not None]
        assert sum(slot.retiring_at is None for slot in replaced) <= 1
        # One more is the slot of the restart under way, which is replaced in any case.
        current = self.fleet._restart.current
        assert sum(slot.retiring_at is not None and slot.index != current for slot in replaced) <= 1

    @invariant()
    def nothing_is_to_be_done_in_the_past(self) -> None:
        deadline = self.fleet.next_deadline() if self.now else None
        assert deadline is None or deadline >= self.now

    # --- in the end

    def teardown(self) -> None:
        if not self.now:
            return
        self.spawning_fails = False
        if self.policy.outlive_failed_start and not self.is_stopping:
            # Those that wait for a change get one.
            self.restart()
        self.become_quiet()
        if not self.is_stopping:
            self.all_is_as_it_should_be()
            self.stops += 1
            self.post(StopRequested(15, "SIGTERM"))
            self.become_quiet()
            assert self.exit_status == 0
        assert self.exit_status is not None
        assert self.exit_status in ({3, 0, 130, 143} if self.stops else {3})
        assert self.buried == self.started
        assert self.fleet.next_deadline() is None

    def become_quiet(self) -> None:
        """All are healthy, and there is time enough."""
        for process in self.processes.values():
            process.frozen = False
        for _ in range(1000):
            moved = False
            for generation in [each.generation for each in self.ending()]:
                self.obey_as(generation)
                moved = True
            for generation in [each.generation for each in self.starting()]:
                if generation in self.processes:
                    self.become_ready(generation)
                    moved = True
            if self.exit_status is not None:
                return
            self.pass_time(2 * BEAT_S)
            retries = [slot.retry_at for slot in self.fleet._slots.values() if slot.retry_at is not None]
            if not moved and not self.starting() and not self.ending() and (self.is_stopping or not retries):
                return
        raise AssertionError("it never becomes quiet")

    def all_is_as_it_should_be(self) -> None:
        serving = sorted((each.slot, each.phase) for each in self.fleet._processes.values())
        assert serving == [(slot, Phase.READY) for slot in range(self.requested)]
        assert min(self.processes) > self.newer_than, "not restarted"
        assert not any(each.shown_as_stalled for each in self.processes.values())
        assert not any(slot.incoming or slot.retiring_at for slot in self.fleet._slots.values())


test_the_fleet_is_as_it_should_be_whatever_happens = FleetMachine.TestCase
