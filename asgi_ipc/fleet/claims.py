"""Claims: the first claimant of a key, of `claim` and of `once`.

Law: nothing in this file asks the kernel or the clock. A key has at most one holder. Every other claimant
gets an answer in the end: when the holder is done, or as its successor, in the order of asking.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, TypeAlias

Scope: TypeAlias = Literal["claim", "restart", "server"]
"""Keys of different scopes are different keys; of `restart`, those of different restart rounds are, too."""

# The launcher must remember a decided key, at about 500 bytes. An app has tens of names of jobs and
# migrations; an app that makes keys from data gets an error before the keys cost the launcher more than 5
# MiB.
MAX_KEYS: Final = 10_000

# Scope, restart round if it counts, and key.
_Place: TypeAlias = tuple[Scope, int, str]


class _Claimant(NamedTuple):
    generation: int
    number: int


class Decision(NamedTuple):
    """The answer to one claim: whether it is the first; None if there is no room for another key."""

    generation: int
    number: int
    first: bool | None


@dataclass(slots=True)
class _Key:
    """`holder` is None once it is done. For `claim` it is the claimant that was the first."""

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
        # The places that each process holds or waits for, by the claim's number.
        self._open: dict[int, dict[int, _Place]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def born(self, generation: int, restart_round: int) -> None:
        """Note that a process has been started in that restart round."""
        self._rounds[generation] = restart_round
        self._open[generation] = {}
        if restart_round > self._newest:
            self._newest = restart_round
            self._forget_rounds()

    def claim(self, generation: int, number: int, scope: Scope, key: str) -> list[Decision]:
        """Decide on a claim to a key."""
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
        if entry.holder is None or scope == "claim":
            return [Decision(generation, number, False)]
        entry.waiting[claimant] = None
        self._open[generation][number] = place
        return []

    def release(self, generation: int, number: int, done: bool) -> list[Decision]:
        """Note that a claimant is done with its key, or gives up the key or its wait; decide on the next."""
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
        """Note that a process has ended: its unfinished keys go to the next claimants."""
        restart_round = self._rounds.pop(generation, None)
        if restart_round is None:
            return []
        held = []
        for number, place in self._open.pop(generation).items():
            claimant = _Claimant(generation, number)
            if self._keys[place].holder != claimant:
                del self._keys[place].waiting[claimant]
            elif place[0] != "claim":
                # The work of `claim` has begun, so the key stays decided.
                held.append(place)
        decisions = []
        for place in held:
            decisions += self._pass_on(place, self._keys[place])
        if restart_round < self._newest:
            self._forget_rounds()
        return decisions

    def _pass_on(self, place: _Place, entry: _Key) -> list[Decision]:
        """Make the next claimant the first, since the holder was not done; without one, forget the key."""
        if not entry.waiting:
            del self._keys[place]
            return []
        entry.holder = next(iter(entry.waiting))
        del entry.waiting[entry.holder]
        return [Decision(*entry.holder, True)]

    def _forget_rounds(self) -> None:
        """Forget the keys of older rounds without a living process: no claim can come for them."""
        asked = {self._newest, *self._rounds.values()}
        for place in [each for each in self._keys if each[0] == "restart" and each[1] not in asked]:
            del self._keys[place]
