"""An app whose workers press each other as hard as a test orders.

Law: the books and handlers of tests/apps/traffic.py, but a worker talks only on command. The ledger has every
message that is offered, accepted, refused and delivered.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import DeliveryError, NotRunningError, Worker, ipc
from tests.apps import traffic
from tests.apps.strings import by_name, obeying
from tests.apps.traffic import FOLDER, Body, State, body_of, delivered, keeping_books, offering

# How long a send waits for room; then it is refused, and the next one is tried.
PATIENCE_S: Final = 0.5

# Many to a packet, a few, and some packets for one.
SIZES_BYTES: Final = (96, 1024, 16 * 1024)

# Each message of a flood makes four on arrival: outboxes fill within moments, and stay full.
FAN_OUT: Final = 4


@dataclass(slots=True)
class Heard:
    """The messages of one sender since `listen`."""

    last_at: float
    messages: int = 0
    silence_s: float = 0.0

    def hear(self, now: float, messages: int = 1) -> None:
        self.silence_s = max(self.silence_s, now - self.last_at)
        self.messages += messages
        self.last_at = now


class Pressure:
    """The full-rate work of this worker, and its counts."""

    talking: ClassVar[list[asyncio.Task[None]]] = []
    is_quiet = False
    # By the sender's generation.
    heard: ClassVar[dict[int, Heard]] = {}
    listens_since = 0.0
    refused: ClassVar[Counter[str]] = Counter()
    # Deliveries and typed errors: a worker that has neither stands still.
    progress = Heard(0.0)
    # The messages of a flood, and the timeout of its sends.
    kinds: ClassVar[tuple[str, ...]] = ()
    sizes_bytes: ClassVar[tuple[int, ...]] = ()
    patience_s = PATIENCE_S


def _refused(error: Exception) -> str:
    name = type(error).__name__
    if not Pressure.refused:
        State.notes.write("full", error=name)
    Pressure.refused[name] += 1
    Pressure.progress.hear(time.monotonic(), 0)
    return name


async def send(worker: Worker, name: str, size_bytes: int, timeout_s: float = PATIENCE_S) -> str:
    """Offer one message and wait for room; the name of the error, or nothing."""
    try:
        with offering(worker.generation, body_of(size_bytes)) as body:
            await ipc.send(worker, name, body, timeout=timeout_s)
    except (DeliveryError, NotRunningError) as error:
        return _refused(error)
    return ""


def send_nowait(worker: Worker, name: str, size_bytes: int) -> str:
    """The same without waiting."""
    try:
        with offering(worker.generation, body_of(size_bytes)) as body:
            ipc.send_nowait(worker, name, body)
    except (DeliveryError, NotRunningError) as error:
        return _refused(error)
    return ""


def _others() -> list[Worker]:
    return [worker for worker in ipc.workers if worker.pid != ipc.pid]


# --- one presses another


@ipc.receive("press")
def pressed(body: Body) -> None:
    delivered(body)
    heard = Pressure.heard.get(body[0])
    if heard is None:
        heard = Pressure.heard[body[0]] = Heard(Pressure.listens_since)
    heard.hear(time.monotonic())


@ipc.receive("mark")
def marked(text: str) -> None:
    """Note a mark that comes after all earlier messages of its sender."""
    State.notes.write("marked", text=text, sender=ipc.sender)


async def _press(worker: Worker) -> None:
    while not Pressure.is_quiet:
        error = await send(worker, "press", State.random.choice(SIZES_BYTES))
        if error:
            State.notes.write("refused", to=worker.generation, error=error)
        if error not in ("", "SendTimeoutError"):
            return


async def press(to: int) -> None:
    """Send to the worker `to` at full rate, until a command to be quiet or a final refusal."""
    Pressure.is_quiet = False
    worker = next(worker for worker in ipc.workers if worker.pid == to)
    Pressure.talking.append(asyncio.create_task(_press(worker)))


async def chat() -> None:
    """Talk to all as the workers of tests/apps/traffic.py do, until a final refusal."""
    Pressure.talking += [asyncio.create_task(traffic.talk()) for _ in range(2)]


async def quiet() -> None:
    """Press no more; what has been accepted goes its way."""
    Pressure.is_quiet = True
    await asyncio.gather(*Pressure.talking)
    Pressure.talking.clear()


async def mark(to: int, text: str) -> None:
    await ipc.send(to, "mark", text, timeout=None)


async def backlog(to: int, least_bytes: int) -> int:
    """Wait until so much waits for the worker `to` here."""
    # An outbox has no event for it; each turn of this loop lets more come in.
    while (waiting := ipc.stats().outbox_bytes.get(to, 0)) < least_bytes:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return waiting


async def listen() -> None:
    """Forget all counts of messages and refusals."""
    Pressure.heard.clear()
    Pressure.refused.clear()
    Pressure.listens_since = time.monotonic()
    Pressure.progress = Heard(Pressure.listens_since)


async def heard() -> dict[int, tuple[int, float]]:
    """Return, by the sender's generation, the messages since `listen` and the longest silence in seconds."""
    now = time.monotonic()
    return {
        sender: (each.messages, max(each.silence_s, now - each.last_at))
        for sender, each in Pressure.heard.items()
    }


async def speak_and_stop(count: int) -> None:
    """Accept so many messages for all other workers, and stand still before they are all written."""
    for worker in _others():
        for _ in range(count):
            send_nowait(worker, "press", 1024)
    os.kill(os.getpid(), signal.SIGSTOP)


async def give(to: int, count: int, size_bytes: int) -> None:
    """So many messages for the worker `to`, as far as there is room."""
    worker = next(worker for worker in ipc.workers if worker.pid == to)
    for _ in range(count):
        send_nowait(worker, "press", size_bytes)


async def held() -> tuple[int, dict[int, int]]:
    """Return the bytes of this worker's arena in use, and the bytes that each generation holds."""
    endpoint = ipc._own.endpoint
    arena = endpoint.outgoing._budget.arena
    return arena.used_bytes, {to: holds.pinned_bytes for to, holds in arena._holds.items()}


# --- all flood all


@ipc.receive("flood")
async def flooded(body: Body) -> None:
    """Pass on, waiting for room inside the handler."""
    delivered(body)
    Pressure.progress.hear(time.monotonic())
    for worker, kind, size_bytes in _next_ones():
        await send(worker, kind, size_bytes, Pressure.patience_s)


@ipc.receive("flood_nowait")
def flooded_nowait(body: Body) -> None:
    """Pass on without waiting, from a plain handler."""
    delivered(body)
    Pressure.progress.hear(time.monotonic())
    for worker, kind, size_bytes in _next_ones():
        send_nowait(worker, kind, size_bytes)


def _next_ones() -> Iterator[tuple[Worker, str, int]]:
    choice = State.random.choice
    for _ in range(FAN_OUT):
        if others := _others():
            yield choice(others), choice(Pressure.kinds), choice(Pressure.sizes_bytes)


async def agree(kinds: tuple[str, ...], sizes_bytes: tuple[int, ...], patience_s: float) -> None:
    """Set the messages of the coming flood; every worker must know them before it begins."""
    Pressure.kinds = kinds
    Pressure.sizes_bytes = sizes_bytes
    Pressure.patience_s = patience_s


async def flood(count: int) -> None:
    """Send the first messages of a flood to all other workers, all kinds in turn."""
    for worker in _others():
        for number in range(count):
            # A send that waits would wait for the flood that has begun.
            send_nowait(worker, Pressure.kinds[number % len(Pressure.kinds)], 1024)


# --- how it fares


async def measured() -> dict[str, Any]:
    """Return this worker's own counts."""
    endpoint = ipc._own.endpoint
    stats = ipc.stats()
    now = time.monotonic()
    return {
        "generation": State.generation,
        "cookie": endpoint.settings.cookie.hex(),
        "max_packet_bytes": endpoint.settings.max_packet_bytes,
        "received": stats.received,
        "handler_errors": stats.handler_errors,
        "dropped": dict(stats.dropped),
        "skipped_bytes": endpoint.incoming._packets.parser.skipped_bytes,
        "outbox_bytes": dict(stats.outbox_bytes),
        "in_flight": endpoint.dispatcher.in_flight.calls,
        "refused": dict(Pressure.refused),
        "progress": Pressure.progress.messages,
        "standstill_s": max(Pressure.progress.silence_s, now - Pressure.progress.last_at),
        "lag": dict(State.lag),
    }


COMMANDS = by_name(
    press, chat, quiet, mark, backlog, listen, heard, speak_and_stop, give, held, agree, flood, measured
)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with keeping_books(app), obeying(FOLDER, COMMANDS):
        yield
        Pressure.is_quiet = True
    await asyncio.gather(*Pressure.talking)


async def pid(request: Request) -> JSONResponse:
    return JSONResponse(os.getpid())


app = Starlette(routes=[Route("/pid", pid)], lifespan=lifespan)
