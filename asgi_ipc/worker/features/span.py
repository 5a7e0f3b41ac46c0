"""Span: how what fans out reaches the workers of other servers.

Law: words only, so that who sends need not know how a cluster works.
"""

from __future__ import annotations

from typing import Protocol

from asgi_ipc.wire.message import Encoded


class Span(Protocol):
    """Takes messages that were accepted here. It neither waits nor raises. From any thread."""

    def broadcast(self, message: Encoded) -> None:
        """Send a message to all workers of all other servers."""
        ...

    def publish(self, topic: str, message: Encoded) -> None:
        """Send a publication to its subscribers on other servers."""
        ...
