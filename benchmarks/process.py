"""Processes: the parties of a peer or a yardstick, each started as a new interpreter.

Law: `spawn`, so that a party inherits its arguments only, like a worker of a server. Parties end when the
conductor hangs up; a party that does not end is killed.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from benchmarks.control import Party, obey

STOP_TIMEOUT_S: Final = 10.0

# Makes the party with that index; the rest is what the parties of this subject share.
Factory = Callable[[int, Any], Party]


@asynccontextmanager
async def spawned(factory: Factory, size: int, path: str, loop: str, shared: Any) -> AsyncIterator[None]:
    """So many parties. `shared` is given to each of them."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_main, args=(factory, index, path, loop, shared), daemon=True)
        for index in range(size)
    ]
    for process in processes:
        process.start()
    failed = True
    try:
        yield
        failed = False
    finally:
        for process in processes:
            if not failed:
                await asyncio.to_thread(process.join, STOP_TIMEOUT_S)
            process.kill()
            process.join()


def _main(factory: Factory, index: int, path: str, loop: str, shared: Any) -> None:
    # Of a terminal's Ctrl-C the conductor makes an orderly end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def be() -> None:
        await obey(factory(index, shared), index, path)

    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(be())


def loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the factory of an event loop of that name."""
    if loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return None
