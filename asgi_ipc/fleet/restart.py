"""Restart: which slot a rolling restart replaces next, and when the restart is over.

Law: nothing in this file asks the kernel or the clock. One restart at a time: however many are asked for
during one, one more follows it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection


class Restart:
    """The rolling restart under way, if one is.

    Attributes:
        rounds: how many restarts have begun.
        current: the slot that is replaced now.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self.current: int | None = None
        self._waiting: deque[int] = deque()
        self._again: str | None = None
        # The first generation of the restart under way; and that of each whose new workers all serve, while
        # an older worker still leaves.
        self._first_new: int | None = None
        self._almost_over: deque[int] = deque()

    def begin(self, reason: str, slots: Collection[int], first_new: int) -> bool:
        """Begin a restart of these slots. False: one is under way, and this one follows."""
        if self._first_new is not None:
            self._again = reason
            return False
        self._waiting.extend(sorted(slots))
        self._first_new = first_new
        self.rounds += 1
        return True

    def next_of(self, slots: Collection[int]) -> int | None:
        """The slot that is to be replaced now; None: one is being replaced, or none is left."""
        while self.current is None and self._waiting:
            index = self._waiting.popleft()
            if index in slots:
                self.current = index
                return index
        return None

    def finish(self) -> bool:
        """Return whether the last slot has been replaced now."""
        if self.current is not None or self._first_new is None:
            return False
        self._almost_over.append(self._first_new)
        self._first_new = None
        return True

    def over(self, oldest: int) -> int:
        """How many restarts are over now that this is the oldest worker."""
        before = len(self._almost_over)
        while self._almost_over and self._almost_over[0] <= oldest:
            self._almost_over.popleft()
        return before - len(self._almost_over)

    def take_again(self) -> str | None:
        """The reason for the restart that is to follow, once, when none is under way."""
        if self._first_new is not None:
            return None
        reason, self._again = self._again, None
        return reason

    def give_up(self) -> None:
        """Leave the slots that are left as they are."""
        self._first_new = self.current = None
        self._waiting.clear()

    def forget(self) -> None:
        """The server stops: nothing is restarted any more."""
        self.give_up()
        self._again = None
        self._almost_over.clear()
