"""The fleet in a simulated world: processes that start, fail, hang and die, and a restless operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgi_ipc.fleet.events import LauncherSlept, RestartRequested, Said, ScaleRequested, StopRequested
from asgi_ipc.fleet.processes import Phase
from asgi_ipc.fleet.slots import SAME_STOP_S, Policy
from asgi_ipc.fleet.words import Failed, Retiring
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)
from tests.fleet.world import Process, World, beats, is_ending, starts

MOST_WORKERS: Final = 5

# Trouble comes seldom enough for something to be built up that it can hurt.
_spared = st.sampled_from([True, True, True, False])

_policies = st.builds(
    Policy,
    workers=st.integers(1, 3),
    hang_timeout_s=st.sampled_from([None, 2.0, 10.0]),
    stop_timeout_s=st.sampled_from([None, 5.0]),
    outlive_failed_start=st.booleans(),
)


class FleetMachine(World, RuleBasedStateMachine):
    @initialize(policy=_policies, settled=st.sampled_from([True, True, False]))
    def begin(self, policy: Policy, settled: bool) -> None:
        self.begin_with(policy)
        if settled:
            for generation in list(self.processes):
                self.become_ready(generation)
            self.pass_time(1.0)

    # --- what processes do

    def some(self, data: st.DataObject, condition: Callable[[Process], object]) -> int:
        return data.draw(st.sampled_from([each.generation for each in self.those(condition)]))

    @precondition(lambda self: self.those(starts))
    @rule(data=st.data())
    def is_ready(self, data: st.DataObject) -> None:
        self.become_ready(self.some(data, starts))

    @precondition(lambda self: self.those(starts))
    @rule(data=st.data(), spared=_spared, reason=st.sampled_from(["syntax error", "no database"]))
    def fail(self, data: st.DataObject, spared: bool, reason: str) -> None:
        if spared:
            return
        generation = self.some(data, starts)
        self.post(Said(generation, Failed(reason)))
        self.end(generation, 3)

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), spared=_spared, status=st.sampled_from([-9, -11, 0, 1]))
    def die(self, data: st.DataObject, spared: bool, status: int) -> None:
        if spared:
            return
        self.end(self.some(data, bool), status)

    @precondition(lambda self: self.those(is_ending))
    @rule(data=st.data(), clean=st.booleans())
    def obey(self, data: st.DataObject, clean: bool) -> None:
        self.obey_as(self.some(data, is_ending), clean)

    @precondition(lambda self: self.those(beats))
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        self.post(Said(self.some(data, beats), Retiring()))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), thawed=st.booleans())
    def freeze_or_thaw(self, data: st.DataObject, thawed: bool) -> None:
        self.processes[self.some(data, bool)].frozen = not thawed

    @rule(works=_spared)
    def spawning_breaks_or_works_again(self, works: bool) -> None:
        self.spawning_fails = not works

    # --- time

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 3.5, 10.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

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
            self.newer_than = self.newest
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
        assert known.keys() == self.processes.keys()
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
        assert not self.processes
        assert self.fleet.next_deadline() is None

    def all_is_as_it_should_be(self) -> None:
        serving = sorted((each.slot, each.phase) for each in self.fleet._processes.values())
        assert serving == [(slot, Phase.READY) for slot in range(self.requested)]
        assert min(self.processes) > self.newer_than, "not restarted"
        assert not any(each.shown_as_stalled for each in self.processes.values())
        assert not any(slot.incoming or slot.retiring_at for slot in self.fleet._slots.values())


test_the_fleet_is_as_it_should_be_whatever_happens = FleetMachine.TestCase
