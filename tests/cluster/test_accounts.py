"""The accounts against a model that knows of each message whether it came, and when who was known."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from asgi_ipc.cluster.accounts import Loss, Received, Sent
from asgi_ipc.cluster.items import Broadcast, Direct, Known, Publications, Statement
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)

TOPICS = ("news", "weather")

counts = st.integers(1, 4)
topics = st.sampled_from(TOPICS)
picks = st.integers(0, 10**6)


@dataclass
class Message:
    """One that was numbered, or several: for all, for a topic since its beginning, or for one worker."""

    item: Broadcast | Publications | Direct
    count: int
    is_lost: bool = False


@dataclass
class Receiver:
    """A worker, or a subscription of one: how many messages there were when the other node knew of it."""

    known_at: int | None = None


@dataclass
class Topic:
    """A topic with subscribers here."""

    start: int
    receivers: dict[int, Receiver] = field(default_factory=dict)


class Accounts(RuleBasedStateMachine):
    """One node sends, and another one counts what it gets. Anything between them may be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.sent, self.received, self.loss = Sent(), Received(), Loss()
        self.wire: deque[Message | Known | Statement] = deque()
        self.messages: list[Message] = []
        # What the receiving node has, and what the other one has heard of it.
        self.generation = self.revision = self.heard = 0
        self.workers: dict[int, Receiver] = {}
        self.topics: dict[str, Topic] = {}
        self.changed: set[str] = set()
        # Told of subscriptions that have ended, by worker.
        self.ended: Counter[int] = Counter()

    # --- the receiving node

    @rule()
    def join(self) -> None:
        self.generation += 1
        self.revision += 1
        self.workers[self.generation] = Receiver()
        self.received.joined(self.generation, self.revision)

    @precondition(lambda self: self.workers)
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        generation = self.pick_worker(pick)
        for topic in [name for name, each in self.topics.items() if generation in each.receivers]:
            self.end_subscription(generation, topic)
        del self.workers[generation]
        self.revision += 1
        self.received.left(generation)
        self.loss.messages.pop(generation, None)

    @precondition(lambda self: self.workers)
    @rule(pick=picks, name=topics)
    def subscribe(self, pick: int, name: str) -> None:
        generation = self.pick_worker(pick)
        topic = self.topics.setdefault(name, Topic(self.revision + 1))
        if generation not in topic.receivers:
            self.revision += 1
            topic.receivers[generation] = Receiver()
            self.changed.add(name)
            self.received.subscribed(generation, name, topic.start, self.revision)

    @precondition(lambda self: self.topics)
    @rule(pick=picks)
    def unsubscribe(self, pick: int) -> None:
        name = [*self.topics][pick % len(self.topics)]
        receivers = self.topics[name].receivers
        self.end_subscription([*receivers][pick % len(receivers)], name)

    def end_subscription(self, generation: int, name: str) -> None:
        self.revision += 1
        self.changed.add(name)
        topic = self.topics[name]
        told = self.loss.publications.get(generation, {}).pop(name, 0)
        assert told <= self.missing(name, topic.receivers.pop(generation), topic.start)
        self.ended[generation] += told
        if not topic.receivers:
            del self.topics[name]
        self.received.unsubscribed(generation, name, not topic.receivers)

    def pick_worker(self, pick: int) -> int:
        return [*self.workers][pick % len(self.workers)]

    # --- the other node

    @rule(is_all=st.booleans())
    def hear(self, is_all: bool) -> None:
        """The other node hears of workers and topics: of all, or of what has changed."""
        if self.revision == self.heard:
            return
        now = {name: topic.start for name, topic in self.topics.items()}
        if is_all:
            self.sent.keep_topics(now.items())
        else:
            for name in self.changed - now.keys():
                self.sent.topics.pop(name, None)
            self.sent.add_topics((name, now[name]) for name in self.changed & now.keys())
        names = now.keys() if is_all else self.changed & now.keys()
        self.wire.append(self.sent.known(self.heard, self.revision, names))
        self.heard = self.revision
        self.changed = set()
        for receivers in (self.workers, *(topic.receivers for topic in self.topics.values())):
            for receiver in receivers.values():
                if receiver.known_at is None:
                    receiver.known_at = len(self.messages)

    @rule(count=counts)
    def broadcast(self, count: int) -> None:
        self.say(Broadcast(1, self.sent.broadcast(count), count, b""), count)

    @rule(name=topics, count=counts)
    def publish(self, name: str, count: int) -> None:
        numbered = self.sent.publish(name, count)
        if numbered is not None:
            self.say(Publications(1, name, *numbered, count, b""), count)

    @rule(pick=picks)
    def send(self, pick: int) -> None:
        known = [generation for generation, each in self.workers.items() if each.known_at is not None]
        if known:
            to = known[pick % len(known)]
            self.say(Direct(1, to, self.sent.send(to), b""), 1)

    def say(self, item: Broadcast | Publications | Direct, count: int) -> None:
        self.messages.append(Message(item, count))
        self.wire.append(self.messages[-1])

    @rule()
    def state(self) -> None:
        self.wire.append(self.sent.statement(self.heard))

    @rule()
    def confirm(self) -> None:
        """A beat of the receiving node comes."""
        self.sent.confirmed(self.received.confirmed(self.revision))

    # --- between them

    @precondition(lambda self: self.wire)
    @rule(count=counts)
    def lose(self, count: int) -> None:
        for _ in range(min(count, len(self.wire))):
            lost = self.wire.popleft()
            if isinstance(lost, Message):
                lost.is_lost = True

    @precondition(lambda self: self.wire)
    @rule(count=st.integers(1, 20))
    def carry(self, count: int) -> None:
        for _ in range(min(count, len(self.wire))):
            match self.wire.popleft():
                case Known() as known:
                    self.received.known(known, self.loss)
                case Statement() as statement:
                    self.received.settle(statement, self.loss)
                    assert self.received.total == statement.total
                case Message(Broadcast() as item):
                    self.received.broadcast(item, self.loss)
                case Message(Publications() as item):
                    is_wanted = self.received.publications(item, self.loss)
                    assert is_wanted == (item.topic in self.topics)
                case Message(Direct() as item):
                    self.received.direct(item, self.loss)
        self.nothing_is_told_that_is_not_lost()

    # --- the promise

    def missing(self, name: str | None, receiver: Receiver, start: int = 0) -> int:
        """What is lost of the messages for a worker (None: broadcasts), or for a subscription."""
        lost = 0
        for message in self.messages[receiver.known_at :] if receiver.known_at is not None else ():
            match message.item:
                case Broadcast():
                    is_meant = name is None
                case Publications(topic=topic, start=since):
                    is_meant = (topic, since) == (name, start)
                case Direct():
                    is_meant = False
            lost += message.count * (message.is_lost and is_meant)
        return lost

    def model(self) -> tuple[dict[int, int], dict[tuple[int, str], int]]:
        """What must be told: by worker, and by subscription."""
        by_subscription = {
            (generation, name): self.missing(name, receiver, topic.start)
            for name, topic in self.topics.items()
            for generation, receiver in topic.receivers.items()
        }
        by_worker = {}
        for generation, receiver in self.workers.items():
            sends = sum(
                message.is_lost
                for message in self.messages
                if isinstance(message.item, Direct) and message.item.to == generation
            )
            publications = sum(lost for key, lost in by_subscription.items() if key[0] == generation)
            broadcasts = self.missing(None, receiver)
            by_worker[generation] = broadcasts + sends + publications + self.ended[generation]
        return by_worker, by_subscription

    def nothing_is_told_that_is_not_lost(self) -> None:
        by_worker, by_subscription = self.model()
        assert self.loss.messages.keys() <= by_worker.keys()
        assert all(told <= by_worker[generation] for generation, told in self.loss.messages.items())
        for generation, told in self.loss.publications.items():
            assert all(lost <= by_subscription[generation, name] for name, lost in told.items())

    @rule()
    def settle(self) -> None:
        """A statement comes: now everything that is lost has been told, to the number."""
        self.hear(False)
        self.state()
        self.carry(len(self.wire))
        by_worker, by_subscription = self.model()
        assert self.loss.messages == {generation: lost for generation, lost in by_worker.items() if lost}
        told = {
            (generation, name): lost
            for generation, each in self.loss.publications.items()
            for name, lost in each.items()
        }
        assert told == {key: lost for key, lost in by_subscription.items() if lost}
        assert self.received.total == sum(message.count for message in self.messages)
        assert not self.received.waits_for(self.revision)
        self.confirm()
        assert self.sent.said == []

    def teardown(self) -> None:
        self.settle()


TestAccounts = Accounts.TestCase
