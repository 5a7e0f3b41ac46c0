"""Messages, one case at a time: those that are lost are told to the number, the others come once."""

from __future__ import annotations

import pytest

from asgi_ipc.cluster.items import Answer, Ask, Heard, Withdraw
from asgi_ipc.cluster.machine import BEAT_S, GONE_S
from tests.cluster.net import MOST_BYTES, Net
from tests.cluster.pairs import A, B, C, beats, finish, told, two

# --- what is lost


def test_a_host_that_was_gone_for_long_is_told_exactly_what_it_has_missed() -> None:
    net, one, other = two(2)
    one.subscribe(1, "news")
    one.subscribe(2, "weather")
    net.carry()
    net.cut |= {(A, B), (B, A)}
    for _ in range(600):
        other.broadcast(2)
        other.publish_topic("news", 3)
        net.tick()
    finish(net)
    assert (told(one, other, 1), told(one, other, 2)) == (600 * 5, 600 * 2)
    assert one.unknown == []


def test_a_loss_is_told_with_the_next_beat_although_nothing_follows() -> None:
    net, one, other = two()
    net.losing[B, A] = 1
    other.broadcast(7)
    net.carry()
    net.tick()
    assert told(one, other) == 7


def test_a_loss_is_told_before_the_message_that_follows() -> None:
    net, one, other = two()
    net.losing[B, A] = 1
    other.broadcast(7)
    net.carry()
    other.broadcast()
    net.carry()
    assert told(one, other) == 7
    assert one.order == ["lost", "message"]


def test_what_was_lost_with_the_word_that_a_worker_is_known_is_told() -> None:
    net, one, other = two()
    net.losing[B, A] = 3
    one.join(2)
    net.carry()
    other.broadcast(50)
    net.carry()
    one.subscribe(2, "news")
    net.carry()
    other.publish_topic("news", 4)
    finish(net)
    assert told(one, other, 2) == 50
    assert len(one.got[2, 0]) == 1


@pytest.mark.parametrize("size_bytes", [10_000, 500_000])
def test_a_message_larger_than_an_envelope_comes_whole(size_bytes: int) -> None:
    net, one, other = two()
    before = len(net.record)
    said = other.broadcast(1, size_bytes)
    net.carry()
    assert one.got[1, 0] == [said.number]
    assert len(net.record) - before > size_bytes / 2_048


@pytest.mark.parametrize("skipped", range(6))
def test_a_lost_part_is_the_loss_of_that_message_alone(skipped: int) -> None:
    net, one, other = two()
    net.held.add((B, A))
    first = other.broadcast(1)
    other.machine.flush()
    large = other.broadcast(1, 10_000)
    other.machine.flush()
    last = other.broadcast(1)
    other.machine.flush()
    parts = net.waiting[B, A]
    assert len(parts) == 8
    del parts[1 + skipped]
    net.held.clear()
    net.carry()
    assert one.got[1, 0] == [first.number, last.number]
    assert large.count == told(one, other) == 1
    finish(net)


def test_a_message_that_exceeds_the_limit_is_dropped_and_told() -> None:
    net, one, other = two()
    other.broadcast(1, MOST_BYTES)
    other.broadcast(1)
    finish(net)
    assert told(one, other) == 1


def test_what_has_no_room_is_numbered_and_counted_and_told() -> None:
    net, one, other = two(2)
    one.subscribe(1, "news")
    net.carry()
    other.has_place = False
    other.broadcast(3)
    other.publish_topic("news", 4)
    other.publish_topic("weather", 100)
    assert other.send(one, 1) == "full"
    assert other.machine.dropped == 7
    net.tick()
    assert (told(one, other, 1), told(one, other, 2)) == (7, 3)
    other.not_sent(None, 2)
    other.not_sent("news", 3)
    other.not_sent("weather", 100)
    assert other.machine.dropped == 12
    net.tick()
    assert (told(one, other, 1), told(one, other, 2)) == (12, 5)
    finish(net)


def test_what_is_said_without_a_broker_is_counted_and_told_and_a_send_refused() -> None:
    net, one, other = two()
    other.machine.disconnected()
    other.broadcast(3)
    assert other.send(one, 1) == "not connected"
    assert other.machine.dropped == 3
    finish(net)
    assert told(one, other) == 3


def test_a_send_to_somebody_unknown_is_refused() -> None:
    net, _, other = two()
    assert other.machine.send(1, A, 2, b"") == "unknown"
    assert other.machine.send(1, C, 1, b"") == "unknown"
    assert other.machine.ask(1, A, 2, 1, b"") == "unknown"
    assert other.machine.ask(1, A, 0, 1, b"") is None
    finish(net)


# --- topics


def test_ten_thousand_topics_begin_and_end_at_once() -> None:
    net, one, other = two()
    topics = {f"topic {place}" for place in range(10_000)}
    for topic in topics:
        one.machine.subscribed(1, topic)
    net.carry()
    assert other.wanted_topics == topics
    net.cut.add((A, B))
    for topic in topics:
        one.machine.unsubscribed(1, topic)
    net.carry()
    assert other.wanted_topics == topics
    one.subscribe(1, "news")
    net.heal()
    net.tick()
    assert other.wanted_topics == {"news"}
    other.publish_topic("news")
    finish(net)


def test_a_topic_is_wanted_while_one_node_wants_it() -> None:
    net, one, other = two()
    third = net.begin(C)
    third.join(1)
    net.calm()
    one.subscribe(1, "news")
    third.subscribe(1, "news")
    net.carry()
    one.unsubscribe(1, "news")
    net.carry()
    assert other.wanted_topics == {"news"}
    third.leave(1)
    net.carry()
    assert other.wanted_topics == set()


# --- questions


def test_questions_and_answers_pass_and_count_as_no_message() -> None:
    net, one, other = two()
    assert one.machine.ask(1, B, 1, 5, b"question") is None
    one.machine.tell(B, Withdraw(1, 1, 5))
    net.carry()
    assert other.questions == [Ask(1, 1, 5, b"question"), Withdraw(1, 1, 5)]
    net.losing[B, A] = 1
    other.machine.tell(A, Heard(1, 5, [1]))
    net.carry()
    other.machine.tell(A, Answer(1, 1, b"answer"))
    other.machine.tell(C, Answer(1, 1, b"for nobody"))
    net.carry()
    assert one.questions == [Answer(1, 1, b"answer")]
    finish(net)
    assert not one.told


def test_what_a_topic_lost_before_a_second_subscription_is_no_loss_for_that_one() -> None:
    net, one, other = two(2)
    one.subscribe(1, "news")
    net.carry()
    net.losing[B, A] = 1
    other.publish_topic("news", 5)
    net.carry()
    one.subscribe(2, "news")
    net.carry()
    finish(net)
    assert (told(one, other, 1), told(one, other, 2)) == (5, 0)


def test_what_was_lost_with_the_word_that_a_subscription_is_known_is_told() -> None:
    net, one, other = two()
    net.losing[B, A] = 2
    one.subscribe(1, "news")
    net.carry()
    other.publish_topic("news", 5)
    net.carry()
    # This one comes, and tells of the gap before anybody here is known to have been meant.
    other.publish_topic("news")
    finish(net)
    assert told(one, other) == 5


def test_a_topic_that_ends_and_begins_again_at_once_is_counted_anew() -> None:
    net, one, other = two()
    one.subscribe(1, "news")
    net.carry()
    other.publish_topic("news", 2)
    net.carry()
    one.unsubscribe(1, "news")
    one.subscribe(1, "news")
    net.carry()
    net.losing[B, A] = 1
    other.publish_topic("news", 3)
    net.carry()
    finish(net)
    assert told(one, other) == 3


def test_what_is_said_while_a_node_is_in_no_view_is_told_and_not_delivered() -> None:
    net, one, other = two()
    net.cut.add((B, A))
    beats(net, GONE_S)
    assert one.view == {}
    net.cut.clear()
    other.broadcast(2)
    net.carry()
    assert not one.got
    finish(net)
    assert told(one, other) == 2


def test_a_worker_that_has_gone_is_told_of_no_loss() -> None:
    net, one, other = two(2)
    one.leave(2)
    net.carry()
    net.losing[B, A] = 1
    other.broadcast(4)
    net.carry()
    finish(net)
    assert (told(one, other, 1), told(one, other, 2)) == (4, 0)


def test_what_a_node_said_that_was_never_in_the_view_here_is_told_when_it_gets_there() -> None:
    net = Net()
    one, other = net.begin(A), net.begin(B)
    one.join(1)
    other.join(1)
    net.carry()
    # The other one knows us, and we have confirmed that; its own state is lost.
    net.now += BEAT_S
    other.machine.tick(net.now)
    net.losing[B, A] = 100
    net.carry()
    assert not one.view
    assert {*other.view} == {A}
    other.broadcast(10)
    beats(net, 2 * GONE_S)
    finish(net)
    assert told(one, other) == 10
