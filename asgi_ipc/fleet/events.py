"""Events and actions: the input of the fleet, and its output.

Law: frozen data, no behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

# --- events: what has happened


@dataclass(frozen=True, slots=True)
class Begin:
    """Start the fleet."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A signal asks for the end; the second one for the end at once.

    Another kind of signal in the same moment is the same request.
    """

    signal: int
    name: str


@dataclass(frozen=True, slots=True)
class ParentGone:
    """The process that started the server, and was to stop it, has ended. No second signal will come."""


@dataclass(frozen=True, slots=True)
class RestartRequested:
    """Replace every worker, one slot after the other."""

    reason: str


@dataclass(frozen=True, slots=True)
class ScaleRequested:
    """One worker more (+1) or fewer (-1)."""

    by: int


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """The process that a Start asked for runs, as `pid`."""

    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """It serves requests."""

    generation: int


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """It can't start, for this reason; its exit follows."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerRetiring:
    """It has served as many requests as it may, and serves on until it is replaced."""

    generation: int


@dataclass(frozen=True, slots=True)
class WorkerBeat:
    """Its event loop turns."""

    generation: int


@dataclass(frozen=True, slots=True)
class WorkerStuck:
    """Its event loop has not turned for a while, and stands there. `stack` begins with a line end."""

    generation: int
    stack: str


@dataclass(frozen=True, slots=True)
class WorkerDrained:
    """Its leave is over, cleanly or with this many messages not sent and not handled."""

    generation: int
    clean: bool
    unsent: int
    unhandled: int
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """Its process has been reaped. `status` as in subprocess: negative is a signal. `how`: in words."""

    generation: int
    status: int
    how: str


@dataclass(frozen=True, slots=True)
class LauncherSlept:
    """The launcher itself did not run for so long; that time counts against no worker."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = (
    Begin
    | StopRequested
    | ParentGone
    | RestartRequested
    | ScaleRequested
    | WorkerStarted
    | WorkerReady
    | WorkerFailed
    | WorkerRetiring
    | WorkerBeat
    | WorkerStuck
    | WorkerDrained
    | WorkerExited
    | LauncherSlept
    | Tick
)


# --- actions: what is to be done


@dataclass(frozen=True, slots=True)
class StartProcess:
    """Start a process. The answer is WorkerStarted, or WorkerFailed and WorkerExited.

    `round`: how many restarts have begun so far.
    """

    generation: int
    slot: int
    round: int = 0


@dataclass(frozen=True, slots=True)
class StopProcess:
    """Ask it to finish and exit.

    `starting`: it may not listen to its lifeline yet. `relieved`: others serve on. A second stop without
    `relieved` says that nobody serves on any longer.
    """

    generation: int
    starting: bool
    relieved: bool = False


@dataclass(frozen=True, slots=True)
class KillProcess:
    """End it at once."""

    generation: int


@dataclass(frozen=True, slots=True)
class Stalled:
    """Its event loop stands still, or (False) turns again."""

    generation: int
    is_stalled: bool


@dataclass(frozen=True, slots=True)
class Buried:
    """It is gone, for this reason: left, replaced, killed, stalled, drain_timeout or cancelled."""

    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class Log:
    """Tell the operator."""

    level: str  # info, warning or error
    text: str


@dataclass(frozen=True, slots=True)
class Exit:
    """Nothing is left to do; the server's exit status."""

    status: int


Action: TypeAlias = StartProcess | StopProcess | KillProcess | Stalled | Buried | Log | Exit
