"""The app: the messages of the workers, and their handlers.

Law: it knows only the public API. Every call of a verb and of a handler is
entered into the ledger; the number in the data makes each message unique.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asgi_ipc import IPC, DeliveryError, NotRunningError, Worker
from tests.faults.simulation.oracle import LANE, Offer

if TYPE_CHECKING:
    from tests.faults.simulation.program import Program
    from tests.faults.simulation.world import World

# How messages are named, and how often: a plain handler, a slow one, an ordered one, two that answer.
_NAMES = ["note", "note", "slow", LANE, "ask", "ask quickly"]

# How long the leader's task takes to end.
LEADING_ENDS_S: Final = 0.01


class App:
    """The app of one worker."""

    def __init__(self, world: World, program: Program, ipc: IPC, chance: random.Random) -> None:
        self.ipc = ipc
        self._world = world
        self._ledger = world.ledger
        self._traffic = world.plan.traffic
        self._program = program
        self._chance = chance
        self._talkers: list[asyncio.Task[None]] = []
        # Incarnations that it once knew: they must never be reached again, nor their successors for them.
        self._once_known: list[Worker] = []
        ipc.receive({name: partial(self._heard, name) for name in ("note", "answer")})
        ipc.receive("ask quickly", self._ask_quickly)
        ipc.receive({"slow": self._slow, "ask": self._ask})
        ipc.receive(LANE, self._lane, ordered=True)
        ipc.on_join(self._on_join)
        ipc.on_leave(self._on_leave)
        ipc.leader_task(self._lead)

    # --- its life

    def serve(self) -> None:
        """Begin to talk."""
        for _ in range(self._traffic.talkers):
            self._talkers.append(asyncio.create_task(self._talk()))
        # No code ends this task: it goes on while the lifespan ends, and the verbs refuse it then.
        self._rambler = asyncio.create_task(self._talk(until_refused=True))

    async def finish(self) -> None:
        """Let what was begun come to its end, as a server lets its requests."""
        if self._talkers:
            await asyncio.wait(self._talkers)

    async def roll_call(self) -> None:
        """Broadcast to all, once."""
        await self._broadcast("note", 5.0)

    # --- verbs

    async def _talk(self, *, until_refused: bool = False) -> None:
        for _ in range(self._traffic.verbs):
            await asyncio.sleep(self._chance.random() * self._traffic.pause_s)
            if self._program.is_stopping and not until_refused:
                return
            name = self._chance.choice(_NAMES)
            timeout_s = self._chance.choice([5.0, 5.0, 0.02])
            try:
                if self._chance.random() < self._traffic.broadcast_chance:
                    await self._broadcast(name, timeout_s)
                else:
                    await self._send(name, timeout_s)
            except NotRunningError:
                return

    async def _send(self, name: str, timeout_s: float) -> None:
        ipc = self.ipc
        members = ipc.workers
        to = self._chance.choice(members)
        if self._once_known and self._chance.random() < 0.1:
            to = self._chance.choice(self._once_known)
        self._once_known.append(to)
        offer = self._offer(name, [to.generation])
        address = to if to not in members or self._chance.random() < 0.5 else to.pid
        with self._settling(offer) as took:
            if self._chance.random() < 0.3:
                ipc.send_nowait(address, name, offer.data)
            else:
                await ipc.send(address, name, offer.data, timeout=timeout_s)
            took.extend(offer.receivers)

    async def _broadcast(self, name: str, timeout_s: float) -> None:
        ipc = self.ipc
        members = {worker.pid: worker.generation for worker in ipc.workers}
        offer = self._offer(name, members.values())
        due = self._world.checks.due_to_hear(self._program)
        began = self._world.kernel.now
        pids = None
        with self._settling(offer) as took:
            if self._chance.random() < 0.3:
                pids = ipc.broadcast_nowait(name, offer.data)
            else:
                pids = await ipc.broadcast(name, offer.data, timeout=timeout_s)
            took.extend(members[pid] for pid in pids)
        if pids is not None and self._world.kernel.now - began < timeout_s:
            self._world.checks.broadcast(self._program, offer, pids, due)

    @contextmanager
    def _settling(self, offer: Offer) -> Iterator[list[int]]:
        """Enter into the ledger who took what the verb offers; a refusal is not raised any further."""
        took: list[int] = []
        try:
            yield took
        except NotRunningError:
            self._ledger.settle(offer, ())
            raise
        except DeliveryError:
            self._ledger.settle(offer, ())
        else:
            self._ledger.settle(offer, took)

    def _offer(self, name: str, receivers: Iterable[int]) -> Offer:
        offer = self._ledger.offer(self._program.generation, name, receivers, self._make)
        self._world.note("offers %s %d to %s", name, offer.number, sorted(offer.receivers))
        return offer

    def _make(self, number: int) -> Any:
        """Data that says who made it, of any size, as str or bytes or a list."""
        traffic = self._traffic
        size_bytes = 0
        if self._chance.random() < traffic.large_chance:
            size_bytes = self._chance.randint(traffic.large_bytes // 3, traffic.large_bytes)
        text = f"{self._program.generation}:{number}:"
        text += text * (size_bytes // len(text))
        return text if number % 2 else text.encode()

    # --- handlers

    def _heard(self, name: str, data: Any) -> int:
        """A message has come; the generation that sent it."""
        text = data if isinstance(data, str) else bytes(data).decode()
        sender, number = map(int, text.split(":", 2)[:2])
        self._world.checks.heard(self._program, sender, number, name, data)
        return sender

    async def _slow(self, data: Any) -> None:
        self._heard("slow", data)
        await asyncio.sleep(self._chance.random() * self._traffic.slow_s)

    async def _lane(self, data: Any) -> None:
        self._heard(LANE, data)
        await asyncio.sleep(self._chance.random() * self._traffic.slow_s)

    async def _ask(self, data: Any) -> None:
        sender = self._heard("ask", data)
        if self._chance.random() < 0.3:
            await asyncio.sleep(self._chance.random() * self._traffic.slow_s)
        offer = self._offer("answer", [sender])
        with suppress(NotRunningError), self._settling(offer) as took:
            await self.ipc.reply("answer", offer.data)
            took.extend(offer.receivers)

    def _ask_quickly(self, data: Any) -> None:
        offer = self._offer("answer", [self._heard("ask quickly", data)])
        with suppress(NotRunningError), self._settling(offer) as took:
            self.ipc.reply_nowait("answer", offer.data)
            took.extend(offer.receivers)

    # --- what only one may do

    async def _lead(self) -> None:
        self._world.checks.begins_to_lead(self._program)
        try:
            await asyncio.Event().wait()
        finally:
            if self._program.process.is_alive:
                # Its end takes a while.
                await asyncio.sleep(LEADING_ENDS_S)
                self._world.checks.has_led(self._program)

    # --- who comes and goes

    def _on_join(self, worker: Worker) -> None:
        self._world.checks.told_of_join(self._program, worker)

    def _on_leave(self, worker: Worker, reason: str, lost: int) -> None:
        self._world.checks.told_of_leave(self._program, worker, reason, lost)
