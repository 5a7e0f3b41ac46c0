"""Two hosts that know each other, and what must hold after whatever has happened to them."""

from __future__ import annotations

from asgi_ipc.cluster.link import Phase
from asgi_ipc.cluster.machine import BEAT_S
from tests.cluster.net import Host, Net

A, B, C = "aa" * 8, "bb" * 8, "cc" * 8


def two(workers: int = 1) -> tuple[Net, Host, Host]:
    """Two hosts that know each other, with workers 1, 2, … each."""
    net = Net()
    one, other = net.begin(A), net.begin(B)
    for host in net.hosts:
        for generation in range(1, workers + 1):
            host.join(generation)
    net.carry()
    beats(net, 2)
    check(net)
    return net, one, other


def beats(net: Net, seconds: float, *but: Host) -> None:
    for _ in range(int(seconds / BEAT_S)):
        net.tick(*but)


def finish(net: Net) -> None:
    net.calm()
    check(net)


def told(host: Host, other: Host, generation: int = 1) -> int:
    return host.told[other.epoch, generation, 0]


def check(net: Net) -> None:
    """After a calm time: every view is right, and everything that is missing was told."""
    for host in net.hosts:
        others = net.others(host)
        assert host.view == {other.node: {*other.workers.values()} for other in others}
        assert host.unknown == host.must_be_unknown
        assert host.machine.rejected == host.must_reject
        # A node that was killed may only be cut off: its topics are wanted until it is forgotten.
        lost = [link for link in host.machine.links.values() if link.phase is Phase.GONE]
        wanted = {topic for other in others for _, topic in other.subscriptions}
        assert host.wanted_topics == wanted.union(*(link.sent.topics for link in lost))
        for other in others:
            host.check(other.epoch)
            assert host.machine.links[other.epoch].sent.said == []
