"""What somebody at the broker without the secret can do: nothing, and all of it is counted."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from asgi_ipc.cluster.envelope import ENVELOPE_BYTES, HELLO, NOBODY, Envelope, Sealer
from asgi_ipc.cluster.machine import GONE_S
from tests.cluster.net import CALM_S, Host, Net

NODES = ("aa" * 8, "bb" * 8, "cc" * 8)


def talk(net: Net) -> None:
    """Let all hosts say everything that there is."""
    for host in net.hosts:
        host.broadcast(2, size_bytes=5_000)
        host.publish_topic("news")
        for other in net.others(host):
            for generation in other.workers:
                assert host.send(other, generation) is None
        net.carry()
    net.tick()


def clustered(cluster: str = "a cluster", secret: bytes = b"a secret") -> Net:
    """Three hosts with a worker and a subscription each; the third has another life behind it."""
    net = Net(secret=secret, cluster=cluster)
    for node in NODES:
        net.begin(node).join(1)
    net.calm()
    for host in net.hosts:
        host.subscribe(1, "news")
    net.carry()
    talk(net)
    return net


def state(host: Host) -> object:
    """Everything that an attacker must not change."""
    return (
        {node: set(workers) for node, workers in host.view.items()},
        list(host.events),
        {key: list(got) for key, got in host.got.items()},
        dict(host.told),
        list(host.unknown),
        set(host.wanted_topics),
        [*host.machine.links],
    )


def attacks(net: Net, count: int, rng: random.Random) -> Iterator[bytes]:
    """Envelopes that are altered, cut short, forged, or of another secret or cluster."""
    record = [envelope for _, envelope in net.record]
    others = [Sealer("a cluster", b"another"), Sealer("another", b"a secret"), Sealer("a cluster", None)]
    for place in range(count):
        envelope = rng.choice(record)
        match place % 5:
            case 0:
                altered = bytearray(envelope)
                altered[rng.randrange(len(altered))] ^= rng.randrange(1, 256)
                yield bytes(altered)
            case 1:
                yield envelope[: rng.randrange(len(envelope))]
            case 2:
                yield rng.randbytes(rng.randrange(2 * ENVELOPE_BYTES))
            case 3:
                yield rng.choice(others).seal(
                    net.hosts[0].sealer.open(envelope)._replace(number=place + 10**6)
                )
            case _:
                # The payload of one envelope under the head of another.
                other = rng.choice(record)
                if other == envelope:
                    other += b"\0"
                yield envelope[:-ENVELOPE_BYTES] + other[-ENVELOPE_BYTES:] + b"\1"


def attack_with_forgeries(count: int, seed: int = 1) -> None:
    """Throw so many at one of three hosts."""
    net = clustered()
    host = net.hosts[0]
    before, rejected = state(host), host.machine.rejected
    for envelope in attacks(net, count, random.Random(seed)):
        host.machine.arrived(envelope, net.now)
    assert host.machine.rejected - rejected == count
    assert state(host) == before
    host.must_reject += count
    finish(net)


def replay(net: Net, host: Host, record: list[tuple[str | None, bytes]], count: int, seed: int = 1) -> None:
    """Throw so many recorded envelopes at a host."""
    before, rejected = state(host), host.machine.rejected
    rng = random.Random(seed)
    must_reject = 0
    for _ in range(count):
        _, envelope = rng.choice(record)
        # A hello names nobody: it is answered, and its answer is for a life that is over.
        is_hello = envelope[5] == HELLO
        is_own = envelope[6:14] == bytes.fromhex(host.node)
        must_reject += not is_hello and not is_own
        host.machine.arrived(envelope, net.now)
    assert host.machine.rejected - rejected == must_reject
    host.must_reject += must_reject
    assert state(host)[:6] == before[:6]  # type: ignore[index]


def finish(net: Net) -> None:
    """All goes on as if nothing had been."""
    net.calm()
    talk(net)
    net.calm()
    for host in net.hosts:
        others = net.others(host)
        assert host.view == {other.node: {*other.workers.values()} for other in others}
        assert host.unknown == host.must_be_unknown
        assert host.machine.rejected == host.must_reject
        for other in others:
            host.check(other.epoch)
            assert not any(each[0] == other.epoch for each in host.told)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_is_forged_or_altered_is_accepted(seed: int) -> None:
    attack_with_forgeries(3_000, seed)


def test_nothing_is_accepted_a_second_time() -> None:
    net = clustered()
    replay(net, net.hosts[0], list(net.record), 3_000)
    finish(net)


def test_nothing_is_accepted_in_another_life_of_the_receiver() -> None:
    net = clustered()
    old = net.hosts[0]
    host = net.begin(old.node, 2, old.workers.values())
    host.subscribe(1, "news")
    record = list(net.record)
    net.calm()
    replay(net, host, record, 3_000)
    finish(net)


def test_nothing_of_an_earlier_life_of_the_sender_is_accepted() -> None:
    net = clustered()
    record = list(net.record)
    old = net.hosts[2]
    net.begin(old.node, 2, old.workers.values()).subscribe(1, "news")
    net.calm()
    for host in net.hosts[:2]:
        replay(net, host, record, 3_000)
    finish(net)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_nothing_of_a_life_that_has_said_good_bye_is_accepted(is_replaced: bool) -> None:
    net = clustered()
    host, old = net.hosts[0], net.hosts[2]
    if is_replaced:
        old = net.begin(old.node, 2, old.workers.values())
        net.calm()
    old.machine.leave()
    net.carry()
    net.end(old.node)
    assert old.node not in host.view
    replay(net, host, list(net.record), 3_000)
    finish(net)


def test_what_is_said_in_an_earlier_life_and_never_came_is_refused_as_well() -> None:
    net = clustered()
    host, old = net.hosts[0], net.hosts[2]
    net.cut.add((old.node, host.node))
    start = len(net.record)
    talk(net)
    kept = [each for each in net.record[start:] if each[1][6:14] == bytes.fromhex(old.node)]
    new = net.begin(old.node, 2, old.workers.values())
    net.calm()
    new.machine.leave()
    net.carry()
    net.end(old.node)
    # Those for others are for others, in every case.
    replay(net, host, kept, 300)


def test_nothing_of_an_earlier_life_that_was_never_heard_is_accepted() -> None:
    net = Net()
    host = net.begin(NODES[0])
    host.join(1)
    net.cut.add((NODES[1], NODES[0]))
    old = net.begin(NODES[1])
    old.join(1)
    net.tick()
    kept = [data for to, data in net.record if to == host.node]
    assert kept
    net.begin(NODES[1], 2, old.workers.values())
    net.calm()
    before = state(host)
    for envelope in kept:
        host.machine.arrived(envelope, net.now)
    assert host.machine.rejected == len(kept)
    assert state(host) == before


def test_nothing_of_a_node_that_is_forgotten_is_accepted_again() -> None:
    net = clustered()
    host, old = net.hosts[0], net.hosts[2]
    net.end(old.node)
    net.calm()
    assert f"{old.node[:2]} lost" in host.events
    for _ in range(3_600):
        net.tick()
    assert old.epoch not in host.machine.links
    replay(net, host, list(net.record), 3_000)
    finish(net)


def test_nothing_of_another_cluster_with_the_same_secret_is_accepted() -> None:
    other = clustered("another cluster")
    net = clustered()
    host = net.hosts[0]
    before = state(host)
    for _, envelope in other.record:
        host.machine.arrived(envelope, net.now)
    assert host.machine.rejected == len(other.record)
    assert state(host) == before
    host.must_reject += len(other.record)
    finish(net)


def test_an_old_hello_is_answered_and_forgotten() -> None:
    net = clustered()
    host = net.hosts[0]
    hello = host.sealer.open(next(data for to, data in net.record if to is None))
    old = hello._replace(node="dd" * 8, source=b"\0" * 7 + b"\1" + b"d" * 8, destination=NOBODY)
    before = state(host)
    host.machine.arrived(host.sealer.seal(Envelope(*old)), net.now)
    assert len(host.machine.links) == 3
    for _ in range(int(max(CALM_S, GONE_S + 1))):
        net.tick()
    assert state(host) == before
    finish(net)
