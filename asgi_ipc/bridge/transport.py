"""Transports: what a broker must be able to do. A third broker is one file with one class.

Law: a transport moves envelopes and knows nothing of what is in them. It connects once; a connection that
breaks is an error, and the bridge makes the next one. It holds back what comes faster than it is taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from asgi_ipc.cluster.settings import ClusterSettings

# Of envelopes that have come and are not taken yet, in bytes: what comes while the bridge does something
# else.
MAX_ARRIVED_BYTES = 64 * 1024 * 1024


class TransportError(Exception):
    """There is no connection, or no more; its text says why, without a password."""


class Transport(ABC):
    """A connection to a broker, for one node of one cluster.

    The bridge calls `connect`, then `publish` and `receive` from a task each, then `close`; and again, after
    each TransportError. What one node publishes for another one arrives there in that order, or is lost.

    Attributes:
        envelope_bytes: the largest envelope that the broker takes. Known when `connect` has returned.
    """

    envelope_bytes: int = 1024 * 1024

    def __init__(self, settings: ClusterSettings, node: str) -> None:
        self.settings = settings
        self.node = node

    @abstractmethod
    async def connect(self) -> None:
        """Connect, and listen for what is for this node or for all. Raises TransportError."""

    @abstractmethod
    async def publish(self, envelopes: Sequence[tuple[str | None, bytes]]) -> None:
        """Give these to the broker, in order: each for a node or, None, for all.

        Returns when more may come; they need not have arrived. Raises TransportError when the connection has
        broken; what was given to it may be lost.
        """

    @abstractmethod
    async def receive(self) -> Sequence[bytes]:
        """Wait for envelopes for this node, or for all; its own may be among the latter.

        Raises TransportError.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the connection, if there is one. Raises nothing."""
