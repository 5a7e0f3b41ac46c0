"""Accounts: which messages one node has numbered for another, and which of them have come.

Law: numbers only. Messages are counted apart for each who misses them: broadcasts, each topic, each worker
    that is sent to. So the receiver can say to the message what is lost, and for whom. Everything from one
    life of a bridge to another comes in order or not at all; a number that is jumped over is lost.
"""

from __future__ import annotations

from collections.abc import Iterable

from asgi_ipc.cluster.items import Broadcast, Direct, Known, Publications, Statement


class Sent:
    """The messages that this node has numbered for one life of another node.

    Attributes:
        total: all messages so far.
        topics: those with a subscriber there: the revision at which the topic began, and how many since.
        said: each Known that is not confirmed: it may be lost, and nothing else has its numbers.
    """

    __slots__ = ("broadcasts", "said", "sends", "topics", "total")

    def __init__(self) -> None:
        self.total = 0
        self.broadcasts = 0
        self.topics: dict[str, tuple[int, int]] = {}
        self.sends: dict[int, int] = {}
        self.said: list[Known] = []

    def broadcast(self, count: int) -> int:
        """Number so many broadcasts; the first number."""
        self.total += count
        self.broadcasts += count
        return self.broadcasts - count + 1

    def publish(self, topic: str, count: int) -> tuple[int, int] | None:
        """Number publications: the topic's beginning and the first number; None: nobody subscribes."""
        found = self.topics.get(topic)
        if found is None:
            return None
        start, before = found
        self.total += count
        self.topics[topic] = start, before + count
        return start, before + 1

    def send(self, to: int) -> int:
        """Number a message to one worker."""
        self.total += 1
        self.sends[to] = self.sends.get(to, 0) + 1
        return self.sends[to]

    def add_topics(self, topics: Iterable[tuple[str, int]]) -> None:
        """Take topics with subscribers there. One that is counted since the same revision counts on."""
        for topic, start in topics:
            if self.topics.get(topic, (-1, 0))[0] != start:
                self.topics[topic] = start, 0

    def keep_topics(self, topics: Iterable[tuple[str, int]]) -> None:
        """Take all topics with subscribers there; forget the others."""
        wanted = dict(topics)
        self.topics = {topic: kept for topic, kept in self.topics.items() if topic in wanted}
        self.add_topics(wanted.items())

    def known(self, base: int, revision: int, topics: Iterable[str]) -> Known:
        """Note what was numbered before that revision was known; `base` was known already."""
        counts = [(topic, *self.topics[topic]) for topic in topics if self.topics.get(topic, (0, 0))[1]]
        known = Known(base, revision, self.broadcasts, counts)
        if revision > base:
            self.said.append(known)
        return known

    def confirmed(self, revision: int) -> None:
        """Forget what the other node has heard."""
        self.said = [known for known in self.said if known.revision > revision]

    def statement(self, known: int) -> Statement:
        """Everything so far."""
        topics = [(topic, start, count) for topic, (start, count) in self.topics.items() if count]
        return Statement(known, self.total, self.broadcasts, topics, list(self.sends.items()), self.said)


class Loss:
    """Messages that this node's workers have lost: by generation, and publications by topic, too."""

    __slots__ = ("messages", "publications")

    def __init__(self) -> None:
        self.messages: dict[int, int] = {}
        self.publications: dict[int, dict[str, int]] = {}

    def __bool__(self) -> bool:
        return bool(self.messages)

    def add(self, generation: int, count: int, topic: str | None = None) -> None:
        """Add so many; nothing if there are none."""
        if count <= 0:
            return
        self.messages[generation] = self.messages.get(generation, 0) + count
        if topic is not None:
            lost = self.publications.setdefault(generation, {})
            lost[topic] = lost.get(topic, 0) + count


class Received:
    """The messages that have come here from one life of another node, and the lost ones.

    A worker, or a subscription, misses nothing that was numbered before the other node knew of it: each waits
    here until that node says that it knows, with the numbers of that moment.

    Attributes:
        total: the messages that have come or are known to be lost.
    """

    __slots__ = ("_broadcasts", "_gaps", "_sends", "_topics", "_unknown", "_wanted", "_workers", "total")

    def __init__(self) -> None:
        self.total = 0
        self._broadcasts = 0
        # The number of the last publication of each topic, and the revision at which the topic began.
        self._topics: dict[str, tuple[int, int]] = {}
        self._sends: dict[int, int] = {}
        # Workers here, and those that subscribe to each topic, with what was numbered before they were known.
        self._workers: dict[int, int] = {}
        self._wanted: dict[str, dict[int, int]] = {}
        # Those that are not known there yet, with the revision of this node that tells of them; None: the
        # worker itself.
        self._unknown: dict[tuple[int, str | None], int] = {}
        # What was lost meanwhile, as the numbers before and at the end of a gap: of broadcasts (None), and of
        # each topic. The other node may have known of them, and its word may be lost, too.
        self._gaps: dict[str | None, list[tuple[int, int]]] = {}

    # --- who is here

    def joined(self, generation: int, revision: int) -> None:
        """A worker is here as of that revision."""
        self._unknown[generation, None] = revision

    def left(self, generation: int) -> None:
        """A worker has gone. Its subscriptions have ended before."""
        self._workers.pop(generation, None)
        self._sends.pop(generation, None)
        self._unknown.pop((generation, None), None)

    def subscribed(self, generation: int, topic: str, start: int, revision: int) -> None:
        """A worker subscribes to a topic as of that revision; the topic has subscribers since `start`."""
        if self._topics.get(topic, (-1, 0))[0] != start:
            self._topics[topic] = start, 0
        self._unknown[generation, topic] = revision

    def unsubscribed(self, generation: int, topic: str, is_last: bool) -> None:
        """A worker subscribes to a topic no more; `is_last`: nobody here does."""
        self._unknown.pop((generation, topic), None)
        wanted = self._wanted.get(topic, {})
        wanted.pop(generation, None)
        if is_last:
            self._topics.pop(topic, None)
            self._wanted.pop(topic, None)
            self._gaps.pop(topic, None)

    def waits_for(self, revision: int) -> bool:
        """Return whether the answer to a revision up to this one is missing."""
        return any(each <= revision for each in self._unknown.values())

    def confirmed(self, revision: int) -> int:
        """Return up to which revision, of those until this one, nobody waits."""
        return min(self._unknown.values(), default=revision + 1) - 1

    def known(self, said: Known, loss: Loss) -> None:
        """The other node knows of those here up to a revision. Add what they have lost since."""
        self._know(said.base, said.revision, said.broadcasts, said.topics, loss)

    def _know(
        self, base: int, revision: int, broadcasts: int, topics: list[tuple[str, int, int]], loss: Loss
    ) -> None:
        counts = {topic: (start, count) for topic, start, count in topics}
        for (generation, topic), each in list(self._unknown.items()):
            # Of those up to the base another word has told, or will.
            if not base < each <= revision:
                continue
            del self._unknown[generation, topic]
            before = broadcasts
            if topic is None:
                self._workers[generation] = before
            else:
                start, count = counts.get(topic, (-1, 0))
                before = count if start == self._topics[topic][0] else 0
                self._wanted.setdefault(topic, {})[generation] = before
            for last, upto in self._gaps.get(topic, ()):
                loss.add(generation, upto - max(last, before), topic)
        if not self._unknown:
            self._gaps.clear()

    def _note_gap(self, topic: str | None, last: int, upto: int) -> None:
        if self._unknown:
            self._gaps.setdefault(topic, []).append((last, upto))

    # --- messages

    def broadcast(self, item: Broadcast, loss: Loss) -> None:
        """Take broadcasts, and add those that were jumped over."""
        self._lost_broadcasts(item.first - 1, loss)
        self._broadcasts += item.count
        self.total += item.count

    def publications(self, item: Publications, loss: Loss) -> bool:
        """Take publications, and add those that were jumped over. False: nobody here subscribes."""
        start, _ = self._topics.get(item.topic, (-1, 0))
        if start == item.start:
            self._lost_publications(item.topic, item.first - 1, loss)
            self._topics[item.topic] = start, item.first + item.count - 1
        # Others were numbered for subscriptions that have ended.
        self.total += item.count
        return start >= 0

    def direct(self, item: Direct, loss: Loss) -> None:
        """Take a message to one worker, and add those that were jumped over."""
        self.total += 1
        if self._is_here(item.to):
            self._lost_sends(item.to, item.first - 1, loss)
            self._sends[item.to] = item.first

    def settle(self, statement: Statement, loss: Loss) -> None:
        """Add what was numbered and has not come. What was sent before the statement has come, or is lost."""
        for known in statement.said:
            self.known(known, loss)
        self._lost_broadcasts(statement.broadcasts, loss)
        for topic, start, count in statement.topics:
            if self._topics.get(topic, (-1, 0))[0] == start:
                self._lost_publications(topic, count, loss)
        for generation, count in statement.sends:
            self._lost_sends(generation, count, loss)
        self.total = statement.total
        # If there is anybody left, the accounts here are younger than those there.
        self._know(-1, statement.known, statement.broadcasts, statement.topics, loss)

    def _lost_broadcasts(self, upto: int, loss: Loss) -> None:
        lost = upto - self._broadcasts
        if lost <= 0:
            return
        for generation, before in self._workers.items():
            loss.add(generation, upto - max(self._broadcasts, before))
        self._note_gap(None, self._broadcasts, upto)
        self._broadcasts = upto
        self.total += lost

    def _lost_publications(self, topic: str, upto: int, loss: Loss) -> None:
        start, last = self._topics[topic]
        if upto <= last:
            return
        for generation, before in self._wanted.get(topic, {}).items():
            loss.add(generation, upto - max(last, before), topic)
        self._note_gap(topic, last, upto)
        self._topics[topic] = start, upto
        self.total += upto - last

    def _lost_sends(self, to: int, upto: int, loss: Loss) -> None:
        last = self._sends.get(to, 0)
        if upto > last and self._is_here(to):
            loss.add(to, upto - last)
            self._sends[to] = upto
            self.total += upto - last

    def _is_here(self, generation: int) -> bool:
        return generation in self._workers or (generation, None) in self._unknown
