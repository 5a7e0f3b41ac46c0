"""Claims: the first claimant of a key, of `claim` and of `once`.

Law: nothing in this file asks the kernel or the clock. A key has at most one holder. Every other claimant
gets an answer in the end: when the holder is done, or as its successor, in the order of asking.
"""

from __future__ import annotations

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


class Claims:
    """The keys of one fleet. A claim is named by its generation and a number of its own."""

    def __init__(self) -> None:
        # The claimants of each key, in the order of asking; the first holds it. Without one it is decided.
        self._keys: dict[_Place, list[_Claimant]] = {}
        # The key of each claim that holds or waits.
        self._open: dict[_Claimant, _Place] = {}
        # The round in which each process was started, and the newest round.
        self._rounds: dict[int, int] = {}
        self._newest = 0

    def __len__(self) -> int:
        return len(self._keys)

    def born(self, generation: int, restart_round: int) -> None:
        """Note that a process has been started in that restart round."""
        self._rounds[generation] = restart_round
        if restart_round > self._newest:
            self._newest = restart_round
            self._forget_rounds()

    def claim(self, generation: int, number: int, scope: Scope, key: str) -> list[Decision]:
        """Decide on a claim to a key."""
        if generation not in self._rounds:
            return []
        place = (scope, self._rounds[generation] if scope == "restart" else 0, key)
        claimant = _Claimant(generation, number)
        if place not in self._keys:
            if len(self._keys) >= MAX_KEYS:
                return [Decision(*claimant, None)]
            self._keys[place] = [claimant]
            self._open[claimant] = place
            return [Decision(*claimant, True)]
        if scope == "claim" or not self._keys[place]:
            return [Decision(*claimant, False)]
        self._keys[place].append(claimant)
        self._open[claimant] = place
        return []

    def release(self, generation: int, number: int, done: bool) -> list[Decision]:
        """Note that a claimant is done with its key, or gives up the key or its wait; decide on the next."""
        claimant = _Claimant(generation, number)
        if claimant not in self._open:
            return []
        holder, *waiting = self._keys[self._open[claimant]]
        if not done or claimant != holder:
            return self._withdraw(claimant)
        self._keys[self._open.pop(claimant)].clear()
        for each in waiting:
            del self._open[each]
        return [Decision(*each, False) for each in waiting]

    def gone(self, generation: int) -> list[Decision]:
        """Note that a process has ended: its unfinished keys go to the next claimants."""
        restart_round = self._rounds.pop(generation, None)
        if restart_round is None:
            return []
        decisions = []
        # The newest first: none of its own waiting claims may come to hold a key.
        for claimant in reversed([each for each in self._open if each.generation == generation]):
            if self._open[claimant][0] == "claim":
                # The work of `claim` has begun, so the key stays decided.
                self._keys[self._open.pop(claimant)].clear()
            else:
                decisions += self._withdraw(claimant)
        if restart_round < self._newest:
            self._forget_rounds()
        return decisions

    def _withdraw(self, claimant: _Claimant) -> list[Decision]:
        """Take a claim back. The next claimant becomes the holder; without one, the key is forgotten."""
        place = self._open.pop(claimant)
        claimants = self._keys[place]
        was_holder = claimants[0] == claimant
        claimants.remove(claimant)
        if not claimants:
            del self._keys[place]
        return [Decision(*claimants[0], True)] if claimants and was_holder else []

    def _forget_rounds(self) -> None:
        """Forget the keys of older rounds without a living process: no claim can come for them."""
        asked = {self._newest, *self._rounds.values()}
        for place in [each for each in self._keys if each[0] == "restart" and each[1] not in asked]:
            del self._keys[place]
