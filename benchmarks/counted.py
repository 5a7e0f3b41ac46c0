"""The program whose instructions are counted: two members in one process, so many messages, the end.

Law: only public names of `asgi_ipc`. A case fails unless every message came. Each runs in a forked child,
whose instructions are counted apart; so the imports, which take most of the time, happen once.

`python -m benchmarks.counted FEW MANY CASE...` says a pid, a case and a count on each line. A case such as
10B-nowait+20 has a loop of 20 turns in its handler, and is that much slower.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import uvloop

from asgi_ipc import IPC
from asgi_ipc.testing import fleet
from benchmarks.cases import KIB
from benchmarks.party import MESSAGES_PER_TURN

Send = Callable[[IPC, int, bytes, int], Awaitable[None]]


async def _nowait(sender: IPC, pid: int, data: bytes, count: int) -> None:
    send = sender.send_nowait
    for first in range(0, count, MESSAGES_PER_TURN):
        for _ in range(min(MESSAGES_PER_TURN, count - first)):
            send(pid, "message", data)
        await asyncio.sleep(0)


async def _await(sender: IPC, pid: int, data: bytes, count: int) -> None:
    send = sender.send
    for _ in range(count):
        await send(pid, "message", data)


async def _ask(sender: IPC, pid: int, data: bytes, count: int) -> None:
    create_future = asyncio.get_running_loop().create_future
    answered = create_future()

    def answer(_: bytes) -> None:
        answered.set_result(None)

    sender.receive("answer", answer)
    for _ in range(count):
        sender.send_nowait(pid, "question", data)
        await answered
        answered = create_future()


# The size of the data, how it is sent, and whether the handler is async.
CASES: Final[dict[str, tuple[int, Send, bool]]] = {
    "10B-nowait": (10, _nowait, False),
    "10B-await": (10, _await, False),
    "10B-nowait-async": (10, _nowait, True),
    "1KiB-nowait": (KIB, _nowait, False),
    "10KiB-nowait": (10 * KIB, _nowait, False),
    "reply-nowait": (10, _ask, False),
}


async def run(case: str, count: int) -> None:
    """Send so many, and wait until all are handled."""
    name, _, loops = case.partition("+")
    size_bytes, send, is_async = CASES[name]
    spins, data, done, left = range(int(loops or 0)), bytes(size_bytes), asyncio.Event(), count

    def take(_: bytes) -> None:
        nonlocal left
        for _spin in spins:
            pass
        left -= 1
        if not left:
            done.set()

    async def take_async(_: bytes) -> None:
        take(_)

    async with fleet(2) as (sender, receiver):

        def reply(question: bytes) -> None:
            take(question)
            receiver.reply_nowait("answer", question)

        receiver.receive("message", take_async if is_async else take)
        receiver.receive("question", reply)
        gc.disable()
        await send(sender, receiver.pid, data, count)
        await done.wait()
        gc.enable()


def in_a_child(case: str, count: int) -> int:
    """Run it in a process of its own, to its end; return its pid. Raises RuntimeError if it failed."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run(case, count))
            status = 0
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise RuntimeError(f"{case} failed")
    return pid


def main(few: int, many: int, cases: list[str]) -> None:
    """Each case with few messages, and with many."""
    for case in cases:
        for count in (few, many):
            print(in_a_child(case, count), case, count, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
