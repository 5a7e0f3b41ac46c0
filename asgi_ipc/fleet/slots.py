"""Slots: which processes the operator wants, and how long the fleet waits.

Law: data and two small rules; `machine.py` decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from asgi_ipc.fleet.membership import WORKER
from asgi_ipc.fleet.settings import BEAT_S, beat_s

# A process that dies this soon after it was ready counts as one that never was.
EARLY_DEATH_S: Final = 1.0

# The first replacement starts at once; then a slot that keeps dying waits
# longer and longer, so that it does not take the machine from the others.
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0

STALLED_AFTER_S: Final = 3.5 * BEAT_S

# One Ctrl-C may reach the launcher as two kinds of signal: one from the terminal, to the whole group, and one
# from a wrapper. A person who means "at once" takes longer, or repeats the same signal.
SAME_STOP_S: Final = 0.5

# When the parent has gone no second signal can come; the test kit itself waits as long.
UNATTENDED_STOP_S: Final = 30.0

# How uvicorn says that the app could not be started.
STARTUP_FAILURE: Final = 3

# SIGKILL comes from outside and says nothing about the app.
KILLED: Final = -9


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's settings.

    Attributes:
        workers: how many to start with, at least 1.
        hang_timeout_s: replace a worker whose event loop has stood still for so long; None: never.
        stop_timeout_s: end a worker that has not stopped by then; None: wait.
        outlive_failed_start: a first start that fails waits for a restart (`--reload`), instead of
            ending the server.
        linger_s: how much longer one may take while others serve on, for its clients to go to them.
        signals_come_twice: the terminal sends each signal, and the parent passes it on.
        helpers: the kind of each helper; the first has the slot -1, the second -2.
    """

    workers: int
    hang_timeout_s: float | None = None
    stop_timeout_s: float | None = None
    outlive_failed_start: bool = False
    linger_s: float = 0.0
    signals_come_twice: bool = False
    helpers: tuple[str, ...] = ()

    @property
    def stalled_after_s(self) -> float:
        """So long after its last beat a worker counts as stalled, in seconds."""
        return STALLED_AFTER_S / BEAT_S * beat_s(self.hang_timeout_s)


@dataclass(slots=True)
class Slot:
    """One process that should exist: the generation that runs for it, and the one that is to replace it."""

    index: int
    kind: str = WORKER
    live: int | None = None
    incoming: int | None = None
    # Since when its worker asks to be replaced; the one that has waited longest is replaced first.
    retiring_at: float | None = None
    was_ready: bool = False
    early_deaths: int = 0
    retry_at: float | None = None


def backoff_s(early_deaths: int) -> float:
    """Seconds before the next start after so many early deaths in a row."""
    if early_deaths <= 1:
        return 0.0
    return min(BACKOFF_FIRST_S * 2.0 ** min(early_deaths - 2, 16), BACKOFF_MAX_S)
