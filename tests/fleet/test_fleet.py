"""The fleet: its start, restarts, and changes of its size, event by event."""

from __future__ import annotations

import pytest

from asgi_ipc.fleet.events import Buried, Event, Exit, Log, Said, StartProcess, StopProcess
from asgi_ipc.fleet.processes import Phase
from asgi_ipc.fleet.slots import EARLY_DEATH_S, STALLED_AFTER_S
from asgi_ipc.fleet.words import Ready
from tests.fleet.desk import FEWER, HUP, MORE, TERM, a_fleet, a_start, deeds, of, starts

GIVEN_UP = "giving the restart up"


# --- start


def test_the_fleet_begins_with_one_process_for_each_slot() -> None:
    desk = a_start(3)
    assert desk.actions == [StartProcess(1, 0), StartProcess(2, 1), StartProcess(3, 2)]
    assert desk.phases == dict.fromkeys((1, 2, 3), Phase.STARTING)


def test_a_first_start_that_fails_ends_the_server_with_status_3_and_one_reason() -> None:
    desk = a_start(3)
    desk.ready(1)
    assert deeds(desk.dies(2, 3, "no module named demo")) == [
        Buried(2, "killed"),
        StopProcess(1, False),
        StopProcess(3, True),
    ]
    assert desk.texts.count("no module named demo") == 1
    assert desk.dies(3, 3, "no module named demo") == [Buried(3, "killed")]
    assert desk.dies(1, 0) == [Buried(1, "left"), Exit(3)]


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


def test_with_reload_a_change_that_is_as_bad_gives_the_restart_up_and_a_stop_ends_at_once() -> None:
    desk = a_start(1, outlive_failed_start=True)
    desk.dies(1, 3)
    assert GIVEN_UP not in " ".join(desk.texts)
    desk.hear(HUP)
    desk.dies(2, 3)
    assert GIVEN_UP in " ".join(desk.texts)
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


def test_further_restarts_during_one_merge_into_one_more_and_so_do_those_during_that() -> None:
    desk = a_fleet(2)
    desk.hear(HUP)
    assert deeds(desk.hear(HUP, HUP, HUP)) == []
    desk.ready(3)
    assert deeds(desk.ready(4)) == [StopProcess(2, False), StartProcess(5, 0)]
    desk.hear(HUP)
    desk.ready(5)
    assert deeds(desk.ready(6)) == [StopProcess(4, False), StartProcess(7, 0)]
    desk.ready(7)
    assert deeds(desk.ready(8)) == [StopProcess(6, False)]


def test_a_replacement_that_cannot_start_leaves_the_old_and_ends_the_restart_with_the_reason() -> None:
    desk = a_fleet(2)
    desk.hear(HUP)
    assert deeds(desk.dies(3, 3, "syntax error in demo")) == [Buried(3, "killed")]
    assert desk.texts[0] == "syntax error in demo"
    assert "keeping worker [1001]" in desk.texts[1]
    assert desk.phases == {1: Phase.READY, 2: Phase.READY}
    assert desk.fleet.next_deadline() == 1000.0 + EARLY_DEATH_S + STALLED_AFTER_S
    # A restart that is asked for meanwhile follows, and tells the same reason anew.
    assert deeds(desk.hear(HUP, HUP)) == [StartProcess(4, 0)]
    assert deeds(desk.dies(4, 3, "syntax error in demo")) == [Buried(4, "killed"), StartProcess(5, 0)]
    desk.dies(5, 3, "syntax error in demo")
    assert "syntax error in demo" in desk.texts


def test_a_restart_asked_for_during_the_start_replaces_each_slot_in_turn() -> None:
    desk = a_start(2)
    assert deeds(desk.hear(HUP)) == [StartProcess(3, 0)]
    # The first two have the old code: that they are ready finishes nothing.
    assert deeds(desk.ready(1, 2)) == []
    assert deeds(desk.ready(3)) == [StopProcess(1, False), StartProcess(4, 1)]
    assert deeds(desk.ready(4)) == [StopProcess(2, False)]
    assert desk.texts == ["All 2 workers are ready."]


def test_restarts_are_over_when_the_last_worker_from_before_them_has_gone() -> None:
    desk = a_fleet(1)
    desk.hear(HUP)
    desk.ready(2)
    # The old worker still leaves, and holds up no further restart.
    assert deeds(desk.hear(HUP)) == [StartProcess(3, 0)]
    desk.ready(3)
    desk.dies(2, 0)
    assert desk.texts == []
    desk.dies(1, 0)
    assert desk.texts == ["All workers have been restarted."] * 2


def test_a_stop_ends_every_restart_and_none_is_told_to_be_over() -> None:
    desk = a_fleet(1)
    desk.hear(HUP)
    desk.ready(2)
    desk.hear(HUP, HUP, TERM)
    for ended in (desk.ready(3), desk.dies(1, 0), desk.dies(2, 0), desk.dies(3, 0)):
        assert not of(StartProcess, ended)
        assert not of(Log, ended)


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


def test_a_restart_begins_with_a_slot_without_a_worker_and_is_given_up_when_that_dies_again() -> None:
    desk = a_fleet(2)
    for generation in (1, 3, 4):
        desk.dies(generation)
    assert set(desk.phases) == {2}
    assert deeds(desk.hear(HUP)) == [StartProcess(5, 0)]
    # Nothing is left to be tried later.
    assert not starts(desk.later(0.5))
    desk.dies(5)
    assert starts(desk.actions) == [StartProcess(6, 0)]
    assert GIVEN_UP not in " ".join(desk.texts)
    assert not starts(desk.dies(6))
    assert GIVEN_UP in " ".join(desk.texts)
    desk.later(0.5)
    assert deeds(desk.hear(HUP)) == [StartProcess(8, 0)]
    assert deeds(desk.ready(8)) == [StopProcess(7, True), StartProcess(9, 1)]


def test_a_replacement_takes_over_when_the_old_one_dies_first() -> None:
    desk = a_fleet(2)
    desk.hear(HUP)
    assert deeds(desk.dies(1, -11)) == [Buried(1, "killed")]
    assert deeds(desk.ready(3)) == [StartProcess(4, 1)]
    assert deeds(desk.ready(4)) == [StopProcess(2, False)]


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


# --- scaling


def test_workers_are_added_and_taken_away_one_by_one_down_to_one() -> None:
    desk = a_fleet(2)
    assert deeds(desk.hear(MORE, MORE)) == [StartProcess(3, 2), StartProcess(4, 3)]
    assert deeds(desk.hear(FEWER, FEWER)) == [StopProcess(4, True), StopProcess(3, True)]
    assert deeds(desk.hear(FEWER, FEWER)) == [StopProcess(2, False)]
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


def test_a_restart_that_waits_begins_when_the_slot_of_the_one_before_is_scaled_away() -> None:
    desk = a_fleet(2)
    desk.hear(HUP)
    desk.ready(3)
    desk.hear(HUP)
    assert deeds(desk.hear(FEWER)) == [StopProcess(2, False), StopProcess(4, True), StartProcess(5, 0)]
