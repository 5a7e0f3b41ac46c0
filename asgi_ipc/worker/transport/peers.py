"""Peers: the workers that this one sends to, itself among them.

Law: the only index of members. It is changed under its owner's lock, and read
by any thread at any moment, one look at a time.
"""

from __future__ import annotations

from typing import NamedTuple

from asgi_ipc.errors import UnknownWorkerError
from asgi_ipc.fleet.membership import WORKER, Worker
from asgi_ipc.worker.transport.peer import Peer


class Receivers(NamedTuple):
    """The peers that a message to several goes to, and their pids."""

    peers: tuple[Peer, ...]
    pids: tuple[int, ...]


class Peers:
    """All peers that are not forgotten; the peers that don't leave are members.

    Attributes:
        by_pid: the members and helpers. A pid means the youngest process that has had it.
        by_generation: all of them.
    """

    def __init__(self, me: Worker) -> None:
        self._me = me
        self.by_generation: dict[int, Peer] = {}
        self.by_pid: dict[int, Peer] = {}
        # All workers that are members, by slot and then by age; and the same without this one.
        self._everybody = self._others = Receivers((), ())

    @property
    def workers(self) -> tuple[Worker, ...]:
        """All members, this worker among them, by slot and then by age."""
        return tuple(peer.worker for peer in self._everybody.peers)

    def find(self, generation: int) -> Peer | None:
        """The peer of that generation, member or leaving."""
        return self.by_generation.get(generation)

    def meant_by(self, to: int | Worker) -> Peer:
        """The member that `to` names. Raises UnknownWorkerError, or TypeError for other types."""
        peer: Peer | None
        if isinstance(to, Worker):
            peer = self.by_generation.get(to.generation)
            if peer is not None and (peer.leaving or peer.worker != to):
                peer = None
        elif isinstance(to, int) and not isinstance(to, bool):
            peer = self.by_pid.get(to)
        else:
            raise TypeError(f"a message is addressed to a pid or a Worker, not {type(to).__qualname__}")
        if peer is None:
            if isinstance(to, Worker):
                raise UnknownWorkerError(to.pid, to.node if to.node != self._me.node else "")
            raise UnknownWorkerError(to)
        return peer

    def of_kind(self, kind: str) -> list[Worker]:
        """The processes of another kind that can be addressed, oldest first."""
        workers = (peer.worker for peer in self.by_pid.values() if peer.worker.kind == kind)
        return sorted(workers, key=lambda worker: worker.generation)

    def members(self, *, include_self: bool) -> Receivers:
        """The receivers of a broadcast."""
        return self._everybody if include_self else self._others

    def all(self) -> list[Peer]:
        """Every peer that is not forgotten."""
        return list(self.by_generation.values())

    def add(self, peer: Peer) -> None:
        """The peer can be addressed from now on."""
        self.by_generation[peer.worker.generation] = peer
        self._members_changed()

    def refuse(self, peer: Peer) -> None:
        """The peer can't be addressed any more."""
        peer.leaving = True
        self._members_changed()

    def forget(self, peer: Peer) -> None:
        """The peer is dead, and its last byte has been read."""
        del self.by_generation[peer.worker.generation]

    def _members_changed(self) -> None:
        by_age = sorted(self.all(), key=lambda peer: peer.worker.generation)
        # A new process may have a pid before word of the old one's end has come.
        youngest = {peer.worker.pid: peer for peer in by_age}
        by_pid = {pid: peer for pid, peer in youngest.items() if not peer.leaving}
        # It stays the same object, which senders keep.
        self.by_pid.update(by_pid)
        for pid in self.by_pid.keys() - by_pid.keys():
            del self.by_pid[pid]
        members = sorted(
            (peer for peer in by_age if not peer.leaving and peer.worker.kind == WORKER),
            key=lambda peer: peer.worker.slot,
        )
        self._everybody = _members(members)
        self._others = _members([peer for peer in members if peer.worker is not self._me])


def _members(peers: list[Peer]) -> Receivers:
    return Receivers(tuple(peers), tuple(peer.worker.pid for peer in peers))
