"""Back-pressure: how many handlers may be in flight, and how much data they may hold.

Law: bounds and nothing else. One bound holds for every handler in flight, whatever it waits for
(docs/decisions/0023). The dispatcher pauses the reader at the bound: the pipe fills, and the senders feel it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# Handlers that have suspended and not finished, calls that wait behind an ordered one, and publications
# beyond a subscription's bound. A handler in flight may wait for an answer that lies in the pipe behind more
# messages, or for a chain of questions that comes back to this worker. The reader must read on for these, so
# the bound is far above what an app has in flight on purpose. 10,000 suspended handlers take about 30 MiB.
MAX_IN_FLIGHT: Final = 10_000

# Data that handlers in flight hold, in bytes: as much as all outboxes of a worker may hold together, twice.
MAX_IN_FLIGHT_BYTES: Final = 256 * 1024 * 1024


class InFlight:
    """Counts what is in flight. `on_change` is called when `is_blocked` changes.

    Attributes:
        calls, size_bytes: what is in flight now.
        is_blocked: a bound is reached; no handler may start.
    """

    __slots__ = ("_on_change", "calls", "is_blocked", "size_bytes")

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self.calls = 0
        self.size_bytes = 0
        self.is_blocked = False

    def add(self, calls: int, size_bytes: int) -> None:
        """Count calls that begin or, negative, end."""
        self.calls += calls
        self.size_bytes += size_bytes
        is_blocked = self.calls >= MAX_IN_FLIGHT or self.size_bytes >= MAX_IN_FLIGHT_BYTES
        if is_blocked != self.is_blocked:
            self.is_blocked = is_blocked
            self._on_change()
