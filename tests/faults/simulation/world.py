"""The world: a launcher and its workers on one kernel; a seeded scheduler deals out their turns.

Law: the plan alone decides which process goes on, when time passes and which process dies; two runs of one
seed are the same to the last event. A run ends by itself: too much time or too many turns is a failure.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from asgi_ipc.fleet.settings import Settings
from asgi_ipc.fleet.slots import Policy
from asgi_ipc.fleet.words import Interpreter
from asgi_ipc.launcher.launcher import Launch, Launcher
from asgi_ipc.worker import assignment
from tests.faults.simulation.checks import Checks
from tests.faults.simulation.fate import Fate
from tests.faults.simulation.files import ReadEnd, WriteEnd
from tests.faults.simulation.install import installed
from tests.faults.simulation.kernel import Kernel, Killed, Process, Watch
from tests.faults.simulation.loop import SimLoop
from tests.faults.simulation.memory import Memory
from tests.faults.simulation.oracle import Exit, Ledger
from tests.faults.simulation.plan import Plan
from tests.faults.simulation.probes import Probes
from tests.faults.simulation.program import Program

# More turns than any run needs by far: a process spins.
MAX_TURNS: Final = 60_000

# A newcomer waits up to 6 s, a verb 5 s, a stop stops for 6 s, and a slot that died twice waits 1 s.
SETTLE_S: Final = 60.0

# Requests end within the 5 s of a verb, the drain after 10 s.
STOP_S: Final = 40.0

COOKIE: Final = b"simulate"


class World:
    """One run. `failures` is empty if all that is promised has held."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.failures: list[str] = []
        self.events: Counter[str] = Counter()
        self.kills: Counter[str] = Counter()
        self.programs: dict[int, Program] = {}
        self.ledger = Ledger(self.fail)
        self.chance = random.Random(plan.seed)
        self.fate = Fate(self)
        watch = Watch(self._wrote, self._read, self._ended, self._signalled, self.fate.strikes, self.fail)
        self.kernel = Kernel(plan.limits, self.chance, watch)
        self.checks = Checks(self)
        self.parent = self.kernel.spawn({})
        self.status: int | None = None
        self._parent_loop = SimLoop(self.kernel, self.parent, self.on_error)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._turns = 0
        self._last: Process | None = None
        self._dead: list[Process] = []
        self._roll_calls: list[asyncio.Task[None]] = []

    # --- for all parts of the simulation

    def fail(self, text: str) -> None:
        """A promise is broken."""
        self.kernel.note("oracle", "%s", text)
        self.failures.append(text)

    def note(self, what: str, *values: object) -> None:
        """A line for the trace, of the process that runs."""
        current = self.kernel.current
        self.kernel.note(current.name if current is not None else "world", what, *values)

    def count(self, event: str) -> None:
        """An event that is looked for has happened."""
        self.note("here is %s", event)
        self.events[event] += 1

    def running(self) -> Program:
        """The worker that runs; what a dead one unwinds is not looked at."""
        current = self.kernel.current
        assert current is not None
        if not current.is_alive:
            raise Killed
        return self.programs[current.number]

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Run a function outside of any process."""
        self._serial += 1
        heapq.heappush(self._due, (self.kernel.now + seconds, self._serial, callback))

    # --- the run

    def run(self) -> None:
        """From the launcher's first turn to the last one's end, and the verdict."""
        with installed(self.kernel, self.plan, self._started, self._logged) as stack:
            self.probes = Probes(self, stack)
            try:
                self._begin()
                self._play()
            finally:
                for process in self.kernel.processes:
                    if process.is_alive:
                        self.kernel.end(process, -signal.SIGKILL)
                self.kernel.current = None
                self._bury_dead()
        if not self.failures:
            self.checks.after_all()
            self.ledger.judge()

    def _begin(self) -> None:
        settings = Settings(
            cookie=COOKIE,
            max_packet_bytes=self.plan.packet_bytes,
            max_message_bytes=self.plan.bounds.outbox_bytes,
            drain_timeout=self.plan.drain_timeout_s,
        )
        policy = Policy(self.plan.workers, self.plan.hang_timeout_s)
        self._parent_loop.create_task(self._launch(Launch(policy, (), settings, Interpreter([]), {})))
        self._turn(self.parent)
        for act in self.plan.acts:
            self.later(act.when, partial(self.fate.perform, act))

    async def _launch(self, run: Launch) -> None:
        try:
            self.status = await Launcher(run).run()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the failure that is looked for
            if self.parent.is_alive:
                self.fail(f"the launcher raises {error!r}")
        if self.parent.fds:
            self.fail(f"the launcher leaves descriptors open: {self.parent.fds}")
        self.kernel.exit(self.parent, self.status or 0)

    def _play(self) -> None:
        story = self._story()
        until, limit, text = next(story)
        deadline = self.kernel.now + limit
        while not self.failures:
            while self._due and self._due[0][0] <= self.kernel.now:
                heapq.heappop(self._due)[2]()
                self._bury_dead()
            process = self._choose()
            if process is not None:
                self._turn(process)
                self.kernel.now += self.chance.random() * self.plan.turn_s
                continue
            if until():
                chapter = next(story, None)
                if chapter is None:
                    return
                until, limit, text = chapter
                deadline = self.kernel.now + limit
                continue
            if self.kernel.now > deadline:
                self.fail(f"after {limit:g} s: {text}")
            self._pass_time()

    def _story(self) -> Iterator[tuple[Callable[[], bool], float, str]]:
        """The awaited condition, the time limit, and the failure if it does not come."""
        last = max((act.when + act.seconds for act in self.plan.acts), default=0.0)
        yield lambda: self.kernel.now >= last or self._is_over(), SETTLE_S, "time stands still"
        yield lambda: self._is_ending() or self.checks.is_settled(), SETTLE_S, "the fleet has not settled"
        if not self._is_ending():
            self.checks.settled()
            self._roll_calls = self._call_roll()
            yield lambda: all(map(_is_done, self._roll_calls)), SETTLE_S, "a roll call has not ended"
            text = "a block of somebody's arena is never free again"
            yield lambda: self._is_ending() or self.checks.arenas_are_empty(), SETTLE_S, text
        if not self._is_ending():
            self.fate.terminate()
        yield self._is_over, STOP_S, "not all processes have ended"

    def _call_roll(self) -> list[asyncio.Task[None]]:
        tasks = []
        for program in self.programs.values():
            if program.process.is_alive and program.app is not None:
                tasks.append(program.loop.create_task(program.app.roll_call()))
        return tasks

    def _is_ending(self) -> bool:
        return self.fate.has_terminated or not self.parent.is_alive

    def _is_over(self) -> bool:
        return not any(process.is_alive for process in self.kernel.processes)

    # --- turns and time

    def _choose(self) -> Process | None:
        """Return the process that goes on; None if none has anything to do now."""
        if self._last is not None and self.chance.random() < self.plan.sticky and self._is_due(self._last):
            return self._last
        processes = self.kernel.processes
        start = self.chance.randrange(len(processes))
        for place in range(len(processes)):
            process = processes[start - place]
            if self._is_due(process):
                return process
        return None

    def _is_due(self, process: Process) -> bool:
        if not process.is_alive or process.is_stopped:
            return False
        return self.programs[process.number].is_due() if process.number else self._parent_loop.is_due()

    def _turn(self, process: Process) -> None:
        self._turns += 1
        if self._turns > MAX_TURNS:
            self.fail(f"{MAX_TURNS} turns, and no end")
            return
        self._last = self.kernel.current = process
        program = self.programs.get(process.number)
        assignment.current = program.assignment if program is not None else None
        try:
            if self.fate.strikes(process):
                self.kernel.end(process, -signal.SIGKILL)
            elif program is not None:
                program.turn()
            else:
                self._parent_loop.turn()
        except Killed:
            pass
        finally:
            self.kernel.current = assignment.current = None
        self._bury_dead()

    def _bury_dead(self) -> None:
        """Unwind what the dead were doing, when nothing of theirs runs any more."""
        while self._dead:
            process = self._dead.pop()
            self.kernel.current = process
            self._loop(process).bury()
            self.kernel.current = None

    def _pass_time(self) -> None:
        """Go on to the next timer, since no process has anything to do."""
        times = [self._due[0][0]] if self._due else []
        for process in self.kernel.processes:
            if process.is_alive and not process.is_stopped:
                timer = self._loop(process).next_timer()
                if timer is not None:
                    times.append(timer)
        if not times:
            self.fail("everybody waits for ever")
            return
        self.kernel.now = max(self.kernel.now, min(times))

    def _loop(self, process: Process) -> SimLoop:
        return self.programs[process.number].loop if process.number else self._parent_loop

    # --- what the kernel tells

    def _started(self, process: Process, fds: list[int]) -> None:
        program = self.programs[process.number] = Program(self, process, fds)
        if program.arena_fd >= 0:
            arena = process.file(program.arena_fd)
            assert isinstance(arena, Memory)
            self.ledger.wire.arenas[process.number] = arena.content
        self.later(self.chance.random() * self.chance.choice([0.0, 0.05]), program.wake)

    def _wrote(self, process: Process, end: WriteEnd, data: bytes) -> None:
        self.note("writes %d bytes: %s", len(data), self.ledger.wire.wrote(data))

    def _read(self, process: Process, end: ReadEnd, chunk: bytes, writers: set[int]) -> None:
        program = self.programs[process.number]
        if not chunk:
            program.has_eof = True
        self.probes.read(program, writers)

    def _ended(self, process: Process) -> None:
        self._dead.append(process)
        if not process.number:
            return
        program = self.programs[process.number]
        if process.status < 0:
            self.kills.update(program.steps())
            self.ledger.exits[process.number] = Exit("killed")
        elif process.number not in self.ledger.exits:
            self.ledger.exits[process.number] = Exit("never joined")
        self.later(self.chance.random() * self.chance.choice([0.001, 0.05]), self._tell_parent)

    def _tell_parent(self) -> None:
        if self.parent.is_alive:
            self._parent_loop.signal(signal.SIGCHLD)

    def _signalled(self, process: Process, number: int) -> None:
        if not process.number:
            self._parent_loop.signal(number)
        elif number == signal.SIGKILL and self.kernel.current is self.parent:
            # Before a second SIGTERM that is the only reason which it has.
            self.programs[process.number].was_judged_stalled = self.fate.terminations < 2
        elif number == signal.SIGTERM:
            self.programs[process.number].terminate()

    def _logged(self, record: logging.LogRecord) -> None:
        self.note("logs: %s", record.getMessage())
        self.checks.logged(record)

    def on_error(self, context: dict[str, Any]) -> None:
        """Note an uncaught exception of a callback or a task."""
        self.fail(f"{context.get('message')}: {context.get('exception')!r}")


def _is_done(task: asyncio.Task[None]) -> bool:
    return task.done() or task.get_loop().is_closed()
