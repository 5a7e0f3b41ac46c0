"""The machine: which nodes are there, and what is said between them. One for each bridge.

Law: nothing in this file asks the kernel or the clock, and nothing waits. Envelopes, words of this node's
workers, and the time come in; what is to be sent, to be delivered and to be told goes out through the port.

A node becomes part of the view when it has answered this very life of ours, so nobody gets in with envelopes
of another time. A node that is not heard leaves the view, but what is said goes on being numbered for it: if
it comes back, it is told exactly what it has missed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from asgi_ipc.cluster.accounts import Loss
from asgi_ipc.cluster.census import Census
from asgi_ipc.cluster.envelope import (
    HELLO,
    NEWEST_VERSION,
    NOBODY,
    OLDEST_VERSION,
    Envelope,
    EnvelopeError,
    Sealer,
)
from asgi_ipc.cluster.items import (
    Answer,
    Ask,
    Audit,
    Beat,
    Broadcast,
    Bye,
    Change,
    Direct,
    Heard,
    Hello,
    Item,
    Known,
    Publications,
    Resync,
    State,
    Statement,
    Withdraw,
    encode_item,
    read_hello,
    read_items,
)
from asgi_ipc.cluster.link import Link, Phase
from asgi_ipc.cluster.port import Port, Reason, Refusal
from asgi_ipc.fleet.membership import Worker

# How often each node says that it is there.
BEAT_S: Final = 1.0

SUSPECT_S: Final = 3.0
GONE_S: Final = 5.0

# A tick that comes this much later than it was to come: this bridge did not run, and heard nobody.
LATE_S: Final = 0.5

# A node that has gone is numbered for so long; what it missed after that is unknown if it ever comes back.
KEEP_S: Final = 3600.0

# More nodes than this, alive or gone, are not looked at: no cluster of this kind is as large, and anybody may
# say hello.
MAX_LINKS: Final = 256

# Lives of bridges that are not looked at any more, of which the last numbers are kept: what was recorded of
# them can't be sent again.
MAX_REMEMBERED: Final = 65_536

# Nodes of other versions that are named in the log.
MAX_STRANGERS: Final = 100


class Machine:
    """The nodes that one bridge knows.

    Attributes:
        dropped: messages to other nodes for which there was no room, or no broker; one for each node.
        rejected: envelopes and items that were not for this life, not sealed rightly, or made no sense.
        links: every life of another bridge that is remembered, by its epoch.
    """

    def __init__(
        self,
        node: str,
        name: str,
        epoch: bytes,
        sealer: Sealer,
        port: Port,
        *,
        most_bytes: int,
        envelope_bytes: int,
        now: float,
    ) -> None:
        """`most_bytes`: the largest payload that is put together; `envelope_bytes`: what the broker takes."""
        self.dropped = 0
        self.rejected = 0
        self.links: dict[bytes, Link] = {}
        self.is_connected = False
        self._node = node
        self._name = name
        self._epoch = epoch
        self._sealer = sealer
        self._port = port
        self._most_bytes = most_bytes
        self.envelope_bytes = envelope_bytes
        self._by_node: dict[str, Link] = {}
        self._has_left = False
        self._ticked_at = now
        self._census = Census()
        # How many nodes have a subscriber of a topic.
        self._wanted: dict[str, int] = {}
        self._strangers: set[str] = set()
        # The numbers of each life whose link has been forgotten; None: nothing more is taken of that life.
        self._remembered: dict[bytes, tuple[int, int] | None] = {}

    # --- time and the broker

    def connected(self, now: float) -> None:
        """The broker takes envelopes."""
        self.is_connected = True
        self._ticked_at = now
        self._say_hello()
        self._beat()
        self.flush()

    def disconnected(self) -> None:
        """The broker takes nothing. What is said from now on is numbered and lost."""
        self.is_connected = False

    def tick(self, now: float) -> None:
        """Say that this node is there, and look who was not heard. To be called every BEAT_S."""
        late_s = now - self._ticked_at - BEAT_S
        self._ticked_at = now
        for link in list(self.links.values()):
            if late_s > LATE_S:
                link.heard_at = min(link.heard_at + late_s, now)
            self._judge(link, now - link.heard_at)
        if self.is_connected and not self._has_left:
            self._say_hello()
            self._beat()
        self.flush()

    def _judge(self, link: Link, silent_s: float) -> None:
        match link.phase:
            case Phase.CONNECTED if silent_s >= SUSPECT_S:
                link.phase = Phase.SUSPECT
                self._port.node_changed(link)
            case Phase.SUSPECT if silent_s >= GONE_S:
                self._part(link, Phase.GONE, "lost")
            case Phase.GREETED if silent_s >= GONE_S and not link.has_spoken:
                self._remember(link, link.numbers)
            case Phase.GREETED | Phase.GONE if silent_s >= KEEP_S:
                self._remember(link, link.numbers)

    def _say_hello(self) -> None:
        hello = encode_item(Hello(self._name, OLDEST_VERSION, NEWEST_VERSION))
        envelope = Envelope(0, HELLO, self._node, self._epoch, NOBODY, 0, hello)
        self._port.publish(None, self._sealer.seal(envelope))

    def _beat(self) -> None:
        for link in self.links.values():
            if link.is_in_view:
                self._add(link, self._beat_of(link))

    def _beat_of(self, link: Link) -> Beat:
        confirmed = link.received.confirmed(self._census.revision)
        return Beat(link.sent.total, self._census.revision, link.revision, confirmed)

    def leave(self) -> None:
        """Say that this node stops, and nothing after that. What is lost before is told by the statement."""
        for link in self.links.values():
            if link.is_in_view:
                self._add(link, link.sent.statement(link.revision))
                self._add(link, Bye())
        self.flush()
        self._has_left = True

    # --- words of this node's workers

    def joined(self, worker: Worker) -> None:
        """A worker is here."""
        self._census.joined(worker)
        for link in self.links.values():
            link.received.joined(worker.generation, self._census.next_revision)

    def left(self, generation: int, reason: str) -> None:
        """A worker has gone; its last message is on its way."""
        for topic in self._census.topics_of(generation):
            self.unsubscribed(generation, topic)
        self._census.left(generation, reason)
        for link in self.links.values():
            link.received.left(generation)

    def subscribed(self, generation: int, topic: str) -> None:
        """A worker subscribes to a topic."""
        start = self._census.subscribed(generation, topic)
        for link in self.links.values():
            link.received.subscribed(generation, topic, start, self._census.next_revision)

    def unsubscribed(self, generation: int, topic: str) -> None:
        """A worker subscribes to a topic no more."""
        is_last = self._census.unsubscribed(generation, topic)
        for link in self.links.values():
            link.received.unsubscribed(generation, topic, is_last)

    def broadcast(self, sender: int, count: int, content: bytes) -> None:
        """Send messages to all workers of all other nodes."""
        for link in self.links.values():
            if link.phase is not Phase.GREETED:
                first = link.sent.broadcast(count)
                self._add_messages(link, Broadcast(sender, first, count, content), count)

    def publish(self, sender: int, topic: str, count: int, content: bytes) -> None:
        """Send publications to the subscribers on other nodes."""
        if topic not in self._wanted:
            return
        for link in self.links.values():
            numbered = link.sent.publish(topic, count) if link.phase is not Phase.GREETED else None
            if numbered is not None:
                self._add_messages(link, Publications(sender, topic, *numbered, count, content), count)

    def not_sent(self, topic: str | None, count: int) -> None:
        """Number messages that a worker could not give to this bridge: broadcasts, or of that topic."""
        for link in self.links.values():
            if link.phase is not Phase.GREETED:
                if topic is None:
                    link.sent.broadcast(count)
                    self.dropped += count
                elif link.sent.publish(topic, count) is not None:
                    self.dropped += count

    def send(self, sender: int, node: str, to: int, content: bytes) -> Refusal | None:
        """Send a message to one worker of another node."""
        link, refusal = self._reach(node, to, len(content))
        if link is not None:
            self._add(link, Direct(sender, to, link.sent.send(to), content))
        return refusal

    def ask(self, sender: int, node: str, to: int, number: int, content: bytes) -> Refusal | None:
        """Send a question to one worker of another node, or (0) to all of them."""
        link, refusal = self._reach(node, to, len(content))
        if link is not None:
            self._add(link, Ask(sender, to, number, content))
        return refusal

    def tell(self, node: str, item: Withdraw | Heard | Answer) -> None:
        """Send what else concerns a question, if that node is still there."""
        link = self._by_node.get(node)
        if link is not None:
            self._add(link, item)

    def _reach(self, node: str, to: int, size_bytes: int) -> tuple[Link | None, Refusal | None]:
        link = self._by_node.get(node)
        if link is None or (to and to not in link.workers):
            return None, "unknown"
        if not self.is_connected or self._has_left:
            return None, "not connected"
        if not self._port.has_room(size_bytes):
            return None, "full"
        return link, None

    # --- out

    def _add_messages(self, link: Link, item: Broadcast | Publications, count: int) -> None:
        """Send messages that are numbered, or count them as dropped."""
        if link.is_in_view:
            if self.is_connected and self._port.has_room(len(item.content)):
                self._add(link, item)
            else:
                self.dropped += count

    def _add(self, link: Link, item: Item) -> None:
        if self.is_connected and not self._has_left:
            link.add(encode_item(item))
            if link.is_full:
                self._flush(link)

    def flush(self) -> None:
        """Give what was said to the broker. To be called at the end of each turn."""
        self._advance()
        for link in self.links.values():
            self._flush(link)

    def _flush(self, link: Link) -> None:
        most_bytes = self.envelope_bytes - self._sealer.overhead_bytes
        for envelope in link.envelopes(self._node, self._epoch, most_bytes):
            self._port.publish(link.node, self._sealer.seal(envelope))

    def _advance(self) -> None:
        """Tell of what has changed here, if something has."""
        change = self._census.change()
        for link in self.links.values():
            if change is not None and link.is_in_view:
                self._add(link, change)

    # --- in

    def arrived(self, data: bytes, now: float) -> None:
        """Take what the broker brings."""
        try:
            envelope = self._sealer.open(data)
            if envelope.node != self._node:
                self._take(envelope, now)
        except (EnvelopeError, ValueError):
            self.rejected += 1

    def _take(self, envelope: Envelope, now: float) -> None:
        if envelope.kind == HELLO:
            self._greet(envelope, now)
            return
        if envelope.destination != self._epoch or envelope.version != NEWEST_VERSION:
            raise EnvelopeError("not for this life")
        link = self.links.get(envelope.source) or self._meet(envelope, envelope.node, now)
        if link is None or link.node != envelope.node:
            raise EnvelopeError("of an earlier life")
        payload = link.take(envelope, self._most_bytes)
        link.heard_at = now
        if link.phase is Phase.SUSPECT:
            link.phase = Phase.CONNECTED
            self._port.node_changed(link)
        if payload is None:
            return
        for item in read_items(payload):
            self._hear(link, item, now)

    def _greet(self, envelope: Envelope, now: float) -> None:
        """Answer a node that says hello; only its own answer brings it into the view."""
        hello = read_hello(envelope.payload)
        if hello.oldest > NEWEST_VERSION or hello.newest < OLDEST_VERSION:
            if envelope.node not in self._strangers and len(self._strangers) < MAX_STRANGERS:
                self._strangers.add(envelope.node)
                self._port.stranger(hello.name, envelope.node, hello.oldest, hello.newest)
            return
        link = self.links.get(envelope.source)
        if link is not None and link.is_in_view:
            return
        if link is None:
            link = self._meet(envelope, hello.name, now)
            if link is None:
                return
        link.heard_at = now
        if self.is_connected:
            self._introduce(link)

    def _introduce(self, link: Link) -> None:
        self._advance()
        self._add(link, self._census.state(self._name))
        self._add(link, self._beat_of(link))

    def _meet(self, envelope: Envelope, name: str, now: float) -> Link | None:
        """Begin a link; None: it is of an earlier life of that bridge, or one too many."""
        known = [link for link in self.links.values() if link.node == envelope.node]
        if any(link.epoch[:8] >= envelope.source[:8] for link in known if link.phase is not Phase.GREETED):
            return None
        numbers = self._remembered.get(envelope.source, (0, 0))
        if numbers is None or len(self.links) >= MAX_LINKS:
            return None
        self._advance()
        link = self.links[envelope.source] = Link(envelope.node, envelope.source, name, now)
        link.numbers = numbers
        link.is_returned = link.has_spoken
        # That life may have been told of them before, and be waited for no longer.
        for generation, since in self._census.since.items():
            link.received.joined(generation, since)
        for topic, (start, by) in self._census.topics.items():
            for generation, since in by.items():
                link.received.subscribed(generation, topic, start, since)
        return link

    def _hear(self, link: Link, item: Item, now: float) -> None:
        match item:
            case Beat(total, revision, known, confirmed):
                link.sent.confirmed(confirmed)
                self._compare(link, total, revision, known)
            case State():
                self._take_state(link, item, now)
            case Change():
                self._take_change(link, item)
            case Resync():
                self._advance()
                self._add(link, self._census.state(self._name))
            case Known():
                loss = Loss()
                link.received.known(item, loss)
                self._tell_loss(link, loss)
            case Audit():
                self._add(link, link.sent.statement(link.revision))
            case Statement():
                loss = Loss()
                link.received.settle(item, loss)
                self._tell_loss(link, loss)
            case Bye():
                self._forget(link, "left")
            case _ if link.revision < 0 or not link.is_in_view:
                # Its workers are not known. What is lost by that is told when the accounts are compared.
                return
            case Broadcast() | Publications() | Direct():
                self._deliver(link, item)
            case Ask() | Withdraw() | Heard() | Answer():
                self._port.question(link, item)

    def _deliver(self, link: Link, item: Broadcast | Publications | Direct) -> None:
        loss = Loss()
        is_wanted = True
        match item:
            case Broadcast():
                link.received.broadcast(item, loss)
            case Publications():
                is_wanted = link.received.publications(item, loss)
            case Direct():
                link.received.direct(item, loss)
        self._tell_loss(link, loss)
        if is_wanted:
            self._port.deliver(link, item)

    def _tell_loss(self, link: Link, loss: Loss) -> None:
        if loss:
            self._port.lost(link, loss)

    def _compare(self, link: Link, total: int, revision: int, known: int) -> None:
        """Ask for what is missing here, after a beat."""
        if revision != link.revision or not link.is_in_view:
            self._add(link, Resync())
        received = link.received
        if link.is_in_view and (total != received.total or received.waits_for(known)):
            # Asked for again with each beat, since the question or its answer may be lost.
            self._add(link, Audit())

    # --- what the others say of themselves

    def _take_state(self, link: Link, state: State, now: float) -> None:
        base, link.revision = link.revision, state.revision
        link.name = state.name
        self._set_topics(link, state.topics)
        if not link.is_in_view:
            self._enter(link)
        said = {generation: (pid, slot) for pid, slot, generation in state.workers}
        for generation in [generation for generation in link.workers if generation not in said]:
            self._worker_left(link, generation, "left")
        for generation, (pid, slot) in said.items():
            if generation not in link.workers:
                self._worker_joined(link, pid, slot, generation)
        self._add(link, link.sent.known(base, state.revision, link.sent.topics))

    def _take_change(self, link: Link, change: Change) -> None:
        if change.base != link.revision or not link.is_in_view:
            if change.revision > link.revision:
                self._add(link, Resync())
            return
        link.revision = change.revision
        for generation, reason in change.gone:
            self._worker_left(link, generation, reason)
        self._change_topics(link, change.topics, change.dropped)
        for pid, slot, generation in change.joined:
            self._worker_joined(link, pid, slot, generation)
        self._add(link, link.sent.known(change.base, change.revision, [topic for topic, _ in change.topics]))

    def _worker_joined(self, link: Link, pid: int, slot: int, generation: int) -> None:
        worker = link.workers[generation] = Worker(pid, slot, generation, node=link.node)
        self._port.worker_joined(link, worker)

    def _worker_left(self, link: Link, generation: int, reason: str) -> None:
        worker = link.workers.pop(generation, None)
        link.sent.sends.pop(generation, None)
        if worker is not None and link.is_in_view:
            self._port.worker_left(link, worker, reason)

    def _set_topics(self, link: Link, topics: Iterable[tuple[str, int]]) -> None:
        """Note all the topics with subscribers there."""
        before = {*link.sent.topics}
        link.sent.keep_topics(topics)
        self._count_wanted(link.sent.topics.keys() - before, before - link.sent.topics.keys())

    def _change_topics(self, link: Link, topics: Iterable[tuple[str, int]], dropped: Iterable[str]) -> None:
        """Note which topics have subscribers there, and which have none any more."""
        have = link.sent.topics
        old = [topic for topic in dropped if have.pop(topic, None) is not None]
        new = [topic for topic, _ in topics if topic not in have]
        link.sent.add_topics(topics)
        self._count_wanted(new, old)

    def _count_wanted(self, new: Iterable[str], old: Iterable[str]) -> None:
        wanted: list[str] = []
        unwanted: list[str] = []
        for topic in new:
            count = self._wanted.get(topic, 0)
            self._wanted[topic] = count + 1
            if not count:
                wanted.append(topic)
        for topic in old:
            self._wanted[topic] -= 1
            if not self._wanted[topic]:
                del self._wanted[topic]
                unwanted.append(topic)
        if wanted or unwanted:
            self._port.wanted(wanted, unwanted)

    # --- the view

    def _enter(self, link: Link) -> None:
        """That node has answered this life: it is in the view."""
        before = [
            each
            for each in self.links.values()
            if each.node == link.node and each is not link and each.epoch[:8] <= link.epoch[:8]
        ]
        link.phase = Phase.CONNECTED
        self._by_node[link.node] = link
        for each in before:
            # Another life of the same bridge. Its workers live on, if they are in the new one's State.
            self._remember(each, None)
            link.workers = link.workers or each.workers
        self._port.node_changed(link)
        if link.is_returned or any(each.phase is not Phase.GREETED for each in before):
            link.is_returned = False
            self._port.lost(link, None)

    def _part(self, link: Link, phase: Phase, reason: Reason) -> None:
        link.phase = phase
        del self._by_node[link.node]
        link.workers = {}
        self._port.node_gone(link, reason)

    def _forget(self, link: Link, reason: Reason) -> None:
        if link.is_in_view:
            self._part(link, Phase.GONE, reason)
        self._remember(link, None)

    def _remember(self, link: Link, numbers: tuple[int, int] | None) -> None:
        """Forget a link but its numbers, or (None) but that nothing more is taken of that life."""
        self._count_wanted((), link.sent.topics)
        del self.links[link.epoch]
        self._remembered[link.epoch] = numbers
        if len(self._remembered) > MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
