"""Membership: whom a pid and a Worker mean, now and after a change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc.fleet.membership import Membership, Worker
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)

ME = Worker(pid=100, slot=0, generation=1)
OTHER = Worker(pid=200, slot=1, generation=2)


def test_a_worker_is_a_member_of_its_own_fleet() -> None:
    members = Membership(ME)
    assert members.me is ME
    assert members.workers == (ME,)
    assert members.generation_of(100) == members.generation_of(ME) == 1


def test_a_pid_means_who_has_it_and_a_worker_means_that_incarnation() -> None:
    members = Membership(ME)
    members.add(OTHER)
    assert members.generation_of(200) == 2
    assert members.generation_of(OTHER) == 2
    assert members.generation_of(201) is None
    assert members.generation_of(Worker(pid=200, slot=1, generation=3)) is None
    assert members.generation_of(Worker(pid=201, slot=1, generation=2)) is None


def test_who_has_left_is_nobody() -> None:
    members = Membership(ME)
    members.add(OTHER)
    assert members.remove(2)
    assert members.generation_of(200) is None
    assert members.generation_of(OTHER) is None
    assert members.workers == (ME,)
    assert not members.remove(2)


def test_a_reused_pid_means_the_new_process_even_when_the_old_ones_end_is_heard_later() -> None:
    members = Membership(ME)
    members.add(OTHER)
    heir = Worker(pid=200, slot=2, generation=9)
    members.add(heir)
    assert members.generation_of(200) == 9
    assert members.generation_of(OTHER) == 2
    members.remove(2)
    assert members.generation_of(200) == 9
    assert members.generation_of(OTHER) is None


def test_members_come_by_slot_and_then_by_age() -> None:
    members = Membership(ME)
    old, new = Worker(300, 1, 4), Worker(200, 1, 11)
    for worker in (new, Worker(1, 7, 3), old):
        members.add(worker)
    assert members.workers == (ME, old, new, Worker(1, 7, 3))


def test_the_members_that_were_asked_for_do_not_change_afterwards() -> None:
    members = Membership(ME)
    before = members.workers
    members.add(OTHER)
    assert before == (ME,)
    assert members.workers == (ME, OTHER)


@given(st.lists(st.tuples(st.booleans(), st.integers(2, 8), st.integers(1, 4)), max_size=30))
def test_members_are_who_was_added_and_not_removed(steps: list[tuple[bool, int, int]]) -> None:
    members = Membership(ME)
    model = {1: ME}
    used = {1}
    for adds, generation, pid in steps:
        if adds and generation not in used:
            used.add(generation)
            worker = Worker(pid, slot=generation % 3, generation=generation)
            members.add(worker)
            model[generation] = worker
        elif not adds:
            was_member = model.pop(generation, None) is not None
            assert members.remove(generation) is was_member
        assert set(members.workers) == set(model.values())
        assert len(members.workers) == len(model)
        for worker in model.values():
            assert members.generation_of(worker) == worker.generation
        for asked in range(1, 5):
            found = members.generation_of(asked)
            assert found is None or model[found].pid == asked
