"""Flow: how much may be under way in handlers, and when the reader must pause.

Law: bounds and nothing else. What is in flight is counted here; who runs what
is the dispatcher's. The reader is paused, not the sender: the pipe fills, and
the senders feel it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from asgi_ipc.worker.dispatch.registry import Handler

# Handlers that have suspended and not finished. At a few KiB each, a thousand
# keep a worker busy and cost it a few MiB.
MAX_IN_FLIGHT: Final = 1_000

# Large data held by handlers in flight, in bytes: four of the largest messages.
MAX_IN_FLIGHT_BYTES: Final = 64 * 1024 * 1024

# Handlers that wait inside a verb of ipc don't count as in flight, since only
# the pipe can bring what they wait for; this bounds them instead.
MAX_IN_VERBS: Final = 10_000

# And the large data that they hold: no standstill before a worker would have been ended for its memory.
MAX_IN_VERBS_BYTES: Final = 512 * 1024 * 1024


class Flow:
    """Counts calls in flight. `on_full` and `on_room` tell the reader when to pause and to go on.

    Attributes:
        blocked: a bound is reached; no handler may start.
        full: the reader must pause: `blocked`, or messages wait for a later turn, or it is the end.
        exempt: calls that wait inside a verb, and those queued behind such.
    """

    __slots__ = (
        "_behind",
        "_bytes",
        "_calls",
        "_closed",
        "_exempt_bytes",
        "_on_full",
        "_on_room",
        "blocked",
        "exempt",
        "full",
    )

    def __init__(self, on_full: Callable[[], None], on_room: Callable[[], None]) -> None:
        self._on_full = on_full
        self._on_room = on_room
        self._calls = 0
        self._bytes = 0
        self._behind = False
        self._closed = False
        self.exempt = 0
        self._exempt_bytes = 0
        self.blocked = False
        self.full = False

    def count(self, handler: Handler, calls: int, size_bytes: int) -> bool:
        """Count calls that begin or, negative, end; those behind one that waits in a verb are exempt with it.

        Returns whether handlers may start again that could not before.
        """
        return self.hold(calls, size_bytes, exempt=handler.in_verb and handler.ordered)

    def set_exempt(self, handler: Handler, size_bytes: int, *, in_verb: bool) -> bool:
        """Move a call, and those queued behind it, out of what is in flight, or back. Returns as `count`."""
        calls = 1
        if handler.ordered:
            calls += len(handler.lane)
            size_bytes += sum(entry[2] for entry in handler.lane)
        handler.in_verb = in_verb
        return self.move(calls, size_bytes, exempt=in_verb)

    def hold(self, calls: int, size_bytes: int, *, exempt: bool) -> bool:
        """Count what is as good as so many calls, or, negative, is not any more. Returns as `count`."""
        if exempt:
            self.exempt += calls
            self._exempt_bytes += size_bytes
        else:
            self._calls += calls
            self._bytes += size_bytes
        return self._judge()

    def move(self, calls: int, size_bytes: int, *, exempt: bool) -> bool:
        """Move so many out of what is in flight, or back. Returns as `count`."""
        sign = 1 if exempt else -1
        self.exempt += sign * calls
        self._exempt_bytes += sign * size_bytes
        self._calls -= sign * calls
        self._bytes -= sign * size_bytes
        return self._judge()

    def set_behind(self, behind: bool) -> None:
        """Whether messages wait for a later turn."""
        if behind != self._behind:
            self._behind = behind
            self._tell()

    def close(self) -> None:
        """Nothing more shall be read."""
        self._closed = True
        self._tell()

    def _judge(self) -> bool:
        blocked = (
            self._calls >= MAX_IN_FLIGHT
            or self._bytes >= MAX_IN_FLIGHT_BYTES
            or self.exempt >= MAX_IN_VERBS
            or self._exempt_bytes >= MAX_IN_VERBS_BYTES
        )
        if blocked == self.blocked:
            return False
        self.blocked = blocked
        self._tell()
        return not blocked

    def _tell(self) -> None:
        full = self.blocked or self._behind or self._closed
        if full != self.full:
            self.full = full
            if full:
                self._on_full()
            else:
                self._on_room()
