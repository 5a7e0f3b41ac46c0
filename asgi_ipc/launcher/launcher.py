"""The launcher: one loop. It takes the next event, asks the fleet or the relay, and does what they say.

Law: nothing is decided here. A signal, a word, a child's end only enqueues
an event; one loop takes the events in order. Only time in which this loop
itself ran counts against a worker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, assert_never

from asgi_ipc import multiprocess
from asgi_ipc.fleet import events, words
from asgi_ipc.fleet.machine import Fleet
from asgi_ipc.fleet.membership import WORKER, Worker
from asgi_ipc.fleet.relay import Relay
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.fleet.slots import Policy
from asgi_ipc.launcher.limits import PipeWatch, describe_refusal, tell_reach
from asgi_ipc.launcher.operator import Operator
from asgi_ipc.launcher.process import LifelineFullError, WorkerProcess, describe_status
from asgi_ipc.launcher.tracker import Tracker
from asgi_ipc.logs import server_logger as logger

# A turn that comes this much after its time means that the launcher itself
# was stopped or starved.
LATE_S: Final = 0.5

# How soon to try again what only time can cure (too many descriptors in flight).
SOON_S: Final = 0.02

_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@dataclass(frozen=True, slots=True)
class Launch:
    """The values that all workers of one run have in common.

    Attributes:
        policy: how many, and when to lose patience.
        sockets: the listening sockets, bound already.
        settings, interpreter, uvicorn: the same for all in the handover.
        changes: what asks for a restart besides signals (`--reload`), as lines for the log.
        helpers: the processes of other kinds (docs/decisions/0025).
    """

    policy: Policy
    sockets: Sequence[socket.socket]
    settings: Settings
    interpreter: words.Interpreter
    uvicorn: dict[str, Any]
    changes: Callable[[], AsyncIterator[str]] | None = None
    helpers: tuple[words.Helper, ...] = ()


class Launcher:
    """Runs the fleet until it has ended. `run` returns the exit status."""

    def __init__(self, run: Launch) -> None:
        self._run = run
        self._fleet = Fleet(replace(run.policy, helpers=tuple(helper.kind for helper in run.helpers)))
        self._relay = Relay()
        self._processes: dict[int, WorkerProcess] = {}
        self._events: deque[events.Event] = deque()
        self._wake = asyncio.Event()
        self._status: int | None = None
        self._pipe_watch = PipeWatch(run.settings.pipe_bytes)

    async def run(self) -> int:
        """Start the workers and keep them until a signal or their failure ends it."""
        self._loop = asyncio.get_running_loop()
        operator = Operator(self._post, self._reap, self._run.changes, self._run.settings.stop_at_eof)
        self._tracker = Tracker()
        self._post(events.Begin())
        try:
            while self._status is None:
                await self._turn()
        finally:
            await operator.close()
            self._tracker.close()
        return self._status

    # --- the loop

    async def _turn(self) -> None:
        deadlines = [self._fleet.next_deadline(), self._relay.next_deadline()]
        deadline = min((each for each in deadlines if each is not None), default=None)
        try:
            async with asyncio.timeout_at(deadline):
                await self._wake.wait()
        except TimeoutError:
            pass
        # Here and nowhere else: the last turn may have made room for more words.
        self._wake.clear()
        now = self._loop.time()
        is_due = deadline is not None and now >= deadline
        if deadline is not None and now - deadline > LATE_S:
            # The launcher lost that time, not the workers.
            self._handle(events.LauncherSlept(now - deadline), now)
        if is_due:
            # Hear the workers before they are judged: a select that was interrupted until its time was over
            # (SIGSTOP, SIGCONT: signal(7)) has reported no lifeline.
            for generation in list(self._processes):
                self._read_lifeline(generation)
        while self._events:
            self._handle(self._events.popleft(), now)
        if is_due:
            self._handle(events.Tick(), now)
            self._relay.tick(now)
        for generation in self._relay.pending():
            self._write_lifeline(generation)
        promised = self._relay.promised()
        for generation, process in self._processes.items():
            if generation not in promised:
                process.close_write_end()

    def _post(self, event: events.Event) -> None:
        self._events.append(event)
        self._wake.set()

    def _handle(self, event: events.Event, now: float) -> None:
        for action in self._fleet.handle(event, now):
            self._perform(action)
        if isinstance(event, events.Exited):
            process = self._processes.pop(event.generation, None)
            if process is not None:
                process.close()

    def _perform(self, action: events.Action) -> None:
        match action:
            case events.StartProcess(generation, slot, restart_round):
                self._start(generation, slot, restart_round)
            case events.StopProcess(generation, starting, relieved):
                self._relay.tell(generation, words.Stop(relieved))
                if starting and generation in self._processes:
                    # It may still be importing the app, and not listen.
                    self._processes[generation].signal(signal.SIGTERM)
            case events.KillProcess(generation):
                if generation in self._processes:
                    self._processes[generation].signal(signal.SIGKILL)
            case events.Stalled(generation, is_stalled):
                self._relay.stalled(generation, is_stalled)
            case events.Buried(generation, reason):
                self._relay.gone(generation, reason)
            case events.Log(level, text):
                logger.log(_LEVELS[level], "%s", text)
            case events.Exit(status):
                self._status = status
            case _:
                assert_never(action)

    # --- children

    def _start(self, generation: int, slot: int, restart_round: int) -> None:
        run = self._run
        # The first helper has the slot -1.
        helper = run.helpers[-slot - 1] if slot < 0 else None
        sockets = run.sockets if helper is None else ()
        try:
            kin = words.Kin(multiprocess.for_children(), f"SpawnProcess-{generation}", *self._tracker.fds())
            inherited = (kin.tracker_fd, kin.sentinel_fd)
            process = WorkerProcess(generation, sockets, run.settings.pipe_bytes, inherited)
        except OSError as error:
            reason = f"A worker process can't be started: {describe_refusal(error)}"
            self._post(events.Said(generation, words.Failed(reason)))
            self._post(events.Exited(generation, 1, "could not be started"))
            return
        self._processes[generation] = process
        self._pipe_watch.saw(process.pipe_bytes)
        kind = WORKER if helper is None else helper.kind
        worker = Worker(process.pid, slot, generation, kind, run.settings.node)
        self._relay.connect(worker, restart_round)
        self._relay.tell(
            generation,
            words.Handover(slot, generation, run.settings, run.interpreter, run.uvicorn, kin, helper),
        )
        self._loop.add_reader(process.lifeline, self._read_lifeline, generation)
        self._post(events.Started(generation, process.pid))

    def _reap(self) -> None:
        if os.getpid() == 1:
            self._reap_everybody()
        self._tracker.reap()
        for generation, process in list(self._processes.items()):
            status = process.reap()
            if status is not None:
                self._bury(generation, status)

    def _reap_everybody(self) -> None:
        """As PID 1, the parent of every orphan: leave no zombie."""
        by_pid = {process.pid: process for process in self._processes.values()}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in by_pid:
                by_pid[pid].reaped(os.waitstatus_to_exitcode(status))

    def _bury(self, generation: int, status: int) -> None:
        # Its last words count before its end.
        self._read_lifeline(generation)
        lifeline = self._processes[generation].lifeline
        self._loop.remove_reader(lifeline)
        self._loop.remove_writer(lifeline)
        self._post(events.Exited(generation, status, describe_status(status)))

    # --- lifelines

    def _read_lifeline(self, generation: int) -> None:
        process = self._processes[generation]
        if process.lifeline.fileno() < 0:
            return
        try:
            said, ended = process.read_words()
        except words.WordError as error:
            logger.error("Worker [%d] sent bytes that are no word (%s); ending it.", process.pid, error)
            self._loop.remove_reader(process.lifeline)
            process.signal(signal.SIGKILL)
            return
        for word in said:
            self._hear(generation, word)
        if ended:
            # Its process is about to end, and is reaped then.
            self._loop.remove_reader(process.lifeline)

    def _hear(self, generation: int, word: words.ToLauncher) -> None:
        if not isinstance(word, words.ToRelay):
            self._post(events.Said(generation, word))
            return
        reach = self._relay.hear(generation, word, self._loop.time())
        if reach is not None:
            tell_reach(self._processes[generation].pid, self._processes[reach.of].pid, reach.is_reached)
        self._wake.set()

    def _write_lifeline(self, generation: int) -> None:
        """Write the relay's words for that worker, as far as the kernel takes them."""
        process = self._processes.get(generation)
        if process is None or process.lifeline.fileno() < 0:
            return
        self._loop.remove_writer(process.lifeline)
        while (item := self._relay.next_item(generation)) is not None:
            owner = None if item.write_end_of is None else self._processes.get(item.write_end_of)
            try:
                process.write_word(words.encode_word(item.word), owner)
            except LifelineFullError as full:
                if full.begun:
                    self._relay.began(generation)
                if full.soon:
                    self._loop.call_later(SOON_S, self._wake.set)
                else:
                    self._loop.add_writer(process.lifeline, self._write_lifeline, generation)
                return
            except OSError:
                # It has closed its end: it is dead or about to die, and reaped soon.
                return
            self._relay.wrote(generation)
            self._wake.set()
