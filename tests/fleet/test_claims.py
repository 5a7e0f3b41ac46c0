"""Claims: who is first, who waits for how long, and what is given back."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asgi_ipc.fleet.claims import MAX_KEYS, Claims, Decision, Scope
from asgi_ipc.fleet.relay import Relay
from asgi_ipc.fleet.words import Claim, Decided, Gone, Leads, Release
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)
from tests.fleet.relays import a_fleet, said, worker

ONCE: list[Scope] = ["restart", "server"]
SCOPES: list[Scope] = ["claim", *ONCE]


def processes(count: int) -> Claims:
    """Processes 1 to `count`, of before any restart."""
    claims = Claims()
    for generation in range(1, count + 1):
        claims.born(generation, 0)
    return claims


# --- one by one


def test_the_first_of_a_claim_is_told_so_and_everybody_else_at_once_that_it_is_not() -> None:
    claims = processes(2)
    assert claims.claim(2, 1, "claim", "job") == [Decision(2, 1, True)]
    assert claims.claim(1, 1, "claim", "job") == [Decision(1, 1, False)]
    # It stays so when the first dies; who has not waited for the answer has not run.
    assert claims.gone(2) == []
    assert claims.claim(1, 2, "claim", "job") == [Decision(1, 2, False)]
    assert claims.claim(1, 3, "claim", "other") == [Decision(1, 3, True)]
    assert claims.release(1, 3, False) == []
    assert claims.claim(1, 4, "claim", "other") == [Decision(1, 4, True)]


@pytest.mark.parametrize("scope", ONCE)
def test_the_others_wait_until_the_first_is_done_and_the_next_is_first_if_it_is_not(scope: Scope) -> None:
    claims = processes(5)
    assert claims.claim(1, 7, scope, "migrate") == [Decision(1, 7, True)]
    for generation in (2, 3, 4, 5):
        assert claims.claim(generation, 7, scope, "migrate") == []
    assert claims.release(1, 7, False) == [Decision(2, 7, True)]
    assert claims.gone(2) == [Decision(3, 7, True)]
    assert claims.release(3, 7, True) == [Decision(4, 7, False), Decision(5, 7, False)]
    # Who was not the first has nothing to end.
    assert claims.release(4, 7, False) == claims.release(5, 7, True) == []


def test_a_round_in_which_nobody_lives_is_forgotten_but_for_the_newest() -> None:
    claims = processes(1)
    claims.claim(1, 1, "restart", "migrate")
    claims.release(1, 1, True)
    claims.gone(1)
    # Its crash replacement finds the work done.
    claims.born(2, 0)
    assert claims.claim(2, 1, "restart", "migrate") == [Decision(2, 1, False)]
    claims.born(3, 1)
    assert claims.claim(3, 1, "restart", "migrate") == [Decision(3, 1, True)]
    claims.gone(2)
    assert len(claims) == 1


# --- bounds


def test_beyond_ten_thousand_keys_those_that_are_known_are_still_decided() -> None:
    claims = processes(2)
    for number in range(MAX_KEYS):
        claims.claim(1, number, SCOPES[number % 3], f"key {number}")
    assert len(claims) == MAX_KEYS
    assert claims.claim(2, 1, "claim", "one more") == [Decision(2, 1, None)]
    assert claims.claim(2, 2, "server", "one more") == [Decision(2, 2, None)]
    assert claims.claim(2, 3, "claim", "key 0") == [Decision(2, 3, False)]
    # Given up without having been done, a key is free.
    claims.release(1, 1, False)
    assert claims.claim(2, 4, "server", "one more") == [Decision(2, 4, True)]


def test_who_is_not_there_is_answered_nothing() -> None:
    claims = processes(1)
    assert claims.claim(2, 1, "server", "key") == []
    assert claims.release(2, 1, True) == claims.release(1, 1, True) == claims.gone(2) == []


# --- everything at once


class ClaimsMachine(RuleBasedStateMachine):
    """Processes that claim, end, give up and die in any order, on few keys."""

    def __init__(self) -> None:
        super().__init__()
        self.claims = Claims()
        self.born = self.round = self.numbers = 0
        self.rounds: dict[int, int] = {}
        # (generation, number): the key, as this scope means it.
        self.waiting: dict[tuple[int, int], tuple[Scope, int, str]] = {}
        self.holding: dict[tuple[int, int], tuple[Scope, int, str]] = {}
        self.done: set[tuple[Scope, int, str]] = set()

    def heard(self, decisions: list[Decision]) -> None:
        for generation, number, first in decisions:
            place = self.waiting.pop((generation, number))
            assert first is not None
            if not first:
                assert place in self.done
                continue
            assert place not in self.done, "first at what has been done"
            assert place not in self.holding.values(), "two at once"
            behind = [other for (_, other), waits_for in self.waiting.items() if waits_for == place]
            assert number < min(behind, default=self.numbers + 1), "not in the order of asking"
            if place[0] == "claim":
                self.done.add(place)
            else:
                self.holding[generation, number] = place

    @rule(restarts=st.booleans())
    def start(self, restarts: bool) -> None:
        self.round += restarts
        self.born += 1
        self.rounds[self.born] = self.round
        self.claims.born(self.born, self.round)

    @precondition(lambda self: self.rounds)
    @rule(data=st.data(), scope=st.sampled_from(SCOPES), key=st.sampled_from("ab"))
    def claim(self, data: st.DataObject, scope: Scope, key: str) -> None:
        generation = data.draw(st.sampled_from(sorted(self.rounds)))
        self.numbers += 1
        place = (scope, self.rounds[generation] if scope == "restart" else 0, key)
        self.waiting[generation, self.numbers] = place
        self.heard(self.claims.claim(generation, self.numbers, scope, key))

    @precondition(lambda self: self.holding)
    @rule(data=st.data(), done=st.booleans())
    def end(self, data: st.DataObject, done: bool) -> None:
        claimant = data.draw(st.sampled_from(sorted(self.holding)))
        self.end_as(claimant, done)

    def end_as(self, claimant: tuple[int, int], done: bool) -> None:
        place = self.holding.pop(claimant)
        if done:
            self.done.add(place)
        self.heard(self.claims.release(*claimant, done))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        claimant = data.draw(st.sampled_from(sorted(self.waiting)))
        del self.waiting[claimant]
        self.heard(self.claims.release(*claimant, False))

    @precondition(lambda self: self.rounds)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        dead = data.draw(st.sampled_from(sorted(self.rounds)))
        del self.rounds[dead]
        self.waiting = {claim: place for claim, place in self.waiting.items() if claim[0] != dead}
        self.holding = {claim: place for claim, place in self.holding.items() if claim[0] != dead}
        self.heard(self.claims.gone(dead))

    @invariant()
    def who_waits_waits_for_somebody(self) -> None:
        assert set(self.waiting.values()) <= set(self.holding.values())

    @invariant()
    def nothing_is_kept_for_nobody(self) -> None:
        asked = {self.round, *self.rounds.values()}
        kept = {place for place in self.done if place[0] != "restart" or place[1] in asked}
        assert len(self.claims) == len(kept | set(self.holding.values()))

    def teardown(self) -> None:
        while self.holding:
            self.end_as(min(self.holding), done=self.numbers % 2 == 0)
            self.numbers += 1
        assert not self.waiting


test_whatever_happens_there_is_one_holder_and_everyone_is_answered = ClaimsMachine.TestCase


# --- as the relay tells it


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
