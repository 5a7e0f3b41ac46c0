"""Processes: the words, orders and time limits of each process of the fleet.

Law: nothing in this file asks the kernel or the clock. `machine.py` decides which processes should exist.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from asgi_ipc.fleet.events import (
    Action,
    KillProcess,
    Log,
    Stalled,
    StartProcess,
    StopProcess,
)
from asgi_ipc.fleet.membership import WORKER
from asgi_ipc.fleet.slots import Policy
from asgi_ipc.fleet.words import Beat, Drained, Failed, Stuck, ToFleet
from asgi_ipc.printable import printable_lines


class Phase(enum.Enum):
    """The phase of a process's life."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


@dataclass(slots=True)
class Process:
    """One process that exists. Times are the fleet's."""

    slot: int
    last_beat: float
    kind: str = WORKER
    pid: int = 0
    phase: Phase = Phase.STARTING
    ready_at: float | None = None
    stalled: bool = False
    # The place at which its event loop has stood since the last beat, if the process could say.
    stack: str | None = None
    # It has the order to stop while others serve on.
    relieved: bool = False
    kill_at: float | None = None
    failure: str | None = None
    # The reason of its stop; a process that goes by itself has left.
    reason: str = "left"
    # Its own last word.
    drained: Drained | None = None

    @property
    def name(self) -> str:
        """Its kind and pid, for the log."""
        return f"{self.kind.capitalize()} [{self.pid}]"

    def why_gone(self, status: int) -> str:
        """The reason that the others are told when it has ended with this status.

        It left if it said so. If its word is missing, an exit with 0 that it was asked for is one, too:
        the word may not have fitted its lifeline. Any other end gave it no time to leave.
        """
        if self.drained is not None:
            if self.drained.clean:
                return self.reason
            return "cancelled" if self.drained.cancelled else "drain_timeout"
        if self.reason == "stalled":
            return self.reason
        return self.reason if status == 0 and self.phase is Phase.STOPPING else "killed"


class Processes(dict[int, Process]):
    """Every process that exists, by generation. Each decision adds to `actions`, in order."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy
        self.actions: list[Action] = []
        # The newest generation.
        self.newest = 0
        self.told_failure: str | None = None

    def workers(self) -> list[int]:
        """The generations of the workers, oldest first."""
        return [generation for generation, process in self.items() if process.kind == WORKER]

    def deadlines(self) -> Iterator[float]:
        """When `tick` has something to do."""
        for process in self.values():
            if process.kill_at is not None:
                yield process.kill_at
            if process.phase is Phase.READY:
                if not process.stalled:
                    yield process.last_beat + self.policy.stalled_after_s
                if self.policy.hang_timeout_s is not None and process.kill_at is None:
                    yield process.last_beat + self.policy.hang_timeout_s

    # --- what happens

    def hear(self, generation: int, word: ToFleet, now: float) -> None:
        """Note what a process has said; what else follows from that is the fleet's."""
        process = self[generation]
        match word:
            case Beat():
                process.last_beat = now
                process.stack = None
                if process.stalled:
                    process.stalled = False
                    self.do(Stalled(generation, False))
                    self.log("info", f"{process.name} responds again.")
            case Stuck(stack):
                process.stack = printable_lines(f"\n{stack}")
            case Failed(reason):
                process.failure = printable_lines(reason)
            case Drained(clean, unsent, unhandled, cancelled):
                process.drained = word
                if not clean:
                    how = "had its leave cancelled by the app" if cancelled else "reached its drain timeout"
                    self.log(
                        "warning",
                        f"{process.name} {how} with {unsent} messages not sent and {unhandled} not handled.",
                    )
            case _:
                pass

    def slept(self, seconds: float) -> None:
        """The launcher did not run for so long: that counts against no process."""
        for process in self.values():
            process.last_beat += seconds
            if process.kill_at is not None:
                process.kill_at += seconds

    def tick(self, now: float) -> None:
        """Kill what has not stopped in time, and judge the others by their beats."""
        for generation, process in self.items():
            if process.kill_at is not None and now >= process.kill_at:
                process.kill_at = None
                self.log("error", f"{process.name} has not stopped in time; killing it.")
                self.do(KillProcess(generation))
            elif process.phase is Phase.READY:
                self._judge(generation, process, now)

    def _judge(self, generation: int, process: Process, now: float) -> None:
        if not process.stalled and now >= process.last_beat + self.policy.stalled_after_s:
            process.stalled = True
            why = "its event loop does not turn: a plain handler or route that blocks?"
            if process.stack is None:
                where = "Where it stands is not known: it is stopped, or lets none of its threads run."
            else:
                where = f"It stands here:{process.stack}"
            self.log("warning", f"{process.name} is stalled: {why} {where}")
            self.do(Stalled(generation, True))
        hang_s = self.policy.hang_timeout_s
        if hang_s is not None and now >= process.last_beat + hang_s:
            # Judge it once: it ends as soon as the kernel gets to it.
            process.phase, process.reason = Phase.STOPPING, "stalled"
            self.log("error", f"{process.name} has been stalled for {hang_s:g} s; replacing it.")
            self.do(KillProcess(generation))

    def tell_failure(self, process: Process) -> None:
        """Log why it could not start; the same reason only once, however many workers have it."""
        if process.failure is not None and process.failure != self.told_failure:
            self.told_failure = process.failure
            self.log("error", process.failure)

    # --- what they are told

    def start(self, slot: int, kind: str, restart_round: int, now: float) -> int:
        """Start a process; its generation."""
        self.newest += 1
        self[self.newest] = Process(slot, now, kind)
        self.do(StartProcess(self.newest, slot, restart_round))
        return self.newest

    def stop(self, generation: int, reason: str, now: float, *, relieved: bool = False) -> None:
        """Ask it to stop, for that reason; `relieved`: others serve on."""
        process = self[generation]
        starting = process.phase is Phase.STARTING
        if process.phase is not Phase.STOPPING:
            process.phase = Phase.STOPPING
            process.reason = reason
        elif relieved or not process.relieved:
            return
        process.relieved = relieved
        if self.policy.stop_timeout_s is not None:
            linger_s = self.policy.linger_s if relieved else 0.0
            self.kill_by(process, now + self.policy.stop_timeout_s + linger_s)
        self.do(StopProcess(generation, starting, relieved))

    def kill_by(self, process: Process, deadline: float) -> None:
        """Kill it if it has not stopped until that time."""
        process.kill_at = deadline if process.kill_at is None else min(process.kill_at, deadline)

    def log(self, level: str, text: str) -> None:
        """Tell the operator."""
        self.do(Log(level, text))

    def do(self, action: Action) -> None:
        """Have the launcher do that, after what it has been told before."""
        self.actions.append(action)
