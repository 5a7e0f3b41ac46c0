"""The port: what the machine is connected to.

Law: words only. The bridge carries them out; in a test, whoever wants to see them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, TypeAlias

from asgi_ipc.cluster.accounts import Loss
from asgi_ipc.cluster.items import Answer, Ask, Broadcast, Direct, Heard, Publications, Withdraw
from asgi_ipc.cluster.link import Link
from asgi_ipc.fleet.membership import Worker

Refusal: TypeAlias = Literal["unknown", "not connected", "full"]

# Why a node is not in the view any more: it has said so, or was not heard for GONE_S.
Reason: TypeAlias = Literal["left", "lost"]


class Port(Protocol):
    """What the machine is connected to."""

    def has_room(self, size_bytes: int) -> bool:
        """Return whether so much more may wait for the broker."""
        ...

    def publish(self, to: str | None, envelope: bytes) -> None:
        """Give an envelope to the broker: for a node, or (None) for all that listen."""
        ...

    def deliver(self, link: Link, item: Broadcast | Publications | Direct) -> None:
        """Give messages of another node to workers here."""
        ...

    def question(self, link: Link, item: Ask | Withdraw | Heard | Answer) -> None:
        """Give what concerns a question to workers here."""
        ...

    def lost(self, link: Link, loss: Loss | None) -> None:
        """Messages of that node will not come, before those that come next. None: it is not known which."""
        ...

    def node_changed(self, link: Link) -> None:
        """That node is there, or its state is another one."""
        ...

    def node_gone(self, link: Link, reason: Reason) -> None:
        """That node is in the view no more."""
        ...

    def worker_joined(self, link: Link, worker: Worker) -> None:
        """A worker of another node can be addressed."""
        ...

    def worker_left(self, link: Link, worker: Worker, reason: str) -> None:
        """A worker of another node has gone, behind its last message."""
        ...

    def wanted(self, topics: Iterable[str], unwanted: Iterable[str]) -> None:
        """Topics that have a first subscriber on another node, and that have none any more."""
        ...

    def stranger(self, name: str, node: str, oldest: int, newest: int) -> None:
        """A node speaks no version that this one does."""
        ...
