"""A cluster without processes: real machines on a net in memory, with a time of its own.

Law: the ledger knows what was said and who knew of whom by what the ports were told, never by the numbers of
the accounts. Between two hosts envelopes come in their order; any of them may be lost, held up or come twice.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from asgi_ipc.cluster import items
from asgi_ipc.cluster.accounts import Loss
from asgi_ipc.cluster.envelope import NOBODY, Sealer
from asgi_ipc.cluster.link import Link, Phase
from asgi_ipc.cluster.machine import BEAT_S, GONE_S, Machine
from asgi_ipc.cluster.port import Reason
from asgi_ipc.fleet.membership import Worker

ENVELOPE_BYTES: Final = 2048
MOST_BYTES: Final = 1 << 20

# After this long on a whole net every view is right and every loss is told.
CALM_S: Final = GONE_S + BEAT_S


# Who is owed a message: a life of a bridge, a worker there, and (0: as a worker) one of its subscriptions.
Owed: TypeAlias = tuple[bytes, int, int]


@dataclass(frozen=True)
class Said:
    """Messages of one host, and who must get them or be told that they are lost."""

    source: bytes
    number: int
    count: int
    owed: frozenset[Owed]

    @property
    def content(self) -> bytes:
        return self.number.to_bytes(8, "big")


@dataclass
class Net:
    """Carries envelopes between the hosts."""

    secret: bytes | None = b"a secret"
    cluster: str = "a cluster"
    now: float = 100.0
    hosts: list[Host] = field(default_factory=list)
    # Pairs of nodes between which everything is lost, and those between which everything waits.
    cut: set[tuple[str, str]] = field(default_factory=set)
    held: set[tuple[str, str]] = field(default_factory=set)
    # The next envelopes of a pair that are lost, and that come twice.
    losing: Counter[tuple[str, str]] = field(default_factory=Counter)
    doubling: Counter[tuple[str, str]] = field(default_factory=Counter)
    waiting: dict[tuple[str, str], deque[bytes]] = field(default_factory=dict)
    said: list[Said] = field(default_factory=list)
    # Everything that was ever published: the receiver, and the envelope.
    record: list[tuple[str | None, bytes]] = field(default_factory=list)

    def publish(self, source: Host, to: str | None, envelope: bytes) -> None:
        self.record.append((to, envelope))
        for host in self.hosts:
            pair = source.node, host.node
            if host is source or to not in (None, host.node) or pair in self.cut:
                continue
            if self.losing[pair]:
                self.losing[pair] -= 1
                continue
            self.waiting.setdefault(pair, deque()).append(envelope)

    def carry(self) -> None:
        """Bring everything that is not held up, and all that is said to it."""
        for host in self.hosts:
            host.machine.flush()
        while ready := [pair for pair, queue in self.waiting.items() if queue and pair not in self.held]:
            for pair in ready:
                envelope = self.waiting[pair].popleft()
                for host in self.hosts:
                    if host.node == pair[1]:
                        host.take(envelope, is_double=self._doubles(pair, envelope, host))

    def _doubles(self, pair: tuple[str, str], envelope: bytes, host: Host) -> bool:
        # A second hello is a hello.
        if self.doubling[pair] and host.sealer.open(envelope).number:
            self.doubling[pair] -= 1
            return True
        return False

    def tick(self, *others: Host) -> None:
        """A beat of time passes; all but those hosts notice."""
        self.now += BEAT_S
        for host in self.hosts:
            if host not in others:
                host.machine.tick(self.now)
        self.carry()

    def heal(self) -> None:
        """Everything passes again."""
        self.cut.clear()
        self.held.clear()
        self.losing.clear()
        self.doubling.clear()
        for host in self.hosts:
            host.has_place = True
            if not host.machine.is_connected:
                host.machine.connected(self.now)
        self.carry()

    def calm(self) -> None:
        """The net is whole for long enough."""
        self.heal()
        for _ in range(int(CALM_S / BEAT_S)):
            self.tick()

    def others(self, host: Host) -> list[Host]:
        return [each for each in self.hosts if each is not host]

    def begin(self, node: str, generation: int = 1, workers: Iterable[Worker] = ()) -> Host:
        """A bridge begins, of a new node or in the place of one that has died."""
        self.end(node)
        host = Host(self, node, generation)
        self.hosts.append(host)
        for worker in workers:
            host.workers[worker.generation] = worker
            host.machine.joined(worker)
        host.machine.connected(self.now)
        return host

    def end(self, node: str) -> None:
        """The bridge of that node is there no more. What it gave to the broker is still on its way."""
        self.hosts = [host for host in self.hosts if host.node != node]
        for pair, queue in self.waiting.items():
            if pair[1] == node:
                queue.clear()


class Host:
    """One life of a bridge: the port of a machine, and the ledger of what came."""

    def __init__(self, net: Net, node: str, generation: int = 1) -> None:
        self.net = net
        self.node = node
        self.generation = generation
        self.epoch = generation.to_bytes(8, "big") + len(net.record).to_bytes(8, "big")
        self.sealer = Sealer(net.cluster, net.secret)
        self.machine = Machine(
            node,
            f"host {node[:2]}",
            self.epoch,
            self.sealer,
            self,
            most_bytes=MOST_BYTES,
            envelope_bytes=ENVELOPE_BYTES,
            now=net.now,
        )
        self.has_place = True
        self.must_reject = 0
        self.workers: dict[int, Worker] = {}
        # A serial number each, and the revision of this node that tells of it.
        self.subscriptions: dict[tuple[int, str], tuple[int, int]] = {}
        self._serials = 0
        # By the epochs of others: the workers that this host was told of.
        self.known: dict[bytes, set[int]] = {}
        self.view: dict[str, set[Worker]] = {}
        # The lives that have been in the view, and have not said good-bye, by node.
        self.lives: dict[str, bytes] = {}
        self.got: dict[tuple[int, int], list[int]] = {}
        self.told: Counter[tuple[bytes, int, int]] = Counter()
        self.order: list[str] = []
        self.unknown: list[str] = []
        self.must_be_unknown: list[str] = []
        self.events: list[str] = []
        self.strangers: list[tuple[str, int, int]] = []
        self.wanted_topics: set[str] = set()
        self.questions: list[items.Item] = []

    # --- what its workers do

    def join(self, generation: int) -> None:
        self.workers[generation] = Worker(7, generation % 4, generation, node=self.node)
        self.machine.joined(self.workers[generation])

    def leave(self, generation: int) -> None:
        del self.workers[generation]
        for key in [key for key in self.subscriptions if key[0] == generation]:
            del self.subscriptions[key]
        self.machine.left(generation, "left")

    def subscribe(self, generation: int, topic: str) -> None:
        self.machine.subscribed(generation, topic)
        self.machine.flush()
        self._serials += 1
        self.subscriptions[generation, topic] = self._serials, self.machine._census.revision

    def unsubscribe(self, generation: int, topic: str) -> None:
        del self.subscriptions[generation, topic]
        self.machine.unsubscribed(generation, topic)

    def broadcast(self, count: int = 1, size_bytes: int = 0) -> Said:
        said = self._say(count, self._everybody())
        self.machine.broadcast(1, count, said.content + bytes(size_bytes))
        return said

    def publish_topic(self, topic: str, count: int = 1) -> Said:
        said = self._say(count, self._subscribers(topic))
        self.machine.publish(1, topic, count, said.content)
        return said

    def not_sent(self, topic: str | None, count: int) -> None:
        """A worker had no room for so many on the way to its bridge."""
        self._say(count, self._everybody() if topic is None else self._subscribers(topic))
        self.machine.not_sent(topic, count)

    def send(self, to: Host, generation: int) -> str | None:
        # It goes to the life that is in the view, which may have ended.
        link = self.machine._by_node.get(to.node)
        said = self._say(1, {(link.epoch if link else to.epoch, generation, 0)})
        refusal = self.machine.send(1, to.node, generation, said.content)
        if refusal is not None:
            self.net.said.pop()
        return refusal

    def _everybody(self) -> set[Owed]:
        return {(epoch, each, 0) for epoch, known in self.known.items() for each in known}

    def _subscribers(self, topic: str) -> set[Owed]:
        owed = set()
        for other in self.net.others(self):
            link = self.machine.links.get(other.epoch)
            if link is not None and link.phase is not Phase.GREETED:
                for (generation, each), (serial, revision) in other.subscriptions.items():
                    if each == topic and revision <= link.revision:
                        owed |= {(other.epoch, generation, serial), (other.epoch, generation, 0)}
        return owed

    def _say(self, count: int, owed: set[Owed]) -> Said:
        said = Said(self.epoch, len(self.net.said), count, frozenset(owed))
        self.net.said.append(said)
        return said

    # --- what comes

    def take(self, envelope: bytes, is_double: bool = False) -> None:
        is_misaddressed = self.sealer.open(envelope).destination not in (self.epoch, NOBODY)
        self.must_reject += 1 + is_double if is_misaddressed else is_double
        self.machine.arrived(envelope, self.net.now)
        if is_double:
            self.machine.arrived(envelope, self.net.now)
        self.machine.flush()
        for node, epoch in list(self.lives.items()):
            if epoch not in self.machine.links:
                # It has said good-bye, and everything before that.
                del self.lives[node]
                self.check(epoch)

    def check(self, source: bytes) -> None:
        """Everything that a life of another host has said to this one has come, or is told."""
        missing: Counter[tuple[int, int]] = Counter()
        got = {key: set(numbers) for key, numbers in self.got.items()}
        for said in self.net.said:
            if said.source == source:
                for epoch, generation, serial in said.owed:
                    if epoch == self.epoch and said.number not in got.get((generation, serial), ()):
                        missing[generation, serial] += said.count
        live = {(generation, serial) for (generation, _), (serial, _) in self.subscriptions.items()}
        for generation, serial in live:
            assert self.told[source, generation, serial] == missing[generation, serial]
        for generation in self.workers:
            # What a subscription has missed is told until it ends.
            ended = {key for key in missing if key[0] == generation and key[1] and key not in live}
            untold = sum(missing[key] - self.told[source, *key] for key in ended)
            assert all(missing[key] >= self.told[source, *key] for key in ended)
            assert self.told[source, generation, 0] == missing[generation, 0] - untold

    # --- the port

    def has_room(self, size_bytes: int) -> bool:
        return self.has_place

    def publish(self, to: str | None, envelope: bytes) -> None:
        self.net.publish(self, to, envelope)

    def deliver(self, link: Link, item: items.Broadcast | items.Publications | items.Direct) -> None:
        self.order.append("message")
        number = int.from_bytes(item.content[:8], "big")
        match item:
            case items.Broadcast():
                keys = {(generation, 0) for generation in self.workers}
            case items.Publications():
                mine = [
                    (key[0], serial)
                    for key, (serial, _) in self.subscriptions.items()
                    if key[1] == item.topic
                ]
                keys = {*mine, *((generation, 0) for generation, _ in mine)}
            case items.Direct():
                keys = {(item.to, 0)} if item.to in self.workers else set()
        for key in keys:
            got = self.got.setdefault(key, [])
            before = [each for each in got if self.net.said[each].source == link.epoch]
            assert not before or before[-1] < number, "doubled or reordered"
            got.append(number)

    def question(self, link: Link, item: items.Ask | items.Withdraw | items.Heard | items.Answer) -> None:
        self.questions.append(item)

    def lost(self, link: Link, loss: Loss | None) -> None:
        self.order.append("lost")
        if loss is None:
            self.unknown.append(link.node)
            return
        for generation, count in loss.messages.items():
            assert generation in self.workers
            assert count > 0
            self.told[link.epoch, generation, 0] += count
        for generation, topics in loss.publications.items():
            for topic, count in topics.items():
                serial, _ = self.subscriptions[generation, topic]
                self.told[link.epoch, generation, serial] += count

    def node_changed(self, link: Link) -> None:
        before = self.lives.get(link.node)
        if before not in (None, link.epoch):
            self.must_be_unknown.append(link.node)
        self.lives[link.node] = link.epoch
        self.known.setdefault(link.epoch, set()).update(link.workers)
        self.view.setdefault(link.node, set())
        self.events.append(f"{link.node[:2]} {link.phase.name}")

    def node_gone(self, link: Link, reason: Reason) -> None:
        del self.view[link.node]
        self.events.append(f"{link.node[:2]} {reason}")

    def worker_joined(self, link: Link, worker: Worker) -> None:
        self.known[link.epoch].add(worker.generation)
        assert worker not in self.view[link.node]
        self.view[link.node].add(worker)

    def worker_left(self, link: Link, worker: Worker, reason: str) -> None:
        self.known[link.epoch].discard(worker.generation)
        self.view[link.node].remove(worker)

    def wanted(self, topics: Iterable[str], unwanted: Iterable[str]) -> None:
        assert self.wanted_topics.isdisjoint(topics)
        assert self.wanted_topics.issuperset(unwanted)
        self.wanted_topics.update(topics)
        self.wanted_topics.difference_update(unwanted)

    def stranger(self, name: str, node: str, oldest: int, newest: int) -> None:
        self.strangers.append((name, oldest, newest))
