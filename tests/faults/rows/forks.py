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
from dataclasses import dataclass, field
from typing import Any, Final

import psutil

from asgi_ipc.testing.child import children, is_running
from tests.faults.trial import Trial, as_ms, everywhere, percentile, row
from tests.processes import inherited, links, named, of_session
from tests.puppets import Puppets, puppets
from tests.serving import binds, eventually

WORKERS: Final = 3

# A survivor has removed the dead worker within this time, and refuses to send to it.
REMOVED_WITHIN_S: Final = 1.0

REFUSALS: Final = {"UnknownWorkerError", "WorkerGoneError"}


@dataclass
class _Seen:
    """The figures of all rounds."""

    removed_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    refusals: set[str] = field(default_factory=set)
    # Looks at one child each, and what was found that is ours, as (child, link).
    looks: int = 0
    ours: int = 0
    leaks: list[tuple[int, str]] = field(default_factory=list)


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
    kept, seen = set[psutil.Process](), _Seen()
    options = (*trial.variant.options, "--no-access-log")
    async with puppets(trial.folder, *options, workers=WORKERS, app="tests.apps.parent:app") as (
        strings,
        pids,
    ):
        try:
            bred = sum([await _breed(strings, pid, kept) for pid in pids])
            trial.say("children at the start", bred)
            _look(strings, kept, seen)
            for _ in range(trial.count):
                await _kill_one(strings, kept, seen)
            await _restart(trial, strings, kept, seen)
            await _stop(trial, strings, kept)
        finally:
            # The children hold the server's output open, too, and the test reads it to its end. The server
            # itself has ended long ago, unless something has gone wrong.
            kept |= set(map(psutil.Process, of_session(strings.server.pid)))
            await _end(kept)
        status = await strings.server.ended()
        trial.ended(status)
    _report(trial, seen)


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


def _look(strings: Puppets, kept: set[psutil.Process], seen: _Seen) -> None:
    """Compare the open files of every child with all files of ours."""
    launcher = strings.server.pid
    workers = strings.server.workers()
    held = links(launcher)
    ours = named(held.values()) - {held[fd] for fd in (0, 1, 2)}
    for tracker in set(children(launcher)) - set(workers):
        # Its pipe is for children of workers, too.
        ours -= named(links(tracker).values())
    # A write end of each pipe, an end of each lifeline, the listening socket, the loop's own pair.
    assert len(ours) >= 2 * len(workers) + 1, ours
    for worker in workers:
        given = inherited(worker)
        assert len(given) == 3, given
        ours |= named(given)
    seen.ours = len(ours)
    for child in (process.pid for process in _running(kept)):
        seen.looks += 1
        seen.leaks += [(child, link) for link in ours & named(links(child).values())]


async def _kill_one(strings: Puppets, kept: set[psutil.Process], seen: _Seen) -> None:
    """Kill a worker while the others send to it; its children stay until its successor has some, too."""
    pids = strings.server.workers()
    victim = random.choice(pids)
    survivors = [pid for pid in pids if pid != victim]
    orphans = set(psutil.Process(victim).children(recursive=True))
    await strings.call(victim, "reset")
    outliving = [asyncio.create_task(strings.call(pid, "outlive", victim)) for pid in survivors]
    # Each of them sends now.
    while {sender for _, sender, _ in await strings.call(victim, "received", len(survivors))} != set(
        survivors
    ):
        pass
    killed_at = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    for outlived in await asyncio.gather(*outliving):
        _note(outlived, killed_at, seen)
    assert orphans <= _running(kept), "the children outlive their worker"
    started = len(seen.removed_s) // len(survivors) + WORKERS
    (successor,) = set(await strings.server.started(started)) - set(survivors)
    await _breed(strings, successor, kept)
    _look(strings, kept, seen)
    await _end(orphans)
    kept -= orphans


def _note(outlived: dict[str, Any], killed_at: float, seen: _Seen) -> None:
    seen.removed_s.append(outlived["removed_at"] - killed_at)
    seen.refused_s.append(outlived["refused_at"] - killed_at)
    seen.refusals.add(outlived["refusal"])


async def _restart(trial: Trial, strings: Puppets, kept: set[psutil.Process], seen: _Seen) -> None:
    """A leaver reads to the end of its pipe: one write end in a child would hold it up."""
    server = strings.server
    with trial.timing("a rolling restart beside children that live on"):
        await server.restart()
    _look(strings, kept, seen)
    trial.none("leaves that reached the drain timeout", server.count("drain timeout"))


async def _stop(trial: Trial, strings: Puppets, kept: set[psutil.Process]) -> None:
    server = strings.server
    for worker in server.workers():
        await _breed(strings, worker, kept)
    server.signal(signal.SIGTERM)
    await server.said("Stopping parent process")
    await eventually(lambda: not is_running(server.pid), "the launcher has ended")
    alive = len(_running(kept))
    trial.check("children that outlive the server", alive, alive > 0)
    trial.yes("the port binds again beside them", binds(server.port))


def _report(trial: Trial, seen: _Seen) -> None:
    leaks = sorted(set(seen.leaks))
    trial.check(
        f"descriptors of ours in a child, of {seen.ours}, in {seen.looks:,} looks at a child",
        leaks[:5] or 0,
        not leaks and seen.looks > 0,
    )
    kills = len(seen.removed_s) // (WORKERS - 1)
    trial.check("kills of a worker with children", kills, kills == trial.count)
    for what, times in (("removed by", seen.removed_s), ("refused by", seen.refused_s)):
        worst, median = max(times), percentile(times, 0.5)
        trial.check(
            f"the dead {what} every survivor within {REMOVED_WITHIN_S:g} s",
            f"median {as_ms(median)}, longest {as_ms(worst)}",
            worst <= REMOVED_WITHIN_S,
        )
    trial.check("errors of the senders to it", ", ".join(sorted(seen.refusals)), seen.refusals <= REFUSALS)
