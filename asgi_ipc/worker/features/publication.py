"""Publications: what a topic carries from its publisher to its subscribers.

Law: words only. Topics and subscriptions both know them, so they need not know each other.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import msgspec

from asgi_ipc.fleet.membership import Worker


class Publication(msgspec.Struct, frozen=True):
    """One publication.

    Attributes:
        topic: the topic of the subscription.
        data: the data as published. All subscribers of one worker get the same object.
        worker: the worker that published it.
        sender: its pid; None if it belongs to another server of a cluster, where pids mean nothing here.
        missed: how many publications this subscription has lost since the one before this.
    """

    topic: str
    data: Any
    worker: Worker
    missed: int
    sender: int | None


# With the bytes that it holds, roughly.
Entry: TypeAlias = tuple[Publication, int]


class Subscriber(Protocol):
    """The part of a subscription that the topics know."""

    @property
    def topic(self) -> str: ...

    @property
    def until_stop(self) -> bool: ...

    def put(self, entry: Entry) -> None: ...

    def lost(self, count: int) -> None: ...

    def end(self) -> None: ...
