"""The fleet: which processes should exist. Events in, actions out, time as an argument.

Law: nothing in this file asks the kernel or the clock, and nothing is done
here. `handle` takes one event and returns what the launcher is to do, in
order. Every time is in seconds of one monotonic clock.

A slot has one worker that is meant to serve (`live`) and, while that one is replaced, another one that starts
(`incoming`). A stopping process belongs to no slot any more; the fleet only waits for its end.

A helper is a process of another kind (docs/decisions/0025). It has a slot of its own, with a negative
number, and is started again whenever it ends. Restarts and scaling leave it alone; it stops last.
"""

from __future__ import annotations

from asgi_ipc.fleet.events import (
    Action,
    Begin,
    Buried,
    Event,
    Exit,
    Exited,
    KillProcess,
    LauncherSlept,
    ParentGone,
    RestartRequested,
    Said,
    ScaleRequested,
    Started,
    StopRequested,
    Tick,
)
from asgi_ipc.fleet.membership import WORKER
from asgi_ipc.fleet.processes import Phase, Process, Processes
from asgi_ipc.fleet.restart import Restart
from asgi_ipc.fleet.slots import (
    EARLY_DEATH_S,
    KILLED,
    SAME_STOP_S,
    STARTUP_FAILURE,
    UNATTENDED_STOP_S,
    Policy,
    Slot,
    backoff_s,
)
from asgi_ipc.fleet.words import Ready, Retiring


class Fleet:
    """The machine. `handle` is its only way in, `next_deadline` says when it wants a Tick."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._slots = {index: Slot(index) for index in range(policy.workers)}
        self._helpers = {-place: Slot(-place, kind) for place, kind in enumerate(policy.helpers, 1)}
        self._processes = Processes(policy)
        self._log = self._processes.log
        self._restart = Restart()
        # Every slot has been ready once: from then on no failure ends the server.
        self._established = False
        # Every slot has a worker that is ready, and the operator knows.
        self._told_ready = False
        self._stopping = False
        # The signal by which the operator asked for the stop, and when. A stop may have other reasons.
        self._told_to_stop: tuple[int, float] | None = None
        self._exit_status = 0

    def next_deadline(self) -> float | None:
        """When the next Tick has something to do, or None."""
        retries = [slot.retry_at for slot in self._all_slots().values() if slot.retry_at is not None]
        return min([*retries, *self._processes.deadlines()], default=None)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event; return what is to be done, in order."""
        self._processes.actions = []
        match event:
            case Begin():
                for slot in self._all_slots().values():
                    self._start(slot, now)
            case StopRequested():
                self._stop_all(event, now)
            case ParentGone():
                self._stop_unattended(now)
            case RestartRequested() | ScaleRequested() if self._stopping:
                pass
            case RestartRequested(reason):
                self._restart_all(reason)
            case ScaleRequested(by):
                self._scale(by, now)
            case LauncherSlept(seconds):
                self._processes.slept(seconds)
            case Tick():
                self._tick(now)
            case _ if event.generation in self._processes:
                self._hear(event, now)
        if not self._stopping:
            self._settle(now)
        return self._processes.actions

    def _all_slots(self) -> dict[int, Slot]:
        return self._slots | self._helpers

    def _settle(self, now: float) -> None:
        """Do what follows from the state of the slots, whatever event has changed it."""
        self._established = self._established or all(each.was_ready for each in self._slots.values())
        self._advance_restart(now)
        self._judge_ready()
        # A restart is over when the last worker from before it has gone.
        oldest = min(self._processes.workers(), default=self._processes.newest + 1)
        for _ in range(self._restart.over(oldest)):
            self._log("info", "All workers have been restarted.")
        reason = self._restart.take_again()
        if reason is not None:
            self._restart_all(reason)
            self._advance_restart(now)
        self._recycle(now)

    def _judge_ready(self) -> None:
        """Say so when every slot has a worker that is ready, and did not before."""
        ready = all(self._is_ready(slot) for slot in self._slots.values())
        if ready and not self._told_ready:
            count = len(self._slots)
            which = "The worker is" if count == 1 else f"All {count} workers are"
            self._log("info", f"{which} ready.")
        self._told_ready = ready

    def _recycle(self, now: float) -> None:
        """Replace the worker that has waited longest to retire, unless a replacement is under way.

        Workers that have served as much as they may at the same time would otherwise be doubled at once.
        """
        if any(slot.incoming is not None for slot in self._slots.values()):
            return
        waiting = [
            (slot.retiring_at, slot.index)
            for slot in self._slots.values()
            if slot.retiring_at is not None and slot.retry_at is None
        ]
        if waiting:
            self._start_incoming(self._slots[min(waiting)[1]], now)

    # --- what a process says

    def _hear(self, event: Started | Said | Exited, now: float) -> None:
        process = self._processes[event.generation]
        match event:
            case Started(pid=pid):
                process.pid = pid
            case Exited():
                self._exited(event, now)
            case Said(generation, Ready()) if process.phase is Phase.STARTING:
                process.phase = Phase.READY
                process.ready_at = process.last_beat = now
                self._ready(generation, process, now)
            case Said(generation, Retiring()) if process.phase is Phase.READY:
                slot = self._slots.get(process.slot)
                if slot is not None and slot.live == generation:
                    slot.retiring_at = now if slot.retiring_at is None else slot.retiring_at
                    slot.retry_at = None
            case Said(generation, word):
                self._processes.hear(generation, word, now)

    def _ready(self, generation: int, process: Process, now: float) -> None:
        if process.kind != WORKER:
            self._log("info", f"{process.name} is ready.")
        slot = self._slots.get(process.slot)
        if slot is None:
            return
        slot.was_ready = True
        # The next failure is news again, even for the same reason.
        self._processes.told_failure = None
        slot.retry_at = None
        if slot.incoming == generation:
            old, slot.live, slot.incoming, slot.retiring_at = slot.live, generation, None, None
            if old is not None:
                self._processes.stop(old, "replaced", now, relieved=True)

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
                self._processes.do(KillProcess(generation))
            return
        self._told_to_stop = event.signal, now
        self._log("info", f"Received {event.name}, exiting.")
        if not self._stopping:
            self._begin_stop(0, now)

    def _stop_unattended(self, now: float) -> None:
        """Stop as at a first signal, with a deadline, since no second signal can come."""
        if self._told_to_stop is None:
            # Signal 0: any signal in the same moment is another kind, and so an echo.
            self._told_to_stop = 0, now
            self._log("info", "Whoever started this server has gone, exiting.")
            if not self._stopping:
                self._begin_stop(0, now)
        for process in self._processes.values():
            self._processes.kill_by(process, now + UNATTENDED_STOP_S)

    def _begin_stop(self, status: int, now: float) -> None:
        self._stopping = True
        self._exit_status = status
        self._restart.forget()
        for slot in self._all_slots().values():
            slot.retry_at = None
        for generation in self._processes.workers():
            self._processes.stop(generation, "left", now)
        self._advance_stop(now)

    def _advance_stop(self, now: float) -> None:
        """Stop the helpers when the last worker has ended, and exit when the last helper has.

        Helpers still get messages from workers that drain.
        """
        if not self._processes:
            self._processes.do(Exit(self._exit_status))
        elif not self._processes.workers():
            for generation in self._processes:
                self._processes.stop(generation, "left", now)

    def _restart_all(self, reason: str) -> None:
        self._processes.told_failure = None
        if self._restart.begin(reason, self._slots, self._processes.newest + 1):
            self._log("info", f"{reason}, restarting workers.")

    def _advance_restart(self, now: float) -> None:
        """Begin the next slot of the restart under way, if one is and the current slot has been replaced."""
        current = self._slots.get(self._restart.current) if self._restart.current is not None else None
        if current is None or (current.incoming is None and self._is_ready(current)):
            self._restart.current = None
        index = self._restart.next_of(self._slots)
        if index is not None:
            slot = self._slots[index]
            slot.early_deaths = 0
            slot.retry_at = None
            if slot.live is None:
                self._start(slot, now)
            else:
                if slot.incoming is not None:
                    # It was started before the request, with the old code.
                    self._processes.stop(slot.incoming, "left", now)
                self._start_incoming(slot, now)
        if self._restart.finish():
            # Tell it again: the new workers are ready, although every slot has been served all the time.
            self._told_ready = False

    def _scale(self, by: int, now: float) -> None:
        if by > 0:
            index = len(self._slots)
            slot = self._slots[index] = Slot(index)
            self._log("info", f"Increasing the number of workers to {len(self._slots)}.")
            self._start(slot, now)
            return
        if len(self._slots) == 1:
            self._log("info", "One worker is left; there can't be fewer.")
            return
        slot = self._slots.pop(max(self._slots))
        self._log("info", f"Decreasing the number of workers to {len(self._slots)}.")
        for generation in (slot.live, slot.incoming):
            if generation is not None:
                self._processes.stop(generation, "left", now, relieved=True)

    # --- what time and the kernel bring

    def _tick(self, now: float) -> None:
        self._processes.tick(now)
        for slot in self._all_slots().values():
            if slot.retry_at is not None and now >= slot.retry_at:
                slot.retry_at = None
                if slot.live is None:
                    self._start(slot, now)

    def _exited(self, event: Exited, now: float) -> None:
        process = self._processes.pop(event.generation)
        self._processes.do(Buried(event.generation, process.why_gone(event.status)))
        slot = self._all_slots().get(process.slot)
        if self._stopping:
            self._advance_stop(now)
        elif slot is not None and slot.incoming == event.generation:
            slot.incoming = None
            self._replacement_died(process, slot, event, now)
        elif slot is not None and slot.live == event.generation:
            slot.live = None
            self._live_died(process, slot, event, now)

    def _replacement_died(self, process: Process, slot: Slot, event: Exited, now: float) -> None:
        self._processes.tell_failure(process)
        new = f"New worker [{process.pid}]" if process.pid else "A new worker"
        how = f"{new} {event.how} before it was ready"
        kept = self._processes[slot.live].pid if slot.live is not None else 0
        if self._restart.current == process.slot:
            self._log("error", f"{how}; keeping worker [{kept}] and giving the restart up.")
            self._restart.give_up()
        if slot.retiring_at is not None:
            slot.early_deaths += 1
            slot.retry_at = now + backoff_s(slot.early_deaths + 1)
            self._log("error", f"{how}; worker [{kept}] serves on until another try.")

    def _live_died(self, process: Process, slot: Slot, event: Exited, now: float) -> None:
        early = process.ready_at is None or now - process.ready_at < EARLY_DEATH_S
        self._processes.tell_failure(process)
        text = f"{process.name} died: it {event.how}" if process.pid else f"A {process.kind} {event.how}"
        slot.retiring_at = slot.retry_at = None
        if slot.incoming is not None:
            # The one that was to replace it takes the slot over as it is.
            slot.live, slot.incoming = slot.incoming, None
            self._log("error", f"{text}.")
            return
        has_been_up = self._established or slot.was_ready or process.kind != WORKER
        is_replaced = has_been_up or event.status == KILLED
        if not is_replaced and not self.policy.outlive_failed_start:
            self._log("error", f"{text} before it was ready; stopping the server.")
            self._begin_stop(STARTUP_FAILURE, now)
            return
        slot.early_deaths = slot.early_deaths + 1 if early else 0
        delay_s = backoff_s(slot.early_deaths)
        gives_up = self._restart.current == slot.index
        if not is_replaced:
            ending = ", giving the restart up" if gives_up else ""
            self._log("error", f"{text} before it was ready{ending}; waiting for a change.")
        elif delay_s == 0.0:
            self._log("error", f"{text}; starting another.")
            self._start(slot, now)
            return
        else:
            ending = " and giving the restart up" if gives_up else ""
            self._log("error", f"{text}; starting another in {delay_s:g} s{ending}.")
            slot.retry_at = now + delay_s
        if gives_up:
            self._restart.give_up()

    # --- slots

    def _is_ready(self, slot: Slot) -> bool:
        return slot.live is not None and self._processes[slot.live].phase is Phase.READY

    def _start(self, slot: Slot, now: float) -> None:
        slot.live = self._processes.start(slot.index, slot.kind, self._restart.rounds, now)

    def _start_incoming(self, slot: Slot, now: float) -> None:
        slot.incoming = self._processes.start(slot.index, slot.kind, self._restart.rounds, now)
