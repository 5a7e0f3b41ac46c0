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


@dataclass(frozen=True, slots=True)
class Item:
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
    unacknowledged: list[int] = field(default_factory=list)
    # The write ends for which it had no descriptor to spare.
    refused: set[int] = field(default_factory=set)
    joined: bool = False
    # Its welcome has been written, whole.
    welcomed: bool = False
    leaving: bool = False
    stalled: bool = False
    # Members whose answer this newcomer still waits for; None once it has entered.
    awaited: set[int] | None = None
    missing: set[int] = field(default_factory=set)
    # Members that have answered, and will tell it of their subscriptions.
    telling: set[int] = field(default_factory=set)
    entry_deadline: float = 0.0


class Relay:
    """Words and write ends between the workers of one fleet. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self._lines: dict[int, _Line] = {}
        self._in_flight = 0
        # How many times each write end is still to be handed out, or may yet be refused.
        self._promised: dict[int, int] = {}
        # (time, receiver, owner): write ends refused for lack of descriptors.
        self._retries: list[tuple[float, int, int]] = []
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
            line.queue.append(Item(word))
        if isinstance(word, Stop):
            # When all are stopped, each next leader would begin its tasks only to end them at once.
            self._leadership.leaving(generation)

    def join(self, generation: int, now: float) -> None:
        """Take a worker's request to be a member."""
        newcomer = self._lines.get(generation)
        if newcomer is None or newcomer.joined:
            return
        members = [line for line in self._lines.values() if line.joined and not line.leaving]
        newcomer.joined = True
        newcomer.queue.append(Item(Welcome([line.worker for line in members])))
        if self._leadership.leader:
            newcomer.queue.append(Item(self._leads()))
        newcomer.awaited = set()
        newcomer.entry_deadline = now + ENTRY_TIMEOUT_S
        for line in members:
            member = line.worker.generation
            line.queue.append(Item(Joined(newcomer.worker), generation))
            self._promise(generation, 1)
            self._promise(member, 1)
            (newcomer.missing if line.stalled else newcomer.awaited).add(member)
        self._enter_if_complete(newcomer)

    def took(self, by: int, of: int, arrived: bool, now: float, *, subscribes: bool = False) -> bool | None:
        """A worker acknowledges, or refuses, a write end; `subscribes`: it will tell the owner its topics.

        `subscribes`: the worker will report its subscriptions to the owner. Returns False if the worker can't
            reach the owner now, True if it can again, None without a change.
        """
        line = self._lines.get(by)
        if line is None or of not in line.unacknowledged:
            return None
        line.unacknowledged.remove(of)
        self._in_flight -= 1
        if of not in self._lines:
            return None
        was_refused = of in line.refused
        if arrived:
            line.refused.discard(of)
            self._promise(of, -1)
            if subscribes:
                self._lines[of].telling.add(by)
            self._answered(by, of)
            return True if was_refused else None
        line.refused.add(of)
        self._retries.append((now + RETRY_S, by, of))
        return None if was_refused else False

    def leave(self, generation: int) -> None:
        """Send the word of a leaving member to all that know it."""
        leaver = self._lines.get(generation)
        if leaver is None or not leaver.joined or leaver.leaving:
            return
        leaver.leaving = True
        self._leadership.leaving(generation)
        self._tell_members(Left(generation), but=generation)

    def hear(self, generation: int, word: ToRelay, now: float) -> Reach | None:
        """A worker says a word about its membership. Returns news of whom it can send to, if any."""
        if generation not in self._lines:
            return None
        match word:
            case Join():
                self.join(generation, now)
            case Took(of, arrived, subscribes):
                is_reached = self.took(generation, of, arrived, now, subscribes=subscribes)
                return None if is_reached is None else Reach(of, is_reached)
            case Leaving():
                self.leave(generation)
            case Resigned():
                if self._leadership.resigned(generation):
                    self._tell_members(self._leads())
            case Claim(number, scope, key):
                self._answer(self._claims.claim(generation, number, scope, key))
            case Release(number, done):
                self._answer(self._claims.release(generation, number, done))
        return None

    def gone(self, generation: int, reason: str) -> None:
        """A process has ended: its write end goes to nobody any more, and nothing goes to it."""
        line = self._lines.pop(generation, None)
        if line is None:
            return
        self._in_flight -= len(line.unacknowledged)
        for of in line.unacknowledged:
            self._promise(of, -1)
        for item in line.queue:
            if item.write_end_of is not None:
                self._promise(item.write_end_of, -1)
        self._promised.pop(generation, None)
        for to, other in self._lines.items():
            # A word that was written in part must be written to its end, or the next one is garbage.
            kept = [
                item
                for place, item in enumerate(other.queue)
                if item.write_end_of != generation or (place == 0 and other.begun)
            ]
            for item in other.queue:
                if isinstance(item.word, Joined) and item.write_end_of == generation:
                    # The dead process would have got this one's write end after that word.
                    self._promise(to, -1)
            other.queue = deque(kept)
        for _, to, of in self._retries:
            if to == generation:
                self._promise(of, -1)
        self._retries = [entry for entry in self._retries if generation not in entry[1:]]
        if line.joined:
            self._tell_members(Gone(generation, reason), but=generation)
        if self._leadership.gone(generation):
            self._tell_members(self._leads())
        self._answer(self._claims.gone(generation))
        for other in self._lines.values():
            other.refused.discard(generation)
            other.missing.discard(generation)
            other.telling.discard(generation)
            if other.awaited is not None:
                other.awaited.discard(generation)
                self._enter_if_complete(other)

    def stalled(self, generation: int, is_stalled: bool) -> None:
        """Note that an event loop stands still, or turns again; newcomers don't wait for a stalled worker."""
        line = self._lines.get(generation)
        if line is None:
            return
        line.stalled = is_stalled
        self._leadership.stalled(generation, is_stalled)
        if is_stalled:
            for other in self._lines.values():
                if other.awaited is not None and generation in other.awaited:
                    other.awaited.discard(generation)
                    other.missing.add(generation)
                    self._enter_if_complete(other)

    def tick(self, now: float) -> None:
        """Let newcomers in when their time is up, and offer refused write ends again."""
        for line in self._lines.values():
            if line.awaited is not None and now >= line.entry_deadline:
                line.missing |= line.awaited
                line.awaited.clear()
                self._enter_if_complete(line)
        due = [entry for entry in self._retries if entry[0] <= now]
        self._retries = [entry for entry in self._retries if entry[0] > now]
        for _, to, of in due:
            self._lines[to].queue.append(Item(WriteEnd(of), of))

    def next_deadline(self) -> float | None:
        """Return the time at which `tick` has something to do, or None."""
        deadlines = [line.entry_deadline for line in self._lines.values() if line.awaited is not None]
        deadlines += [entry[0] for entry in self._retries]
        return min(deadlines, default=None)

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
        if len(line.unacknowledged) >= MAX_UNACKNOWLEDGED or self._in_flight >= MAX_DESCRIPTORS_IN_FLIGHT:
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
        line.unacknowledged.append(item.write_end_of)
        self._in_flight += 1
        if isinstance(item.word, Joined):
            # This member knows the newcomer now, so the newcomer may write to it.
            newcomer = self._lines.get(item.write_end_of)
            if newcomer is not None:
                newcomer.queue.append(Item(WriteEnd(generation), generation))

    def is_promised(self, generation: int) -> bool:
        """Return whether the launcher must keep its write end of a worker to hand it out."""
        line = self._lines.get(generation)
        return line is not None and (not line.leaving or bool(self._promised.get(generation)))

    # --- inside

    def _leads(self) -> Leads:
        line = self._lines.get(self._leadership.leader)
        return Leads(line.worker if line is not None else None)

    def _answer(self, decisions: list[Decision]) -> None:
        for generation, number, first in decisions:
            self.tell(generation, Decided(number, first))

    def _tell_members(self, word: ToWorker, but: int = 0) -> None:
        for generation, line in self._lines.items():
            if line.joined and generation != but:
                line.queue.append(Item(word))

    def _promise(self, generation: int, count: int) -> None:
        if generation in self._lines:
            self._promised[generation] = self._promised.get(generation, 0) + count

    def _answered(self, by: int, of: int) -> None:
        newcomer = self._lines[of]
        newcomer.missing.discard(by)
        if newcomer.awaited is not None and by in newcomer.awaited:
            newcomer.awaited.discard(by)
            self._enter_if_complete(newcomer)

    def _enter_if_complete(self, line: _Line) -> None:
        if line.awaited is not None and not line.awaited:
            line.awaited = None
            missing = [self._lines[generation].worker.pid for generation in sorted(line.missing)]
            line.queue.append(Item(Entered(missing, sorted(line.missing | line.telling))))
            # Only a worker runs leader tasks.
            if line.worker.kind == WORKER and self._leadership.entered(line.worker.generation):
                self._tell_members(self._leads())
