"""The view, one case at a time: who is in it, who has gone, and who is not let in."""

from __future__ import annotations

import pytest

from asgi_ipc.cluster.envelope import HELLO, NOBODY, WHOLE, Envelope
from asgi_ipc.cluster.items import Hello, encode_item
from asgi_ipc.cluster.machine import BEAT_S, GONE_S, KEEP_S, MAX_LINKS, MAX_STRANGERS, SUSPECT_S
from tests.cluster.net import Host, Net
from tests.cluster.pairs import A, B, C, beats, finish, told, two


def hello(host: Host, node: str, oldest: int, newest: int, life: int = 1) -> bytes:
    payload = encode_item(Hello("a stranger", oldest, newest))
    source = life.to_bytes(8, "big") + bytes.fromhex(node)
    return host.sealer.seal(Envelope(0, HELLO, node, source, NOBODY, 0, payload))


# --- who is there


def test_two_hosts_know_each_other_after_a_beat() -> None:
    net = Net()
    one, other = net.begin(A), net.begin(B)
    one.join(1)
    other.join(1)
    net.carry()
    net.tick()
    assert one.view == {B: {*other.workers.values()}}
    assert other.view == {A: {*one.workers.values()}}


def test_a_host_that_is_not_heard_is_suspect_and_then_gone() -> None:
    net, one, _ = two()
    net.cut.add((B, A))
    beats(net, SUSPECT_S - BEAT_S)
    assert one.events == ["bb CONNECTED"]
    beats(net, BEAT_S)
    assert one.events == ["bb CONNECTED", "bb SUSPECT"]
    beats(net, GONE_S - SUSPECT_S)
    assert one.events == ["bb CONNECTED", "bb SUSPECT", "bb lost"]
    finish(net)
    assert one.events[3:] == ["bb CONNECTED"]


def test_a_suspect_that_is_heard_is_connected() -> None:
    net, one, _ = two()
    net.cut.add((B, A))
    beats(net, SUSPECT_S)
    net.heal()
    net.tick()
    assert one.events == ["bb CONNECTED", "bb SUSPECT", "bb CONNECTED"]


def test_a_host_that_stops_has_left_at_once_and_says_nothing_more() -> None:
    net, one, other = two()
    other.machine.leave()
    net.carry()
    assert one.events == ["bb CONNECTED", "bb left"]
    record = len(net.record)
    other.broadcast()
    assert other.send(one, 1) == "not connected"
    beats(net, 3)
    assert all(envelope[6:14] != bytes.fromhex(B) for _, envelope in net.record[record:])
    assert one.events == ["bb CONNECTED", "bb left"]
    assert not one.machine.links


def test_what_a_host_has_lost_before_it_stops_is_told() -> None:
    net, one, other = two()
    net.cut.add((B, A))
    other.broadcast(3)
    net.carry()
    net.heal()
    other.machine.leave()
    net.carry()
    assert told(one, other) == 3


def test_a_bridge_that_did_not_run_declares_nobody_gone() -> None:
    net, one, _ = two()
    beats(net, 60, one)
    one.machine.tick(net.now)
    net.carry()
    assert one.events == ["bb CONNECTED"]


def test_a_host_that_dies_after_this_bridge_did_not_run_is_gone_in_time() -> None:
    net, one, _ = two()
    # What came meanwhile is taken before the late tick, as the bridge does.
    beats(net, 60, one)
    net.end(B)
    beats(net, GONE_S + BEAT_S)
    assert one.events[-1] == "bb lost"


def test_a_host_that_lost_our_change_while_it_was_gone_here_comes_back_with_its_worker() -> None:
    net, one, other = two()
    net.cut.add((B, A))
    beats(net, GONE_S)
    assert one.view == {}
    net.cut.clear()
    # It has us in its view still, and tells of a change only.
    other.join(2)
    net.carry()
    finish(net)


def test_an_introduction_that_is_lost_again_and_again_does_not_confuse_the_numbers() -> None:
    net = Net()
    one, other = net.begin(A), net.begin(B)
    one.join(1)
    other.join(1)
    net.held.add((B, A))
    beats(net, 3)
    net.cut.add((B, A))
    net.waiting[B, A].clear()
    beats(net, 2 * GONE_S)
    finish(net)


def test_a_host_that_was_forgotten_comes_back_and_what_it_said_is_unknown() -> None:
    net, one, other = two()
    other.subscribe(1, "news")
    net.carry()
    net.cut |= {(A, B), (B, A)}
    beats(net, KEEP_S + GONE_S)
    assert not one.machine.links
    assert one.wanted_topics == set()
    one.broadcast()
    net.calm()
    assert one.unknown == [B]
    assert other.unknown == [A]
    assert one.view == {B: {*other.workers.values()}}
    assert one.machine.rejected == 0


def test_a_bridge_that_begins_again_is_the_same_node_with_the_same_workers() -> None:
    net, one, other = two(2)
    one.subscribe(1, "news")
    net.carry()
    other.broadcast(5)
    again = net.begin(B, 2, other.workers.values())
    beats(net, 2)
    assert one.events == ["bb CONNECTED", "bb CONNECTED"]
    assert one.view == {B: {*other.workers.values()}}
    assert one.unknown == [B]
    # The other bridge has no past, so nothing is a gap for it.
    assert again.unknown == []
    one.broadcast()
    again.publish_topic("news", 2)
    finish(net)
    assert not one.told


# --- who is not let in


@pytest.mark.parametrize(("oldest", "newest"), [(2, 3), (0, 0)])
def test_a_stranger_of_another_version_is_named_once_and_left_out(oldest: int, newest: int) -> None:
    net, one, _ = two()
    for _ in range(3):
        one.machine.arrived(hello(one, C, oldest, newest), net.now)
    assert one.strangers == [("a stranger", oldest, newest)]
    assert len(one.machine.links) == 1
    finish(net)


def test_a_node_of_later_versions_that_speaks_ours_is_let_in() -> None:
    net, one, _ = two()
    one.machine.arrived(hello(one, C, 1, 3), net.now)
    assert one.strangers == []
    assert len(one.machine.links) == 2


def test_an_envelope_of_another_version_is_rejected() -> None:
    net, one, other = two()
    one.machine.arrived(
        other.sealer.seal(Envelope(2, WHOLE, B, other.epoch, one.epoch, 10**6, b"\xdc\0\0")), net.now
    )
    assert one.machine.rejected == 1
    one.must_reject += 1
    finish(net)


def test_only_so_many_strangers_are_named() -> None:
    net, one, _ = two()
    for place in range(2 * MAX_STRANGERS):
        one.machine.arrived(hello(one, f"{place:016x}", 2, 3), net.now)
    assert len(one.strangers) == MAX_STRANGERS


def test_only_so_many_nodes_are_looked_at_and_those_that_only_greet_are_forgotten() -> None:
    net, one, _ = two()
    for place in range(2 * MAX_LINKS):
        one.machine.arrived(hello(one, f"{place:016x}", 1, 1), net.now)
    assert len(one.machine.links) == MAX_LINKS
    beats(net, GONE_S)
    assert len(one.machine.links) == 1
    net.begin(C).join(1)
    finish(net)


def test_an_envelope_that_comes_twice_is_rejected_and_counted() -> None:
    net, one, other = two()
    net.doubling[B, A] = 5
    for _ in range(5):
        other.broadcast()
        net.carry()
    assert one.machine.rejected == one.must_reject == 5
    finish(net)


def test_an_envelope_of_a_node_under_the_epoch_of_another_is_rejected() -> None:
    net, one, other = two()
    forged = Envelope(1, WHOLE, C, other.epoch, one.epoch, 10**6, b"\xdc\0\0")
    one.machine.arrived(one.sealer.seal(forged), net.now)
    assert one.machine.rejected == 1
    one.must_reject += 1
    finish(net)


def test_a_payload_without_sense_is_rejected_and_the_stream_goes_on() -> None:
    net, one, other = two()
    number = other.machine.links[one.epoch].numbers[0] + 1
    forged = Envelope(1, WHOLE, B, other.epoch, one.epoch, number, b"no items")
    one.machine.arrived(other.sealer.seal(forged), net.now)
    assert one.machine.rejected == 1
    other.machine.links[one.epoch].numbers = number, other.machine.links[one.epoch].numbers[1]
    one.must_reject += 1
    other.broadcast()
    finish(net)
    assert len(one.got[1, 0]) == 1


def test_a_node_that_goes_on_greeting_is_not_forgotten() -> None:
    net, one, _ = two()
    one.machine.arrived(hello(one, C, 1, 1), net.now)
    before = {*one.machine.links.values()}
    for _ in range(10):
        net.tick()
        one.machine.arrived(hello(one, C, 1, 1), net.now)
    assert {*one.machine.links.values()} == before


def test_a_worker_whose_end_was_not_heard_has_gone_with_the_next_state() -> None:
    net, one, other = two(2)
    net.losing[A, B] = 1
    one.leave(2)
    net.carry()
    assert len(other.view[A]) == 2
    finish(net)
    assert len(other.view[A]) == 1


def test_a_topic_that_begins_and_ends_at_once_is_wanted_by_nobody() -> None:
    net, one, other = two()
    one.machine.subscribed(1, "news")
    one.machine.unsubscribed(1, "news")
    finish(net)
    assert other.wanted_topics == set()
