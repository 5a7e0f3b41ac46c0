"""Leadership: which member leads. At most one does, whatever happens.

Law: nothing in this file asks the kernel or the clock. Leadership moves only
when the leader says that none of its tasks runs any more, or when its process
has ended. A leader that stalls or leaves may still run them.
"""

from __future__ import annotations


class Leadership:
    """One leader, by generation. Each event says whether there is another one now.

    Attributes:
        leader: its generation; 0: nobody.
    """

    def __init__(self) -> None:
        self.leader = 0
        self._entered: set[int] = set()
        # These leave, or have led for the last time: they are never appointed again.
        self._out: set[int] = set()
        self._stalled: set[int] = set()

    def entered(self, generation: int) -> bool:
        """It is a member that all others know."""
        self._entered.add(generation)
        return self._appoint()

    def leaving(self, generation: int) -> None:
        """It leaves, or has been told to. A leader leads until it resigns or ends."""
        self._out.add(generation)

    def stalled(self, generation: int, is_stalled: bool) -> None:
        """Its event loop stands still, or turns again. A leader goes on leading."""
        if is_stalled:
            self._stalled.add(generation)
        else:
            self._stalled.discard(generation)

    def resigned(self, generation: int) -> bool:
        """None of the leader's tasks runs there, and none will."""
        self._out.add(generation)
        return self._vacate(generation)

    def gone(self, generation: int) -> bool:
        """Its process has ended."""
        for each in (self._entered, self._out, self._stalled):
            each.discard(generation)
        return self._vacate(generation)

    def _vacate(self, generation: int) -> bool:
        if generation != self.leader:
            return False
        self.leader = 0
        self._appoint()
        return True

    def _appoint(self) -> bool:
        """If nobody leads, appoint the newest: in a rolling restart it stays longest."""
        candidates = self._entered - self._out
        if self.leader or not candidates:
            return False
        self.leader = max(candidates - self._stalled or candidates)
        return True
