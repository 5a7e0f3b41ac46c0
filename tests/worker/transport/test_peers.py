"""Peers: which worker a pid and a Worker name, now and after a change."""

from __future__ import annotations

from contextvars import Context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc import UnknownWorkerError, Worker
from asgi_ipc.wire.outbox import Budget, Outbox
from asgi_ipc.wire.packetizer import Route
from asgi_ipc.worker.transport.peers import Peer, Peers
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)

ME = Worker(pid=100, slot=0, generation=1)
OTHER = Worker(pid=200, slot=1, generation=2)


def a_peer(worker: Worker) -> Peer:
    return Peer(worker, Outbox(Route(b"12345678", 1, worker.generation, 4096), Budget()), Context())


def of(*workers: Worker) -> Peers:
    peers = Peers(ME)
    for worker in (ME, *workers):
        peers.add(a_peer(worker))
    return peers


def refuse(peers: Peers, worker: Worker) -> None:
    peer = peers.find(worker.generation)
    assert peer is not None
    peers.refuse(peer)


def meant(peers: Peers, to: int | Worker) -> Worker | None:
    try:
        return peers.meant_by(to).worker
    except UnknownWorkerError:
        return None


def test_a_worker_is_a_member_of_its_own_fleet() -> None:
    peers = of()
    assert peers.workers == (ME,)
    assert meant(peers, 100) == meant(peers, ME) == ME
    assert peers.members(include_self=True).pids == (100,)
    assert peers.members(include_self=False).peers == ()


def test_a_pid_means_who_has_it_and_a_worker_means_that_incarnation() -> None:
    peers = of(OTHER)
    assert meant(peers, 200) == meant(peers, OTHER) == meant(peers, Worker(200, 1, 2)) == OTHER
    assert meant(peers, 201) is None
    assert meant(peers, Worker(pid=200, slot=1, generation=3)) is None
    assert meant(peers, Worker(pid=201, slot=1, generation=2)) is None


@pytest.mark.parametrize("to", [True, "200", None, 2.0])
def test_nothing_else_names_a_worker(to: object) -> None:
    with pytest.raises(TypeError, match="a pid or a Worker"):
        of(OTHER).meant_by(to)  # type: ignore[arg-type]


def test_a_leaving_peer_is_no_member_and_is_found_until_it_is_forgotten() -> None:
    peers = of(OTHER)
    refuse(peers, OTHER)
    assert meant(peers, 200) is meant(peers, OTHER) is None
    assert peers.workers == (ME,)
    peer = peers.find(2)
    assert peer is not None
    assert peer in peers.all()
    peers.forget(peer)
    assert peers.find(2) is None
    assert peer not in peers.all()


def test_a_reused_pid_means_the_new_process_even_when_the_old_ones_end_is_heard_later() -> None:
    heir = Worker(pid=200, slot=2, generation=9)
    peers = of(OTHER, heir)
    assert meant(peers, 200) == heir
    assert meant(peers, OTHER) == OTHER
    refuse(peers, OTHER)
    assert meant(peers, 200) == heir
    assert meant(peers, OTHER) is None


def test_members_come_by_slot_and_then_by_age_with_this_worker_and_without() -> None:
    old, new, last = Worker(300, 1, 4), Worker(200, 1, 11), Worker(1, 7, 3)
    peers = of(new, last, old)
    assert peers.workers == (ME, old, new, last)
    assert peers.members(include_self=True).pids == (100, 300, 200, 1)
    assert peers.members(include_self=False).pids == (300, 200, 1)


def test_the_members_that_were_asked_for_do_not_change_afterwards() -> None:
    peers = of()
    before = peers.workers, peers.members(include_self=True)
    peers.add(a_peer(OTHER))
    assert before[0] == (ME,)
    assert before[1].pids == (100,)
    assert peers.workers == (ME, OTHER)


@given(st.lists(st.tuples(st.booleans(), st.integers(2, 8), st.integers(1, 4)), max_size=30))
def test_members_are_who_was_added_and_not_refused(steps: list[tuple[bool, int, int]]) -> None:
    peers = of()
    model = {1: ME}
    used = {1: ME}
    for adds, generation, pid in steps:
        if adds and generation not in used:
            worker = model[generation] = used[generation] = Worker(pid, generation % 3, generation)
            peers.add(a_peer(worker))
        elif not adds and model.pop(generation, None) is not None:
            refuse(peers, used[generation])
        assert set(peers.workers) == set(model.values())
        assert len(peers.workers) == len(model)
        for worker in model.values():
            assert meant(peers, worker) == worker
        for asked in range(1, 5):
            youngest = max((each for each in used if used[each].pid == asked), default=0)
            assert meant(peers, asked) == model.get(youngest)


def test_a_helper_is_addressed_and_answered_but_is_no_member() -> None:
    peers = of()
    helper = Worker(300, -1, 3, "bridge")
    peers.add(a_peer(helper))
    assert peers.workers == (ME,)
    assert peers.members(include_self=True).pids == (ME.pid,)
    assert peers.of_kind("bridge") == [helper]
    assert peers.of_kind("keeper") == []
    assert meant(peers, helper) == meant(peers, 300) == helper
    refuse(peers, helper)
    assert peers.of_kind("bridge") == []
