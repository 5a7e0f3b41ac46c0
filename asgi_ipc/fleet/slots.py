"""Slots and processes: what the fleet knows of each, and how long it waits.

Law: data and two small rules; the decisions are the fleet's.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from asgi_ipc.fleet.settings import BEAT_S, beat_s

# A process that dies this soon after it was ready has not really been so.
EARLY_DEATH_S: Final = 1.0

# The first replacement starts at once; then a slot that keeps dying waits
# longer and longer, so that it does not take the machine from the others.
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0

STALLED_AFTER_S: Final = 3.5 * BEAT_S

# One Ctrl-C may reach the launcher as two kinds of signal: the terminal's to the
# whole group, and what a wrapper makes of its own. A person who means "at
# once" takes longer, or repeats the same.
SAME_STOP_S: Final = 0.5

# Who would have insisted on a stop has gone: this long is what the test kit itself waits.
UNATTENDED_STOP_S: Final = 30.0

# How uvicorn says that the app could not be started.
STARTUP_FAILURE: Final = 3

# Whoever kills so does it from outside; it says nothing about the app.
KILLED: Final = -9


class Phase(enum.Enum):
    """Where a worker process is in its life."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator has set.

    Attributes:
        workers: how many there shall be at first, at least 1.
        hang_timeout_s: replace a worker whose event loop has stood still for so long; None: never.
        stop_timeout_s: end a worker that has not stopped by then; None: wait.
        outlive_failed_start: a first start that fails waits for a restart (`--reload`), instead of
            ending the server.
        linger_s: how much longer one may take while others serve on, for its clients to go to them.
        signals_come_twice: the terminal sends them, and what started the launcher hands them on.
    """

    workers: int
    hang_timeout_s: float | None = None
    stop_timeout_s: float | None = None
    outlive_failed_start: bool = False
    linger_s: float = 0.0
    signals_come_twice: bool = False

    @property
    def stalled_after_s(self) -> float:
        """So long after its last beat a worker counts as stalled, in seconds."""
        return STALLED_AFTER_S / BEAT_S * beat_s(self.hang_timeout_s)


@dataclass(slots=True)
class Process:
    """One worker process that exists. Times are the fleet's."""

    slot: int
    last_beat: float
    pid: int = 0
    phase: Phase = Phase.STARTING
    ready_at: float | None = None
    stalled: bool = False
    # Where its event loop has stood since the last beat, as far as it has been able to say.
    stack: str | None = None
    # Told to stop while others serve on.
    relieved: bool = False
    kill_at: float | None = None
    failure: str | None = None
    # Why it was told to go; who goes by itself has left.
    reason: str = "left"
    # Its own last word: whether it left cleanly.
    drained: bool | None = None
    leave_cancelled: bool = False
    judged_stalled: bool = False

    def why_gone(self, status: int) -> str:
        """What the others are told when it has ended with this status.

        It left if it said so. If its word is missing, an exit with 0 that it was asked for is one, too:
        the word may not have fitted its lifeline. Whatever else ended it, it had no time to leave.
        """
        if self.drained is not None:
            if self.drained:
                return self.reason
            return "cancelled" if self.leave_cancelled else "drain_timeout"
        if self.judged_stalled:
            return "stalled"
        return self.reason if status == 0 and self.phase is Phase.STOPPING else "killed"


@dataclass(slots=True)
class Slot:
    """One worker that should exist: the generations that serve in it and that are to."""

    live: int | None = None
    incoming: int | None = None
    retiring: bool = False
    # Since when; those that have waited longest are replaced first.
    retiring_at: float = 0.0
    was_ready: bool = False
    early_deaths: int = 0
    retry_at: float | None = None


def backoff_s(early_deaths: int) -> float:
    """Seconds before the next start after so many early deaths in a row."""
    if early_deaths <= 1:
        return 0.0
    return min(BACKOFF_FIRST_S * 2.0 ** min(early_deaths - 2, 16), BACKOFF_MAX_S)
