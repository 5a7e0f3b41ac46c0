"""Forked children: workers that have children of every kind are killed, restarted and stopped.

Law: the children live on while their worker goes. Their open files are read from the kernel's tables and
compared with those of the launcher and those that the workers were started with.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from typing import Final

import psutil

from asgi_ipc.testing.child import children, is_running
from tests.faults.trial import Trial, everywhere, row
from tests.processes import inherited, links, named, of_session
from tests.puppets import Puppets, puppets
from tests.serving import Server, binds, eventually

WORKERS: Final = 3

# A survivor has removed the dead worker within this time, and refuses to send to it.
REMOVED_WITHIN_S: Final = 1.0

REFUSALS: Final = ("UnknownWorkerError", "WorkerGoneError")


@row(
    fault="forked children",
    how="workers that have forked, pools of every start method, and programs started with close_fds=False "
    "or posix_spawn, are killed, restarted and stopped, while these children live on",
    counts="kills",
    full=everywhere(20),
    short=1,
)
async def forks(trial: Trial) -> None:
    """Kill a worker that has children, so often; restart all; stop; the children live all the time."""
    kept = set[psutil.Process]()
    options = (*trial.variant.options, "--no-access-log")
    app = "tests.apps.parent:app"
    async with puppets(trial.folder, *options, workers=WORKERS, app=app) as (strings, pids):
        server = strings.server
        try:
            trial.say("children at the start", sum([await _breed(strings, pid, kept) for pid in pids]))
            _look(trial, server, kept)
            for number in range(trial.count):
                await _kill_one(trial, strings, kept, WORKERS + number + 1)
            # A leaver reads to the end of its pipe: one write end in a child would hold it up.
            with trial.timing("a rolling restart beside children that live on"):
                await server.restart()
            _look(trial, server, kept)
            trial.none("leaves that reached the drain timeout", server.count("drain timeout"))
            for worker in server.workers():
                await _breed(strings, worker, kept)
            server.signal(signal.SIGTERM)
            await server.said("Stopping parent process")
            await eventually(lambda: not is_running(server.pid), "the launcher has ended")
            trial.least("children that outlive the server", len(_running(kept)), 1)
            trial.yes("the port binds again beside them", binds(server.port))
        finally:
            # The children hold the server's output open, too, and the test reads it to its end. The server
            # itself has ended long ago, unless something has gone wrong.
            kept |= set(map(psutil.Process, of_session(server.pid)))
            await _end(kept)
        trial.ended(await server.ended())


async def _breed(strings: Puppets, worker: int, kept: set[psutil.Process]) -> int:
    """Start that worker's children; return their number."""
    expected: int = await strings.call(worker, "breed")
    there = psutil.Process(worker).children(recursive=True)
    assert len(there) >= expected, f"{len(there)} of {expected} children of {worker}"
    kept.update(there)
    return len(there)


def _running(kept: set[psutil.Process]) -> set[psutil.Process]:
    """Return the children that run, without zombies and without later processes of their pids."""
    return {process for process in kept if process.is_running() and is_running(process.pid)}


async def _end(kept: set[psutil.Process]) -> None:
    """Kill these and wait until they have gone; they may have outlived their parents."""
    for process in kept:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    await eventually(lambda: not _running(kept), "they have ended")


def _look(trial: Trial, server: Server, kept: set[psutil.Process]) -> None:
    """Compare the open files of every child with all files of ours."""
    workers = server.workers()
    held = links(server.pid)
    ours = named(held.values()) - {held[fd] for fd in (0, 1, 2)}
    for tracker in set(children(server.pid)) - set(workers):
        # Its pipe is for children of workers, too.
        ours -= named(links(tracker).values())
    # A write end of each pipe, an end of each lifeline, the listening socket, the loop's own pair.
    assert len(ours) >= 2 * len(workers) + 1, ours
    for worker in workers:
        given = inherited(worker)
        assert len(given) == 3, given
        ours |= named(given)
    for child in (process.pid for process in _running(kept)):
        trial.sums("looks at a child", {"files of ours that it might have": len(ours), "looks": 1})
        leaks = [(child, link) for link in ours & named(links(child).values())]
        trial.none("descriptors of ours in a child", leaks)


async def _kill_one(trial: Trial, strings: Puppets, kept: set[psutil.Process], started: int) -> None:
    """Kill a worker while the others send to it; its children stay until its successor has some, too."""
    pids = strings.server.workers()
    victim = random.choice(pids)
    survivors = [pid for pid in pids if pid != victim]
    orphans = set(psutil.Process(victim).children(recursive=True))
    await strings.call(victim, "reset")
    outliving = [asyncio.create_task(strings.call(pid, "outlive", victim)) for pid in survivors]
    # Each of them sends now.
    senders = set[int]()
    while senders != set(survivors):
        senders = {sender for _, sender, _ in await strings.call(victim, "received", len(survivors))}
    killed_at = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    for outlived in await asyncio.gather(*outliving):
        for what in ("removed", "refused"):
            seconds = outlived[f"{what}_at"] - killed_at
            trial.within(f"the dead {what} by every survivor", seconds, REMOVED_WITHIN_S)
        trial.yes(f"errors of the senders to it: {' or '.join(REFUSALS)}", outlived["refusal"] in REFUSALS)
    assert orphans <= _running(kept), "the children outlive their worker"
    trial.equal("kills of a worker with children", bool(orphans))
    (successor,) = set(await strings.server.started(started)) - set(survivors)
    await _breed(strings, successor, kept)
    _look(trial, strings.server, kept)
    await _end(orphans)
    kept -= orphans
