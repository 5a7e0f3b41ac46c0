"""A cache in each worker; a change is forgotten in all of them.

    asgi-ipc serve demo.recipes.cache:app --workers 4

Guaranteed: when a PUT has answered with an empty `late`, every read that begins from then on, in any worker,
gets the new value or a newer one. If a worker was reading the old value from the database at that moment, it
does not keep that value. Reads of one key at the same time ask the database once in each worker. A worker
that joins has nothing to forget.

Not guaranteed: a worker that stands still is in `late`, and forgets when it goes on, since the message waits
for it. If the message can't reach that worker at all, or the writing worker is killed before it has told the
others, the old value is served for up to TTL_S seconds. The expiry is for this case.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Any, Final

from fastapi import FastAPI

from asgi_ipc import UnknownWorkerError, WorkerGoneError, ipc
from demo.recipes import database

# A value is at most this old if all else fails; a worker keeps at most so many.
TTL_S: Final = 60.0
MAX_KEYS: Final = 10_000

app = FastAPI(lifespan=ipc.lifespan)

# Expiry time and value of each key, the one read last at the end; and the reads under way.
cache: OrderedDict[str, tuple[float, str | None]] = OrderedDict()
loading: dict[str, asyncio.Task[str | None]] = {}


async def get(key: str) -> str | None:
    """Return a value from the cache, or from the database."""
    expires_at, value = cache.get(key, (0.0, None))
    if time.monotonic() < expires_at:
        return value
    if key not in loading:
        loading[key] = asyncio.create_task(load(key))
    # A cancelled request must not end the read for the others.
    return await asyncio.shield(loading[key])


async def load(key: str) -> str | None:
    """Read a value, and keep it unless it has changed meanwhile."""
    task = asyncio.current_task()
    try:
        value = await database.read(key)
        if loading.get(key) is task:
            cache[key] = (time.monotonic() + TTL_S, value)
            cache.move_to_end(key)
            if len(cache) > MAX_KEYS:
                cache.popitem(last=False)
        return value
    finally:
        if loading.get(key) is task:
            del loading[key]


@ipc.receive("cache.forget")
def forget(key: str) -> None:
    """Run in every worker. A read under way may return the old value, so the next request reads again."""
    cache.pop(key, None)
    loading.pop(key, None)


@ipc.receive("cache.clear")
def clear(_: object) -> None:
    """Run in every worker."""
    cache.clear()
    loading.clear()


@app.get("/items/{key}")
async def read(key: str) -> dict[str, Any]:
    return {"value": await get(key)}


@app.put("/items/{key}")
async def write(key: str, value: str) -> dict[str, Any]:
    """Write the database first, then clear the caches; `gather` waits until each has forgotten the key."""
    await database.write(key, value)
    answers = await ipc.gather("cache.forget", key, timeout=1.0)
    # A worker that has gone has forgotten, too.
    gone = (UnknownWorkerError, WorkerGoneError)
    return {"late": [pid for pid, error in answers.errors.items() if not isinstance(error, gone)]}


@app.delete("/cache")
async def clear_all() -> dict[str, Any]:
    """`broadcast` waits for no worker: those in the result have room for it and will handle it."""
    told = await ipc.broadcast("cache.clear", timeout=0)
    return {"told": told, "not_told": [worker.pid for worker in ipc.workers if worker.pid not in told]}
