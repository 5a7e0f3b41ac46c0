"""Helpers: processes of another kind. They are watched as workers are, and counted nowhere as one."""

from __future__ import annotations

from asgi_ipc.fleet.events import (
    Buried,
    Exit,
    KillProcess,
    LauncherSlept,
    ParentGone,
    Stalled,
    StartProcess,
    StopProcess,
)
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.processes import Phase
from asgi_ipc.fleet.relay import Relay
from asgi_ipc.fleet.slots import EARLY_DEATH_S, KILLED, STALLED_AFTER_S, STARTUP_FAILURE, UNATTENDED_STOP_S
from asgi_ipc.fleet.words import (
    Join,
    Joined,
    Leads,
    Leaving,
    Left,
    Resigned,
    Welcome,
    WriteEnd,
)
from tests.fleet.desk import FEWER, HUP, MORE, TERM, Desk, a_fleet, a_start, deeds, of
from tests.fleet.relays import said, took, worker

# In a fleet of two workers: the generation of the helper.
HELPER = 3


def a_helped_fleet(**policy: float) -> Desk:
    """Two workers and a helper, which have been ready for a while."""
    desk = a_fleet(2, helpers=("bridge",), **policy)
    desk.ready(HELPER)
    desk.now += EARLY_DEATH_S
    return desk


def test_a_helper_is_started_behind_the_workers_in_a_slot_of_no_worker() -> None:
    desk = a_start(2, helpers=("bridge", "keeper"))
    assert desk.actions == [StartProcess(1, 0), StartProcess(2, 1), StartProcess(3, -1), StartProcess(4, -2)]
    assert len(desk.fleet._slots) == 2


def test_the_workers_are_ready_without_a_helper_and_its_own_start_is_told_by_its_kind() -> None:
    desk = a_start(2, helpers=("bridge",))
    desk.ready(1, 2)
    assert desk.texts == ["All 2 workers are ready."]
    desk.ready(HELPER)
    assert desk.texts == ["Bridge [1003] is ready."]


def test_a_helper_that_dies_is_started_again_at_once_and_then_later_and_later() -> None:
    desk = a_helped_fleet()
    assert deeds(desk.dies(HELPER, KILLED)) == [Buried(HELPER, "killed"), StartProcess(4, -1)]
    assert desk.texts == ["Bridge [1003] died: it exited; starting another."]
    assert of(StartProcess, desk.dies(4)) == [StartProcess(5, -1)]
    assert of(StartProcess, desk.dies(5)) == []
    assert desk.texts == ["Bridge [1005] died: it exited; starting another in 0.5 s."]
    assert desk.fleet.next_deadline() == desk.now + 0.5
    assert of(StartProcess, desk.later(0.4)) == []
    assert of(StartProcess, desk.later(0.1)) == [StartProcess(6, -1)]


def test_a_helper_that_cannot_start_leaves_the_server_up_and_its_reason_is_told_once() -> None:
    desk = a_start(2, helpers=("bridge",))
    assert of(StartProcess, desk.dies(HELPER, STARTUP_FAILURE, "no broker")) == [StartProcess(4, -1)]
    assert desk.texts[0] == "no broker"
    desk.dies(4, STARTUP_FAILURE, "no broker")
    assert desk.texts == ["Bridge [1004] died: it exited; starting another in 0.5 s."]
    desk.ready(1, 2)
    assert desk.texts == ["All 2 workers are ready."]
    # A worker that fails its first start does end the server, beside a helper as well.
    other = a_start(1, helpers=("bridge",))
    assert of(StopProcess, other.dies(1)) == [StopProcess(2, True)]


def test_a_restart_and_scaling_leave_a_helper_alone_and_it_never_retires() -> None:
    desk = a_helped_fleet()
    assert deeds(desk.hear(HUP)) == [StartProcess(4, 0)]
    assert deeds(desk.ready(4)) == [StopProcess(1, False), StartProcess(5, 1)]
    assert deeds(desk.ready(5)) == [StopProcess(2, False)]
    desk.dies(1, 0)
    desk.dies(2, 0)
    assert desk.texts == ["All workers have been restarted."]
    assert deeds(desk.hear(MORE)) == [StartProcess(6, 2)]
    assert deeds(desk.hear(FEWER)) == [StopProcess(6, True)]
    assert desk.retires(HELPER) == []
    assert desk.phases[HELPER] is Phase.READY


def test_a_helper_shows_as_stalled_and_a_hung_one_is_killed() -> None:
    desk = a_helped_fleet(hang_timeout_s=10.0)
    desk.hear(LauncherSlept(-STALLED_AFTER_S))
    stalled = of(Stalled, desk.later(STALLED_AFTER_S))
    assert Stalled(HELPER, True) in stalled
    assert any(text.startswith("Bridge [1003] is stalled: ") for text in desk.texts)
    desk.later(10.0)
    assert KillProcess(HELPER) in desk.actions
    assert of(Buried, desk.dies(HELPER, KILLED)) == [Buried(HELPER, "stalled")]


def test_a_helper_is_stopped_when_the_last_worker_has_ended_and_then_the_server_ends() -> None:
    desk = a_helped_fleet(stop_timeout_s=5.0)
    assert deeds(desk.hear(TERM)) == [StopProcess(1, False), StopProcess(2, False)]
    assert deeds(desk.dies(1, 0)) == [Buried(1, "left")]
    desk.now += 1.0
    assert deeds(desk.dies(2, 0)) == [Buried(2, "left"), StopProcess(HELPER, False)]
    assert desk.fleet.next_deadline() == desk.now + 5.0
    assert deeds(desk.dies(HELPER, 0)) == [Buried(HELPER, "left"), Exit(0)]


def test_a_helper_that_dies_while_workers_stop_is_not_started_again() -> None:
    desk = a_helped_fleet()
    desk.hear(TERM)
    assert deeds(desk.dies(HELPER, KILLED)) == [Buried(HELPER, "killed")]
    desk.dies(1, 0)
    assert of(Exit, desk.dies(2, 0)) == [Exit(0)]


def test_a_helper_that_waits_for_another_start_does_not_hold_up_a_stop() -> None:
    desk = a_helped_fleet()
    for generation in (HELPER, 4, 5):
        desk.dies(generation)
    desk.hear(TERM)
    assert desk.fleet.next_deadline() is None
    desk.dies(1, 0)
    assert of(Exit, desk.dies(2, 0)) == [Exit(0)]


def test_a_second_signal_and_the_deadline_behind_a_lost_parent_end_a_helper_too() -> None:
    desk = a_helped_fleet()
    desk.hear(TERM)
    desk.now += 1.0
    assert of(KillProcess, desk.hear(TERM)) == [KillProcess(1), KillProcess(2), KillProcess(HELPER)]
    other = a_helped_fleet()
    other.hear(ParentGone())
    assert KillProcess(HELPER) in other.later(UNATTENDED_STOP_S)


def test_a_helper_joins_through_the_relay_and_leads_never() -> None:
    relay = Relay()
    helper = Worker(pid=1002, slot=-1, generation=2, kind="bridge")
    relay.connect(worker(1))
    relay.connect(helper)
    relay.hear(2, Join(), 0.0)
    assert Welcome([]) in said(relay, 2)
    relay.hear(1, Join(), 0.0)
    assert said(relay, 1) == [Welcome([helper])]
    assert said(relay, 2) == [Joined(worker(1))]
    took(relay, 2, 1)
    words_to_1 = said(relay, 1)
    assert WriteEnd(2) in words_to_1
    assert Leads(worker(1)) in words_to_1
    took(relay, 1, 2)
    relay.hear(1, Leaving(), 0.0)
    relay.hear(1, Resigned(), 0.0)
    assert said(relay, 2) == [Leads(worker(1)), Left(1), Leads(None)]
