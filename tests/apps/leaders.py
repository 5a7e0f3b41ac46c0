"""An app whose leader writes signs of life into one log that all workers share.

Law: it needs no framework, so that a worker starts as fast as it can. The notes are the log. Each is appended
whole, so their order is the order of events. The task holds a lock that only the kernel releases, at death.
The lock shows two tasks at once for certain.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from asgi_ipc import ipc
from asgi_ipc.worker import assignment
from tests.faults.ledger import Notes

Event: TypeAlias = MutableMapping[str, Any]

FOLDER: Final = Path(os.environ["LEADERS_FOLDER"])

# While this file is there, the first worker at the migration stays in it.
HOLD: Final = FOLDER / "hold"

# Seconds between two signs of life.
ALIVE_S: Final = 0.02

# The number of signs while a task ends: they show a successor that does not wait for the end.
SIGNS_OF_AN_END: Final = 3

assert assignment.current is not None
me: Final = assignment.current.me
notes: Final = Notes(FOLDER, me.generation)


@ipc.leader_task
async def sweep() -> None:
    lock = os.open(FOLDER / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        notes.write("two")
    notes.write("begins", is_leader=ipc.is_leader, leader=ipc.leader)
    try:
        while True:
            notes.write("alive")
            await asyncio.sleep(ALIVE_S)
    finally:
        notes.write("cleans")
        for _ in range(SIGNS_OF_AN_END):
            notes.write("alive")
            await asyncio.sleep(ALIVE_S)
        await ipc.broadcast("over", me.generation, include_self=False)
        notes.write("ends")
        os.close(lock)


@ipc.receive("over")
def over(generation: int) -> None:
    notes.write("heard", of=generation)


async def start_up() -> None:
    """Do the work of one worker at a start, and the work of one worker ever."""
    async with ipc.once("migrate") as first:
        notes.write("migrates" if first else "migrated")
        if first and HOLD.exists():
            await asyncio.Event().wait()
    async with ipc.once("seed", per="server") as first:
        notes.write("seeds" if first else "seeded")
    notes.write("job", first=await ipc.claim("job"))


async def app(
    scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        async with ipc.lifespan():
            notes.write("joined", slot=me.slot)
            await start_up()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            notes.write("leaving")
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(ipc.leader).encode()})
