"""Claims: who is first at a key, of `run_once` and of `once`.

Law: nothing in this file asks the kernel or the clock. A key has at most one
holder. Every claim that waits is answered in the end: when the holder is done,
or as its successor, in the order of asking.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

Scope: TypeAlias = Literal["run_once", "restart", "fleet"]
"""Keys of different scopes are different keys; of `restart`, those of different restart rounds are, too."""

# A decided key is remembered, at about 500 bytes. An app has tens of jobs and migrations; one that makes
# keys of data gets an error before it has cost the launcher more than 5 MiB.
MAX_KEYS: Final = 10_000

# The scope, the restart round or 0, and the key.
_Place: TypeAlias = tuple[Scope, int, str]


class _Claimant(NamedTuple):
    generation: int
    number: int


class Decision(NamedTuple):
    """The answer to one claim: whether it is the first; None means no room for another key."""

    generation: int
    number: int
    first: bool | None


@dataclass(slots=True)
class _Key:
    """`holder` is None once it is done. Of `run_once`, who was told that it is the first."""

    holder: _Claimant | None
    # In the order of asking.
    waiting: dict[_Claimant, None] = field(default_factory=dict)


class Claims:
    """The keys of one fleet. A claim is named by its generation and a number of its own."""

    def __init__(self) -> None:
        self._keys: dict[_Place, _Key] = {}
        # The round in which each process was started, and the newest round.
        self._rounds: dict[int, int] = {}
        self._newest = 0
        # The keys that each process holds or waits for, by the number of the claim.
        self._open: dict[int, dict[int, _Place]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def born(self, generation: int, restart_round: int) -> None:
        """A process has been started in that restart round."""
        self._rounds[generation] = restart_round
        self._open[generation] = {}
        if restart_round > self._newest:
            self._newest = restart_round
            self._forget_rounds()

    def claim(self, generation: int, number: int, scope: Scope, key: str) -> list[Decision]:
        """A process asks for a key; the decisions that follow."""
        if generation not in self._rounds:
            return []
        place = (scope, self._rounds[generation] if scope == "restart" else 0, key)
        claimant = _Claimant(generation, number)
        entry = self._keys.get(place)
        if entry is None:
            if len(self._keys) >= MAX_KEYS:
                return [Decision(generation, number, None)]
            self._keys[place] = _Key(claimant)
            self._open[generation][number] = place
            return [Decision(generation, number, True)]
        if entry.holder is None or scope == "run_once":
            return [Decision(generation, number, False)]
        entry.waiting[claimant] = None
        self._open[generation][number] = place
        return []

    def release(self, generation: int, number: int, done: bool) -> list[Decision]:
        """A process is done with a key, or gives the key or its wait for it up."""
        place = self._open.get(generation, {}).pop(number, None)
        if place is None:
            return []
        claimant = _Claimant(generation, number)
        entry = self._keys[place]
        if entry.holder != claimant:
            del entry.waiting[claimant]
            return []
        if not done:
            return self._pass_on(place, entry)
        answers = [Decision(*waiting, False) for waiting in entry.waiting]
        for waiting in entry.waiting:
            del self._open[waiting.generation][waiting.number]
        entry.holder = None
        entry.waiting.clear()
        return answers

    def gone(self, generation: int) -> list[Decision]:
        """A process has ended: each key that it held and was not done with goes to the next claim."""
        restart_round = self._rounds.pop(generation, None)
        if restart_round is None:
            return []
        held = []
        for number, place in self._open.pop(generation).items():
            claimant = _Claimant(generation, number)
            if self._keys[place].holder != claimant:
                del self._keys[place].waiting[claimant]
            elif place[0] != "run_once":
                # It has been told to run once, and may have done so.
                held.append(place)
        decisions = []
        for place in held:
            decisions += self._pass_on(place, self._keys[place])
        if restart_round < self._newest:
            self._forget_rounds()
        return decisions

    def _pass_on(self, place: _Place, entry: _Key) -> list[Decision]:
        """The holder was not done: the next claim that waits is first; without one the key is free again."""
        if not entry.waiting:
            del self._keys[place]
            return []
        entry.holder = next(iter(entry.waiting))
        del entry.waiting[entry.holder]
        return [Decision(*entry.holder, True)]

    def _forget_rounds(self) -> None:
        """Forget the keys of older rounds in which no process lives any more."""
        asked = {self._newest, *self._rounds.values()}
        for place in [each for each in self._keys if each[0] == "restart" and each[1] not in asked]:
            del self._keys[place]
