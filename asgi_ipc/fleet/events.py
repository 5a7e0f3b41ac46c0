"""Events and actions: the input of the fleet, and its output.

Law: frozen data, no behaviour.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from asgi_ipc.fleet.words import ToFleet

# --- events: what has happened


class Begin(Struct, frozen=True):
    """Start the fleet."""


class StopRequested(Struct, frozen=True):
    """A signal asks for the end; the second one for the end at once.

    Another kind of signal in the same moment is the same request.
    """

    signal: int
    name: str


class ParentGone(Struct, frozen=True):
    """The process that started the server, and was to stop it, has ended. No second signal will come."""


class RestartRequested(Struct, frozen=True):
    """Replace every worker, one slot after the other."""

    reason: str


class ScaleRequested(Struct, frozen=True):
    """One worker more (+1) or fewer (-1)."""

    by: int


class Started(Struct, frozen=True):
    """The process that a StartProcess asked for runs, as `pid`."""

    generation: int
    pid: int


class Said(Struct, frozen=True):
    """That process says a word about itself."""

    generation: int
    word: ToFleet


class Exited(Struct, frozen=True):
    """That process has been reaped. `status` as in subprocess: negative is a signal. `how`: in words."""

    generation: int
    status: int
    how: str


class LauncherSlept(Struct, frozen=True):
    """The launcher itself did not run for so long; that time counts against no worker."""

    seconds: float


class Tick(Struct, frozen=True):
    """Time has passed."""


Event: TypeAlias = (
    Begin
    | StopRequested
    | ParentGone
    | RestartRequested
    | ScaleRequested
    | Started
    | Said
    | Exited
    | LauncherSlept
    | Tick
)


# --- actions: what is to be done


class StartProcess(Struct, frozen=True):
    """Start a process. The answer is Started, or Said(Failed) and Exited.

    `round`: how many restarts have begun so far.
    """

    generation: int
    slot: int
    round: int = 0


class StopProcess(Struct, frozen=True):
    """Ask it to finish and exit.

    `starting`: it may not listen to its lifeline yet. `relieved`: others serve on. A second stop without
    `relieved` says that nobody serves on any longer.
    """

    generation: int
    starting: bool
    relieved: bool = False


class KillProcess(Struct, frozen=True):
    """End it at once."""

    generation: int


class Stalled(Struct, frozen=True):
    """Its event loop stands still, or (False) turns again."""

    generation: int
    is_stalled: bool


class Buried(Struct, frozen=True):
    """It is gone, for this reason: left, replaced, killed, stalled, drain_timeout or cancelled."""

    generation: int
    reason: str


class Log(Struct, frozen=True):
    """Tell the operator."""

    level: str  # info, warning or error
    text: str


class Exit(Struct, frozen=True):
    """Nothing is left to do; the server's exit status."""

    status: int


Action: TypeAlias = StartProcess | StopProcess | KillProcess | Stalled | Buried | Log | Exit
