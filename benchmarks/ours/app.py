"""The app that is measured: every worker of `asgi-ipc serve` is a party.

Law: only public names of `asgi_ipc`. The timed code is a loop over one verb in the sender and one handler in
each receiver, as an app would write them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

from msgspec import structs
from starlette.applications import Starlette

from asgi_ipc import WouldBlockError, ipc
from benchmarks.control import RUN_TIMEOUT_S, SOCKET_VARIABLE, Facts, Order, obey
from benchmarks.ours.load import Load
from benchmarks.ours.subscribers import TOPIC, Subscribers
from benchmarks.party import LoopParty, check_answer, turns

# How long a sender waits when an outbox is full: a fraction of the time that 32 MiB take.
BACKOFF_S: Final = 0.001


class OurParty(LoopParty):
    """A worker."""

    def __init__(self) -> None:
        super().__init__(ipc.slot)
        self._load = Load()
        self._subscribers = Subscribers()
        self._asked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._troubles_before: dict[str, int] = {}
        self._joined = asyncio.Event()
        ipc.on_join(lambda worker: self._joined.set())
        ipc.receive({"answer": self._answered, "load-end": lambda _: self._load.end()})
        ipc.receive("echo", lambda data: data)

    async def open(self, order: Order) -> None:
        """Wait until all are members here; register what handles the run's messages."""
        while not {worker.pid for worker in ipc.workers}.issuperset(order.pids):
            self._joined.clear()
            await self._joined.wait()
        inbox = self.inbox
        ipc.receive("message", inbox.take if order.handler == "plain" else inbox.take_async)
        ipc.receive("question", _answer_nowait if order.verb == "nowait" else _answer)
        self._load.open()
        if self.index in order.receivers:
            await self._subscribers.open(order)
        self._troubles_before = _troubles()

    async def send(self, order: Order, messages: Iterable[bytes]) -> None:
        """With the verb of the case."""
        if order.burst:
            await _broadcast_in_bursts(order, self.index, messages)
            return
        match order.pattern == "one", order.verb:
            case True, "nowait":
                await _send_nowait(order.pids[1], messages)
            case True, _:
                await _send(order.pids[1], messages)
            case _, "nowait":
                await _broadcast_nowait(messages)
            case _:
                await _broadcast(messages)

    async def ask(self, order: Order, messages: Iterable[bytes]) -> list[int]:
        """Await the answer of each question, in one coroutine."""
        if order.verb in ("request", "gather"):
            times_ns = await (_request if order.verb == "request" else _gather)(order.pids[1], messages)
        else:
            times_ns = await self._ask(order, messages)
        if order.load_per_s:
            await ipc.send(order.pids[2], "load-end")
        return times_ns

    async def _ask(self, order: Order, messages: Iterable[bytes]) -> list[int]:
        """With a message or a publication, and another one back."""
        pid, create_future, now_ns = (
            order.pids[1],
            asyncio.get_running_loop().create_future,
            time.monotonic_ns,
        )
        times_ns: list[int] = []
        for data in messages:
            asked = self._asked = create_future()
            started_ns = now_ns()
            if order.verb == "nowait":
                ipc.send_nowait(pid, "question", data)
            elif order.verb == "publish":
                await ipc.publish(TOPIC, data)
            else:
                await ipc.send(pid, "question", data)
            answer = await asked
            times_ns.append(now_ns() - started_ns)
            check_answer(data, answer)
        return times_ns

    def _answered(self, data: bytes) -> None:
        self._asked.set_result(data)

    async def perform(self, order: Order) -> Facts:
        """As every party; and what was dropped meanwhile, which must be nothing."""
        facts = await super().perform(order)
        if order.load_per_s:
            async with asyncio.timeout(RUN_TIMEOUT_S):
                await self._finish_load(order)
        before = self._troubles_before
        now = {**_troubles(), **self._load.troubles}
        return structs.replace(
            facts,
            troubles={why: now[why] - before.get(why, 0) for why in now if now[why] != before.get(why, 0)},
        )

    async def _finish_load(self, order: Order) -> None:
        """The third worker is the load, until the first one has its answers; the second one checks it."""
        if self.index == 2:
            await self._load.send(order.pids[1], order.load_per_s)
        elif self.index == 1:
            await self._load.done.wait()


def _troubles() -> dict[str, int]:
    stats = ipc.stats()
    return {**stats.dropped, "discarded": stats.discarded, "handler errors": stats.handler_errors}


# --- the loops that are timed


async def _send(pid: int, messages: Iterable[bytes]) -> None:
    send = ipc.send
    for data in messages:
        await send(pid, "message", data)


async def _send_nowait(pid: int, messages: Iterable[bytes]) -> None:
    send = ipc.send_nowait
    for some in turns(messages):
        for data in some:
            try:
                send(pid, "message", data)
            except WouldBlockError:
                await _when_there_is_room(send, pid, "message", data)
        await asyncio.sleep(0)


async def _request(pid: int, messages: Iterable[bytes]) -> list[int]:
    request, now_ns = ipc.request, time.monotonic_ns
    times_ns: list[int] = []
    for data in messages:
        started_ns = now_ns()
        answer = await request(pid, "echo", data)
        times_ns.append(now_ns() - started_ns)
        check_answer(data, answer)
    return times_ns


async def _gather(_: int, messages: Iterable[bytes]) -> list[int]:
    others = len(ipc.workers) - 1
    times_ns: list[int] = []
    for data in messages:
        started_ns = time.monotonic_ns()
        answers = await ipc.gather("echo", data, include_self=False)
        times_ns.append(time.monotonic_ns() - started_ns)
        check_answer([data] * others, [*answers.values()])
    return times_ns


async def _broadcast(messages: Iterable[bytes]) -> None:
    broadcast = ipc.broadcast
    for data in messages:
        await broadcast("message", data, include_self=False, timeout=None)


async def _broadcast_nowait(messages: Iterable[bytes]) -> None:
    broadcast = ipc.broadcast_nowait
    for some in turns(messages):
        for data in some:
            try:
                broadcast("message", data, include_self=False)
            except WouldBlockError:
                await _when_there_is_room(broadcast, "message", data, include_self=False)
        await asyncio.sleep(0)


async def _broadcast_in_bursts(order: Order, index: int, messages: Iterable[bytes]) -> None:
    broadcast, loop = ipc.broadcast_nowait, asyncio.get_running_loop()
    # The parties take turns.
    due_s = loop.time() + index * order.pause_s / len(order.pids)
    for some in turns(messages, order.burst):
        await asyncio.sleep(due_s - loop.time())
        for data in some:
            broadcast("message", data, include_self=False)
        due_s += order.pause_s


async def _when_there_is_room(verb: Any, *values: Any, **options: Any) -> None:
    while True:
        await asyncio.sleep(BACKOFF_S)
        with suppress(WouldBlockError):
            verb(*values, **options)
            return


async def _answer(data: bytes) -> None:
    """As an app's async handler does."""
    await ipc.reply("answer", data)


def _answer_nowait(data: bytes) -> None:
    """As an app's plain handler does."""
    ipc.reply_nowait("answer", data)


@asynccontextmanager
async def lifespan(app: object) -> AsyncIterator[None]:
    """Be a worker, and a party for as long."""
    async with ipc.lifespan(app):
        task = asyncio.create_task(obey(OurParty(), ipc.slot, os.environ[SOCKET_VARIABLE]))
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


app = Starlette(lifespan=lifespan)
