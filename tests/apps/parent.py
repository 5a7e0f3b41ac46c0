"""A puppet with children of every kind: forked before it was served and after, pools, other programs.

Law: a command has returned when its children run and have had their turn to close the descriptors that they
inherited. They end on command, or at last by themselves.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

from asgi_ipc import DeliveryError, ipc
from tests.apps import children
from tests.apps.puppet import COMMANDS, app

__all__ = ["app"]

# No test takes so long; a child that has been forgotten leaves nothing behind.
AT_LAST_S: Final = 600

# Processes of a pool.
POOL: Final = 2

SLEEP: Final = shutil.which("sleep") or "/bin/sleep"


def fork() -> int:
    """Start a child that only waits; return its pid."""
    ready, has_run = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready)
        os.write(has_run, b"x")
        signal.alarm(AT_LAST_S)
        signal.pause()
        os._exit(0)
    os.close(has_run)
    os.read(ready, 1)
    os.close(ready)
    return child


# During the import of the app: nothing listens yet and no worker has joined.
early = fork()

pools: list[ProcessPoolExecutor] = []
programs: list[subprocess.Popen[bytes]] = []


def start_programs() -> None:
    """Start other programs; they inherit every inheritable descriptor."""
    programs.append(subprocess.Popen([SLEEP, str(AT_LAST_S)], close_fds=False))
    os.posix_spawn(SLEEP, [SLEEP, str(AT_LAST_S)], os.environ)


async def pool(method: str | None) -> None:
    """Start a pool and wait for all its processes; None is the default start method of a worker."""
    context: Any = multiprocessing.get_context(method)
    barrier = context.Barrier(POOL + 1)
    made = ProcessPoolExecutor(POOL, mp_context=context, initializer=children.begin, initargs=(barrier,))
    pools.append(made)
    tasks = [made.submit(children.meet) for _ in range(POOL)]
    await asyncio.to_thread(barrier.wait)
    await asyncio.gather(*map(asyncio.wrap_future, tasks))


async def breed() -> int:
    """Start a child of every kind; return the least number of children."""
    fork()
    await asyncio.to_thread(fork)
    for method in ("fork", None, "forkserver"):
        await pool(method)
    start_programs()
    return 3 + 3 * POOL + 2


async def outlive(pid: int) -> dict[str, Any]:
    """Send to `pid` until refused: when it was removed from the members, and the refusal and when it came.

    Times are of the machine's monotonic clock.
    """
    refusal = ""
    while not refusal:
        try:
            await ipc.send(pid, "plain", "for you", timeout=1.0)
        except DeliveryError as error:
            refusal = type(error).__name__
        # A turn of this loop in which the worker may hear more; membership has no event in a puppet.
        await asyncio.sleep(0.002)
    refused_at = time.monotonic()
    while pid in {worker.pid for worker in ipc.workers}:  # noqa: ASYNC110
        await asyncio.sleep(0.002)
    return {"refusal": refusal, "refused_at": refused_at, "removed_at": time.monotonic()}


COMMANDS.update(breed=breed, outlive=outlive)
