"""An app whose workers obey a test, each through a Unix socket of its own.

Law: a test can address one worker and wait for the same event as the worker. It uses only the public API of
asgi_ipc.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import Worker, ipc
from asgi_ipc.fleet.settings import BEAT_S
from tests.apps.strings import by_name, obeying
from tests.processes import links

FOLDER = Path(os.environ["PUPPET_FOLDER"])

# Messages that handlers got: (name, sender, data).
journal: list[tuple[str, int | None, Any]] = []
# How many of each name.
heard: Counter[str] = Counter()
# Joins and departures of others: ("join", pid), or ("leave", pid, reason, lost).
news: list[tuple[Any, ...]] = []
seen = asyncio.Condition()
gate = asyncio.Event()


async def note(name: str, data: Any) -> None:
    async with seen:
        journal.append((name, ipc.sender, data))
        heard[name] += 1
        seen.notify_all()


@ipc.receive("note")
async def on_note(data: Any) -> None:
    await note("note", data)


async def _told(what: tuple[Any, ...]) -> None:
    async with seen:
        news.append(what)
        seen.notify_all()


@ipc.on_join
async def on_join(worker: Worker) -> None:
    await _told(("join", worker.pid))


@ipc.on_leave
async def on_leave(worker: Worker, reason: str, lost: int) -> None:
    await _told(("leave", worker.pid, reason, lost))


@ipc.receive("ask")
async def on_ask(data: Any) -> None:
    await note("ask", data)
    await ipc.reply("note", ["answer", data])


def on_plain(data: Any) -> None:
    task = asyncio.get_running_loop().create_task(note("plain", data))
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def on_slow(data: Any) -> None:
    """Note the sender, wait for the gate, and note it again; a task that this starts does the same."""

    async def later() -> None:
        await gate.wait()
        await note("slow task", data)

    await note("slow before", data)
    task = asyncio.create_task(later())
    await gate.wait()
    await task
    await note("slow thread", await asyncio.to_thread(lambda: ipc.sender))
    await note("slow after", data)


def on_block(data: float) -> None:
    time.sleep(data)


def on_fail(data: Any) -> None:
    raise ValueError(data)


async def on_ping(data: int) -> None:
    await ipc.reply("pong", data)


def on_pong(data: int) -> None:
    pongs.put_nowait(data)


pongs: asyncio.Queue[int] = asyncio.Queue()
tasks: set[asyncio.Task[None]] = set()
ipc.receive("plain", on_plain)
ipc.receive({"slow": on_slow, "block": on_block, "fail": on_fail, "ping": on_ping, "pong": on_pong})


async def reset() -> None:
    """Forget what came before, for the next test."""
    async with seen:
        journal.clear()
        heard.clear()
    gate.clear()
    ipc.receive("note", on_note)


async def received(count: int) -> list[tuple[str, int | None, Any]]:
    async with seen:
        await seen.wait_for(lambda: len(journal) >= count)
        return list(journal)


async def counted(name: str, count: int) -> int:
    """Wait until handlers got `count` messages of that name; return their number."""
    async with seen:
        await seen.wait_for(lambda: heard[name] >= count)
        return heard[name]


async def round_trips(to: int, count: int) -> list[float]:
    """Ask and wait for the answer, so often; the seconds of each."""
    seconds = []
    for number in range(count):
        asked_at = time.perf_counter()
        await ipc.send(to, "ping", number)
        assert await pongs.get() == number
        seconds.append(time.perf_counter() - asked_at)
    return seconds


async def told(what: str, pid: int) -> list[tuple[Any, ...]]:
    """Wait for that event ("join" or "leave") of the worker `pid`; return all events seen here."""
    async with seen:
        await seen.wait_for(lambda: any(each[:2] == (what, pid) for each in news))
        return list(news)


async def post(to: int, name: str, count: int, size: int) -> int:
    """Send as many without waiting, all in one turn."""
    for number in range(count):
        ipc.send_nowait(to, name, str(number).ljust(size))
    return count


async def members(count: int) -> list[tuple[int, int, int]]:
    # Membership has no event yet; each turn of this loop lets the worker hear more.
    while len(ipc.workers) != count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return [(worker.pid, worker.slot, worker.generation) for worker in ipc.workers]


async def flood(to: int, count: int, size: int) -> list[str]:
    """Send without waiting until an error comes, or `count` times."""
    errors = []
    for number in range(count):
        try:
            await ipc.send(to, "plain", str(number).ljust(size), timeout=0.2)
        except Exception as error:
            errors.append(type(error).__name__)
            break
    return errors


async def sized(to: int, size: int) -> int:
    await ipc.send(to, "note", "x" * size)
    return size


async def redefine(how: str) -> None:
    if how == "replace":
        ipc.receive("note", lambda data: on_plain(["replaced", data]))
    else:
        ipc.receive("note", None)


async def stats() -> dict[str, Any]:
    snapshot = ipc.stats()
    return {
        "sent": snapshot.sent,
        "received": snapshot.received,
        "discarded": snapshot.discarded,
        "handler_errors": snapshot.handler_errors,
        "dropped": dict(snapshot.dropped),
        "outbox_bytes": dict(snapshot.outbox_bytes),
    }


async def outside() -> list[Any]:
    return [ipc.sender, ipc.pid, ipc.slot]


async def open_gate() -> None:
    gate.set()


async def fork_and_hold(seconds: float) -> int:
    """Fork a child that only waits; return its pid."""
    child = os.fork()
    if child == 0:
        signal.alarm(int(seconds) + 1)
        signal.pause()
        os._exit(0)
    return child


async def orphan(count: int) -> int:
    """Leave grandchildren behind that only wait, after their parents have ended."""
    for _ in range(count):
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                signal.pause()
            os._exit(0)
        os.waitpid(child, 0)  # noqa: ASYNC222  # it ends at once
    return count


async def broadcast_nowait(name: str, count: int) -> int:
    """Broadcast numbers without waiting, several in one turn."""
    for number in range(count):
        ipc.broadcast_nowait(name, number)
    return count


async def start_method() -> str | None:
    return multiprocessing.get_start_method()


async def tracker_pipe() -> str:
    """Return the kernel's name of the pipe to the resource tracker."""
    fd = resource_tracker.getfd()
    assert fd is not None
    return links()[fd]


async def babble() -> None:
    """Write bytes that are no word to this worker's own lifeline."""
    from asgi_ipc.worker import assignment

    assert assignment.current is not None
    assignment.current.lifeline._socket.send(b"\x05\x00\x00\x00nonsense")


async def since_beat() -> float:
    """Return the seconds since this worker's last beat."""
    from asgi_ipc.worker import assignment

    assert assignment.current is not None
    assert assignment.current._heartbeat is not None
    return asyncio.get_running_loop().time() - assignment.current._heartbeat._due + BEAT_S


async def thread_send(to: int, data: Any) -> Any:
    return await asyncio.to_thread(ipc.send_nowait, to, "note", data)


COMMANDS = by_name(
    ipc.send,
    ipc.broadcast,
    babble,
    start_method,
    tracker_pipe,
    broadcast_nowait,
    ipc.reply,
    received,
    counted,
    round_trips,
    told,
    post,
    members,
    flood,
    sized,
    redefine,
    reset,
    stats,
    outside,
    open_gate,
    since_beat,
    fork_and_hold,
    orphan,
    thread_send,
)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with ipc.lifespan(app), obeying(FOLDER, COMMANDS):
        yield


async def pid(request: Request) -> JSONResponse:
    return JSONResponse({"pid": ipc.pid, "workers": [worker.pid for worker in ipc.workers]})


app = Starlette(routes=[Route("/", pid)], lifespan=lifespan)
