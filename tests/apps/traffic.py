"""An app whose workers never stop talking: to one, to all, in replies, small and large.

Law: every message offered, accepted and delivered goes into the ledger, and every event of the fleet into the
worker's notes. The traffic goes on until the verbs refuse, so a worker sends while it leaves.
"""

from __future__ import annotations

import asyncio
import os
import random
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import DeliveryError, NotRunningError, Worker, ipc
from asgi_ipc.worker import assignment
from tests.faults.ledger import ACCEPTED, REFUSED, Ledger, Notes

FOLDER = Path(os.environ["TRAFFIC_FOLDER"])
# Seconds between two bursts of one talker; two talkers a worker.
PAUSE_S = float(os.environ.get("TRAFFIC_PAUSE_S", "0.002"))
# Seconds between two looks at the event loop's clock.
LAG_S = float(os.environ.get("TRAFFIC_LAG_S", "0.005"))
LARGE_BYTES = int(os.environ.get("TRAFFIC_LARGE_BYTES", str(1024 * 1024)))
LARGE_SHARE = float(os.environ.get("TRAFFIC_LARGE_SHARE", "0.002"))

# One body is a list of the sender's generation, its sequence, and its own bytes.
Body = list[Any]


class State:
    """This worker's ledger and counters."""

    ledger: Ledger
    notes: Notes
    generation = 0
    sequence = 0
    members: tuple[Worker, ...] = ()
    random = random.Random()
    # How late a timer of LAG_S was, in ms, rounded up: a histogram.
    lag: ClassVar[Counter[int]] = Counter()


def body_of(size_bytes: int) -> tuple[Body, int, int]:
    """A message, its checksum and its size, which is rounded down to a multiple of 16."""
    data = State.random.randbytes(16) * (size_bytes // 16)
    sequence, State.sequence = State.sequence, State.sequence + 1
    return [State.generation, sequence, data], zlib.crc32(data, sequence & 0xFFFFFFFF), len(data)


def _body() -> tuple[Body, int, int]:
    """A small message, or now and then a large one."""
    large = State.random.random() < LARGE_SHARE
    if large:
        State.notes.write("large")
    return body_of(LARGE_BYTES if large else State.random.randrange(0, 300))


@contextmanager
def offering(receiver: int, offer: tuple[Body, int, int]) -> Iterator[Body]:
    """Keep the books of a message around the verb that sends it."""
    body, checksum, size = offer
    place = State.ledger.offer(receiver, body[1], checksum, size)
    try:
        yield body
    except (DeliveryError, NotRunningError):
        State.ledger.sent.settle(place, REFUSED)
        raise
    State.ledger.sent.settle(place, ACCEPTED)


def delivered(body: Body) -> None:
    """First thing in a handler: its message is here."""
    sender, sequence, data = body
    State.ledger.deliver(sender, sequence, zlib.crc32(data, sequence & 0xFFFFFFFF), len(data))


@ipc.receive("plain")
def plain(body: Body) -> None:
    delivered(body)


@ipc.receive("question")
async def question(body: Body) -> None:
    delivered(body)
    with suppress(DeliveryError, NotRunningError), offering(body[0], _body()) as answer:
        await ipc.reply("plain", answer)


@ipc.on_join
def joined(worker: Worker) -> None:
    State.notes.write("told_join", of=worker.generation)


@ipc.on_leave
async def left(worker: Worker, reason: str, lost: int) -> None:
    State.notes.write("told_leave", of=worker.generation, reason=reason, lost=lost)


def _note_removals() -> None:
    """Note the members that have gone; the oracle knows when each died."""
    members = ipc.workers
    if members is not State.members:
        for worker in set(State.members) - set(members):
            State.notes.write("removed", of=worker.generation)
        State.members = members


async def _send(worker: Worker, call: Callable[[Worker, str, Body], Any], name: str) -> None:
    with suppress(DeliveryError), offering(worker.generation, _body()) as body:
        waits = call(worker, name, body)
        if waits is not None:
            await waits


async def _broadcast(*, wait: bool) -> None:
    body, checksum, size = _body()
    # In the order of the members that `broadcast` reaches in this moment.
    places = {
        worker.pid: State.ledger.offer(worker.generation, body[1], checksum, size) for worker in ipc.workers
    }
    took: tuple[int, ...] = ()
    try:
        took = await ipc.broadcast("plain", body) if wait else ipc.broadcast_nowait("plain", body)
    except DeliveryError:
        pass
    finally:
        for pid, place in places.items():
            State.ledger.sent.settle(place, ACCEPTED if pid in took else REFUSED)


async def talk() -> None:
    """Send to one, and now and then to all, until refused."""
    chance = State.random.random
    while True:
        try:
            _note_removals()
            for worker in ipc.workers:
                call = ipc.send_nowait if chance() < 0.3 else ipc.send
                await _send(worker, call, "question" if chance() < 0.3 else "plain")
            if chance() < 0.2:
                await _broadcast(wait=chance() < 0.7)
            await asyncio.sleep(PAUSE_S)
        except NotRunningError:
            return


async def watch_lag() -> None:
    """Measure at intervals how late the event loop is."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_S
        await asyncio.sleep(LAG_S)
        State.lag[int((loop.time() - due) * 1000) + 1] += 1


@asynccontextmanager
async def keeping_books(app: Starlette) -> AsyncIterator[None]:
    """Take part in the fleet, with a ledger, notes and an eye on the event loop."""
    State.random.seed(os.getpid())
    assert assignment.current is not None
    State.generation = assignment.current.me.generation
    # Before any message comes: handlers run as soon as the lifespan has entered.
    State.ledger = Ledger(FOLDER, State.generation)
    State.notes = Notes(FOLDER, State.generation)
    State.notes.write("joining", slot=assignment.current.me.slot)
    async with ipc.lifespan(app):
        State.members = ipc.workers
        State.notes.write("joined", members=[worker.generation for worker in ipc.workers])
        watching = asyncio.create_task(watch_lag())
        endpoint = ipc._own.endpoint
        yield
        State.notes.write("leaving")
    watching.cancel()
    # Losses for which no callback ran: they happened at the end of this worker's own leave.
    lost = {peer.worker.generation: peer.lost for peer in endpoint.outgoing.peers.all() if peer.lost}
    State.notes.write("left", lost=lost)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with keeping_books(app):
        talking = [asyncio.create_task(talk()) for _ in range(2)]
        yield
    for task in talking:
        await task


async def who(request: Request) -> JSONResponse:
    return JSONResponse({"pid": ipc.pid, "received": ipc.stats().received})


app = Starlette(routes=[Route("/who", who)], lifespan=lifespan)
