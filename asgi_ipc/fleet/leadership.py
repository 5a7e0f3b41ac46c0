"""Leadership: the choice of the leader. At most one member leads at any time.

Law: nothing in this file asks the kernel or the clock. No event takes leadership from a running leader: it
moves when the leader says that none of its tasks runs any more, or when its process has ended. A member that
stalls or leaves may still run its tasks.
"""

from __future__ import annotations


class Leadership:
    """The leader, by generation. Each event returns whether the leader has changed.

    Attributes:
        leader: its generation; 0: no leader.
    """

    def __init__(self) -> None:
        self.leader = 0
        self._entered: set[int] = set()
        # Members that leave, or have led for the last time: they are not appointed again.
        self._out: set[int] = set()
        self._stalled: set[int] = set()

    def entered(self, generation: int) -> bool:
        """Note a member that all others know."""
        self._entered.add(generation)
        return self._appoint()

    def leaving(self, generation: int) -> None:
        """Note that a member leaves, or has the order to. A leader leads until it resigns or ends."""
        self._out.add(generation)

    def stalled(self, generation: int, is_stalled: bool) -> None:
        """Note that an event loop stands still, or turns again. A leader goes on leading."""
        if is_stalled:
            self._stalled.add(generation)
        else:
            self._stalled.discard(generation)

    def resigned(self, generation: int) -> bool:
        """Note that no leader task runs or will run in a member."""
        self._out.add(generation)
        return self._vacate(generation)

    def gone(self, generation: int) -> bool:
        """Note that a process has ended."""
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
        """Without a leader, appoint the newest: in a rolling restart it will stay longest."""
        candidates = self._entered - self._out
        if self.leader or not candidates:
            return False
        self.leader = max(candidates - self._stalled or candidates)
        return True
