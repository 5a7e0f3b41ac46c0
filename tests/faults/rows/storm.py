"""A storm of signals: restarts, more and fewer workers, faster than any of it can be done.

Law: the launcher's own log names the signals that the kernel has delivered (the kernel merges equal pending
ones); this file computes the expected result.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
from contextlib import suppress
from typing import Final

from tests.faults.traffic import traffic
from tests.faults.trial import Trial, everywhere, row
from tests.processes import arenas, open_descriptors
from tests.serving import RESTARTED, Server, eventually

WORKERS: Final = 3

# 20 a second.
PAUSE_S: Final = 0.05

# The random walk is kept within what two cores can start at all.
MOST_WORKERS: Final = 8

# SIGTERM in the midst of it: requests are short, and a drain takes its time-out at most.
STOP_WITHIN_S: Final = 10.0

BEGUN: Final = "Received SIGHUP, restarting workers"
SCALED: Final = re.compile(r"(In|De)creasing the number of workers to (\d+)")


def _count(server: Server) -> tuple[int, list[str]]:
    """Return the number of workers that the delivered signals ask for, and the log's miscounts."""
    size = WORKERS
    wrong = []
    for line in server.found(SCALED.pattern):
        match = SCALED.search(line)
        assert match is not None
        size += 1 if match[1] == "In" else -1
        if size != int(match[2]):
            wrong.append(line)
    return size, wrong


@row(
    fault="signal storm",
    how="random HUP, TTIN and TTOU at 20 a second, under traffic",
    counts="signals",
    full=everywhere(1000),
    short=40,
)
async def storm(trial: Trial) -> None:
    """Send so many random signals, wait for quiet, count; then send SIGTERM after some more."""
    chance = random.Random(trial.count)
    async with traffic(trial, workers=WORKERS, env={"TRAFFIC_PAUSE_S": "0.02"}) as run:
        server = run.server
        before = open_descriptors(server.pid)
        for _ in range(trial.count):
            size, _ = _count(server)
            most = [] if size >= MOST_WORKERS else [signal.SIGTTIN]
            server.signal(chance.choice([signal.SIGHUP, *most, signal.SIGTTOU]))
            await asyncio.sleep(PAUSE_S)  # the rate of the storm
        # This restart is complete, whatever was under way before.
        begun = server.count(BEGUN)
        server.signal(signal.SIGHUP)
        await server.said(BEGUN, begun + 1)
        await eventually(lambda: _is_quiet(server), "the fleet has settled")
        size, wrong = _count(server)
        scaled = len(server.found(SCALED.pattern)) + server.count("One worker is left")
        sent = f"{trial.count + 1}; {scaled} have scaled, {server.count(BEGUN)} restarts were made"
        trial.say("signals sent", sent)
        trial.check("the log counts right", wrong or "yes", not wrong)
        trial.equal("workers at the end", len(server.workers()), size)
        # For each worker its pipe, its lifeline and, where there is shared memory, its arena. They are closed
        # a moment after it is reaped.
        each = 3 if arenas(server.workers()[0]) else 2
        due = before + each * (size - WORKERS)
        with suppress(AssertionError):
            await eventually(lambda: open_descriptors(server.pid) == due, "the last ones are closed")
        after = open_descriptors(server.pid) - due + before
        trial.check("the launcher's descriptors, before and after", f"{before}, {after}", before == after)
        for number in (signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTERM):
            server.signal(number)
        began = time.monotonic()
        await server.ended()
        seconds = time.monotonic() - began
        trial.check(
            f"SIGTERM ends it within {STOP_WITHIN_S:g} s", f"{seconds:.1f} s", seconds < STOP_WITHIN_S
        )
        await run.finish(trial, is_lossless=True)


def _is_quiet(server: Server) -> bool:
    """Return whether every restart is over, with exactly the right number of processes."""
    size, _ = _count(server)
    return server.count(BEGUN) == server.count(RESTARTED) and len(server.workers()) == size
