"""The program of a worker process: worker/main.py without uvicorn, and an app that talks.

Law: `boot` and `main` do the same as worker/main.py, in its order, with the shipped Lifeline, Assignment and
IPC; there is no other way into the package. This file keeps the observations of the probes, and decides
nothing by them.
"""

from __future__ import annotations

import asyncio
import random
from contextvars import Context
from typing import TYPE_CHECKING, Final

from asgi_ipc import IPC
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.words import Ready, Retiring
from asgi_ipc.worker import lifeline as lifeline_module
from asgi_ipc.worker.assignment import Assignment
from asgi_ipc.worker.descriptors import Descriptor
from tests.faults.simulation.app import App
from tests.faults.simulation.files import SocketEnd
from tests.faults.simulation.kernel import Process
from tests.faults.simulation.loop import SimLoop
from tests.faults.simulation.oracle import Exit
from tests.faults.simulation.plan import Step

if TYPE_CHECKING:
    from tests.faults.simulation.world import World

# A word begins with its length (see fleet/words.py).
_LENGTH_BYTES: Final = 4


class Program:
    """One worker process, from its first instruction to its exit."""

    def __init__(self, world: World, process: Process, fds: list[int]) -> None:
        self.process = process
        self.generation = process.number
        self.loop = SimLoop(world.kernel, process, world.on_error)
        self.assignment: Assignment | None = None
        self.app: App | None = None
        self._world = world
        self.lifeline_fd, self.pipe_fd, self.arena_fd = fds
        self.started_at = world.kernel.now
        self._chance = random.Random(world.plan.seed * 1_000 + process.number)
        self._stop = asyncio.Event()
        self._may_boot = False
        # --- what the probes see
        self.has_asked = False
        self.is_welcome = False
        self.has_entered = False
        self.is_ready = False
        self.has_left = False
        self.has_eof = False
        self.has_drained = False
        self.is_clean = True
        self.was_heard_out = False
        # The members that it knows, those whose write ends are missing, and those that may not know this
        # worker.
        self.heard_of: dict[int, Worker] = {}
        self.owed: set[int] = set()
        self.arrived: set[int] = set()
        self.missing: set[int] = set()
        self.gone: dict[int, str] = {}
        self.tooks_sent = 0
        self.tooks_heard = 0
        # Accepted messages that never left its outbox, by receiver: in all, and at the end of its leave.
        self.lost: dict[int, int] = {}
        self.unsent: dict[int, int] = {}
        self.joined: set[int] = set()
        self.was_judged_stalled = False

    # --- the process

    def wake(self) -> None:
        """The interpreter has started; the handover may be read when it is there."""
        self._may_boot = True

    def is_due(self) -> bool:
        """Return whether a turn would do something."""
        return self.loop.is_due() or (self._may_boot and self._has_handover())

    def turn(self) -> None:
        """Boot, or one turn of the loop."""
        if self._may_boot and self._has_handover():
            self._may_boot = False
            self._boot()
        else:
            self.loop.turn()

    def terminate(self) -> None:
        """SIGTERM: before the app is started it ends the process, later it asks it to stop."""
        if self.app is None:
            self._world.kernel.end(self.process, 0)
        else:
            self._stop.set()

    def steps(self) -> list[Step]:
        """The steps of the protocol that this worker is in."""
        steps: list[Step] = []
        if self.assignment is None or self.owed:
            steps.append("handover")
        if self.has_asked and not self.has_entered:
            steps.append("join word")
        if self._world.ledger.wire.is_mid_fragment(self.generation):
            steps.append("mid-fragment")
        if self.has_left and not self.has_eof:
            steps.append("leaving")
        if self.has_eof and not self.has_drained:
            steps.append("EOF")
        if self.tooks_sent > self.tooks_heard:
            steps.append("acknowledgement")
        return steps

    def retire(self) -> None:
        """It has served as many requests as it may."""
        if self.is_ready and self.assignment is not None and not self._stop.is_set():
            self.assignment.lifeline.send(Retiring())

    def _has_handover(self) -> bool:
        """Return whether a blocking read would get all of it, or the end of file."""
        end = self.process.fds[self.lifeline_fd]
        assert isinstance(end, SocketEnd)
        unread = end.unread()
        whole = _LENGTH_BYTES + int.from_bytes(unread[:_LENGTH_BYTES], "little")
        return len(unread) >= max(whole, _LENGTH_BYTES + 1) or not end.peer.holders

    # --- its code

    def _boot(self) -> None:
        """As `main` in worker/main.py, up to the loop."""
        lifeline = lifeline_module.Lifeline(self.lifeline_fd)
        try:
            handover = lifeline.handover()
        except EOFError:
            self._world.kernel.end(self.process, 1)
            return
        if handover.generation != self.generation:
            self._world.fail(f"generation {handover.generation} runs in process {self.generation}")
        me = Worker(self.process.pid, handover.slot, handover.generation)
        self.heard_of[self.generation] = me
        self.assignment = Assignment(
            lifeline, Descriptor(self.pipe_fd), Descriptor(self.arena_fd), me, handover.settings
        )
        self.loop.create_task(self._main(), context=Context())

    async def _main(self) -> None:
        try:
            await self._serve()
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the failure that is looked for
            if self.process.is_alive:
                self._world.fail(f"{self.process.name} raises {error!r}")
        self._world.kernel.exit(self.process, 0)

    async def _serve(self) -> None:
        """As `WorkerServer.serve`: attach, start the app, serve, stop it."""
        given = self.assignment
        assert given is not None
        given.attach(self._stop.set)
        # The app is imported and started meanwhile.
        await asyncio.sleep(self._chance.choice([0.0, 0.001, 0.05]))
        self.app = App(self._world, self, IPC(), self._chance)
        async with self.app.ipc.lifespan():
            endpoint = self.app.ipc._own.endpoint
            self.app.serve()
            given.lifeline.send(Ready())
            self.is_ready = True
            await self._stop.wait()
            await self.app.finish()
        self._world.ledger.exits[self.generation] = Exit(
            "left" if self.is_clean else "drain_timeout", self.lost, dict(endpoint.stats().dropped)
        )
        self._world.checks.leaver(self)

    @property
    def is_stopping(self) -> bool:
        """Return whether it was asked to stop."""
        return self._stop.is_set()
