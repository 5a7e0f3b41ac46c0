"""Peers: which worker a pid and a Worker name, now and after a change."""

from __future__ import annotations

from contextvars import Context

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc import UnknownWorkerError, Worker
from asgi_ipc.wire.outbox import Budget, Outbox
from asgi_ipc.wire.packetizer import Route
from asgi_ipc.worker.transport.peer import Peer
from asgi_ipc.worker.transport.peers import Peers
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)

ME = Worker(pid=100, slot=0, generation=1)


def a_peer(worker: Worker) -> Peer:
    return Peer(worker, Outbox(Route(b"12345678", 1, worker.generation, 4096), Budget()), Context())


def meant(peers: Peers, to: int | Worker) -> Worker | None:
    try:
        return peers.meant_by(to).worker
    except UnknownWorkerError:
        return None


def check(peers: Peers, ever: dict[int, Worker], addressed: set[int]) -> None:
    """Compare with all the workers that were ever added, and the generations that can be addressed."""
    present = [ever[generation] for generation in sorted(addressed)]
    members = sorted((each for each in present if each.kind == "worker"), key=lambda worker: worker.slot)
    assert peers.workers == tuple(members)
    for include_self in (True, False):
        receivers = peers.members(include_self=include_self)
        workers = [worker for worker in members if include_self or worker != ME]
        assert [peer.worker for peer in receivers.peers] == workers
        assert receivers.pids == tuple(worker.pid for worker in workers)
    assert peers.of_kind("bridge") == [worker for worker in present if worker.kind == "bridge"]
    assert {peer.worker for peer in peers.all()} == set(ever.values())
    for generation, worker in ever.items():
        peer = peers.find(generation)
        assert peer is not None
        assert peer.worker == worker
        assert meant(peers, worker) == (worker if generation in addressed else None)
        assert meant(peers, Worker(worker.pid + 50, worker.slot, generation)) is None
        assert meant(peers, Worker(worker.pid, worker.slot, generation + 50)) is None
    for pid in {*range(5), *(worker.pid for worker in ever.values())}:
        # A reused pid means the new process, even when the end of the old one is heard later.
        youngest = max((each for each in ever if ever[each].pid == pid), default=0)
        assert meant(peers, pid) == (ever[youngest] if youngest in addressed else None)


@given(st.lists(st.tuples(st.booleans(), st.integers(2, 8), st.integers(1, 4), st.booleans()), max_size=30))
def test_members_are_who_was_added_and_not_refused(steps: list[tuple[bool, int, int, bool]]) -> None:
    peers = Peers(ME)
    peers.add(a_peer(ME))
    ever, addressed = {1: ME}, {1}
    check(peers, ever, addressed)
    for adds, generation, pid, is_helper in steps:
        before = peers.members(include_self=True)
        pids = [peer.worker.pid for peer in before.peers]
        peer = peers.find(generation)
        if adds and peer is None:
            worker = Worker(pid, generation % 3, generation)
            ever[generation] = Worker(200 + generation, -1, generation, "bridge") if is_helper else worker
            addressed.add(generation)
            peers.add(a_peer(ever[generation]))
        elif not adds and peer is not None and generation in addressed:
            addressed.remove(generation)
            peers.refuse(peer)
        # What a broadcast has asked for does not change under it.
        assert list(before.pids) == pids
        check(peers, ever, addressed)
    for generation in ever.keys() - addressed:
        peer = peers.find(generation)
        assert peer is not None
        peers.forget(peer)
        del ever[generation]
        assert peers.find(generation) is None
    assert {peer.worker for peer in peers.all()} == set(ever.values())


@pytest.mark.parametrize("to", [True, "200", None, 2.0])
def test_nothing_else_names_a_worker(to: object) -> None:
    with pytest.raises(TypeError, match="a pid or a Worker"):
        Peers(ME).meant_by(to)  # type: ignore[arg-type]
