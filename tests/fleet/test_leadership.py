"""Leadership: who is appointed, when it moves, and how the members hear of it."""

from __future__ import annotations

from asgi_ipc.fleet.leadership import Leadership
from asgi_ipc.fleet.relay import Relay
from asgi_ipc.fleet.words import Entered, Gone, Join, Joined, Leads, Leaving, Left, Resigned, Stop, Welcome
from tests.fleet.relays import a_fleet, said, settle, worker


def members(count: int) -> Leadership:
    """Members 1 to `count`; the first leads."""
    leadership = Leadership()
    for generation in range(1, count + 1):
        leadership.entered(generation)
    return leadership


def test_the_first_to_enter_leads_and_goes_on_when_newer_ones_come() -> None:
    leadership = Leadership()
    assert leadership.leader == 0
    assert leadership.entered(2)
    assert not leadership.entered(1)
    assert not leadership.entered(3)
    assert leadership.leader == 2


def test_the_newest_is_next() -> None:
    leadership = members(4)
    assert leadership.gone(1)
    assert leadership.leader == 4
    assert not leadership.gone(3)
    assert leadership.resigned(4)
    assert leadership.leader == 2


def test_neither_a_leave_nor_a_stall_takes_leadership_away() -> None:
    leadership = members(2)
    leadership.stalled(1, True)
    leadership.leaving(1)
    assert leadership.leader == 1
    assert leadership.gone(1)
    assert leadership.leader == 2


def test_who_leaves_or_has_resigned_is_appointed_no_more() -> None:
    leadership = members(3)
    leadership.leaving(3)
    leadership.resigned(2)
    assert leadership.gone(1)
    assert leadership.leader == 0
    # Word that it has entered may come behind that it leaves.
    leadership.leaving(4)
    assert not leadership.entered(4)
    assert leadership.entered(5)
    assert leadership.leader == 5


def test_a_stalled_member_is_appointed_if_there_is_no_other() -> None:
    leadership = members(3)
    leadership.stalled(3, True)
    leadership.gone(1)
    assert leadership.leader == 2
    leadership.resigned(2)
    assert leadership.leader == 3
    leadership = members(3)
    leadership.stalled(3, True)
    leadership.stalled(3, False)
    leadership.gone(1)
    assert leadership.leader == 3


def test_who_was_appointed_and_had_resigned_in_that_moment_passes_it_on() -> None:
    leadership = members(3)
    assert leadership.gone(1)
    assert leadership.leader == 3
    assert leadership.resigned(3)
    assert not leadership.resigned(3)
    assert leadership.leader == 2


# --- as the relay tells it


def test_who_has_entered_first_leads_and_a_newcomer_hears_of_it_behind_its_welcome() -> None:
    relay = Relay()
    relay.connect(worker(1))
    relay.hear(1, Join(), 0.0)
    assert said(relay, 1) == [Welcome([]), Entered([]), Leads(worker(1))]
    relay.connect(worker(2))
    relay.hear(2, Join(), 0.0)
    assert said(relay, 2) == [Welcome([worker(1)]), Leads(worker(1))]
    assert said(relay, 1) == [Joined(worker(2))]


def test_everyone_is_told_of_another_leader_behind_the_leave_or_death_that_brings_it() -> None:
    relay = a_fleet(3)
    relay.hear(1, Resigned(), 0.0)
    relay.hear(1, Leaving(), 0.0)
    for member in (2, 3):
        assert said(relay, member) == [Leads(worker(3)), Left(1)]
    assert said(relay, 1) == [Leads(worker(3))]
    relay.gone(1, "left")
    relay.gone(3, "killed")
    assert said(relay, 2) == [Gone(1, "left"), Gone(3, "killed"), Leads(worker(2))]
    relay.hear(2, Resigned(), 0.0)
    assert said(relay, 2) == [Leads(None)]


def test_a_leader_that_leaves_and_has_not_resigned_is_named_to_a_newcomer_that_does_not_know_it() -> None:
    relay = a_fleet(2)
    relay.hear(1, Leaving(), 0.0)
    settle(relay)
    relay.connect(worker(3))
    relay.hear(3, Join(), 0.0)
    assert said(relay, 3)[:2] == [Welcome([worker(2)]), Leads(worker(1))]
    settle(relay)
    relay.gone(1, "drain_timeout")
    assert said(relay, 3) == [Gone(1, "drain_timeout"), Leads(worker(3))]


def test_who_was_told_to_stop_is_appointed_no_more_and_leads_on_if_it_does() -> None:
    relay = a_fleet(3)
    for member in (1, 3):
        relay.tell(member, Stop())
    assert said(relay, 1) == said(relay, 3) == [Stop()]
    relay.hear(1, Resigned(), 0.0)
    assert said(relay, 3) == [Leads(worker(2))]
    relay.tell(2, Stop())
    relay.hear(2, Resigned(), 0.0)
    assert said(relay, 3) == [Leads(None)]
