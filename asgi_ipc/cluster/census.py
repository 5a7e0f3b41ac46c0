"""The census: the workers and topics of this node, in revisions that the others are told of.

Law: a revision is told once, as what has changed since the last one, or as everything.
"""

from __future__ import annotations

from asgi_ipc.cluster.items import Change, Said, State
from asgi_ipc.fleet.membership import Worker


class Census:
    """The workers here, and the topics that they subscribe to.

    Attributes:
        workers: by generation.
        since: the revision that has told, or will tell, of each of them.
        topics: each with the revision at which it began, and its subscribers with the revisions that tell of
            them.
        revision: the last one that was told.
    """

    def __init__(self) -> None:
        self.workers: dict[int, Said] = {}
        self.since: dict[int, int] = {}
        self.topics: dict[str, tuple[int, dict[int, int]]] = {}
        self.revision = 0
        # The changes since then.
        self._joined: dict[int, Said] = {}
        self._gone: list[tuple[int, str]] = []
        self._added: dict[str, int] = {}
        self._removed: set[str] = set()

    @property
    def next_revision(self) -> int:
        """Return the revision that will tell of what changes now."""
        return self.revision + 1

    def joined(self, worker: Worker) -> None:
        """Add a worker."""
        said = worker.pid, worker.slot, worker.generation
        self.workers[worker.generation] = self._joined[worker.generation] = said
        self.since[worker.generation] = self.next_revision

    def left(self, generation: int, reason: str) -> None:
        """Take a worker out; its subscriptions have ended."""
        known = self.workers.pop(generation, None)
        self.since.pop(generation, None)
        if known is not None and self._joined.pop(generation, None) is None:
            self._gone.append((generation, reason))

    def topics_of(self, generation: int) -> list[str]:
        """Return what a worker subscribes to."""
        return [topic for topic, (_, by) in self.topics.items() if generation in by]

    def subscribed(self, generation: int, topic: str) -> int:
        """Add a subscriber; the revision at which the topic began."""
        start, by = self.topics.setdefault(topic, (self.next_revision, {}))
        by[generation] = self.next_revision
        self._added[topic] = start
        self._removed.discard(topic)
        return start

    def unsubscribed(self, generation: int, topic: str) -> bool:
        """Take a subscriber out; whether it was the last one."""
        _, by = self.topics.get(topic, (0, {}))
        if by.pop(generation, None) is None:
            return False
        if by:
            return False
        del self.topics[topic]
        self._added.pop(topic, None)
        self._removed.add(topic)
        return True

    def change(self) -> Change | None:
        """Begin the next revision, and return what it tells; None: nothing has changed."""
        if not (self._joined or self._gone or self._added or self._removed):
            return None
        self.revision += 1
        change = Change(
            self.revision - 1,
            self.revision,
            list(self._joined.values()),
            self._gone,
            list(self._added.items()),
            list(self._removed),
        )
        self._joined, self._gone, self._added, self._removed = {}, [], {}, set()
        return change

    def state(self, name: str) -> State:
        """Return everything, at this revision, of the node of that name."""
        topics = [(topic, start) for topic, (start, _) in self.topics.items()]
        return State(self.revision, name, list(self.workers.values()), topics)
