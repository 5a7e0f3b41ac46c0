"""Peers: whom this worker sends to, itself among them.

Law: a registry and nothing else. It is changed under its owner's lock, and
read by any thread at any moment: what that looks at is replaced as a whole.
"""

from __future__ import annotations

import contextvars
from dataclasses import dataclass
from typing import NamedTuple

from asgi_ipc.errors import UnknownWorkerError
from asgi_ipc.fleet.membership import Membership, Worker
from asgi_ipc.wire.outbox import Outbox
from asgi_ipc.worker.transport.loopback import LoopbackWriter
from asgi_ipc.worker.transport.pipes import PipeWriter


@dataclass(eq=False, slots=True)
class Peer:
    """One worker that this one sends to, itself among them. `context` is what its messages run in."""

    worker: Worker
    outbox: Outbox
    context: contextvars.Context
    # None until its write end arrives; what is accepted for it waits.
    writer: PipeWriter | LoopbackWriter | None = None
    # In the list of those to flush at the end of this turn.
    dirty: bool = False
    # The last turn brought it little.
    quiet: bool = True
    # Not addressed any more.
    leaving: bool = False
    # Accepted messages for it that never left its outbox, once it has gone.
    lost: int = 0


class Members(NamedTuple):
    """Those whom a broadcast means, and their pids."""

    peers: tuple[Peer, ...]
    pids: tuple[int, ...]


class Peers:
    """Every peer that is not forgotten; those that are members can be addressed.

    Attributes:
        by_pid: the members, for a plain int, which `True` is not.
    """

    def __init__(self, me: Worker) -> None:
        self.membership = Membership(me)
        self.by_pid: dict[int, Peer] = {}
        self._peers: dict[int, Peer] = {}
        # The members as a broadcast means them, with this worker and without.
        self._everybody = self._others = Members((), ())

    def find(self, generation: int) -> Peer | None:
        """The peer of that generation, member or leaving."""
        return self._peers.get(generation)

    def meant_by(self, to: int | Worker) -> Peer:
        """Whom a pid or a Worker means now. Raises UnknownWorkerError, or TypeError for anything else."""
        peer = self.by_pid.get(to) if type(to) is int else self._meant_by_other(to)
        if peer is None:
            raise UnknownWorkerError(to if isinstance(to, int) else to.pid)
        return peer

    def _meant_by_other(self, to: int | Worker) -> Peer | None:
        if isinstance(to, Worker):
            peer = self._peers.get(to.generation)
            if peer is None or peer.leaving:
                return None
            return peer if peer.worker is to or peer.worker == to else None
        if isinstance(to, int) and not isinstance(to, bool):
            return self.by_pid.get(to)
        raise TypeError(f"a message is addressed to a pid or a Worker, not {type(to).__qualname__}")

    def members(self, *, include_self: bool) -> Members:
        """Those whom a broadcast means now."""
        return self._everybody if include_self else self._others

    def all(self) -> list[Peer]:
        """Every peer that is not forgotten yet."""
        return list(self._peers.values())

    def add(self, peer: Peer) -> None:
        """It can be addressed from now on."""
        self._peers[peer.worker.generation] = peer
        self.membership.add(peer.worker)
        self._members_changed()

    def refuse(self, peer: Peer) -> None:
        """It can't be addressed any more."""
        peer.leaving = True
        self.membership.remove(peer.worker.generation)
        self._members_changed()

    def forget(self, peer: Peer) -> None:
        """It is dead, and its last byte has been read."""
        del self._peers[peer.worker.generation]

    def _members_changed(self) -> None:
        me = self.membership.me
        peers = tuple(self._peers[worker.generation] for worker in self.membership.workers)
        others = tuple(peer for peer in peers if peer.worker is not me)
        having = self.membership.generation_of
        self.by_pid = {
            peer.worker.pid: peer for peer in peers if having(peer.worker.pid) == peer.worker.generation
        }
        self._everybody = Members(peers, tuple(peer.worker.pid for peer in peers))
        self._others = Members(others, tuple(peer.worker.pid for peer in others))
