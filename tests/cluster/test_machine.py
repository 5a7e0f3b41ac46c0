"""The machines of several hosts on a net that loses, cuts, holds up and doubles. Hosts come and go."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)
from tests.cluster.net import Host, Net
from tests.cluster.pairs import check

NODES = ("aa" * 8, "bb" * 8, "cc" * 8)
TOPICS = ("news", "weather")

hosts = st.integers(0, len(NODES) - 1)
counts = st.integers(1, 3)
sizes = st.sampled_from((0, 100, 9_000))
topics = st.sampled_from(TOPICS)
picks = st.integers(0, 10**6)


class Hosts(RuleBasedStateMachine):
    """Three hosts. The ledger of each fails at once if something is doubled, reordered or told wrongly."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()
        self.workers = 0

    @initialize()
    def start(self) -> None:
        for node in NODES:
            host = self.net.begin(node)
            self.join(host)
        self.net.calm()

    def join(self, host: Host) -> int:
        self.workers += 1
        host.join(self.workers)
        return self.workers

    def host(self, place: int) -> Host:
        return self.net.hosts[place % len(self.net.hosts)]

    def pair(self, source: int, to: int) -> tuple[str, str]:
        return NODES[source], NODES[to]

    # --- the net

    @rule(source=hosts, to=hosts)
    def cut_one_way(self, source: int, to: int) -> None:
        self.net.cut.add(self.pair(source, to))

    @rule(place=hosts)
    def cut_off(self, place: int) -> None:
        self.net.cut |= {pair for node in NODES for pair in ((NODES[place], node), (node, NODES[place]))}

    @rule(source=hosts, to=hosts, count=counts)
    def lose(self, source: int, to: int, count: int) -> None:
        self.net.losing[self.pair(source, to)] += count

    @rule(source=hosts, to=hosts, count=counts)
    def double(self, source: int, to: int, count: int) -> None:
        self.net.doubling[self.pair(source, to)] += count

    @rule(source=hosts, to=hosts)
    def hold(self, source: int, to: int) -> None:
        self.net.held.add(self.pair(source, to))

    @rule()
    def heal(self) -> None:
        self.net.heal()

    @rule()
    def carry(self) -> None:
        self.net.carry()

    @rule(beats=st.integers(1, 7))
    def time_passes(self, beats: int) -> None:
        for _ in range(beats):
            self.net.tick()

    @rule(place=hosts, beats=st.integers(1, 7))
    def one_does_not_run(self, place: int, beats: int) -> None:
        for _ in range(beats):
            self.net.tick(self.host(place))
        self.net.tick()

    @rule(place=hosts)
    def broker_is_away(self, place: int) -> None:
        self.host(place).machine.disconnected()

    @rule(place=hosts)
    def broker_is_back(self, place: int) -> None:
        self.host(place).machine.connected(self.net.now)

    @rule(place=hosts, has_place=st.booleans())
    def outbox(self, place: int, has_place: bool) -> None:
        self.host(place).has_place = has_place

    # --- the hosts

    @rule(place=hosts, is_bye=st.booleans())
    def restart_bridge(self, place: int, is_bye: bool) -> None:
        host = self.host(place)
        if is_bye:
            host.machine.leave()
        self.net.begin(host.node, host.generation + 1, host.workers.values())

    @precondition(lambda self: len(self.net.hosts) > 2)
    @rule(place=hosts, is_bye=st.booleans())
    def stop(self, place: int, is_bye: bool) -> None:
        host = self.host(place)
        if is_bye:
            host.machine.leave()
        self.net.end(host.node)
        self.gone = host.node, host.generation

    @precondition(lambda self: len(self.net.hosts) < len(NODES))
    @rule()
    def come_back(self) -> None:
        node, generation = self.gone
        self.join(self.net.begin(node, generation + 1))

    @rule(place=hosts)
    def worker_joins(self, place: int) -> None:
        self.join(self.host(place))

    @rule(place=hosts, pick=picks)
    def worker_leaves(self, place: int, pick: int) -> None:
        host = self.host(place)
        if host.workers:
            host.leave([*host.workers][pick % len(host.workers)])

    @rule(place=hosts, pick=picks, topic=topics)
    def subscribe(self, place: int, pick: int, topic: str) -> None:
        host = self.host(place)
        left = [each for each in host.workers if (each, topic) not in host.subscriptions]
        if left:
            host.subscribe(left[pick % len(left)], topic)

    @rule(place=hosts, pick=picks)
    def unsubscribe(self, place: int, pick: int) -> None:
        host = self.host(place)
        if host.subscriptions:
            host.unsubscribe(*[*host.subscriptions][pick % len(host.subscriptions)])

    # --- messages

    @rule(place=hosts, count=counts, size_bytes=sizes)
    def broadcast(self, place: int, count: int, size_bytes: int) -> None:
        self.host(place).broadcast(count, size_bytes)

    @rule(place=hosts, topic=topics, count=counts)
    def publish(self, place: int, topic: str, count: int) -> None:
        self.host(place).publish_topic(topic, count)

    @rule(place=hosts, topic=st.sampled_from((None, *TOPICS)), count=counts)
    def no_room_before_the_bridge(self, place: int, topic: str | None, count: int) -> None:
        self.host(place).not_sent(topic, count)

    @rule(place=hosts, other=hosts, pick=picks)
    def send(self, place: int, other: int, pick: int) -> None:
        host, to = self.host(place), self.host(other)
        if to.workers and host is not to:
            host.send(to, [*to.workers][pick % len(to.workers)])

    # --- the promises

    @rule()
    def calm(self) -> None:
        self.net.calm()
        check(self.net)

    def teardown(self) -> None:
        self.calm()


TestHosts = Hosts.TestCase
