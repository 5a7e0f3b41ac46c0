"""The end: how the fleet stops, why a process is gone, and what the operator is told of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from asgi_ipc.fleet.events import (
    Action,
    Begin,
    Buried,
    Event,
    Exit,
    Exited,
    KillProcess,
    Log,
    ParentGone,
    Said,
    Started,
    StopProcess,
    Tick,
)
from asgi_ipc.fleet.machine import Fleet
from asgi_ipc.fleet.slots import SAME_STOP_S, STALLED_AFTER_S, UNATTENDED_STOP_S, Policy
from asgi_ipc.fleet.words import Beat, Drained, Failed, Ready, Retiring
from tests.fleet.desk import FEWER, HUP, INT, MORE, TERM, Desk, a_fleet, deeds, of

EXITED = Exited(1, 1, "exited")

NEW = "New worker [1002] exited before it was ready"
KEPT = "keeping worker [1001]"
SERVES = "worker [1001] serves on"
UNDONE = "with 7 messages not sent and 2 not handled."


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


@pytest.mark.parametrize(
    ("first", "second", "policy", "killed"),
    [
        # One Ctrl-C may come as two kinds of signal, the same once more is a person who is in a hurry.
        (INT, TERM, {}, []),
        (TERM, INT, {}, []),
        (INT, INT, {}, [KillProcess(1), KillProcess(2)]),
        # What started the launcher hands on what the terminal sends to both.
        (INT, INT, {"signals_come_twice": True}, []),
    ],
)
def test_another_signal_in_the_same_moment_is_the_same_stop_if_it_can_be(
    first: Event, second: Event, policy: dict[str, Any], killed: list[Action]
) -> None:
    desk = a_fleet(2, **policy)
    assert deeds(desk.hear(first)) == [StopProcess(1, False), StopProcess(2, False)]
    desk.now += SAME_STOP_S / 2
    assert deeds(desk.hear(second)) == killed
    desk.now += SAME_STOP_S / 2
    assert deeds(desk.hear(second)) == [KillProcess(1), KillProcess(2)]


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
