"""The fleet: which workers should exist. Events in, actions out, time as an argument.

Law: nothing in this file asks the kernel or the clock, and nothing is done
here. `handle` takes one event and returns what the launcher is to do, in
order. Every time is in seconds of one monotonic clock.

A slot has one worker that is meant to serve (`live`) and, while that one is
replaced, another one that starts (`incoming`). What has been told to stop
belongs to no slot any more; it is only waited for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from asgi_ipc.fleet.events import (
    Action,
    Begin,
    Buried,
    Event,
    Exit,
    Kill,
    LauncherSlept,
    Log,
    RestartRequested,
    ScaleRequested,
    Stalled,
    Start,
    StarterGone,
    Stop,
    StopRequested,
    Tick,
    WorkerBeat,
    WorkerDrained,
    WorkerExited,
    WorkerFailed,
    WorkerReady,
    WorkerRetiring,
    WorkerStarted,
    WorkerStuck,
)
from asgi_ipc.fleet.slots import (
    EARLY_DEATH_S,
    KILLED,
    SAME_STOP_S,
    STARTUP_FAILURE,
    UNATTENDED_STOP_S,
    Phase,
    Policy,
    Process,
    Slot,
    backoff_s,
)


@dataclass(slots=True)
class Fleet:
    """The machine. `handle` is its only way in, `next_deadline` says when it wants a Tick."""

    policy: Policy
    _slots: dict[int, Slot] = field(default_factory=dict)
    _processes: dict[int, Process] = field(default_factory=dict)
    _generations: int = 0
    # Every slot has been ready once: from then on nothing that fails ends the server.
    _established: bool = False
    _stopping: bool = False
    # By the operator, with which signal and when; it may also stop because the app can't be started.
    _told_to_stop: tuple[int, float] | None = None
    _exit_status: int = 0
    # Slots that the restart under way has still to do, and the one that it is doing.
    _to_restart: deque[int] = field(default_factory=deque)
    _restarting: int | None = None
    _restart_runs: bool = False
    _restart_again: str | None = None
    # The first generation of the restart under way; and that of each whose new workers all serve, but which
    # an older one that still leaves keeps from being over.
    _first_new: int = 0
    _almost_over: deque[int] = field(default_factory=deque)
    # Every slot has a worker that is ready, and the operator knows.
    _told_ready: bool = False
    # How many restarts have begun.
    _rounds: int = 0
    _told_failure: str | None = None
    _actions: list[Action] = field(default_factory=list)

    # --- seen from outside

    @property
    def size(self) -> int:
        """How many workers there should be."""
        return len(self._slots)

    @property
    def generations(self) -> dict[int, tuple[int, Phase]]:
        """Every process that exists: generation -> (slot, phase)."""
        return {g: (process.slot, process.phase) for g, process in self._processes.items()}

    def next_deadline(self) -> float | None:
        """When the next Tick has something to do, or None."""
        times = [slot.retry_at for slot in self._slots.values() if slot.retry_at is not None]
        for process in self._processes.values():
            if process.kill_at is not None:
                times.append(process.kill_at)
            if process.phase is Phase.READY:
                if not process.stalled:
                    times.append(process.last_beat + self.policy.stalled_after_s)
                if self.policy.hang_timeout_s is not None and process.kill_at is None:
                    times.append(process.last_beat + self.policy.hang_timeout_s)
        return min(times, default=None)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event; return what is to be done, in order."""
        self._actions = []
        match event:
            case Begin():
                for index in range(self.policy.workers):
                    self._slots[index] = Slot()
                    self._slots[index].live = self._start(index, now)
            case StopRequested():
                self._stop_all(event, now)
            case StarterGone():
                self._stop_unattended(now)
            case RestartRequested(reason):
                self._restart(reason, now)
            case ScaleRequested(by):
                self._scale(by, now)
            case LauncherSlept(seconds):
                for process in self._processes.values():
                    process.last_beat += seconds
                    if process.kill_at is not None:
                        process.kill_at += seconds
            case Tick():
                self._tick(now)
            case WorkerExited(generation) if generation in self._processes:
                self._exited(event, now)
            case (
                WorkerStarted(generation)
                | WorkerBeat(generation)
                | WorkerStuck(generation)
                | WorkerReady(generation)
                | WorkerFailed(generation)
                | WorkerRetiring(generation)
                | WorkerDrained(generation)
            ) if generation in self._processes:
                self._heard(event, generation, self._processes[generation], now)
        return self._actions

    # --- what a worker says

    def _heard(self, event: Event, generation: int, process: Process, now: float) -> None:
        match event:
            case WorkerStarted(pid=pid):
                process.pid = pid
            case WorkerBeat():
                process.last_beat = now
                process.stack = None
                if process.stalled:
                    process.stalled = False
                    self._do(Stalled(generation, False))
                    self._log("info", f"Worker [{process.pid}] responds again.")
            case WorkerStuck(stack=stack):
                process.stack = stack
            case WorkerFailed(reason=reason):
                process.failure = reason
            case WorkerDrained(clean=clean, unsent=unsent, unhandled=unhandled, cancelled=cancelled):
                process.drained, process.leave_cancelled = clean, cancelled
                if not clean:
                    how = "had its leave cancelled by the app" if cancelled else "reached its drain timeout"
                    self._log(
                        "warning",
                        f"Worker [{process.pid}] {how} with {unsent} messages not sent "
                        f"and {unhandled} not handled.",
                    )
            case WorkerReady() if process.phase is Phase.STARTING:
                process.phase = Phase.READY
                process.ready_at = process.last_beat = now
                self._ready(generation, process, now)
            case WorkerRetiring() if process.phase is Phase.READY:
                slot = self._slots.get(process.slot)
                if slot is not None and slot.live == generation:
                    slot.retiring_at = slot.retiring_at if slot.retiring else now
                    slot.retiring = True
                    slot.retry_at = None
                    self._recycle(now)

    def _ready(self, generation: int, process: Process, now: float) -> None:
        slot = self._slots.get(process.slot)
        if slot is None:
            return
        slot.was_ready = True
        # What keeps the next one from starting is news again, even if it is the same.
        self._told_failure = None
        slot.retry_at = None
        self._judge_established()
        if slot.incoming == generation:
            old, slot.live, slot.incoming, slot.retiring = slot.live, generation, None, False
            if old is not None:
                self._stop(old, "replaced", now, relieved=True)
        if self._restarting == process.slot and slot.live == generation and slot.incoming is None:
            self._restarting = None
            self._advance_restart(now)
        self._judge_ready()
        self._recycle(now)

    def _judge_ready(self) -> None:
        """Say so when every slot has a worker that is ready, and did not before."""
        live = [self._processes[slot.live] for slot in self._slots.values() if slot.live is not None]
        ready = len(live) == self.size and all(each.phase is Phase.READY for each in live)
        if ready and not self._told_ready:
            which = "The worker is" if self.size == 1 else f"All {self.size} workers are"
            self._log("info", f"{which} ready.")
        self._told_ready = ready

    def _recycle(self, now: float) -> None:
        """Begin the next replacement of those that wait for one, unless one has begun.

        All workers that have served as much as they may at the same time would otherwise be doubled at once.
        """
        if self._stopping or any(slot.incoming is not None for slot in self._slots.values()):
            return
        waiting = [
            (slot.retiring_at, index)
            for index, slot in self._slots.items()
            if slot.retiring and slot.retry_at is None
        ]
        if waiting:
            index = min(waiting)[1]
            self._slots[index].incoming = self._start(index, now)

    # --- what the operator asks

    def _stop_all(self, event: StopRequested, now: float) -> None:
        if self._told_to_stop is not None:
            signal, told_at = self._told_to_stop
            is_echo = event.signal != signal or self.policy.signals_come_twice
            if is_echo and now < told_at + SAME_STOP_S:
                self._log("info", f"Received {event.name} in the same moment.")
                return
            self._exit_status = 128 + event.signal
            self._log("warning", f"Received {event.name} again, ending all workers at once.")
            for generation in self._processes:
                self._do(Kill(generation))
            return
        self._told_to_stop = event.signal, now
        self._log("info", f"Received {event.name}, exiting.")
        if not self._stopping:
            self._begin_stop(0, now)

    def _stop_unattended(self, now: float) -> None:
        """One stop, unless there was one; it is never a second one, but has an end."""
        if self._told_to_stop is None:
            # No signal: any is another kind, if it comes in the same moment.
            self._told_to_stop = 0, now
            self._log("info", "Whoever started this server has gone, exiting.")
            if not self._stopping:
                self._begin_stop(0, now)
        for process in self._processes.values():
            kill_at = now + UNATTENDED_STOP_S
            process.kill_at = kill_at if process.kill_at is None else min(process.kill_at, kill_at)

    def _begin_stop(self, status: int, now: float) -> None:
        self._stopping = True
        self._exit_status = status
        self._to_restart.clear()
        self._restarting = self._restart_again = None
        self._restart_runs = False
        self._almost_over.clear()
        for slot in self._slots.values():
            slot.retry_at = None
        for generation in list(self._processes):
            self._stop(generation, "left", now)
        if not self._processes:
            self._do(Exit(self._exit_status))

    def _judge_established(self) -> None:
        self._established = self._established or all(each.was_ready for each in self._slots.values())

    def _restart(self, reason: str, now: float) -> None:
        if self._stopping:
            return
        self._told_failure = None
        if self._restarting is not None or self._to_restart:
            # However many come during a restart, one more will do.
            self._restart_again = reason
            return
        self._log("info", f"{reason}, restarting workers.")
        self._to_restart.extend(sorted(self._slots))
        self._first_new = self._generations + 1
        self._restart_runs = True
        self._rounds += 1
        self._advance_restart(now)

    def _advance_restart(self, now: float) -> None:
        """Begin the next slot of the restart under way, if one is."""
        while self._restarting is None and self._to_restart:
            index = self._to_restart.popleft()
            slot = self._slots.get(index)
            if slot is None:
                continue
            self._restarting = index
            slot.early_deaths = 0
            slot.retry_at = None
            if slot.live is None:
                slot.live = self._start(index, now)
            else:
                if slot.incoming is not None:
                    # It was started before the request, with the old code.
                    self._stop(slot.incoming, "left", now)
                slot.incoming = self._start(index, now)
        if self._restarting is None and self._restart_runs:
            self._restart_runs = False
            # The new ones serve, which is news even though all slots have been served before.
            self._told_ready = False
            self._judge_ready()
            self._almost_over.append(self._first_new)
            self._judge_restarted()
        if self._restarting is None and self._restart_again is not None:
            reason, self._restart_again = self._restart_again, None
            self._restart(reason, now)

    def _judge_restarted(self) -> None:
        """A restart is over when the last worker from before it has gone."""
        oldest = min(self._processes, default=self._generations + 1)
        while self._almost_over and self._almost_over[0] <= oldest:
            self._almost_over.popleft()
            self._log("info", "All workers have been restarted.")

    def _scale(self, by: int, now: float) -> None:
        if self._stopping:
            return
        if by > 0:
            index = next(i for i in range(len(self._slots) + 1) if i not in self._slots)
            slot = self._slots[index] = Slot()
            self._log("info", f"Increasing the number of workers to {len(self._slots)}.")
            slot.live = self._start(index, now)
            self._judge_ready()
            return
        if len(self._slots) == 1:
            self._log("info", "One worker is left; there can't be fewer.")
            return
        index = max(self._slots)
        slot = self._slots.pop(index)
        self._log("info", f"Decreasing the number of workers to {len(self._slots)}.")
        for generation in (slot.live, slot.incoming):
            if generation is not None:
                self._stop(generation, "left", now, relieved=True)
        self._judge_established()
        if self._restarting == index:
            self._restarting = None
            self._advance_restart(now)
        self._judge_ready()
        self._recycle(now)

    # --- what time brings

    def _tick(self, now: float) -> None:
        for generation, process in self._processes.items():
            if process.kill_at is not None and now >= process.kill_at:
                process.kill_at = None
                self._log("error", f"Worker [{process.pid}] has not stopped in time; killing it.")
                self._do(Kill(generation))
            elif process.phase is Phase.READY:
                self._judge(generation, process, now)
        for index, slot in self._slots.items():
            if slot.retry_at is not None and now >= slot.retry_at:
                slot.retry_at = None
                if slot.live is None:
                    slot.live = self._start(index, now)
        self._recycle(now)

    def _judge(self, generation: int, process: Process, now: float) -> None:
        if not process.stalled and now >= process.last_beat + self.policy.stalled_after_s:
            process.stalled = True
            why = "its event loop does not turn: a plain handler or route that blocks?"
            if process.stack is None:
                where = "Where it stands is not known: it is stopped, or lets none of its threads run."
            else:
                where = f"It stands here:{process.stack}"
            self._log("warning", f"Worker [{process.pid}] is stalled: {why} {where}")
            self._do(Stalled(generation, True))
        hang_s = self.policy.hang_timeout_s
        if hang_s is not None and now >= process.last_beat + hang_s:
            process.judged_stalled = True
            # Judged once: it is dead as soon as the kernel gets to it.
            process.phase = Phase.STOPPING
            self._log("error", f"Worker [{process.pid}] has been stalled for {hang_s:g} s; replacing it.")
            self._do(Kill(generation))

    # --- what the kernel says

    def _exited(self, event: WorkerExited, now: float) -> None:
        generation = event.generation
        process = self._processes.pop(generation)
        self._do(Buried(generation, process.why_gone(event.status)))
        slot = self._slots.get(process.slot)
        if self._stopping:
            if not self._processes:
                self._do(Exit(self._exit_status))
        elif slot is not None and slot.incoming == generation:
            slot.incoming = None
            self._replacement_died(process, slot, event, now)
        elif slot is not None and slot.live == generation:
            slot.live = None
            self._live_died(process, slot, event, now)
        if not self._stopping:
            self._judge_restarted()
            self._judge_ready()
            self._recycle(now)

    def _replacement_died(self, process: Process, slot: Slot, event: WorkerExited, now: float) -> None:
        self._tell_failure(process)
        new = f"New worker [{process.pid}]" if process.pid else "A new worker"
        how = f"{new} {event.how} before it was ready"
        kept = self._processes[slot.live].pid if slot.live is not None else 0
        if self._restarting == process.slot:
            self._log("error", f"{how}; keeping worker [{kept}] and giving the restart up.")
            self._give_restart_up(now)
        if slot.retiring:
            slot.early_deaths += 1
            slot.retry_at = now + backoff_s(slot.early_deaths + 1)
            self._log("error", f"{how}; worker [{kept}] serves on until another try.")

    def _give_restart_up(self, now: float) -> None:
        self._restart_runs = False
        self._restarting = None
        self._to_restart.clear()
        if self._restart_again is not None:
            self._advance_restart(now)

    def _live_died(self, process: Process, slot: Slot, event: WorkerExited, now: float) -> None:
        early = process.ready_at is None or now - process.ready_at < EARLY_DEATH_S
        self._tell_failure(process)
        text = f"Worker [{process.pid}] died: it {event.how}" if process.pid else f"A worker {event.how}"
        slot.retiring = False
        slot.retry_at = None
        if slot.incoming is not None:
            # The one that was to replace it takes the slot over as it is.
            slot.live, slot.incoming = slot.incoming, None
            self._log("error", f"{text}.")
        elif self._established or slot.was_ready or event.status == KILLED:
            self._replace(process.slot, slot, text, early, now)
        elif self.policy.outlive_failed_start:
            gives_up = self._restarting == process.slot
            ending = ", giving the restart up" if gives_up else ""
            self._log("error", f"{text} before it was ready{ending}; waiting for a change.")
            if gives_up:
                self._give_restart_up(now)
        else:
            self._log("error", f"{text} before it was ready; stopping the server.")
            self._begin_stop(STARTUP_FAILURE, now)

    def _replace(self, index: int, slot: Slot, text: str, early: bool, now: float) -> None:
        """Start another for one that died: at once, or later and later if they keep dying early."""
        slot.early_deaths = slot.early_deaths + 1 if early else 0
        delay_s = backoff_s(slot.early_deaths)
        if delay_s == 0.0:
            self._log("error", f"{text}; starting another.")
            slot.live = self._start(index, now)
        else:
            gives_up = self._restarting == index
            ending = " and giving the restart up" if gives_up else ""
            self._log("error", f"{text}; starting another in {delay_s:g} s{ending}.")
            slot.retry_at = now + delay_s
            if gives_up:
                self._give_restart_up(now)

    def _tell_failure(self, process: Process) -> None:
        """Log why it could not start; the same reason only once, however many workers have it."""
        if process.failure is not None and process.failure != self._told_failure:
            self._told_failure = process.failure
            self._log("error", process.failure)

    # --- actions

    def _start(self, index: int, now: float) -> int:
        self._generations += 1
        self._processes[self._generations] = Process(slot=index, last_beat=now)
        self._do(Start(self._generations, index, self._rounds))
        return self._generations

    def _stop(self, generation: int, reason: str, now: float, *, relieved: bool = False) -> None:
        process = self._processes[generation]
        starting = process.phase is Phase.STARTING
        if process.phase is not Phase.STOPPING:
            process.phase = Phase.STOPPING
            process.reason = reason
        elif relieved or not process.relieved:
            return
        process.relieved = relieved
        if self.policy.stop_timeout_s is not None:
            kill_at = now + self.policy.stop_timeout_s + (self.policy.linger_s if relieved else 0.0)
            process.kill_at = kill_at if process.kill_at is None else min(process.kill_at, kill_at)
        self._do(Stop(generation, starting, relieved))

    def _log(self, level: str, text: str) -> None:
        self._do(Log(level, text))

    def _do(self, action: Action) -> None:
        self._actions.append(action)
