"""The relay: the words for each lifeline, and the moment in which a write end may be handed out.

Law: nothing in this file asks the kernel or the clock. It decides for the
launcher who joins and leaves, and which descriptor goes to whom. All words
pass through here, so that every worker hears them in one order.

The rules that keep messages whole:
- C's welcome is written before the word of C to M. So C knows M when M's first packet arrives, even if the
  launcher dies between the two.
- M gets the word of C, with C's write end, before C gets M's write end. So M knows C when C's first packet
  arrives.
- A leaver's write end still goes to everyone who was promised it: they may
  have accepted messages for it. The launcher closes its own copy after that.
- The write end of a process that has ended goes to nobody.

leadership.py and claims.py decide who leads and who is first at a key; the
relay tells it, in the same order as everything else.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from asgi_ipc.fleet.claims import Claims, Decision
from asgi_ipc.fleet.leadership import Leadership
from asgi_ipc.fleet.membership import WORKER, Worker
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
    ToRelay,
    ToWorker,
    Welcome,
    WriteEnd,
)

# An unprivileged process may have about 1,000 descriptors in flight in all (RLIMIT_NOFILE, unix(7)
# ETOOMANYREFS); half of them leaves room for the app. An arena travels with each write end, so this number
# counts pairs.
MAX_DESCRIPTORS_IN_FLIGHT: Final = 256

# A worker that does not read its lifeline may not use up the rest.
MAX_UNACKNOWLEDGED: Final = 8

# A newcomer waits so long for the members' answers, then goes on without them.
ENTRY_TIMEOUT_S: Final = 5.0

# A worker without a descriptor to spare gets the write end again after this time.
RETRY_S: Final = 0.5


class Item(NamedTuple):
    """A word for one lifeline, and the owner of the write end that goes with it, if any."""

    word: ToWorker
    write_end_of: int | None = None


class Reach(NamedTuple):
    """Whether a worker can send to the process of that generation now."""

    of: int
    is_reached: bool


@dataclass(slots=True)
class _Line:
    """The state of one lifeline and the worker at its end."""

    worker: Worker
    queue: deque[Item] = field(default_factory=deque)
    # The first word of the queue has been written in part.
    begun: bool = False
    # The write ends that it was sent and has not acknowledged.
    unacknowledged: set[int] = field(default_factory=set)
    # The write ends that it had no descriptor for, and when each is offered again; inf: it has been.
    refused: dict[int, float] = field(default_factory=dict)
    joined: bool = False
    # Its welcome has been written, whole.
    welcomed: bool = False
    leaving: bool = False
    stalled: bool = False
    # Members whose answer this newcomer still waits for, and those that it waits for no more.
    awaited: set[int] = field(default_factory=set)
    missing: set[int] = field(default_factory=set)
    # Members that have answered, and will tell it of their subscriptions.
    telling: set[int] = field(default_factory=set)
    entry_deadline: float = 0.0

    def tell(self, word: ToWorker, write_end_of: int | None = None) -> None:
        """Queue a word behind the words that wait."""
        self.queue.append(Item(word, write_end_of))


class Relay:
    """Words and write ends between the workers of one fleet. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}
        self._leadership = Leadership()
        self._claims = Claims()

    # --- events

    def connect(self, worker: Worker, restart_round: int = 0) -> None:
        """Note that a process has been started, in that restart round; it is no member yet."""
        self._lines[worker.generation] = _Line(worker)
        self._claims.born(worker.generation, restart_round)

    def tell(self, generation: int, word: ToWorker) -> None:
        """Queue a word that others decided (a stop, a handover) behind the words that wait there."""
        line = self._lines.get(generation)
        if line is not None:
            line.tell(word)
        if isinstance(word, Stop):
            # When all are stopped, each next leader would begin its tasks only to end them at once.
            self._leadership.leaving(generation)

    def hear(self, generation: int, word: ToRelay, now: float) -> Reach | None:
        """A worker says a word about its membership. Returns news of whom it can send to, if any."""
        line = self._lines.get(generation)
        if line is None:
            return None
        match word:
            case Join() if not line.joined:
                self._join(line, now)
            case Took():
                return self._took(line, word, now)
            case Leaving() if line.joined and not line.leaving:
                line.leaving = True
                self._leadership.leaving(generation)
                self._tell_members(Left(generation), but=generation)
            case Resigned():
                if self._leadership.resigned(generation):
                    self._tell_members(self._leads())
            case Claim(number, scope, key):
                self._answer(self._claims.claim(generation, number, scope, key))
            case Release(number, done):
                self._answer(self._claims.release(generation, number, done))
            case _:
                pass
        return None

    def gone(self, generation: int, reason: str) -> None:
        """A process has ended: its write end goes to nobody any more, and nothing goes to it."""
        line = self._lines.pop(generation, None)
        if line is None:
            return
        for other in self._lines.values():
            # A word that was written in part must be written to its end, or the next one is garbage.
            kept = [
                item
                for place, item in enumerate(other.queue)
                if item.write_end_of != generation or (place == 0 and other.begun)
            ]
            other.queue = deque(kept)
            other.refused.pop(generation, None)
            other.missing.discard(generation)
            other.telling.discard(generation)
        if line.joined:
            self._tell_members(Gone(generation, reason))
        if self._leadership.gone(generation):
            self._tell_members(self._leads())
        self._answer(self._claims.gone(generation))
        for other in self._lines.values():
            self._await_no_more(other, generation)

    def stalled(self, generation: int, is_stalled: bool) -> None:
        """Note that an event loop stands still, or turns again; newcomers don't wait for a stalled worker."""
        line = self._lines.get(generation)
        if line is None:
            return
        line.stalled = is_stalled
        self._leadership.stalled(generation, is_stalled)
        for other in self._lines.values():
            if is_stalled and generation in other.awaited:
                other.missing.add(generation)
                self._await_no_more(other, generation)

    def tick(self, now: float) -> None:
        """Let newcomers in when their time is up, and offer refused write ends again."""
        for line in self._lines.values():
            if line.awaited and now >= line.entry_deadline:
                line.missing |= line.awaited
                line.awaited.clear()
                self._enter(line)
            for of, again_at in line.refused.items():
                if again_at <= now:
                    line.refused[of] = math.inf
                    line.tell(WriteEnd(of), of)

    def next_deadline(self) -> float | None:
        """Return the time at which `tick` has something to do, or None."""
        deadlines = [line.entry_deadline for line in self._lines.values() if line.awaited]
        deadlines += [again_at for line in self._lines.values() for again_at in line.refused.values()]
        earliest = min(deadlines, default=math.inf)
        return None if earliest == math.inf else earliest

    # --- actions

    def pending(self) -> list[int]:
        """Return the generations to which a word may be written now."""
        return [generation for generation in self._lines if self.next_item(generation) is not None]

    def next_item(self, generation: int) -> Item | None:
        """The next word for that lifeline; None: there is none, or not now."""
        line = self._lines.get(generation)
        if line is None or not line.queue:
            return None
        item = line.queue[0]
        if line.begun or item.write_end_of is None:
            return item
        in_flight = sum(len(each.unacknowledged) for each in self._lines.values())
        if len(line.unacknowledged) >= MAX_UNACKNOWLEDGED or in_flight >= MAX_DESCRIPTORS_IN_FLIGHT:
            return None
        if isinstance(item.word, Joined) and not self._lines[item.write_end_of].welcomed:
            return None
        return item

    def began(self, generation: int) -> None:
        """The word of `next_item` has been written in part; its rest comes next."""
        self._lines[generation].begun = True

    def wrote(self, generation: int) -> None:
        """The word of `next_item` has been written, whole."""
        line = self._lines[generation]
        line.begun = False
        item = line.queue.popleft()
        if isinstance(item.word, Welcome):
            line.welcomed = True
        if item.write_end_of is None:
            return
        line.unacknowledged.add(item.write_end_of)
        if isinstance(item.word, Joined):
            # This member knows the newcomer now, so the newcomer may write to it.
            newcomer = self._lines.get(item.write_end_of)
            if newcomer is not None:
                newcomer.tell(WriteEnd(generation), generation)

    def promised(self) -> set[int]:
        """Return the generations whose write ends the launcher must keep to hand them out."""
        promised = {generation for generation, line in self._lines.items() if not line.leaving}
        for generation, line in self._lines.items():
            promised |= line.unacknowledged | line.refused.keys()
            promised |= {item.write_end_of for item in line.queue if item.write_end_of is not None}
            # A newcomer gets the write end of a member behind that member's word of it.
            if any(isinstance(item.word, Joined) for item in line.queue):
                promised.add(generation)
        return promised & self._lines.keys()

    # --- inside

    def _join(self, newcomer: _Line, now: float) -> None:
        members = [line for line in self._lines.values() if line.joined and not line.leaving]
        newcomer.joined = True
        newcomer.tell(Welcome([line.worker for line in members]))
        if self._leadership.leader:
            newcomer.tell(self._leads())
        newcomer.entry_deadline = now + ENTRY_TIMEOUT_S
        for line in members:
            line.tell(Joined(newcomer.worker), newcomer.worker.generation)
            (newcomer.missing if line.stalled else newcomer.awaited).add(line.worker.generation)
        if not newcomer.awaited:
            self._enter(newcomer)

    def _took(self, line: _Line, word: Took, now: float) -> Reach | None:
        """Settle the answer to a write end. Only the first refusal and its end are news."""
        by, of = line.worker.generation, word.generation
        if of not in line.unacknowledged:
            return None
        line.unacknowledged.remove(of)
        owner = self._lines.get(of)
        if owner is None:
            return None
        was_refused = of in line.refused
        if word.arrived:
            line.refused.pop(of, None)
            if word.subscribes:
                owner.telling.add(by)
            owner.missing.discard(by)
            self._await_no_more(owner, by)
        else:
            line.refused[of] = now + RETRY_S
        return Reach(of, word.arrived) if word.arrived is was_refused else None

    def _leads(self) -> Leads:
        line = self._lines.get(self._leadership.leader)
        return Leads(line.worker if line is not None else None)

    def _answer(self, decisions: list[Decision]) -> None:
        for generation, number, first in decisions:
            self.tell(generation, Decided(number, first))

    def _tell_members(self, word: ToWorker, but: int = 0) -> None:
        for generation, line in self._lines.items():
            if line.joined and generation != but:
                line.tell(word)

    def _await_no_more(self, newcomer: _Line, member: int) -> None:
        if member in newcomer.awaited:
            newcomer.awaited.remove(member)
            if not newcomer.awaited:
                self._enter(newcomer)

    def _enter(self, line: _Line) -> None:
        missing = [self._lines[generation].worker.pid for generation in sorted(line.missing)]
        line.tell(Entered(missing, sorted(line.missing | line.telling)))
        # Only a worker runs leader tasks.
        if line.worker.kind == WORKER and self._leadership.entered(line.worker.generation):
            self._tell_members(self._leads())
