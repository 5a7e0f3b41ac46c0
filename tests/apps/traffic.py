"""An app whose workers never stop talking: to one, to all, in replies, small and large.

Law: everything accepted and everything delivered goes into the ledger. The
traffic goes on until the verbs refuse, so a worker sends while it leaves.
"""

from __future__ import annotations

import asyncio
import os
import random
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import DeliveryError, NotRunningError, ipc
from tests.ledger import ACCEPTED, DELIVERED, JOINED, LEFT, LOST, Ledger

FOLDER = Path(os.environ["TRAFFIC_FOLDER"])
# Seconds between two bursts of one worker.
PAUSE_S = float(os.environ.get("TRAFFIC_PAUSE_S", "0.002"))
LARGE_BYTES = int(os.environ.get("TRAFFIC_LARGE_BYTES", str(1024 * 1024)))
LARGE_SHARE = float(os.environ.get("TRAFFIC_LARGE_SHARE", "0.002"))


class State:
    """This worker's ledger and counters."""

    ledger: Ledger
    generation = 0
    sequence = 0
    random = random.Random()


def _message() -> tuple[dict[str, Any], int, int]:
    size = LARGE_BYTES if State.random.random() < LARGE_SHARE else State.random.randrange(0, 300)
    body = State.random.randbytes(16) * (size // 16)
    sequence, State.sequence = State.sequence, State.sequence + 1
    return {"from": State.generation, "n": sequence, "body": body}, sequence, zlib.crc32(body)


def _generations() -> dict[int, int]:
    return {worker.pid: worker.generation for worker in ipc.workers}


def _delivered(data: dict[str, Any]) -> None:
    State.ledger.write(DELIVERED, data["from"], State.generation, data["n"], zlib.crc32(data["body"]))


@ipc.receive("plain")
def plain(data: dict[str, Any]) -> None:
    _delivered(data)


@ipc.receive("question")
async def question(data: dict[str, Any]) -> None:
    _delivered(data)
    generation = _generations().get(ipc.sender or 0)
    answer, sequence, checksum = _message()
    try:
        await ipc.reply("plain", answer)
    except (DeliveryError, NotRunningError):
        return
    if generation is not None:
        State.ledger.write(ACCEPTED, State.generation, generation, sequence, checksum)


async def talk() -> None:
    """Send to one, and now and then to all, until refused."""
    while True:
        try:
            known = _generations()
            for worker in ipc.workers:
                name = "question" if State.random.random() < 0.3 else "plain"
                message, sequence, checksum = _message()
                try:
                    await ipc.send(worker, name, message)
                except DeliveryError:
                    continue
                State.ledger.write(ACCEPTED, State.generation, worker.generation, sequence, checksum)
            if State.random.random() < 0.2:
                known = _generations()
                message, sequence, checksum = _message()
                for pid in await ipc.broadcast("plain", message):
                    State.ledger.write(ACCEPTED, State.generation, known[pid], sequence, checksum)
            await asyncio.sleep(PAUSE_S)
        except NotRunningError:
            return


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    State.random.seed(os.getpid())
    async with ipc.lifespan(app):
        State.generation = next(w.generation for w in ipc.workers if w.pid == ipc.pid)
        State.ledger = Ledger(FOLDER, State.generation)
        State.ledger.write(JOINED, State.generation, 0)
        talking = [asyncio.create_task(talk()) for _ in range(2)]
        endpoint = ipc._endpoint
        assert endpoint is not None
        yield
    for task in talking:
        await task
    for receiver, count in endpoint.outgoing.lost.items():
        State.ledger.write(LOST, State.generation, receiver, count)
    State.ledger.write(LEFT, State.generation, 0)


async def who(request: Request) -> JSONResponse:
    return JSONResponse(
        {
            "pid": ipc.pid,
            "generation": State.generation,
            "workers": [[w.pid, w.slot, w.generation] for w in ipc.workers],
            "dropped": dict(ipc.stats().dropped),
        }
    )


app = Starlette(routes=[Route("/who", who)], lifespan=lifespan)
