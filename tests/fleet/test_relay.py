"""The relay: each of its rules, and a simulated fleet in which everything happens at once."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgi_ipc.fleet.membership import Worker
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
    Leads,
    Leaving,
    Left,
    Release,
    Resigned,
    Stop,
    Took,
    ToWorker,
    Welcome,
    WriteEnd,
)
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)


def worker(generation: int) -> Worker:
    return Worker(pid=1000 + generation, slot=generation - 1, generation=generation)


def write(relay: Relay, generation: int, count: int = 1_000_000) -> list[Item]:
    """Write up to `count` items onto one lifeline; those that say who leads are not counted here."""
    written: list[Item] = []
    while len(written) < count and (item := relay.next_item(generation)) is not None:
        relay.wrote(generation)
        if not isinstance(item.word, Leads):
            written.append(item)
    return written


def said(relay: Relay, generation: int) -> list[ToWorker]:
    """All words that may be written onto one lifeline now."""
    written: list[ToWorker] = []
    while (item := relay.next_item(generation)) is not None:
        relay.wrote(generation)
        written.append(item.word)
    return written


def words(items: list[Item]) -> list[ToWorker]:
    return [item.word for item in items]


def settle(relay: Relay, generations: range, now: float = 0.0) -> dict[int, list[ToWorker]]:
    """Write everything and let everyone take everything, until nothing moves."""
    said: dict[int, list[ToWorker]] = {generation: [] for generation in generations}
    while relay.pending():
        for generation in relay.pending():
            for item in write(relay, generation):
                said[generation].append(item.word)
                if item.write_end_of is not None:
                    relay.hear(generation, Took(item.write_end_of, True), now)
    return said


def a_fleet(count: int) -> Relay:
    """Members 1 to `count`, who all know each other."""
    relay = Relay()
    for generation in range(1, count + 1):
        relay.connect(worker(generation))
        relay.hear(generation, Join(), 0.0)
        settle(relay, range(1, count + 1))
    return relay


def a_newcomer(relay: Relay, generation: int, now: float = 0.0) -> list[Worker]:
    """One that has asked, and has been welcomed; by whom."""
    relay.connect(worker(generation))
    relay.hear(generation, Join(), now)
    [item] = write(relay, generation, 1)
    assert isinstance(item.word, Welcome)
    return item.word.members


# --- joining


def test_the_first_member_is_welcomed_to_nobody_and_enters_at_once() -> None:
    relay = Relay()
    assert a_newcomer(relay, 1) == []
    assert words(write(relay, 1)) == [Entered([])]
    assert relay.next_deadline() is None


def test_a_member_hears_of_the_newcomer_before_the_newcomer_gets_its_write_end() -> None:
    relay = a_fleet(1)
    assert a_newcomer(relay, 2) == [worker(1)]
    assert write(relay, 2) == []
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
    assert words(write(relay, 2)) == [Welcome([worker(1)])]
    assert words(write(relay, 1)) == [Joined(worker(2)), Stop()]


def test_a_newcomer_enters_when_every_member_has_answered() -> None:
    relay = a_fleet(2)
    a_newcomer(relay, 3)
    for member in (1, 2):
        write(relay, member)
        assert Entered([]) not in words(write(relay, 3))
        relay.hear(member, Took(3, True), 0.0)
    assert words(write(relay, 3)) == [Entered([])]


def test_a_worker_that_asks_twice_joins_once() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    relay.hear(2, Join(), 0.0)
    said = settle(relay, range(1, 3))
    assert said[1] == [Joined(worker(2))]
    assert said[2] == [WriteEnd(1), Entered([])]


def test_a_newcomer_does_not_wait_for_a_member_that_is_stalled() -> None:
    relay = a_fleet(2)
    relay.stalled(1, True)
    a_newcomer(relay, 3)
    write(relay, 2)
    relay.hear(2, Took(3, True), 0.0)
    assert words(write(relay, 3)) == [WriteEnd(2), Entered([1001], [1])]


def test_a_newcomer_stops_waiting_for_a_member_that_stalls() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    relay.stalled(1, True)
    assert words(write(relay, 2)) == [Entered([1001], [1])]


def test_a_newcomer_waits_again_for_a_member_that_responds_again() -> None:
    relay = a_fleet(1)
    relay.stalled(1, True)
    relay.stalled(1, False)
    a_newcomer(relay, 2)
    assert write(relay, 2) == []


def test_a_stalled_member_that_answers_in_time_is_not_missing() -> None:
    relay = a_fleet(2)
    relay.stalled(1, True)
    a_newcomer(relay, 3)
    for member in (1, 2):
        write(relay, member)
        relay.hear(member, Took(3, True), 0.0)
    assert words(write(relay, 3))[-1] == Entered([])


def test_after_five_seconds_a_newcomer_enters_without_those_that_have_not_answered() -> None:
    relay = a_fleet(2)
    a_newcomer(relay, 3, now=100.0)
    write(relay, 2)
    relay.hear(2, Took(3, True), 100.0)
    assert relay.next_deadline() == 100.0 + ENTRY_TIMEOUT_S
    relay.tick(100.0 + ENTRY_TIMEOUT_S - 0.001)
    assert Entered([1001], [1]) not in words(write(relay, 3))
    relay.tick(100.0 + ENTRY_TIMEOUT_S)
    assert words(write(relay, 3)) == [Entered([1001], [1])]
    assert relay.next_deadline() is None
    write(relay, 1)
    relay.hear(1, Took(3, True), 106.0)
    assert words(write(relay, 3)) == [WriteEnd(1)]


def test_a_newcomer_does_not_wait_for_a_member_that_has_died() -> None:
    relay = a_fleet(2)
    a_newcomer(relay, 3)
    write(relay, 2)
    relay.hear(2, Took(3, True), 0.0)
    relay.gone(1, "killed")
    assert words(write(relay, 3))[-2:] == [Gone(1, "killed"), Entered([])]


# --- write ends


def test_no_lifeline_has_more_than_eight_unacknowledged_write_ends() -> None:
    relay = a_fleet(12)
    a_newcomer(relay, 13)
    for member in range(1, 13):
        write(relay, member)
    items = write(relay, 13)
    assert [item.write_end_of for item in items] == list(range(1, MAX_UNACKNOWLEDGED + 1))
    assert relay.next_item(13) is None
    assert 13 not in relay.pending()
    relay.hear(13, Took(1, True), 0.0)
    assert [item.write_end_of for item in write(relay, 13)] == [MAX_UNACKNOWLEDGED + 1]


def test_an_answer_about_one_who_has_died_meanwhile_makes_room_for_the_next() -> None:
    relay = a_fleet(1)
    for generation in range(2, 2 + MAX_UNACKNOWLEDGED):
        a_newcomer(relay, generation)
        write(relay, 1)
        relay.gone(generation, "killed")
        relay.hear(1, Took(generation, generation % 2 == 0), 0.0)
    assert relay.next_deadline() is None
    a_newcomer(relay, 99)
    assert words(write(relay, 1)) == [
        Gone(1 + MAX_UNACKNOWLEDGED, "killed"),
        Joined(worker(99)),
    ]


def test_no_more_than_512_write_ends_are_in_flight_in_all() -> None:
    count = 72
    relay = Relay()
    for generation in range(1, count + 1):
        a_newcomer(relay, generation)
    in_flight = deque[tuple[int, int]]()
    held: Counter[tuple[int, int]] = Counter()
    most = 0
    while True:
        for generation in relay.pending():
            for item in write(relay, generation):
                if item.write_end_of is not None:
                    in_flight.append((generation, item.write_end_of))
        if not in_flight:
            break
        most = max(most, len(in_flight))
        assert len(in_flight) <= MAX_DESCRIPTORS_IN_FLIGHT
        # Only so many that the total limit stays in reach.
        for _ in range(min(100, len(in_flight))):
            by, of = in_flight.popleft()
            held[by, of] += 1
            relay.hear(by, Took(of, True), 0.0)
    assert most == MAX_DESCRIPTORS_IN_FLIGHT
    everybody = range(1, count + 1)
    assert held == {(by, of): 1 for by in everybody for of in everybody if by != of}


def test_a_refused_write_end_is_offered_again_after_half_a_second() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    write(relay, 1)
    relay.hear(1, Took(2, False), 10.0)
    assert relay.next_deadline() == min(0.0 + ENTRY_TIMEOUT_S, 10.0 + RETRY_S)
    relay.tick(10.0 + RETRY_S - 0.001)
    assert write(relay, 1) == []
    relay.tick(10.0 + RETRY_S)
    assert write(relay, 1) == [Item(WriteEnd(2), 2)]
    relay.hear(1, Took(2, True), 11.0)
    assert relay.next_deadline() is None


def test_a_refusal_is_news_once_and_so_is_its_end() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    write(relay, 1)
    assert relay.hear(1, Took(2, False), 0.0) == Reach(2, False)
    relay.tick(RETRY_S)
    write(relay, 1)
    assert relay.hear(1, Took(2, False), RETRY_S) is None
    relay.tick(2 * RETRY_S)
    write(relay, 1)
    assert relay.hear(1, Took(2, True), 2 * RETRY_S) == Reach(2, True)
    assert relay.hear(1, Took(2, True), 2 * RETRY_S) is None
    write(relay, 2)
    assert relay.hear(2, Took(1, True), 2 * RETRY_S) is None


@pytest.mark.parametrize("gone", [1, 2])
def test_a_refused_write_end_is_not_offered_again_when_either_side_is_gone(gone: int) -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    write(relay, 1)
    relay.hear(1, Took(2, False), 0.0)
    relay.gone(gone, "killed")
    assert all(item.write_end_of is None for item in write(relay, 3 - gone))
    relay.tick(RETRY_S)
    assert write(relay, 3 - gone) == []


def test_an_answer_that_nobody_waits_for_changes_nothing() -> None:
    relay = a_fleet(2)
    relay.hear(1, Took(2, True), 0.0)
    relay.hear(1, Took(2, False), 0.0)
    relay.hear(99, Took(2, True), 0.0)
    assert relay.pending() == []
    assert relay.next_deadline() is None


# --- leaving


def test_everyone_who_knows_the_leaver_is_told_on_the_same_lifeline_behind_its_write_end() -> None:
    relay = a_fleet(2)
    a_newcomer(relay, 3)
    relay.hear(3, Leaving(), 0.0)
    assert words(write(relay, 1)) == [Joined(worker(3)), Left(3)]
    assert words(write(relay, 2)) == [Joined(worker(3)), Left(3)]
    assert Left(3) not in words(write(relay, 3))


def test_a_leave_counts_once_and_only_for_a_member() -> None:
    relay = a_fleet(2)
    relay.connect(worker(3))
    relay.hear(3, Leaving(), 0.0)
    relay.hear(77, Leaving(), 0.0)
    relay.hear(1, Leaving(), 0.0)
    relay.hear(1, Leaving(), 0.0)
    assert words(write(relay, 2)) == [Left(1)]


def test_a_newcomer_is_not_told_of_one_that_had_left_before() -> None:
    relay = a_fleet(2)
    relay.hear(1, Leaving(), 0.0)
    settle(relay, range(1, 3))
    assert a_newcomer(relay, 3) == [worker(2)]
    assert settle(relay, range(1, 4)) == {
        1: [],
        2: [Joined(worker(3))],
        3: [WriteEnd(2), Entered([])],
    }


def test_a_leavers_write_end_still_goes_to_those_who_were_promised_it() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    relay.hear(1, Leaving(), 0.0)
    relay.hear(2, Leaving(), 0.0)
    assert 1 in relay.promised()
    assert 2 in relay.promised()
    assert words(write(relay, 1)) == [Joined(worker(2)), Left(2)]
    assert 1 in relay.promised()
    assert words(write(relay, 2)) == [Left(1), WriteEnd(1)]
    relay.hear(1, Took(2, True), 0.0)
    relay.hear(2, Took(1, True), 0.0)
    assert 1 not in relay.promised()
    assert 2 not in relay.promised()


def test_a_leavers_write_end_is_kept_for_who_may_still_refuse_it() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    write(relay, 1)
    relay.hear(2, Leaving(), 0.0)
    write(relay, 1)
    assert 2 in relay.promised()
    relay.hear(1, Took(2, False), 0.0)
    assert 2 in relay.promised()
    relay.tick(RETRY_S)
    assert write(relay, 1) == [Item(WriteEnd(2), 2)]
    relay.hear(1, Took(2, True), RETRY_S)
    assert 2 not in relay.promised()


def test_a_leavers_write_end_is_not_kept_for_who_has_died() -> None:
    relay = a_fleet(2)
    a_newcomer(relay, 3)
    write(relay, 1)
    relay.hear(3, Leaving(), 0.0)
    relay.gone(1, "killed")
    assert 3 in relay.promised()
    write(relay, 2)
    relay.hear(2, Took(3, True), 0.0)
    assert 3 not in relay.promised()


def test_a_leavers_write_end_is_not_kept_for_who_refused_it_and_died() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    write(relay, 1)
    relay.hear(1, Took(2, False), 0.0)
    relay.hear(2, Leaving(), 0.0)
    assert 2 in relay.promised()
    relay.gone(1, "killed")
    assert 2 not in relay.promised()


def test_the_write_end_of_one_that_serves_is_always_kept() -> None:
    relay = a_fleet(1)
    relay.connect(worker(2))
    assert 1 in relay.promised()
    assert 2 in relay.promised()
    assert 3 not in relay.promised()


# --- dying


def test_everyone_who_knows_the_dead_is_told_with_the_reason() -> None:
    relay = a_fleet(3)
    relay.hear(2, Leaving(), 0.0)
    settle(relay, range(1, 4))
    relay.gone(3, "stalled")
    assert words(write(relay, 1)) == [Gone(3, "stalled")]
    assert words(write(relay, 2)) == [Gone(3, "stalled")]
    assert 3 not in relay.promised()
    assert relay.next_item(3) is None


def test_nobody_is_given_the_write_end_of_a_process_that_has_ended() -> None:
    relay = a_fleet(2)
    a_newcomer(relay, 3)
    write(relay, 1)
    relay.gone(3, "killed")
    relay.gone(3, "killed")
    assert write(relay, 2) == [Item(Gone(3, "killed"))]
    relay.hear(1, Took(3, True), 0.0)
    assert write(relay, 1) == [Item(Gone(3, "killed"))]
    a_newcomer(relay, 4)
    write(relay, 1)
    relay.gone(1, "killed")
    assert [item.write_end_of for item in write(relay, 4)] == [None]


# --- what others have to say


# --- words


def test_a_word_about_membership_is_heard_as_what_it_says() -> None:
    relay = a_fleet(2)
    relay.connect(worker(3))
    assert relay.hear(3, Join(), 5.0) is None
    assert words(write(relay, 3, 1)) == [Welcome([worker(1), worker(2)])]
    for member in (1, 2):
        write(relay, member)
    assert relay.hear(1, Took(3, False), 5.0) == Reach(3, False)
    assert relay.next_deadline() == 5.0 + RETRY_S
    relay.tick(5.0 + RETRY_S)
    write(relay, 1)
    assert relay.hear(1, Took(3, True), 6.0) == Reach(3, True)
    assert relay.hear(2, Took(3, True, subscribes=True), 6.0) is None
    assert words(write(relay, 3)) == [WriteEnd(1), WriteEnd(2), Entered([], [2])]
    assert relay.hear(3, Leaving(), 6.0) is None
    assert words(write(relay, 1)) == [Left(3)]
    assert relay.hear(77, Join(), 6.0) is None


# --- who leads


def test_who_has_entered_first_leads_and_a_newcomer_hears_of_it_behind_its_welcome() -> None:
    relay = Relay()
    relay.connect(worker(1))
    relay.hear(1, Join(), 0.0)
    assert said(relay, 1) == [Welcome([]), Entered([]), Leads(worker(1))]
    relay.connect(worker(2))
    relay.hear(2, Join(), 0.0)
    assert said(relay, 2) == [Welcome([worker(1)]), Leads(worker(1))]
    assert said(relay, 1) == [Joined(worker(2))]


def test_everyone_is_told_of_another_leader_behind_the_leave_or_death_that_brings_it() -> None:
    relay = a_fleet(3)
    relay.hear(1, Resigned(), 0.0)
    relay.hear(1, Leaving(), 0.0)
    for member in (2, 3):
        assert said(relay, member) == [Leads(worker(3)), Left(1)]
    assert said(relay, 1) == [Leads(worker(3))]
    relay.gone(1, "left")
    relay.gone(3, "killed")
    assert said(relay, 2) == [Gone(1, "left"), Gone(3, "killed"), Leads(worker(2))]
    relay.hear(2, Resigned(), 0.0)
    assert said(relay, 2) == [Leads(None)]


def test_a_leader_that_leaves_and_has_not_resigned_is_named_to_a_newcomer_that_does_not_know_it() -> None:
    relay = a_fleet(2)
    relay.hear(1, Leaving(), 0.0)
    settle(relay, range(1, 3))
    relay.connect(worker(3))
    relay.hear(3, Join(), 0.0)
    assert said(relay, 3)[:2] == [Welcome([worker(2)]), Leads(worker(1))]
    settle(relay, range(1, 4))
    relay.gone(1, "drain_timeout")
    assert said(relay, 3) == [Gone(1, "drain_timeout"), Leads(worker(3))]


def test_who_was_told_to_stop_is_appointed_no_more_and_leads_on_if_it_does() -> None:
    relay = a_fleet(3)
    for member in (1, 3):
        relay.tell(member, Stop())
    assert said(relay, 1) == said(relay, 3) == [Stop()]
    relay.hear(1, Resigned(), 0.0)
    assert said(relay, 3) == [Leads(worker(2))]
    relay.tell(2, Stop())
    relay.hear(2, Resigned(), 0.0)
    assert said(relay, 3) == [Leads(None)]


def test_a_process_that_has_ended_is_not_heard_any_more() -> None:
    relay = a_fleet(2)
    relay.gone(1, "killed")
    said(relay, 2)
    relay.hear(1, Resigned(), 0.0)
    relay.hear(1, Claim(1, "server", "key"), 0.0)
    relay.hear(1, Release(1, True), 0.0)
    assert said(relay, 2) == []
    relay.hear(2, Claim(1, "server", "key"), 0.0)
    assert said(relay, 2) == [Decided(1, True)]


# --- who is first


def test_answers_go_to_who_asked_and_those_who_wait_are_answered_when_the_first_is_done_or_gone() -> None:
    relay = a_fleet(3)
    for member in (1, 2, 3):
        relay.hear(member, Claim(7, "server", "migrate"), 0.0)
    assert said(relay, 1) == [Decided(7, True)]
    assert said(relay, 2) == said(relay, 3) == []
    relay.gone(1, "killed")
    assert said(relay, 2) == [Gone(1, "killed"), Leads(worker(3)), Decided(7, True)]
    relay.hear(2, Release(7, True), 0.0)
    assert said(relay, 3)[-1] == Decided(7, False)


def test_a_key_of_a_restart_round_is_decided_once_more_in_the_next() -> None:
    relay = Relay()
    for generation, restart_round in ((1, 0), (2, 1), (3, 1)):
        relay.connect(worker(generation), restart_round)
        relay.hear(generation, Claim(1, "restart", "migrate"), 0.0)
        relay.hear(generation, Release(1, True), 0.0)
    assert [said(relay, generation) for generation in (1, 2, 3)] == [
        [Decided(1, True)],
        [Decided(1, True)],
        [Decided(1, False)],
    ]


# --- a simulated fleet

MOST_WORKERS = 14


@dataclass
class Simulated:
    """One worker process: what has been written to it, and what it has done with that."""

    me: Worker
    # The n-th to join; 0: it has not.
    joined_as: int = 0
    leaving: bool = False
    stalled: bool = False
    # In the order of writing.
    heard: list[ToWorker] = field(default_factory=list)
    # Write ends that have arrived, or will be found to be cut off.
    unacknowledged: list[int] = field(default_factory=list)
    held: Counter[int] = field(default_factory=Counter)
    # Whose write end it must get in the end, if both live.
    owed: set[int] = field(default_factory=set)
    # It has said that it leads no more.
    resigned: bool = False


class RelayMachine(RuleBasedStateMachine):
    """Workers whose lifelines take words at any moment, and who answer when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.relay = Relay()
        self.now = 0.0
        self.started = self.joins = 0
        self.most_workers = MOST_WORKERS
        self.living: dict[int, Simulated] = {}
        self.dead: set[int] = set()
        # Those whose write end the launcher has closed.
        self.closed: set[int] = set()

    def some(self, data: st.DataObject, among: list[int]) -> Simulated:
        return self.living[data.draw(st.sampled_from(among))]

    # --- what happens

    # Few workers meet more often, many come to the limits.
    @initialize(members=st.integers(0, 3), most=st.sampled_from([3, 4, MOST_WORKERS]))
    def begin(self, members: int, most: int) -> None:
        self.most_workers = most
        for _ in range(members):
            self.connect(joins=True)
        self.settle()

    @precondition(lambda self: len(self.living) < self.most_workers)
    @rule(joins=st.booleans())
    def connect(self, joins: bool) -> None:
        self.started += 1
        me = worker(self.started)
        self.living[self.started] = Simulated(me)
        self.relay.connect(me)
        if joins:
            self.join_as(self.living[self.started])

    @precondition(lambda self: any(not each.joined_as for each in self.living.values()))
    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        self.join_as(self.some(data, [g for g, each in self.living.items() if not each.joined_as]))

    def join_as(self, newcomer: Simulated) -> None:
        self.relay.hear(newcomer.me.generation, Join(), self.now)
        for member in self.living.values():
            if member.joined_as and not member.leaving:
                member.owed.add(newcomer.me.generation)
                newcomer.owed.add(member.me.generation)
        self.joins += 1
        newcomer.joined_as = self.joins

    @precondition(lambda self: self.relay.pending())
    @rule(data=st.data(), count=st.integers(1, 10))
    def write(self, data: st.DataObject, count: int) -> None:
        generation = data.draw(st.sampled_from(self.relay.pending()))
        for _ in range(count):
            if not self.write_one(generation):
                break

    def write_one(self, generation: int) -> bool:
        item = self.relay.next_item(generation)
        assert item == self.relay.next_item(generation)
        if item is None:
            return False
        self.relay.wrote(generation)
        receiver = self.living[generation]
        receiver.heard.append(item.word)
        if item.write_end_of is None:
            assert not isinstance(item.word, (Joined, WriteEnd))
            return True
        of = item.write_end_of
        assert of in self.living, "the write end of a dead worker"
        assert of not in self.closed, "a write end that has been closed"
        assert of in receiver.owed, "a write end that nobody promised"
        owner = self.living[of]
        # A newcomer gets nothing before its owner knows it; one that is newer
        # than its holder reads its pipe only behind its Welcome.
        assert receiver.joined_as < owner.joined_as or Joined(receiver.me) in owner.heard
        assert isinstance(owner.heard[0], Welcome), "told of one that has not been welcomed"
        receiver.unacknowledged.append(of)
        return True

    @precondition(lambda self: any(each.unacknowledged for each in self.living.values()))
    @rule(data=st.data(), arrived=st.booleans())
    def acknowledge(self, data: st.DataObject, arrived: bool) -> None:
        simulated = self.some(data, [g for g, each in self.living.items() if each.unacknowledged])
        of = simulated.unacknowledged.pop(data.draw(st.integers(0, len(simulated.unacknowledged) - 1)))
        self.acknowledge_as(simulated, of, arrived)

    def acknowledge_as(self, simulated: Simulated, of: int, arrived: bool) -> None:
        simulated.held[of] += arrived
        self.relay.hear(simulated.me.generation, Took(of, arrived), self.now)

    @precondition(lambda self: any(each.joined_as and not each.leaving for each in self.living.values()))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        members = [g for g, each in self.living.items() if each.joined_as and not each.leaving]
        leaver = self.some(data, members)
        leaver.leaving = True
        if data.draw(st.booleans()):
            # Its tasks ended in time.
            leaver.resigned = True
            self.relay.hear(leaver.me.generation, Resigned(), 0.0)
        self.relay.hear(leaver.me.generation, Leaving(), 0.0)

    @precondition(lambda self: len(self.living) > 1)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        generation = data.draw(st.sampled_from(sorted(self.living)))
        del self.living[generation]
        self.dead.add(generation)
        self.relay.gone(generation, "killed")

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def stall_or_respond(self, data: st.DataObject) -> None:
        simulated = self.some(data, sorted(self.living))
        simulated.stalled = not simulated.stalled
        self.relay.stalled(simulated.me.generation, simulated.stalled)

    @rule(seconds=st.sampled_from([0.0, 0.25, RETRY_S, 1.0, ENTRY_TIMEOUT_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.relay.tick(self.now)
        deadline = self.relay.next_deadline()
        assert deadline is None or deadline > self.now

    def settle(self) -> None:
        """Everything is written, taken and answered: what must hold in the end?"""
        for _ in range(1000):
            for generation in self.relay.pending():
                while self.write_one(generation):
                    pass
            for simulated in self.living.values():
                while simulated.unacknowledged:
                    self.acknowledge_as(simulated, simulated.unacknowledged.pop(0), True)
            self.close_what_is_not_promised()
            if not self.relay.pending():
                deadline = self.relay.next_deadline()
                if deadline is None:
                    break
                self.now = max(self.now, deadline)
                self.relay.tick(self.now)
        else:
            raise AssertionError("it never settles")
        self.everyone_has_what_it_is_owed()
        self.everyone_has_heard_of_everyone()
        self.everyone_knows_the_leader()
        assert self.relay.promised() == {g for g, simulated in self.living.items() if not simulated.leaving}

    def everyone_has_what_it_is_owed(self) -> None:
        for simulated in self.living.values():
            for of in simulated.owed & self.living.keys():
                assert simulated.held[of] == 1, f"{simulated.me.generation} has {simulated.held[of]} of {of}"
            entered = [word for word in simulated.heard if isinstance(word, Entered)]
            assert len(entered) == bool(simulated.joined_as)
            assert not entered or isinstance(simulated.heard[0], Welcome)

    def everyone_has_heard_of_everyone(self) -> None:
        for simulated in self.living.values():
            known = {word.worker.generation for word in simulated.heard if isinstance(word, Joined)}
            for word in simulated.heard:
                if isinstance(word, Welcome):
                    known |= {each.generation for each in word.members}
            gone = [word.generation for word in simulated.heard if isinstance(word, Gone)]
            left = [word.generation for word in simulated.heard if isinstance(word, Left)]
            assert max(Counter(gone).values(), default=1) == 1
            assert max(Counter(left).values(), default=1) == 1
            assert known & self.dead <= set(gone) <= self.dead
            leavers = {g for g, each in self.living.items() if each.leaving}
            assert known & leavers <= set(left)
            assert simulated.owed & self.living.keys() <= known
            for generation in known & set(left):
                first = next(i for i, word in enumerate(simulated.heard) if tells_of(word, generation))
                assert first < simulated.heard.index(Left(generation))
                assert generation not in gone or simulated.heard.index(
                    Left(generation)
                ) < simulated.heard.index(Gone(generation, "killed"))

    def everyone_knows_the_leader(self) -> None:
        members = [each for each in self.living.values() if each.joined_as]
        last = [[word for word in each.heard if isinstance(word, Leads)][-1:] for each in members]
        # Who joins when nobody leads and has led is told nothing.
        named = {word.leader for words in last for word in words}
        assert len(named) <= 1
        leader = named.pop() if named else None
        assert leader is None or leader.generation in self.living
        candidates = [each for each in members if not each.leaving]
        if candidates:
            assert leader is not None
            assert not self.living[leader.generation].resigned

    # --- always

    @invariant()
    def the_limits_in_flight_hold(self) -> None:
        counts = [len(each.unacknowledged) for each in self.living.values()]
        assert max(counts, default=0) <= MAX_UNACKNOWLEDGED
        assert sum(counts) <= MAX_DESCRIPTORS_IN_FLIGHT

    @invariant()
    def close_what_is_not_promised(self) -> None:
        promised = self.relay.promised()
        assert promised <= self.living.keys()
        assert not promised & self.closed, "promised again after it was closed"
        self.closed = self.living.keys() - promised
        assert all(self.living[generation].leaving for generation in self.closed)

    @invariant()
    def nobody_is_given_more_than_one(self) -> None:
        for simulated in self.living.values():
            for of, count in simulated.held.items():
                assert count <= 1 or of in self.dead

    def teardown(self) -> None:
        self.settle()


def tells_of(word: ToWorker, generation: int) -> bool:
    """Whether this word makes its hearer know that worker."""
    match word:
        case Welcome(members):
            return any(each.generation == generation for each in members)
        case Joined(newcomer):
            return newcomer.generation == generation
        case _:
            return False


test_a_fleet_in_which_everything_happens_at_once_settles = RelayMachine.TestCase


def test_a_word_written_in_part_is_written_to_its_end_though_its_worker_has_died() -> None:
    relay = a_fleet(1)
    a_newcomer(relay, 2)
    begun = relay.next_item(1)
    assert begun is not None
    assert begun.write_end_of == 2
    relay.began(1)
    relay.gone(2, "killed")
    assert relay.next_item(1) == begun
    relay.wrote(1)
    behind = relay.next_item(1)
    assert behind is not None
    assert behind.word == Gone(2, "killed")
    relay.wrote(1)
    relay.hear(1, Took(2, True), 0.0)
    assert relay.next_item(1) is None
