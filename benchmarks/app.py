"""The app that is measured: handlers, and one route that makes the answering worker send.

Law: only public names of `asgi_ipc`. The worker that answers POST /run is the
sender; the others are the receivers. It gives back what happened, in raw
times and counts; `cases.py` judges. Preparations and reports travel as
messages too, outside of the time that counts.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_ipc import Worker, WouldBlockError, ipc
from benchmarks.payloads import Inbox, payloads

# A sender that uses the `_nowait` verbs gives the loop its turn after so many
# messages, as `await ipc.send` does by itself.
MESSAGES_PER_TURN: Final = 256

# How long it waits when an outbox is full: a fraction of the time that 32 MiB take.
BACKOFF_S: Final = 0.001

# For a run and all that belongs to it; one takes a second or two.
RUN_TIMEOUT_S: Final = 45.0

# Returns the times of single messages in nanoseconds, if it measures them.
Verb = Callable[[Sequence[Worker], Iterable[bytes]], Awaitable[list[int]]]


class State:
    """What this worker knows of the run under way."""

    inbox = Inbox(0, 10)
    prepared_by: int | None = None
    # Answers of the receivers: their pid, and what they say.
    answers: asyncio.Queue[tuple[int | None, Any]]
    # Receivers that have not answered yet.
    silent: set[int]
    # The question of a round trip that has no reply yet.
    asked: asyncio.Future[tuple[int, Any]]


# --- in the receivers


@ipc.receive("prepare")
def prepare(run: dict[str, int]) -> None:
    """Make ready for the messages of a run."""
    State.prepared_by = ipc.sender
    State.inbox = Inbox(run["count"], run["size_bytes"])
    ipc.receive("message", State.inbox.take)
    gc.collect()
    ipc.reply_nowait("answer")


@ipc.receive("report")
def report(_: bytes) -> None:
    """Say what has arrived. The question was sent behind the messages, so nothing may be missing now."""
    inbox, stats = State.inbox, ipc.stats()
    facts = {
        "prepared_by": State.prepared_by,
        "taken": inbox.taken,
        "wrong": inbox.wrong,
        "wrong_at": inbox.named,
        "ended_ns": inbox.ended_ns,
        "discarded": stats.discarded,
        "handler_errors": stats.handler_errors,
        "dropped": dict(stats.dropped),
    }
    ipc.reply_nowait("answer", facts)


@ipc.receive("question")
async def question(data: bytes) -> None:
    """Send it back, as an app's async handler does."""
    State.inbox.take(data)
    await ipc.reply("reply", data)


@ipc.receive("question-nowait")
def question_nowait(data: bytes) -> None:
    """Send it back, as an app's plain handler does."""
    State.inbox.take(data)
    ipc.reply_nowait("reply", data)


# --- in the sender


@ipc.receive("answer")
def answer(data: Any) -> None:
    """A receiver is prepared, or reports."""
    State.answers.put_nowait((ipc.sender, data))


@ipc.receive("reply")
def reply(data: Any) -> None:
    """The end of a round trip."""
    State.asked.set_result((time.monotonic_ns(), data))


async def send(receivers: Sequence[Worker], messages: Iterable[bytes]) -> list[int]:
    """One after the other with `await ipc.send`."""
    (receiver,) = receivers
    pid = receiver.pid
    for data in messages:
        await ipc.send(pid, "message", data)
    return []


async def send_nowait(receivers: Sequence[Worker], messages: Iterable[bytes]) -> list[int]:
    """One after the other with `ipc.send_nowait`."""
    (receiver,) = receivers
    await _in_turns(functools.partial(ipc.send_nowait, receiver.pid, "message"), messages)
    return []


async def broadcast(receivers: Sequence[Worker], messages: Iterable[bytes]) -> list[int]:
    """One after the other with `await ipc.broadcast`, to all but this worker."""
    for data in messages:
        took = await ipc.broadcast("message", data, include_self=False)
        if len(took) != len(receivers):
            raise RuntimeError(f"only {len(took)} of {len(receivers)} workers took a broadcast")
    return []


async def broadcast_nowait(receivers: Sequence[Worker], messages: Iterable[bytes]) -> list[int]:
    """One after the other with `ipc.broadcast_nowait`, to all but this worker."""
    await _in_turns(functools.partial(ipc.broadcast_nowait, "message", include_self=False), messages)
    return []


async def _in_turns(post: Callable[[bytes], object], messages: Iterable[bytes]) -> None:
    left = MESSAGES_PER_TURN
    for data in messages:
        while True:
            try:
                post(data)
                break
            except WouldBlockError:
                await asyncio.sleep(BACKOFF_S)
        left -= 1
        if not left:
            left = MESSAGES_PER_TURN
            await asyncio.sleep(0)


async def round_trip(receivers: Sequence[Worker], messages: Iterable[bytes]) -> list[int]:
    """`await ipc.send` to an async handler that awaits `ipc.reply`; the next when the reply is here."""
    (receiver,) = receivers
    pid = receiver.pid
    times_ns = []
    for data in messages:
        State.asked = asyncio.get_running_loop().create_future()
        started_ns = time.monotonic_ns()
        await ipc.send(pid, "question", data)
        ended_ns, back = await State.asked
        times_ns.append(ended_ns - started_ns)
        _check_reply(data, back)
    return times_ns


async def round_trip_nowait(receivers: Sequence[Worker], messages: Iterable[bytes]) -> list[int]:
    """`ipc.send_nowait` to a plain handler that calls `ipc.reply_nowait`."""
    (receiver,) = receivers
    pid = receiver.pid
    times_ns = []
    for data in messages:
        State.asked = asyncio.get_running_loop().create_future()
        started_ns = time.monotonic_ns()
        ipc.send_nowait(pid, "question-nowait", data)
        ended_ns, back = await State.asked
        times_ns.append(ended_ns - started_ns)
        _check_reply(data, back)
    return times_ns


def _check_reply(data: bytes, back: object) -> None:
    if back != data:
        raise RuntimeError("a reply is not what was sent")


VERBS: Final[dict[str, Verb]] = {
    verb.__name__: verb
    for verb in (send, send_nowait, broadcast, broadcast_nowait, round_trip, round_trip_nowait)
}


async def ask(receivers: Sequence[Worker], name: str, data: Any) -> dict[int, Any]:
    """Ask every receiver, behind all that was sent before; their answers by pid."""
    State.silent = {receiver.pid for receiver in receivers}
    for receiver in receivers:
        await ipc.send(receiver, name, data, timeout=None)
    answers: dict[int, Any] = {}
    while len(answers) < len(receivers):
        pid, said = await State.answers.get()
        assert pid is not None
        answers[pid] = said
        State.silent.discard(pid)
    return answers


async def run(request: Request) -> JSONResponse:
    """POST {"verb", "receivers", "count", "size_bytes"}: send, and give back the times and all reports."""
    order = await request.json()
    State.answers = asyncio.Queue()
    others = [worker for worker in ipc.workers if worker.pid != ipc.pid]
    receivers = others[: order["receivers"]]
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            await ask(receivers, "prepare", {key: order[key] for key in ("count", "size_bytes")})
            messages = payloads(order["count"], order["size_bytes"])
            gc.collect()
            started_ns = time.monotonic_ns()
            times_ns = await VERBS[order["verb"]](receivers, messages)
            reports = await ask(receivers, "report", b"")
    except TimeoutError:
        where = f"no answer from {sorted(State.silent)}" if State.silent else "still sending"
        return JSONResponse({"error": f"not done after {RUN_TIMEOUT_S:g} s: {where}"}, status_code=504)
    return JSONResponse(
        {
            "sender": ipc.pid,
            "started_ns": started_ns,
            "times_ns": times_ns,
            "dropped": dict(ipc.stats().dropped),
            "handler_errors": ipc.stats().handler_errors,
            "reports": [{"pid": pid, **facts} for pid, facts in reports.items()],
        }
    )


async def workers(request: Request) -> JSONResponse:
    """GET: the pids of all members that the answering worker knows."""
    return JSONResponse([worker.pid for worker in ipc.workers])


app = Starlette(
    routes=[Route("/run", run, methods=["POST"]), Route("/workers", workers)], lifespan=ipc.lifespan
)
