"""Replacements: the back-off of a slot whose processes die, and workers that retire."""

from __future__ import annotations

from asgi_ipc.fleet.events import Buried, Exit, KillProcess, StartProcess, StopProcess
from asgi_ipc.fleet.slots import BACKOFF_MAX_S, EARLY_DEATH_S, SAME_STOP_S, STALLED_AFTER_S, backoff_s
from tests.fleet.desk import FEWER, HUP, MORE, TERM, a_fleet, deeds, of, starts

# --- back-off


def test_back_off_is_0_then_half_a_second_doubling_to_30() -> None:
    assert [backoff_s(deaths) for deaths in range(10)] == [0, 0, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff_s(10_000) == BACKOFF_MAX_S


def test_a_slot_that_keeps_dying_waits_longer_and_longer() -> None:
    desk = a_fleet(2)
    # The first had lived, so its death is not early, and the next one's is the first that is.
    assert starts(desk.dies(1)) == [StartProcess(3, 0)]
    assert starts(desk.dies(3)) == [StartProcess(4, 0)]
    for generation, delay_s in enumerate((0.5, 1, 2, 4, 8, 16, 30, 30), 4):
        desk.beats(2)
        assert not starts(desk.dies(generation))
        assert desk.fleet.next_deadline() == desk.now + min(delay_s, STALLED_AFTER_S)
        assert not starts(desk.later(delay_s - 0.25))
        assert starts(desk.later(0.25)) == [StartProcess(generation + 1, 0)]


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


def test_the_back_off_of_one_slot_holds_up_no_other_and_no_signal_and_ends_with_a_stop() -> None:
    desk = a_fleet(2)
    for generation in (1, 3, 4):
        desk.dies(generation)
    assert starts(desk.dies(2)) == [StartProcess(5, 1)]
    assert starts(desk.hear(MORE)) == [StartProcess(6, 2)]
    assert of(StopProcess, desk.hear(TERM)) == [StopProcess(5, True), StopProcess(6, True)]
    assert desk.fleet.next_deadline() is None
    assert desk.later(60.0) == []
    desk.dies(5, 0)
    assert desk.dies(6, 0)[-1] == Exit(0)


# --- retiring


def test_a_worker_that_retires_is_replaced_before_it_stops_and_without_back_off() -> None:
    desk = a_fleet(2)
    assert deeds(desk.retires(1)) == [StartProcess(3, 0)]
    assert deeds(desk.retires(1)) == []
    assert deeds(desk.ready(3)) == [StopProcess(1, False)]
    assert deeds(desk.retires(1)) == []
    assert deeds(desk.dies(1, 0)) == [Buried(1, "replaced")]
    assert deeds(desk.retires(3)) == [StartProcess(4, 0)]
    # That replacement has the old code.
    assert deeds(desk.hear(HUP)) == [StopProcess(4, True), StartProcess(5, 0)]
    assert deeds(desk.ready(5)) == [StopProcess(3, False), StartProcess(6, 1)]
    assert deeds(desk.dies(4, 0)) == [Buried(4, "left")]


def test_a_retiring_worker_serves_on_while_its_replacement_fails_and_is_tried_again() -> None:
    desk = a_fleet(1)
    desk.retires(1)
    for generation, delay_s in ((2, 0.5), (3, 1.0), (4, 2.0)):
        assert deeds(desk.dies(generation, 3, "no database")) == [Buried(generation, "killed")]
        desk.beats(1)
        assert deeds(desk.later(delay_s)) == [StartProcess(generation + 1, 0)]
    # If it dies before another try, that is not one more.
    desk.dies(5, 3)
    assert deeds(desk.dies(1, -11)) == [Buried(1, "killed"), StartProcess(6, 0)]
    assert deeds(desk.later(60.0)) == []


def test_workers_that_retire_at_the_same_time_are_replaced_one_after_the_other() -> None:
    desk = a_fleet(3)
    assert starts(desk.retires(2)) == [StartProcess(4, 1)]
    desk.now += 1.0
    assert starts(desk.retires(3, 1)) == []
    assert starts(desk.ready(4)) == [StartProcess(5, 0)]
    # The first of them again comes behind those that have waited longer.
    desk.now += 1.0
    assert starts(desk.retires(4)) == []
    assert starts(desk.ready(5)) == [StartProcess(6, 2)]
    assert starts(desk.ready(6)) == [StartProcess(7, 1)]


def test_a_death_is_replaced_at_once_while_a_retiring_worker_is_replaced() -> None:
    desk = a_fleet(3)
    desk.retires(1, 2)
    assert starts(desk.dies(3)) == [StartProcess(5, 2)]
    assert starts(desk.dies(2)) == [StartProcess(6, 1)]
    assert starts(desk.ready(4)) == []


def test_a_replacement_that_fails_lets_the_next_in_line_begin() -> None:
    desk = a_fleet(2)
    desk.retires(1, 2)
    assert starts(desk.dies(3, 3, "no database")) == [StartProcess(4, 1)]
    desk.beats(1, 2)
    # Its time for another try has come, but it is not alone.
    assert starts(desk.later(0.5)) == []
    assert starts(desk.ready(4)) == [StartProcess(5, 0)]


def test_a_retiring_worker_waits_for_the_end_of_a_restart() -> None:
    desk = a_fleet(2)
    desk.hear(HUP)
    assert starts(desk.retires(2)) == []
    assert starts(desk.ready(3)) == [StartProcess(4, 1)]
    assert starts(desk.retires(3)) == []
    assert starts(desk.ready(4)) == [StartProcess(5, 0)]


def test_whoever_is_replaced_or_scaled_away_is_relieved_and_a_full_stop_takes_that_back() -> None:
    desk = a_fleet(3, stop_timeout_s=10.0, linger_s=5.0)
    began = desk.now
    desk.retires(1)
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
    assert of(KillProcess, desk.later(14.9)) == []
    assert of(KillProcess, desk.later(0.1)) == [KillProcess(1)]
