"""Stalls, hangs and the clock of the fleet."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc.fleet.events import Begin, Buried, KillProcess, LauncherSlept, Said, Stalled, StartProcess, Tick
from asgi_ipc.fleet.machine import Fleet
from asgi_ipc.fleet.settings import beat_s
from asgi_ipc.fleet.slots import EARLY_DEATH_S, STALLED_AFTER_S, Policy
from asgi_ipc.fleet.words import Ready, Stuck
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)
from tests.fleet.desk import TERM, Desk, a_fleet, a_start, deeds

# --- stalls and hangs


def test_a_worker_shows_as_stalled_after_three_and_a_half_seconds_and_responds_again() -> None:
    desk = a_fleet(2)
    desk.now += 1.0
    desk.beats(2)
    assert desk.fleet.next_deadline() == desk.now - 1.0 + STALLED_AFTER_S
    assert desk.later(STALLED_AFTER_S - 1.25) == []
    assert deeds(desk.later(0.25)) == [Stalled(1, True)]
    assert deeds(desk.later(0.5)) == []
    assert deeds(desk.beats(1)) == [Stalled(1, False)]
    assert deeds(desk.beats(1)) == []
    assert deeds(desk.later(STALLED_AFTER_S)) == [Stalled(1, True), Stalled(2, True)]


def test_the_warning_of_a_stall_says_where_the_worker_stands_or_that_it_is_not_known() -> None:
    desk = a_fleet(2)
    desk.now += STALLED_AFTER_S - 0.5
    desk.hear(Said(1, Stuck("app.py:3 in slow\nblue: \x1b[34m")))
    desk.later(0.5)
    first, second = desk.texts
    assert first.endswith("It stands here:\n    app.py:3 in slow\n    blue: \\x1b[34m")
    assert "is not known" in second
    # What it has said once is no more so when it has turned.
    desk.beats(1)
    desk.later(STALLED_AFTER_S)
    assert "is not known" in desk.texts[0]


def test_a_worker_that_hangs_is_killed_at_the_limit_and_replaced_as_stalled() -> None:
    desk = a_fleet(2, hang_timeout_s=10.0)
    desk.later(STALLED_AFTER_S)
    desk.beats(2)
    assert deeds(desk.later(6.25)) == [Stalled(2, True)]
    desk.beats(2)
    assert desk.fleet.next_deadline() == 1000.0 + EARLY_DEATH_S + 10.0
    assert deeds(desk.later(0.25)) == [KillProcess(1)]
    assert deeds(desk.later(0.25)) == []
    assert deeds(desk.dies(1, -9)) == [Buried(1, "stalled"), StartProcess(3, 0)]


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
    desk = a_fleet(2, hang_timeout_s=10.0, stop_timeout_s=5.0)
    desk.now += 3600.0
    assert deeds(desk.hear(LauncherSlept(3600.0), Tick())) == []
    assert desk.fleet.next_deadline() == desk.now + STALLED_AFTER_S
    assert deeds(desk.later(STALLED_AFTER_S)) == [Stalled(1, True), Stalled(2, True)]
    # Nor is it time to stop in.
    desk.hear(TERM)
    desk.now += 60.0
    assert deeds(desk.hear(LauncherSlept(60.0), Tick())) == []
    assert deeds(desk.later(5.0)) == [KillProcess(1), KillProcess(2)]


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
        desk.beats(1)
    while (deadline := desk.fleet.next_deadline()) is not None:
        assert deadline >= desk.now
        desk.now = deadline
        assert deeds(desk.hear(Tick()))
        after = desk.fleet.next_deadline()
        assert after is None or after > desk.now
