"""Limits: too few descriptors for the launcher or a worker, at the start and later, and no pages for pipes.

Law: each trial ends in full service, or in a line that names the limit and the way to raise it, and in full
service after that. A worker that can't be reached without such a line is the failure. All servers run as an
ordinary user; the kernel limits that user's descriptors in flight, too.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from uvicorn.config import STARTUP_FAILURE

from asgi_ipc.fleet.descriptor_budget import worker_needs
from tests.faults.ordinary import User, ordinary
from tests.faults.pages import SMALL_BYTES, pages_used_up
from tests.faults.reach import Reach
from tests.faults.traffic import Traffic, traffic
from tests.faults.trial import Trial, describe, everywhere, row
from tests.processes import first_free, is_ordinary

WORKERS: Final = 4

# A line that names the limit and the remedy.
CLEAR: Final = r"RLIMIT_NOFILE\).*Raise it: ulimit -n"

SMALL_PIPES: Final = rf"pipes of {SMALL_BYTES:,} bytes instead of [\d,]+, as when its pages"

# The outcomes of a start.
CLEAR_ERROR: Final = "clear error"
FULL_SERVICE: Final = "full service"
NAMED: Final = "every missing pair named, and full service when the limit is raised"

# The interpreter itself starts with no fewer.
FEWEST: Final = 6

# The least that this fleet asks for; its launcher needs fewer than a worker.
NEEDED: Final = worker_needs(WORKERS)

# The descriptors that an app leaves to its worker: from too few for itself to enough for all.
SPARE: Final = range(10)

# A fleet that asks little of the machine: every pair hears each other every some ms.
TALK: Final = {"TRAFFIC_PAUSE_S": "0.05", "TRAFFIC_LARGE_SHARE": "0.01"}


@row(
    fault="descriptor and pipe-page limits",
    how="as an ordinary user: starts under RLIMIT_NOFILE from far too low to just enough; a running worker, "
    "then the launcher, without a descriptor to spare (prlimit); all pages for pipes in use (pipes of 8 KiB)",
    counts="starts under a tight limit",
    full=everywhere(20),
    short=2,
)
async def limits(trial: Trial) -> None:
    """Run each by itself; in the short form side by side, since they wait most of the time."""
    parts: list[Callable[[Trial], Awaitable[None]]] = [_tight_starts, _lowered, _no_pages]
    if trial.full:
        parts.append(_hungry_starts)
    trials = [part(trial.part(part.__name__)) for part in parts]
    if trial.full:
        for each in trials:
            await each
    else:
        await asyncio.gather(*trials)


# --- at the start


async def _tight_starts(trial: Trial) -> None:
    """Start under limits from far too low to just enough."""
    others = max(trial.count - 2, 0)
    tried = sorted([NEEDED - 1, NEEDED, *random.choices(range(FEWEST, NEEDED + 8), k=others)])
    what = f"a clear error or full service of {WORKERS} workers under {tried[0]} to {tried[-1]} descriptors"
    starts = [(ordinary(descriptors), "tests.apps.traffic:app", TALK) for descriptors in tried]
    await _check_starts(trial, what, starts, {CLEAR_ERROR, FULL_SERVICE})


async def _hungry_starts(trial: Trial) -> None:
    """Start apps that leave their workers hardly a descriptor, and raise the limit later."""
    what = f"a clear error, named pairs or full service of apps that leave {SPARE[0]} to {SPARE[-1]} of them"
    user = ordinary(NEEDED + 40)
    starts = [(user, "tests.apps.hungry:app", {**TALK, "HUNGRY_SPARE": str(spare)}) for spare in SPARE]
    await _check_starts(trial, what, starts, {CLEAR_ERROR, NAMED, FULL_SERVICE})


async def _check_starts(
    trial: Trial, what: str, starts: Iterable[tuple[User, str, dict[str, str]]], allowed: set[str]
) -> None:
    """Start each of these; every outcome is allowed, and they are not all the same."""
    outcomes: Counter[str] = Counter()
    for number, start in enumerate(starts):
        outcomes[await _start_under(trial.part(str(number)), *start)] += 1
    trial.check(what, describe(outcomes), allowed >= outcomes.keys() and len(outcomes) >= 2)


async def _start_under(trial: Trial, user: User, app: str, env: dict[str, str]) -> str:
    """Start a server; return the outcome in words. A started server must be whole, and is stopped."""
    async with traffic(trial, workers=WORKERS, app=app, env=env, user=user, is_awaited=False) as run:
        server = run.server
        await server.said(r"Application startup complete|stopping the server|^Error|^Traceback")
        if server.count("stopping the server|^Error|^Traceback"):
            status = await server.ended()
            is_clear = status in (1, STARTUP_FAILURE) and server.count(CLEAR) > 0
            return CLEAR_ERROR if is_clear else f"status {status} and {server.lines[-3:]}"
        await server.started(WORKERS)
        reach = Reach(run)
        first = settled = await reach.settle(WORKERS, may_be_named=True)
        if first.named:
            for pid in server.workers():
                await user.limit(pid, None)
            settled = await reach.settle(WORKERS)
        status = await server.stop()
    verdict = run.verdict()
    if not settled.is_whole or status or verdict.faults or verdict.accepted != verdict.delivered:
        return f"not whole: {settled}, status {status}, {verdict.summary()}"
    return NAMED if first.named else FULL_SERVICE


# --- at run time


async def _lowered(trial: Trial) -> None:
    """Take a running worker's last descriptor, then the launcher's; ask for another worker each time."""
    user = ordinary()
    async with traffic(trial, workers=WORKERS, env=TALK, user=user) as run:
        await _lowered_worker(trial, run, user)
        await _lowered_launcher(trial, run, user)
        await run.finish(trial, what="exit status under a limit that was lowered")


async def _lowered_worker(trial: Trial, run: Traffic, user: User) -> None:
    server, reach = run.server, Reach(run)
    victim = random.choice(server.workers())
    # It has no descriptor beyond the present ones.
    await user.limit(victim, first_free(victim))
    server.signal(signal.SIGTTIN)
    await server.started(WORKERS + 1)
    settled = await reach.settle(WORKERS + 1, may_be_named=True)
    trial.check(
        "pairs when a worker has no descriptor for a newcomer",
        settled,
        not settled.silent and {sender for sender, _ in settled.named} == {victim},
    )
    await user.limit(victim, None)
    await reach.check(trial, "when its limit is raised", WORKERS + 1)
    # Its line may come after the messages that it concerns.
    told = await server.said(rf"Worker \[{victim}\] can send to worker")
    trial.check("times that the launcher says so", len(told), len(told) == 1)


async def _lowered_launcher(trial: Trial, run: Traffic, user: User) -> None:
    """The launcher can neither add a worker nor replace a dead one, and says why; the others go on."""
    server, reach = run.server, Reach(run)
    await user.limit(server.pid, first_free(server.pid))
    server.signal(signal.SIGTTIN)
    await server.said(rf"A worker process can't be started: .*{CLEAR}")
    trial.say("the launcher without a descriptor", server.found(CLEAR)[-1].partition("ERROR:")[2].strip())
    victim = random.choice(server.workers())
    os.kill(victim, signal.SIGKILL)
    await server.said(rf"Worker \[{victim}\] died")
    await server.said("A worker could not be started; starting another in", 3)
    await reach.check(trial, "of the remaining workers meanwhile", WORKERS)
    await user.limit(server.pid, None)
    await server.started(WORKERS + 3)
    await reach.check(trial, "when its limit is raised, too", WORKERS + 2)


# --- pages for pipes


async def _no_pages(trial: Trial) -> None:
    """Use up a user's pages for pipes while the user's server runs, and let it make new pipes."""
    user = ordinary()
    async with traffic(trial, workers=WORKERS, env=TALK, user=user) as run:
        server, reach = run.server, Reach(run)
        is_so = is_ordinary(server.pid) and all(map(is_ordinary, server.workers()))
        trial.yes("all processes are of an ordinary user", is_so)
        before = server.count(SMALL_PIPES)
        async with pages_used_up(user) as held:
            given = held["new_pipe_bytes"]
            trial.check(
                "bytes of a new pipe when the pages are used up", describe(held), given == SMALL_BYTES
            )
            await server.restart()
            await reach.check(trial, "over pipes of 8 KiB", WORKERS)
            await run.finish(trial, is_lossless=True, what="exit status with small pipes")
    trial.check("warnings of small pipes", f"{before}, then {server.count(SMALL_PIPES)}", not before)
    trial.check("warned once", server.count(SMALL_PIPES), server.count(SMALL_PIPES) == 1)
