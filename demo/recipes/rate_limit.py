"""A rate limit that is right across workers: each client's bucket of tokens is in one of them.

    asgi-ipc serve demo.recipes.rate_limit:app --workers 4

Guaranteed: as long as the same workers are there, a client gets BURST requests at once and RATE per second
from then on, whichever workers it reaches, also with requests at the same time. In a rolling restart the
buckets move to the successor; a request that is under way in that moment may be granted in addition.

Not guaranteed: if a worker is killed or their number changes, the buckets of some clients begin again, full.
While a worker stands still, each of the others limits the clients of that worker by itself. With more than
MAX_CLIENTS clients, the clients not seen for the longest time begin again.

If the server is behind a proxy, let uvicorn trust its X-Forwarded-For (--forwarded-allow-ips), or all clients
share one bucket.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from fastapi import Depends, FastAPI, HTTPException, Request

from asgi_ipc import (
    IPCError,
    RequestError,
    SendTimeoutError,
    UnknownWorkerError,
    Worker,
    WorkerGoneError,
    ipc,
)

BURST: Final = 10.0
RATE: Final = 10 / 60
MAX_CLIENTS: Final = 100_000

# A worker that has not answered after this time stands still.
TIMEOUT_S: Final = 0.5

# The clients that this worker owns: a number of tokens and the time of that number; the client seen last at
# the end.
buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()


def owner_of(client: str) -> Worker:
    """Return the owner, the same in all workers. Rendezvous hashing: most owners stay when slots change.

    In a restart a slot has two workers: the older one owns the clients until it leaves. `hash()` would not
    do: each process has another number for the same str.
    """
    oldest = {worker.slot: worker for worker in reversed(ipc.workers)}
    slot = max(oldest, key=lambda slot: hashlib.blake2b(f"{slot}:{client}".encode()).digest())
    return oldest[slot]


@ipc.receive("rate_limit.take")
def take_here(client: str) -> float:
    """Take a token from a bucket of this worker; return 0, or the seconds until there is one."""
    # All processes of a machine share this clock, so buckets can move.
    now = time.monotonic()
    tokens, at = buckets.get(client, (BURST, now))
    tokens = min(BURST, tokens + (now - at) * RATE)
    taken = 1.0 if tokens >= 1.0 else 0.0
    buckets[client] = (tokens - taken, now)
    buckets.move_to_end(client)
    if len(buckets) > MAX_CLIENTS:
        buckets.popitem(last=False)
    return 0.0 if taken else (1.0 - tokens) / RATE


async def take(client: str) -> float:
    """Take a token, wherever the bucket is."""
    for _ in range(3):
        owner = owner_of(client)
        if owner.pid == ipc.pid:
            break
        try:
            wait_s: float = await ipc.request(owner, "rate_limit.take", client, timeout=TIMEOUT_S)
        except (UnknownWorkerError, WorkerGoneError):
            continue  # Another worker owns the bucket now.
        except (RequestError, SendTimeoutError):
            break  # The owner stands still.
        return wait_s
    return take_here(client)


@ipc.receive("rate_limit.inherit")
def inherit(theirs: list[tuple[str, float, float]]) -> None:
    """Take over the buckets of this worker's predecessor."""
    for client, tokens, at in theirs:
        buckets[client] = min(buckets.get(client, (BURST, at)), (tokens, at))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with ipc.lifespan(app):
        yield
        successors = [worker for worker in ipc.workers if worker.slot == ipc.slot and worker.pid != ipc.pid]
        with suppress(IPCError):
            for successor in successors[-1:]:
                theirs = [(client, *bucket) for client, bucket in buckets.items()]
                await ipc.send(successor, "rate_limit.inherit", theirs)


async def limited(request: Request) -> None:
    """Limit a route: `dependencies=[Depends(limited)]`."""
    wait_s = await take(request.client.host if request.client else "")
    if wait_s:
        raise HTTPException(429, "too many requests", {"Retry-After": str(math.ceil(wait_s))})


app = FastAPI(lifespan=lifespan)


@app.get("/", dependencies=[Depends(limited)])
async def index() -> dict[str, str]:
    return {"hello": "world"}
