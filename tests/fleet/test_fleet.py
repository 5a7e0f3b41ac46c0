"""The fleet: each behaviour that the design promises, event by event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

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
    ParentGone,
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
from asgi_ipc.fleet.settings import beat_s
from asgi_ipc.fleet.slots import (
    BACKOFF_MAX_S,
    EARLY_DEATH_S,
    SAME_STOP_S,
    STALLED_AFTER_S,
    UNATTENDED_STOP_S,
    Policy,
    backoff_s,
)
from asgi_ipc.fleet.words import Beat, Drained, Failed, Ready, Retiring, Stuck
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)

A = TypeVar("A")

HUP = RestartRequested("Received SIGHUP")
TERM = StopRequested(15, "SIGTERM")
INT = StopRequested(2, "SIGINT")
MORE = ScaleRequested(1)
FEWER = ScaleRequested(-1)
EXITED = Exited(1, 1, "exited")

NEW = "New worker [1002] exited before it was ready"
KEPT = "keeping worker [1001]"
SERVES = "worker [1001] serves on"
UNDONE = "with 7 messages not sent and 2 not handled."


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
    desk.hear(*(Said(generation, Beat()) for generation in range(1, workers + 1)))
    return desk


# --- start


def test_the_fleet_begins_with_one_process_for_each_slot() -> None:
    desk = a_start(3)
    assert desk.actions == [StartProcess(1, 0), StartProcess(2, 1), StartProcess(3, 2)]
    assert len(desk.fleet._slots) == 3
    assert desk.phases == dict.fromkeys((1, 2, 3), Phase.STARTING)


def test_a_first_start_that_fails_ends_the_server_with_status_3_and_one_reason() -> None:
    desk = a_start(3)
    assert deeds(desk.dies(2, 3, "no module named demo")) == [
        Buried(2, "killed"),
        StopProcess(1, True),
        StopProcess(3, True),
    ]
    assert desk.texts.count("no module named demo") == 1
    desk.dies(1, 3, "no module named demo")
    assert deeds(desk.actions) == [Buried(1, "killed")]
    assert desk.texts == []
    desk.dies(3, 0)
    assert deeds(desk.actions) == [Buried(3, "left"), Exit(3)]


def test_a_first_start_that_fails_stops_those_that_are_ready_too() -> None:
    desk = a_start(2)
    desk.ready(1)
    assert StopProcess(1, False) in desk.dies(2, 3)
    assert desk.dies(1, 0)[-1] == Exit(3)


def test_with_reload_a_first_start_that_fails_waits_for_a_change() -> None:
    desk = a_start(2, outlive_failed_start=True)
    assert deeds(desk.dies(1, 3, "syntax error")) == [Buried(1, "killed")]
    assert deeds(desk.dies(2, 3, "syntax error")) == [Buried(2, "killed")]
    assert "syntax error" not in desk.texts
    assert desk.fleet.next_deadline() is None
    assert desk.later(3600) == []
    assert deeds(desk.hear(HUP)) == [StartProcess(3, 0)]
    assert deeds(desk.ready(3)) == [StartProcess(4, 1)]
    desk.ready(4)
    assert set(desk.phases) == {3, 4}


def test_a_stop_with_nothing_running_ends_at_once() -> None:
    desk = a_start(1, outlive_failed_start=True)
    desk.dies(1, 3)
    assert deeds(desk.hear(TERM)) == [Exit(0)]


LIVED = [Said(1, Ready()), Said(2, Ready())]


@pytest.mark.parametrize(
    ("before", "gone", "status", "started"),
    [
        # A kill says nothing about the app.
        ([], 1, -9, StartProcess(3, 0)),
        # This one was ready once, so it was not the app that failed.
        ([Said(1, Ready())], 1, 1, StartProcess(3, 0)),
        ([*LIVED, MORE], 3, 3, StartProcess(4, 2)),
        # The slot that was never ready does not count once it is scaled away.
        ([Said(1, Ready()), FEWER, MORE], 3, 3, StartProcess(4, 1)),
    ],
)
def test_such_a_death_does_not_end_the_server(
    before: list[Event], gone: int, status: int, started: StartProcess
) -> None:
    desk = a_start(2)
    desk.hear(*before)
    assert deeds(desk.dies(gone, status)) == [Buried(gone, "killed"), started]


def test_without_limits_a_start_a_hang_and_a_stop_may_take_any_time() -> None:
    desk = a_start(1)
    assert desk.fleet.next_deadline() is None
    assert desk.later(86_400) == []
    desk.ready(1)
    desk.later(STALLED_AFTER_S)
    assert desk.fleet.next_deadline() is None
    assert desk.later(86_400) == []
    desk.hear(TERM)
    assert desk.fleet.next_deadline() is None
    assert desk.later(86_400) == []


# --- restart


def test_a_restart_takes_one_slot_after_another_and_the_new_is_ready_before_the_old_is_stopped() -> None:
    desk = a_fleet(3)
    assert deeds(desk.hear(HUP)) == [StartProcess(4, 0)]
    assert deeds(desk.ready(4)) == [StopProcess(1, False), StartProcess(5, 1)]
    assert deeds(desk.ready(5)) == [StopProcess(2, False), StartProcess(6, 2)]
    assert deeds(desk.dies(1, 0)) == [Buried(1, "replaced")]
    assert deeds(desk.ready(6)) == [StopProcess(3, False)]
    assert desk.texts == ["All 3 workers are ready."]
    assert {g for g, phase in desk.phases.items() if phase is Phase.READY} == {4, 5, 6}


def test_further_restarts_during_one_merge_into_one_more() -> None:
    desk = a_fleet(2)
    desk.hear(HUP)
    assert deeds(desk.hear(HUP, HUP, HUP)) == []
    desk.ready(3)
    assert deeds(desk.ready(4)) == [StopProcess(2, False), StartProcess(5, 0)]
    desk.ready(5)
    assert deeds(desk.ready(6)) == [StopProcess(4, False)]
    assert len(desk.fleet._slots) == 2


def test_a_restart_that_comes_during_the_one_more_is_not_forgotten() -> None:
    desk = a_fleet(1)
    desk.hear(HUP, HUP)
    assert deeds(desk.ready(2)) == [StopProcess(1, False), StartProcess(3, 0)]
    desk.hear(HUP)
    assert deeds(desk.ready(3)) == [StopProcess(2, False), StartProcess(4, 0)]
    assert deeds(desk.ready(4)) == [StopProcess(3, False)]


def test_a_replacement_that_cannot_start_leaves_the_old_and_ends_the_restart_with_the_reason() -> None:
    desk = a_fleet(2)
    desk.hear(HUP)
    assert deeds(desk.dies(3, 3, "syntax error in demo")) == [Buried(3, "killed")]
    assert desk.texts[0] == "syntax error in demo"
    assert "keeping worker [1001]" in desk.texts[1]
    assert desk.phases == {1: Phase.READY, 2: Phase.READY}
    assert desk.fleet.next_deadline() == 1000.0 + EARLY_DEATH_S + STALLED_AFTER_S
    assert deeds(desk.hear(HUP)) == [StartProcess(4, 0)]


def test_a_restart_that_was_asked_for_meanwhile_follows_one_that_was_given_up() -> None:
    desk = a_fleet(2)
    desk.hear(HUP, HUP)
    assert deeds(desk.dies(3, 3, "syntax error")) == [Buried(3, "killed"), StartProcess(4, 0)]
    desk.dies(4, 3, "syntax error")
    assert "syntax error" in desk.texts


def test_a_restart_asked_for_during_the_start_replaces_each_slot_in_turn() -> None:
    desk = a_start(2)
    assert deeds(desk.hear(HUP)) == [StartProcess(3, 0)]
    # The first two have the old code: that they are ready finishes nothing.
    assert deeds(desk.ready(1, 2)) == []
    assert deeds(desk.ready(3)) == [StopProcess(1, False), StartProcess(4, 1)]
    assert deeds(desk.ready(4)) == [StopProcess(2, False)]
    assert desk.texts == ["All 2 workers are ready."]


def test_a_restart_is_over_when_the_last_worker_from_before_it_has_gone() -> None:
    desk = a_fleet(2)
    desk.hear(HUP)
    desk.ready(3, 4)
    assert desk.texts == ["All 2 workers are ready."]
    desk.dies(1, 0)
    assert desk.texts == []
    desk.dies(2, 0)
    assert desk.texts == ["All workers have been restarted."]


def test_a_restart_that_comes_while_old_workers_leave_begins_at_once_and_each_says_when_it_is_over() -> None:
    desk = a_fleet(1)
    desk.hear(HUP)
    desk.ready(2)
    assert deeds(desk.hear(HUP)) == [StartProcess(3, 0)]
    desk.ready(3)
    desk.dies(2, 0)
    assert desk.texts == []
    # The worker from before the first keeps both from being over.
    desk.dies(1, 0)
    assert desk.texts == ["All workers have been restarted."] * 2


def test_a_restart_that_is_cut_short_by_a_stop_is_never_over() -> None:
    desk = a_fleet(1)
    desk.hear(HUP)
    desk.ready(2)
    desk.hear(TERM)
    desk.dies(1, 0)
    assert desk.texts == []
    desk.dies(2, 0)
    assert desk.texts == []


def test_it_is_told_when_all_workers_are_ready_and_again_when_they_are_so_again() -> None:
    desk = a_start(2)
    desk.ready(1)
    assert desk.texts == []
    desk.ready(2)
    assert desk.texts == ["All 2 workers are ready."]
    desk.dies(1)
    desk.ready(3)
    assert desk.texts == ["All 2 workers are ready."]
    desk.hear(MORE)
    desk.ready(4)
    assert desk.texts == ["All 3 workers are ready."]
    desk.hear(FEWER)
    assert desk.texts == ["Decreasing the number of workers to 2."]


def test_a_restart_that_a_slot_without_a_worker_ends_says_that_it_is_given_up() -> None:
    desk = a_fleet(2)
    desk.dies(1)
    desk.dies(3)
    desk.dies(4)
    desk.hear(HUP)
    assert starts(desk.actions) == [StartProcess(5, 0)]
    desk.dies(5)
    assert "giving the restart up" not in " ".join(desk.texts)
    assert not starts(desk.dies(6))
    assert "giving the restart up" in " ".join(desk.texts)


def test_with_reload_a_restart_that_ends_at_the_first_start_says_that_it_is_given_up() -> None:
    desk = a_start(1, outlive_failed_start=True)
    desk.dies(1, 3)
    assert "giving the restart up" not in " ".join(desk.texts)
    desk.hear(HUP)
    desk.dies(2, 3)
    assert "giving the restart up" in " ".join(desk.texts)


def test_a_replacement_takes_over_when_the_old_one_dies_first() -> None:
    desk = a_fleet(2)
    desk.hear(HUP)
    assert deeds(desk.dies(1, -11)) == [Buried(1, "killed")]
    assert deeds(desk.ready(3)) == [StartProcess(4, 1)]
    assert deeds(desk.ready(4)) == [StopProcess(2, False)]


def test_a_slot_that_waits_for_another_try_is_started_by_a_restart() -> None:
    desk = a_fleet(2)
    for generation in (1, 3):
        desk.dies(generation)
    desk.dies(4)
    assert set(desk.phases) == {2}
    assert deeds(desk.hear(HUP)) == [StartProcess(5, 0)]
    assert deeds(desk.ready(5)) == [StartProcess(6, 1)]
    assert deeds(desk.later(60.0)) == [Stalled(2, True), Stalled(5, True)]


# --- scaling


def test_workers_are_added_and_taken_away_one_by_one_down_to_one() -> None:
    desk = a_fleet(2)
    assert deeds(desk.hear(MORE, MORE)) == [StartProcess(3, 2), StartProcess(4, 3)]
    assert deeds(desk.hear(FEWER, FEWER)) == [StopProcess(4, True), StopProcess(3, True)]
    assert deeds(desk.hear(FEWER)) == [StopProcess(2, False)]
    assert deeds(desk.hear(FEWER, FEWER)) == []
    assert len(desk.fleet._slots) == 1
    assert deeds(desk.dies(2, 0)) == [Buried(2, "left")]
    assert deeds(desk.hear(MORE)) == [StartProcess(5, 1)]


def test_each_change_of_size_counts_during_a_restart() -> None:
    desk = a_fleet(2)
    desk.hear(HUP)
    assert deeds(desk.hear(MORE, MORE)) == [StartProcess(4, 2), StartProcess(5, 3)]
    assert deeds(desk.hear(FEWER)) == [StopProcess(5, True)]
    desk.ready(4)
    assert deeds(desk.ready(3)) == [StopProcess(1, False), StartProcess(6, 1)]
    # What was started after the request has the new code.
    assert deeds(desk.ready(6)) == [StopProcess(2, False)]
    assert len(desk.fleet._slots) == 3


def test_a_slot_that_was_scaled_away_is_not_filled_again() -> None:
    desk = a_fleet(2)
    desk.dies(2)
    desk.hear(FEWER)
    assert deeds(desk.dies(3, 1)) == [Buried(3, "killed")]
    assert starts(desk.later(3600)) == []


# --- back-off


def test_back_off_is_0_then_half_a_second_doubling_to_30() -> None:
    assert [backoff_s(deaths) for deaths in range(10)] == [0, 0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff_s(10_000) == BACKOFF_MAX_S


def test_a_slot_that_keeps_dying_waits_longer_and_longer() -> None:
    desk = a_fleet(2)
    generation = 1
    for delay_s in (0, 0.5, 1, 2, 4, 8, 16, 30, 30):
        desk.hear(Said(2, Beat()))
        desk.dies(generation)
        if generation == 1:
            # That one had lived; its death is not early.
            assert starts(desk.actions) == [StartProcess(3, 0)]
            generation = 3
            desk.dies(generation)
        if delay_s:
            assert not starts(desk.actions)
            assert desk.fleet.next_deadline() == desk.now + min(delay_s, STALLED_AFTER_S)
            desk.later(delay_s - 0.25)
            assert not starts(desk.actions)
            desk.later(0.25)
        (start,) = starts(desk.actions)
        generation = start.generation


def test_a_death_within_a_second_of_ready_is_early_and_one_after_that_starts_anew() -> None:
    desk = a_fleet(1)
    desk.dies(1)
    desk.ready(2)
    desk.now += EARLY_DEATH_S - 0.001
    assert starts(desk.dies(2)) == [StartProcess(3, 0)]
    desk.ready(3)
    assert starts(desk.dies(3)) == []
    assert starts(desk.later(0.5)) == [StartProcess(4, 0)]
    desk.ready(4)
    desk.now += EARLY_DEATH_S
    assert starts(desk.dies(4)) == [StartProcess(5, 0)]
    assert starts(desk.dies(5)) == [StartProcess(6, 0)]
    assert starts(desk.dies(6)) == []


def test_the_back_off_of_one_slot_holds_up_no_other_and_no_signal() -> None:
    desk = a_fleet(2)
    for generation in (1, 3, 4):
        desk.dies(generation)
    assert starts(desk.dies(2)) == [StartProcess(5, 1)]
    assert starts(desk.hear(MORE)) == [StartProcess(6, 2)]
    assert of(StopProcess, desk.hear(TERM)) == [StopProcess(5, True), StopProcess(6, True)]


# --- retiring


def test_a_worker_that_retires_is_replaced_before_it_stops_and_without_back_off() -> None:
    desk = a_fleet(2)
    assert deeds(desk.hear(Said(1, Retiring()))) == [StartProcess(3, 0)]
    assert deeds(desk.hear(Said(1, Retiring()))) == []
    assert deeds(desk.ready(3)) == [StopProcess(1, False)]
    assert deeds(desk.hear(Said(1, Retiring()))) == []
    assert deeds(desk.dies(1, 0)) == [Buried(1, "replaced")]
    assert deeds(desk.hear(Said(3, Retiring()))) == [StartProcess(4, 0)]


def test_a_retiring_worker_serves_on_while_its_replacement_fails_and_is_tried_again() -> None:
    desk = a_fleet(1)
    desk.hear(Said(1, Retiring()))
    for generation, delay_s in ((2, 0.5), (3, 1.0), (4, 2.0)):
        assert deeds(desk.dies(generation, 3, "no database")) == [Buried(generation, "killed")]
        desk.hear(Said(1, Beat()))
        assert deeds(desk.later(delay_s)) == [StartProcess(generation + 1, 0)]
    assert deeds(desk.ready(5)) == [StopProcess(1, False)]


def test_a_retiring_worker_that_dies_before_another_try_is_replaced_once() -> None:
    desk = a_fleet(1)
    desk.hear(Said(1, Retiring()))
    desk.dies(2, 3)
    assert deeds(desk.dies(1, -11)) == [Buried(1, "killed"), StartProcess(3, 0)]
    assert deeds(desk.later(0.5)) == []
    assert set(desk.phases) == {3}


def test_workers_that_retire_at_the_same_time_are_replaced_one_after_the_other() -> None:
    desk = a_fleet(3)
    assert starts(desk.hear(Said(2, Retiring()))) == [StartProcess(4, 1)]
    desk.now += 1.0
    assert starts(desk.hear(Said(3, Retiring()), Said(1, Retiring()))) == []
    assert starts(desk.ready(4)) == [StartProcess(5, 0)]
    # The first of them again comes behind those that have waited longer.
    desk.now += 1.0
    assert starts(desk.hear(Said(4, Retiring()))) == []
    assert starts(desk.ready(5)) == [StartProcess(6, 2)]
    assert starts(desk.ready(6)) == [StartProcess(7, 1)]


def test_a_death_is_replaced_at_once_while_a_retiring_worker_is_replaced() -> None:
    desk = a_fleet(3)
    desk.hear(Said(1, Retiring()), Said(2, Retiring()))
    assert starts(desk.dies(3)) == [StartProcess(5, 2)]
    assert starts(desk.dies(2)) == [StartProcess(6, 1)]
    assert starts(desk.ready(4)) == []


def test_a_replacement_that_fails_lets_the_next_in_line_begin() -> None:
    desk = a_fleet(2)
    desk.hear(Said(1, Retiring()), Said(2, Retiring()))
    assert starts(desk.dies(3, 3, "no database")) == [StartProcess(4, 1)]
    desk.hear(Said(1, Beat()), Said(2, Beat()))
    # Its time for another try has come, but it is not alone.
    assert starts(desk.later(0.5)) == []
    assert starts(desk.ready(4)) == [StartProcess(5, 0)]


def test_a_retiring_worker_waits_for_the_end_of_a_restart() -> None:
    desk = a_fleet(2)
    desk.hear(HUP)
    assert starts(desk.hear(Said(2, Retiring()))) == []
    assert starts(desk.ready(3)) == [StartProcess(4, 1)]
    assert starts(desk.hear(Said(3, Retiring()))) == []
    assert starts(desk.ready(4)) == [StartProcess(5, 0)]


def test_whoever_is_replaced_or_scaled_away_is_relieved_and_a_full_stop_takes_that_back() -> None:
    desk = a_fleet(3, stop_timeout_s=10.0, linger_s=5.0)
    began = desk.now
    desk.hear(Said(1, Retiring()))
    assert of(StopProcess, desk.ready(4)) == [StopProcess(1, False, relieved=True)]
    desk.hear(HUP)
    assert of(StopProcess, desk.ready(5)) == [StopProcess(4, False, relieved=True)]
    assert of(StopProcess, desk.hear(FEWER)) == [StopProcess(3, False, relieved=True)]
    desk.now += 1.0
    running = [StopProcess(generation, False) for generation in (1, 2, 3, 4, 5)]
    assert of(StopProcess, desk.hear(TERM)) == [*running, StopProcess(6, True)]
    # The time of those that had less has not become more.
    assert desk.fleet.next_deadline() == began + 11.0
    desk.now += SAME_STOP_S
    assert of(StopProcess, desk.hear(TERM)) == []


def test_whoever_is_relieved_may_take_longer() -> None:
    desk = a_fleet(1, stop_timeout_s=10.0, linger_s=5.0)
    desk.hear(HUP)
    desk.ready(2)
    desk.hear(Said(2, Beat()))
    assert of(KillProcess, desk.later(14.9)) == []
    desk.hear(Said(2, Beat()))
    assert of(KillProcess, desk.later(0.1)) == [KillProcess(1)]


def test_a_restart_replaces_the_replacement_that_has_the_old_code() -> None:
    desk = a_fleet(1)
    desk.hear(Said(1, Retiring()))
    assert deeds(desk.hear(HUP)) == [StopProcess(2, True), StartProcess(3, 0)]
    assert deeds(desk.ready(3)) == [StopProcess(1, False)]
    assert deeds(desk.dies(2, 0)) == [Buried(2, "left")]


# --- stalls and hangs


def test_a_worker_shows_as_stalled_after_three_and_a_half_seconds_and_responds_again() -> None:
    desk = a_fleet(2)
    desk.now += 1.0
    desk.hear(Said(2, Beat()))
    assert desk.fleet.next_deadline() == desk.now - 1.0 + STALLED_AFTER_S
    assert desk.later(STALLED_AFTER_S - 1.25) == []
    assert deeds(desk.later(0.25)) == [Stalled(1, True)]
    assert deeds(desk.later(0.5)) == []
    assert deeds(desk.hear(Said(1, Beat()))) == [Stalled(1, False)]
    assert deeds(desk.hear(Said(1, Beat()))) == []
    assert deeds(desk.later(STALLED_AFTER_S)) == [Stalled(1, True), Stalled(2, True)]


def test_the_warning_of_a_stall_says_where_the_worker_stands_or_that_it_is_not_known() -> None:
    desk = a_fleet(2)
    desk.now += STALLED_AFTER_S - 0.5
    desk.hear(Said(1, Stuck("app.py:3 in slow")))
    desk.later(0.5)
    first, second = desk.texts
    assert first.endswith("It stands here:\n    app.py:3 in slow")
    assert "is not known" in second
    # What it has said once is no more so when it has turned.
    desk.hear(Said(1, Beat()))
    desk.later(STALLED_AFTER_S)
    assert "is not known" in desk.texts[0]


def test_a_worker_that_hangs_is_killed_at_the_limit_and_replaced_as_stalled() -> None:
    desk = a_fleet(2, hang_timeout_s=10.0)
    desk.later(STALLED_AFTER_S)
    desk.hear(Said(2, Beat()))
    assert deeds(desk.later(6.25)) == [Stalled(2, True)]
    desk.hear(Said(2, Beat()))
    assert desk.fleet.next_deadline() == 1000.0 + EARLY_DEATH_S + 10.0
    assert deeds(desk.later(0.25)) == [KillProcess(1)]
    assert deeds(desk.later(0.25)) == []
    assert deeds(desk.dies(1, -9)) == [Buried(1, "stalled"), StartProcess(3, 0)]


def test_a_signal_that_what_started_the_launcher_hands_on_is_the_same_stop() -> None:
    desk = a_fleet(2, signals_come_twice=True)
    desk.hear(INT)
    desk.now += SAME_STOP_S / 2
    assert deeds(desk.hear(INT)) == []
    desk.now += SAME_STOP_S / 2
    assert deeds(desk.hear(INT)) == [KillProcess(1), KillProcess(2)]


def test_a_limit_shorter_than_a_stall_counts() -> None:
    desk = a_fleet(1, hang_timeout_s=2.0)
    assert deeds(desk.later(1.5)) == []
    # Four beats to a limit, as to the shortest that beats once a second.
    assert (beat_s(2.0), desk.fleet.policy.stalled_after_s) == (0.5, 1.75)
    assert deeds(desk.later(0.25)) == [Stalled(1, True)]
    assert deeds(desk.later(0.25)) == [KillProcess(1)]


def test_hang_is_judged_from_ready_on_and_not_while_a_worker_stops() -> None:
    desk = a_start(2, hang_timeout_s=10.0)
    assert desk.later(3600) == []
    desk.ready(1, 2)
    assert desk.fleet.next_deadline() == desk.now + STALLED_AFTER_S
    desk.hear(TERM)
    assert desk.fleet.next_deadline() is None
    assert desk.later(3600) == []


def test_time_in_which_the_launcher_slept_counts_against_nobody() -> None:
    desk = a_fleet(2, hang_timeout_s=10.0)
    desk.now += 3600.0
    assert deeds(desk.hear(LauncherSlept(3600.0), Tick())) == []
    assert desk.fleet.next_deadline() == desk.now + STALLED_AFTER_S
    assert deeds(desk.later(STALLED_AFTER_S)) == [Stalled(1, True), Stalled(2, True)]


def test_time_in_which_the_launcher_slept_is_no_time_to_stop_in_either() -> None:
    desk = a_fleet(1, stop_timeout_s=5.0)
    desk.hear(TERM)
    desk.now += 60.0
    assert deeds(desk.hear(LauncherSlept(60.0), Tick())) == []
    assert deeds(desk.later(5.0)) == [KillProcess(1)]


# --- stop


def test_a_stop_asks_all_and_ends_with_0_when_the_last_is_gone() -> None:
    desk = a_fleet(2)
    desk.hear(MORE)
    assert deeds(desk.hear(TERM)) == [StopProcess(1, False), StopProcess(2, False), StopProcess(3, True)]
    assert deeds(desk.hear(HUP, MORE, FEWER, Said(1, Retiring()), Said(3, Ready()), Tick())) == []
    assert deeds(desk.dies(1, 0)) == [Buried(1, "left")]
    assert deeds(desk.dies(3, 0)) == [Buried(3, "left")]
    assert deeds(desk.dies(2, 1)) == [Buried(2, "killed"), Exit(0)]


@pytest.mark.parametrize(
    ("first", "second", "status"), [(TERM, TERM, 143), (TERM, INT, 130), (ParentGone(), INT, 130)]
)
def test_a_second_stop_kills_all_and_ends_with_128_and_the_signal(
    first: Event, second: Event, status: int
) -> None:
    desk = a_fleet(2)
    desk.hear(first)
    desk.dies(1, 0)
    desk.now += SAME_STOP_S
    assert deeds(desk.hear(second)) == [KillProcess(2)]
    assert deeds(desk.dies(2, -9)) == [Buried(2, "killed"), Exit(status)]


def test_another_kind_of_signal_in_the_same_moment_is_the_same_stop() -> None:
    for first, second in ((INT, TERM), (TERM, INT)):
        desk = a_fleet(2)
        assert len(deeds(desk.hear(first))) == 2
        desk.now += SAME_STOP_S / 2
        assert deeds(desk.hear(second)) == []
        # The same once more is a person who is in a hurry.
        assert deeds(desk.hear(first)) == [KillProcess(1), KillProcess(2)]
        assert desk.dies(1, -9) == [Buried(1, "killed")]
        assert desk.dies(2, -9)[-1] == Exit(128 + first.signal)


def test_a_stop_during_a_back_off_starts_nobody_afterwards() -> None:
    desk = a_fleet(2)
    for generation in (1, 3, 4):
        desk.dies(generation)
    desk.hear(TERM)
    assert desk.fleet.next_deadline() is None
    assert desk.later(60.0) == []
    assert desk.dies(2, 0)[-1] == Exit(0)


def test_a_worker_that_does_not_stop_in_time_is_killed() -> None:
    desk = a_fleet(2, stop_timeout_s=5.0)
    desk.hear(TERM)
    desk.dies(1, 0)
    assert desk.fleet.next_deadline() == desk.now + 5.0
    assert deeds(desk.later(4.75)) == []
    assert deeds(desk.later(0.25)) == [KillProcess(2)]
    assert desk.fleet.next_deadline() is None
    assert deeds(desk.later(60.0)) == []
    assert deeds(desk.dies(2, -9)) == [Buried(2, "killed"), Exit(0)]


def test_when_the_starter_has_gone_that_is_one_stop_and_has_an_end() -> None:
    desk = a_fleet(2)
    assert deeds(desk.hear(ParentGone())) == [StopProcess(1, False), StopProcess(2, False)]
    # Who ends the starter may signal the whole group.
    assert deeds(desk.hear(TERM)) == []
    desk.dies(1, 0)
    assert deeds(desk.later(UNATTENDED_STOP_S - 0.25)) == []
    assert deeds(desk.later(0.25)) == [KillProcess(2)]
    assert desk.dies(2, -9)[-1] == Exit(0)


def test_a_starter_that_goes_behind_a_stop_does_not_hurry_it() -> None:
    desk = a_fleet(2, stop_timeout_s=5.0)
    desk.hear(TERM)
    desk.now += SAME_STOP_S
    assert deeds(desk.hear(ParentGone())) == []
    assert desk.fleet.next_deadline() == desk.now - SAME_STOP_S + 5.0


# --- reasons

CLEAN = Said(1, Drained(True, 0, 0))
UNCLEAN = Said(1, Drained(False, 7, 2))
CUT_SHORT = Said(1, Drained(False, 7, 2, cancelled=True))
REPLACED = [HUP, Said(3, Ready())]


@pytest.mark.parametrize(
    ("before", "status", "reason"),
    [
        ([], 0, "killed"),
        ([CLEAN], 0, "left"),
        ([UNCLEAN], 0, "drain_timeout"),
        ([CUT_SHORT], 0, "cancelled"),
        ([Said(1, Drained(True, 7, 2, cancelled=True))], 0, "left"),
        ([TERM], 0, "left"),
        ([TERM, UNCLEAN], 0, "drain_timeout"),
        ([TERM], -9, "killed"),
        ([TERM, CLEAN], -9, "left"),
        (REPLACED, 0, "replaced"),
        ([*REPLACED, UNCLEAN], 0, "drain_timeout"),
        (REPLACED, -9, "killed"),
        ([*REPLACED, CLEAN], -9, "replaced"),
    ],
)
def test_the_dead_are_buried_with_the_reason(before: list[Event], status: int, reason: str) -> None:
    desk = a_fleet(2)
    desk.hear(*before)
    assert Buried(1, reason) in desk.dies(1, status)


def test_the_same_reason_of_many_workers_is_told_once_until_a_restart() -> None:
    desk = a_fleet(2)
    desk.hear(MORE, MORE)
    assert desk.texts.count("no database") == 0
    for generation, told in ((3, 1), (4, 0), (5, 0)):
        desk.dies(generation, 3, "no database")
        assert desk.texts.count("no database") == told
    desk.dies(6, 3, "another reason")
    assert "another reason" in desk.texts


# --- what the operator is told


@pytest.mark.parametrize(
    ("policy", "steps", "level", "text"),
    [
        ({}, [HUP], "info", "Received SIGHUP, restarting workers."),
        ({}, [TERM], "info", "Received SIGTERM, exiting."),
        ({}, [TERM, INT], "info", "Received SIGINT in the same moment."),
        ({}, [TERM, TERM], "warning", "Received SIGTERM again, ending all workers at once."),
        ({}, [ParentGone()], "info", "Whoever started this server has gone, exiting."),
        ({}, [MORE], "info", "Increasing the number of workers to 2."),
        ({}, [FEWER], "info", "One worker is left; there can't be fewer."),
        ({}, [EXITED], "error", "Worker [1001] died: it exited; starting another."),
        ({}, [HUP, replace(EXITED, generation=2)], "error", f"{NEW}; {KEPT} and giving the restart up."),
        (
            {},
            [Said(1, Retiring()), replace(EXITED, generation=2)],
            "error",
            f"{NEW}; {SERVES} until another try.",
        ),
        ({}, [STALLED_AFTER_S, Said(1, Beat())], "info", "Worker [1001] responds again."),
        ({"hang_timeout_s": 9.5}, [9.5], "error", "Worker [1001] has been stalled for 9.5 s; replacing it."),
        ({"stop_timeout_s": 5.0}, [TERM, 5.0], "error", "Worker [1001] has not stopped in time; killing it."),
        ({}, [Said(1, Drained(False, 7, 2))], "warning", f"Worker [1001] reached its drain timeout {UNDONE}"),
        (
            {},
            [Said(1, Drained(False, 7, 2, cancelled=True))],
            "warning",
            f"Worker [1001] had its leave cancelled by the app {UNDONE}",
        ),
    ],
)
def test_the_operator_is_told(
    policy: dict[str, Any], steps: list[Event | float], level: str, text: str
) -> None:
    desk = a_fleet(1, **policy)
    for step in steps:
        told = of(Log, desk.later(step) if isinstance(step, float) else desk.hear(step))
    assert told[-1:] == [Log(level, text)]


def test_what_could_not_be_started_at_all_has_no_pid_to_be_told() -> None:
    desk = Desk(Fleet(Policy(2)))
    desk.fleet.handle(Begin(), desk.now)
    desk.dies(1, 1)
    assert desk.texts[-1] == "A worker exited before it was ready; stopping the server."
    desk = a_fleet(1)
    desk.fleet.handle(HUP, desk.now)
    desk.dies(2, 1)
    assert desk.texts[-1] == f"A new worker exited before it was ready; {KEPT} and giving the restart up."


def test_a_restart_that_waits_begins_when_the_slot_of_the_one_before_is_scaled_away() -> None:
    desk = a_fleet(2)
    desk.hear(HUP)
    desk.ready(3)
    desk.hear(HUP)
    assert deeds(desk.hear(FEWER)) == [StopProcess(2, False), StopProcess(4, True), StartProcess(5, 0)]


def test_a_restart_that_a_stop_forgets_does_not_follow() -> None:
    desk = a_fleet(1)
    desk.hear(HUP, HUP, TERM)
    assert starts(desk.ready(2)) == []
    assert not any("restarting" in text for text in desk.texts)


# --- what comes too late


@pytest.mark.parametrize("generation", [1, 99])
def test_what_is_heard_of_a_process_that_is_gone_changes_nothing(generation: int) -> None:
    desk = a_fleet(2)
    desk.dies(1)
    before = desk.phases
    late: list[Event] = [
        Started(generation, 5),
        Said(generation, Ready()),
        Said(generation, Failed("late")),
        Said(generation, Retiring()),
        Said(generation, Beat()),
        Said(generation, Drained(False, 1, 2)),
        Exited(generation, 1, "exited"),
    ]
    assert desk.hear(*late) == []
    assert desk.phases == before


def test_a_process_that_is_ready_after_it_was_told_to_stop_stops_all_the_same() -> None:
    desk = a_fleet(1)
    desk.hear(MORE, FEWER)
    assert desk.ready(2) == []
    assert desk.phases[2] is Phase.STOPPING


# --- the clock

_seconds = st.floats(0.0, 1e7)


@given(_seconds, st.none() | st.floats(0.001, 100.0), st.lists(st.floats(0.0, 3.0), max_size=3))
def test_a_tick_at_the_deadline_has_something_to_do_whatever_the_rounding(
    begin: float, hang_timeout_s: float | None, beats: list[float]
) -> None:
    desk = Desk(Fleet(Policy(1, hang_timeout_s=hang_timeout_s)), now=begin)
    desk.hear(Begin(), Said(1, Ready()))
    for pause in beats:
        desk.now += pause
        desk.hear(Said(1, Beat()))
    while (deadline := desk.fleet.next_deadline()) is not None:
        assert deadline >= desk.now
        desk.now = deadline
        assert deeds(desk.hear(Tick()))
        after = desk.fleet.next_deadline()
        assert after is None or after > desk.now


# --- restart rounds


def test_a_process_belongs_to_the_restart_round_in_which_it_is_started() -> None:
    desk = a_fleet(2)
    assert [start.round for start in of(StartProcess, desk.dies(2, -9))] == [0]
    desk.ready(3)
    (first,) = of(StartProcess, desk.hear(HUP))
    # However many come meanwhile, they are one more.
    desk.hear(HUP, HUP)
    (second,) = of(StartProcess, desk.ready(first.generation))
    assert (first.round, second.round) == (1, 1)
    (third,) = of(StartProcess, desk.ready(second.generation))
    assert third.round == 2
    desk.now += EARLY_DEATH_S
    (replacement,) = of(StartProcess, desk.dies(second.generation, -9))
    assert replacement.round == 2
