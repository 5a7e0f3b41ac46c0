"""An app whose workers ask each other and publish all the time, and note every violation.

Law: a worker judges its answers and publications at once and writes down violations, so a kill hides none. It
writes its counts when it leaves.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette

from asgi_ipc import (
    NotRunningError,
    RemoteError,
    RequestTimeoutError,
    UnknownWorkerError,
    WorkerGoneError,
    ipc,
)

FOLDER: Final = Path(os.environ.get("ASKING_FOLDER", "."))
WRONG: Final = "wrong"
COUNTS: Final = "counts-"

ASKERS: Final = 8
# Of so many questions one is raised at, which the log tells with a traceback, and one is never answered.
RAISED: Final = 499
NEVER: Final = 50
NEVER_TIMEOUT_S: Final = 0.02
# The pause between two questions: workers that start need the processors, too.
PAUSE_S: Final = 0.002
NEWS: Final = "news"
# A subscriber that comes and goes stays for so many publications.
STAY: Final = 200

counts: Counter[str] = Counter()


def wrong(what: str) -> None:
    """Note a violation."""
    with (FOLDER / WRONG).open("a") as file:
        file.write(f"worker {ipc.pid}: {what}\n")


@ipc.receive("echo")
async def echo(data: Any) -> Any:
    """Return the data and this worker's name; sometimes raise, sometimes never answer."""
    _, number = data
    if number % NEVER == 0:
        await asyncio.Event().wait()
    await asyncio.sleep(0)
    if number % RAISED == 0:
        raise ValueError(f"number {number}")
    return [ipc.pid, *data]


def _judge(number: int, pid: int, result: object) -> None:
    """True if that result is allowed for that question to that worker."""
    match result:
        case RequestTimeoutError():
            counts["timeouts"] += 1
            if number % NEVER:
                wrong(f"no answer to {number}")
        case WorkerGoneError() | UnknownWorkerError():
            counts["gone"] += 1
        case RemoteError():
            counts["raised"] += 1
            if number % RAISED or result.message != f"number {number}":
                wrong(f"{result!r} to {number}")
        case Exception():
            wrong(f"{result!r} to {number}")
        case _:
            counts["answers"] += 1
            if result != [pid, ipc.pid, number]:
                wrong(f"{result!r} from {pid} to {number}")


def _timeout_s(number: int) -> float:
    return 60.0 if number % NEVER else NEVER_TIMEOUT_S


async def ask(numbers: range) -> None:
    """Ask one worker after the other."""
    for number in numbers:
        worker = random.choice(ipc.workers)
        result: object
        try:
            result = await ipc.request(worker, "echo", [ipc.pid, number], timeout=_timeout_s(number))
        except NotRunningError:
            return
        except Exception as error:
            result = error
        _judge(number, worker.pid, result)
        await asyncio.sleep(PAUSE_S)  # the rate


async def ask_all(numbers: range) -> None:
    """Ask all at once."""
    for number in numbers:
        try:
            rows = await ipc.gather("echo", [ipc.pid, number], timeout=_timeout_s(number))
        except NotRunningError:
            return
        for pid, answer in rows.items():
            _judge(number, pid, answer)
        for pid, error in rows.errors.items():
            if not isinstance(error, NotRunningError):
                _judge(number, pid, error)
        await asyncio.sleep(PAUSE_S)  # the rate


async def publish(generation: int) -> None:
    """Publish number after number."""
    number = 0
    try:
        while True:
            await ipc.publish(NEWS, [generation, number], timeout=None)
            number += 1
            await asyncio.sleep(0.001)  # the rate at which each worker publishes
    except NotRunningError:
        pass


async def listen(count: int | None) -> None:
    """The publications of each worker must be complete from the first one that arrives."""
    last: dict[int, int] = {}
    taken = 0
    async with ipc.subscribe(NEWS) as messages:
        async for message in messages:
            generation, number = message.data
            if number != last.get(generation, number - 1) + 1:
                wrong(f"{number} of {generation} behind {last[generation]}")
            if message.missed:
                wrong(f"{message.missed} missed")
            last[generation] = number
            counts["publications"] += 1
            taken += 1
            if taken == count:
                return


async def come_and_go() -> None:
    """Subscribe for a while, again and again."""
    try:
        while True:
            await listen(STAY)
    except NotRunningError:
        pass


@asynccontextmanager
async def lifespan(app: object) -> AsyncIterator[None]:
    async with ipc.lifespan(app):
        tasks = [
            *(asyncio.create_task(ask(range(place, 10**9, ASKERS))) for place in range(ASKERS)),
            asyncio.create_task(ask_all(range(10**9))),
            asyncio.create_task(publish(ipc.worker.generation)),
            asyncio.create_task(listen(None)),
            asyncio.create_task(come_and_go()),
        ]
        yield
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            wrong(f"a task has failed: {result!r}")
    (FOLDER / f"{COUNTS}{ipc.pid}").write_text(json.dumps({**counts, **ipc.stats().dropped}))


app = Starlette(lifespan=lifespan)
