"""The relay: each of its rules, one after the other. In test_relay_machine.py everything happens at once."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

import pytest

from asgi_ipc.fleet.relay import (
    ENTRY_TIMEOUT_S,
    MAX_DESCRIPTORS_IN_FLIGHT,
    MAX_UNACKNOWLEDGED,
    RETRY_S,
    Item,
    Reach,
    Relay,
)
from asgi_ipc.fleet.words import (
    Claim,
    Decided,
    Entered,
    Gone,
    Join,
    Joined,
    Leaving,
    Left,
    Release,
    Resigned,
    Stop,
    Took,
    Welcome,
    WriteEnd,
)
from tests.fleet.relays import a_fleet, a_newcomer, heard, said, settle, took, worker, write

# --- joining


def test_a_member_hears_of_the_newcomer_before_the_newcomer_gets_its_write_end() -> None:
    relay = a_fleet(1)
    assert a_newcomer(relay, 2) == [worker(1)]
    assert heard(relay, 2) == []
    assert write(relay, 1) == [Item(Joined(worker(2)), 2)]
    assert write(relay, 2) == [Item(WriteEnd(1), 1)]


def test_a_newcomer_is_welcomed_before_any_member_hears_of_it() -> None:
    relay = a_fleet(1)
    relay.connect(worker(2))
    relay.hear(2, Join(), 0.0)
    relay.tell(1, Stop())
    # If the launcher died here, a message of the member would come from somebody whom the newcomer
    # does not know.
    assert write(relay, 1) == []
    relay.began(2)
    assert write(relay, 1) == []
    assert heard(relay, 2) == [Welcome([worker(1)])]
    assert said(relay, 1) == [Joined(worker(2)), Stop()]


def test_a_worker_that_asks_twice_joins_once() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    relay.hear(2, Join(), 0.0)
    assert settle(relay, 1, 2) == [[Joined(worker(2))], [WriteEnd(1), Entered([])]]


Act = Callable[[Relay], object]


# What member 1 does.
def stalls(relay: Relay) -> None:
    relay.stalled(1, True)


def responds(relay: Relay) -> None:
    relay.stalled(1, False)


def answers(relay: Relay) -> None:
    took(relay, 1, 3)


def subscribes(relay: Relay) -> None:
    relay.hear(1, Took(3, True, subscribes=True), 0.0)


def refuses(relay: Relay) -> None:
    took(relay, 1, 3, False)


def dies(relay: Relay) -> None:
    relay.gone(1, "killed")


MISSING = [Entered([1001], [1])]


@pytest.mark.parametrize(
    ("before", "after", "entered"),
    [
        ([], [], []),
        ([], [refuses], []),
        ([], [answers], [Entered([])]),
        ([], [subscribes], [Entered([], [1])]),
        ([], [dies], [Entered([])]),
        ([], [stalls], MISSING),
        ([stalls], [], MISSING),
        ([stalls, responds], [], []),
        ([], [lambda relay: relay.tick(ENTRY_TIMEOUT_S - 0.001)], []),
        ([], [lambda relay: relay.tick(ENTRY_TIMEOUT_S)], MISSING),
    ],
)
def test_a_newcomer_enters_when_every_member_has_answered_that_can(
    before: Sequence[Act], after: Sequence[Act], entered: list[Entered]
) -> None:
    relay = a_fleet(2)
    for act in before:
        act(relay)
    a_newcomer(relay, 3)
    write(relay, 1)
    write(relay, 2)
    took(relay, 2, 3)
    for act in after:
        act(relay)
    assert [word for word in said(relay, 3) if isinstance(word, Entered)] == entered
    assert (relay.next_deadline() is None) is bool(entered)


def test_a_stalled_member_that_answers_in_time_is_not_missing() -> None:
    relay = a_fleet(2)
    stalls(relay)
    a_newcomer(relay, 3)
    write(relay, 1)
    write(relay, 2)
    answers(relay)
    took(relay, 2, 3)
    assert heard(relay, 3)[-1] == Entered([])


def test_a_newcomer_that_has_entered_still_gets_what_comes_late() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2, now=100.0)
    assert relay.next_deadline() == 100.0 + ENTRY_TIMEOUT_S
    relay.tick(100.0 + ENTRY_TIMEOUT_S)
    write(relay, 1)
    took(relay, 1, 2)
    assert heard(relay, 2) == [Entered([1001], [1]), WriteEnd(1)]


# --- write ends


def test_no_lifeline_has_more_than_eight_unacknowledged_write_ends() -> None:
    relay = a_fleet(12)
    a_newcomer(relay, 13)
    for member in range(1, 13):
        write(relay, member)
    assert heard(relay, 13) == [WriteEnd(member) for member in range(1, MAX_UNACKNOWLEDGED + 1)]
    assert 13 not in relay.pending()
    took(relay, 13, 1)
    assert heard(relay, 13) == [WriteEnd(MAX_UNACKNOWLEDGED + 1)]


def test_an_answer_about_one_who_has_died_meanwhile_makes_room_for_the_next() -> None:
    relay = a_fleet(1)
    for generation in range(2, 2 + MAX_UNACKNOWLEDGED):
        a_newcomer(relay, generation)
        write(relay, 1)
        relay.gone(generation, "killed")
        took(relay, 1, generation, generation % 2 == 0)
    assert relay.next_deadline() is None
    a_newcomer(relay, 99)
    assert heard(relay, 1) == [Gone(1 + MAX_UNACKNOWLEDGED, "killed"), Joined(worker(99))]


def test_no_more_than_512_write_ends_are_in_flight_in_all() -> None:
    relay = Relay()
    everybody = range(1, 73)
    for generation in everybody:
        a_newcomer(relay, generation)
    in_flight = deque[tuple[int, int]]()
    held: Counter[tuple[int, int]] = Counter()
    most = 0
    while relay.pending() or in_flight:
        for by in relay.pending():
            in_flight.extend((by, of) for _, of in write(relay, by) if of is not None)
        most = max(most, len(in_flight))
        # Only so many that the total limit stays in reach.
        for _ in range(min(100, len(in_flight))):
            by, of = in_flight.popleft()
            held[by, of] += 1
            took(relay, by, of)
    assert most == MAX_DESCRIPTORS_IN_FLIGHT
    assert held == {(by, of): 1 for by in everybody for of in everybody if by != of}


def test_a_refused_write_end_is_offered_again_after_half_a_second_and_is_news_once() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    write(relay, 1)
    assert took(relay, 1, 2, False, 1.0) == Reach(2, False)
    assert relay.next_deadline() == 1.0 + RETRY_S
    relay.tick(1.0 + RETRY_S - 0.001)
    assert write(relay, 1) == []
    relay.tick(1.0 + RETRY_S)
    assert write(relay, 1) == [Item(WriteEnd(2), 2)]
    assert relay.next_deadline() == ENTRY_TIMEOUT_S
    assert took(relay, 1, 2, False, 2.0) is None
    relay.tick(2.0 + RETRY_S)
    assert write(relay, 1) == [Item(WriteEnd(2), 2)]
    assert took(relay, 1, 2) == Reach(2, True)
    assert relay.next_deadline() is None
    # An answer is no news if nothing was refused, nor if nobody waits for it.
    write(relay, 2)
    assert took(relay, 2, 1) is took(relay, 1, 2, False) is took(relay, 99, 2) is None
    assert relay.pending() == []
    assert relay.next_deadline() is None


@pytest.mark.parametrize("gone", [1, 2])
def test_a_refused_write_end_is_not_offered_again_when_either_side_is_gone(gone: int) -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    write(relay, 1)
    took(relay, 1, 2, False)
    relay.gone(gone, "killed")
    assert all(item.write_end_of is None for item in write(relay, 3 - gone))
    relay.tick(RETRY_S)
    assert write(relay, 3 - gone) == []


# --- leaving and dying


def test_everyone_who_knows_the_leaver_is_told_on_the_same_lifeline_behind_its_write_end() -> None:
    relay = a_fleet(2)
    a_newcomer(relay, 3)
    # Who is no member yet has nothing to leave.
    relay.connect(worker(4))
    for leaver in (3, 3, 4, 77):
        relay.hear(leaver, Leaving(), 0.0)
    assert said(relay, 1) == said(relay, 2) == [Joined(worker(3)), Left(3)]
    assert Left(3) not in said(relay, 3)


def test_a_newcomer_is_not_told_of_one_that_had_left_before() -> None:
    relay = a_fleet(2)
    relay.hear(1, Leaving(), 0.0)
    settle(relay)
    assert a_newcomer(relay, 3) == [worker(2)]
    assert settle(relay, 1, 2, 3) == [[], [Joined(worker(3))], [WriteEnd(2), Entered([])]]


def test_a_leavers_write_end_still_goes_to_those_who_were_promised_it() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    relay.hear(1, Leaving(), 0.0)
    relay.hear(2, Leaving(), 0.0)
    assert relay.promised() == {1, 2}
    assert said(relay, 1) == [Joined(worker(2)), Left(2)]
    assert relay.promised() == {1, 2}
    assert heard(relay, 2) == [Left(1), WriteEnd(1)]
    took(relay, 1, 2)
    assert relay.promised() == {1}
    took(relay, 2, 1)
    assert relay.promised() == set()


def test_a_leavers_write_end_is_kept_until_each_has_it_or_has_died() -> None:
    relay = a_fleet(2)
    a_newcomer(relay, 3)
    relay.hear(3, Leaving(), 0.0)
    for member in (1, 2):
        write(relay, member)
        took(relay, member, 3, False)
    relay.gone(1, "killed")
    assert relay.promised() == {2, 3}
    relay.tick(RETRY_S)
    assert write(relay, 2)[-1] == Item(WriteEnd(3), 3)
    took(relay, 2, 3)
    assert relay.promised() == {2}


def test_everyone_who_knows_the_dead_is_told_with_the_reason() -> None:
    relay = a_fleet(3)
    relay.hear(2, Leaving(), 0.0)
    settle(relay)
    relay.gone(3, "stalled")
    assert said(relay, 1) == said(relay, 2) == [Gone(3, "stalled")]
    assert relay.next_item(3) is None


def test_nobody_is_given_the_write_end_of_a_process_that_has_ended() -> None:
    relay = a_fleet(2)
    a_newcomer(relay, 3)
    write(relay, 1)
    relay.gone(3, "killed")
    relay.gone(3, "killed")
    assert said(relay, 2) == [Gone(3, "killed")]
    took(relay, 1, 3)
    assert said(relay, 1) == [Gone(3, "killed")]
    a_newcomer(relay, 4)
    write(relay, 1)
    relay.gone(1, "killed")
    assert all(item.write_end_of is None for item in write(relay, 4))


def test_a_word_written_in_part_is_written_to_its_end_though_its_worker_has_died() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    begun = relay.next_item(1)
    relay.began(1)
    relay.gone(2, "killed")
    assert begun == Item(Joined(worker(2)), 2)
    assert write(relay, 1) == [begun, Item(Gone(2, "killed"))]
    took(relay, 1, 2)
    assert relay.next_item(1) is None


def test_a_process_that_has_ended_is_not_heard_any_more() -> None:
    relay = a_fleet(2)
    relay.gone(1, "killed")
    said(relay, 2)
    for word in (Join(), Resigned(), Claim(1, "server", "key"), Release(1, True)):
        relay.hear(1, word, 0.0)
    assert said(relay, 2) == []
    relay.hear(2, Claim(1, "server", "key"), 0.0)
    assert said(relay, 2) == [Decided(1, True)]
