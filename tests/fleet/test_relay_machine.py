"""The relay in a simulated fleet in which everything happens at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.relay import (
    ENTRY_TIMEOUT_S,
    MAX_DESCRIPTORS_IN_FLIGHT,
    MAX_UNACKNOWLEDGED,
    RETRY_S,
    Relay,
)
from asgi_ipc.fleet.words import (
    Entered,
    Gone,
    Join,
    Joined,
    Leads,
    Leaving,
    Left,
    Resigned,
    Took,
    ToWorker,
    Welcome,
    WriteEnd,
)
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)
from tests.fleet.relays import worker

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

    def is_member(self) -> bool:
        return self.joined_as > 0 and not self.leaving


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

    def those(self, condition: Callable[[Simulated], object]) -> list[Simulated]:
        return [each for each in self.living.values() if condition(each)]

    def some(self, data: st.DataObject, condition: Callable[[Simulated], object]) -> Simulated:
        return self.living[data.draw(st.sampled_from([each.me.generation for each in self.those(condition)]))]

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

    @precondition(lambda self: self.those(lambda each: not each.joined_as))
    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        self.join_as(self.some(data, lambda each: not each.joined_as))

    def join_as(self, newcomer: Simulated) -> None:
        self.relay.hear(newcomer.me.generation, Join(), self.now)
        for member in self.those(Simulated.is_member):
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

    @precondition(lambda self: self.those(lambda each: each.unacknowledged))
    @rule(data=st.data(), arrived=st.booleans())
    def acknowledge(self, data: st.DataObject, arrived: bool) -> None:
        simulated = self.some(data, lambda each: each.unacknowledged)
        of = simulated.unacknowledged.pop(data.draw(st.integers(0, len(simulated.unacknowledged) - 1)))
        self.acknowledge_as(simulated, of, arrived)

    def acknowledge_as(self, simulated: Simulated, of: int, arrived: bool) -> None:
        simulated.held[of] += arrived
        self.relay.hear(simulated.me.generation, Took(of, arrived), self.now)

    @precondition(lambda self: self.those(Simulated.is_member))
    @rule(data=st.data(), resigns=st.booleans())
    def leave(self, data: st.DataObject, resigns: bool) -> None:
        leaver = self.some(data, Simulated.is_member)
        leaver.leaving = True
        # Its tasks ended in time.
        leaver.resigned = resigns
        if resigns:
            self.relay.hear(leaver.me.generation, Resigned(), 0.0)
        self.relay.hear(leaver.me.generation, Leaving(), 0.0)

    @precondition(lambda self: len(self.living) > 1)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        generation = self.some(data, bool).me.generation
        del self.living[generation]
        self.dead.add(generation)
        self.relay.gone(generation, "killed")

    @precondition(lambda self: self.living)
    @rule(data=st.data())
    def stall_or_respond(self, data: st.DataObject) -> None:
        simulated = self.some(data, bool)
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
        leavers = {each.me.generation for each in self.those(lambda each: each.leaving)}
        for simulated in self.living.values():
            heard = simulated.heard
            # Where each worker is heard of first.
            known = {
                generation: place
                for place, word in reversed([*enumerate(heard)])
                for generation in named(word)
            }
            gone = [word.generation for word in heard if isinstance(word, Gone)]
            left = [word.generation for word in heard if isinstance(word, Left)]
            assert len(gone) == len(set(gone))
            assert len(left) == len(set(left))
            assert known.keys() & self.dead <= set(gone) <= self.dead
            assert known.keys() & leavers <= set(left)
            assert simulated.owed & self.living.keys() <= known.keys()
            for generation in known.keys() & set(left):
                left_at = heard.index(Left(generation))
                assert known[generation] < left_at
                assert generation not in gone or left_at < heard.index(Gone(generation, "killed"))

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


def named(word: ToWorker) -> list[int]:
    """The workers that this word makes its hearer know."""
    match word:
        case Welcome(members):
            return [each.generation for each in members]
        case Joined(newcomer):
            return [newcomer.generation]
        case _:
            return []


test_a_fleet_in_which_everything_happens_at_once_settles = RelayMachine.TestCase
