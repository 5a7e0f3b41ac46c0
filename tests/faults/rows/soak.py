"""The soak: for half an hour everything goes on, and no resource of the launcher grows.

Law: restarts at an even pace, traffic all the time; descriptors and memory
are read from the kernel, at moments when the fleet is whole.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from statistics import linear_regression
from typing import Final

import psutil

from tests.faults.traffic import traffic
from tests.faults.trial import Trial, everywhere, row
from tests.processes import open_descriptors
from tests.serving import RESTARTED, Server, eventually

WORKERS: Final = 4

# 500 restarts in half an hour.
PACE_S: Final = 3.6

# Messages for each restart: 10,000,000 in all.
MESSAGES: Final = 20_000

# Some 8,000 messages a second on two cores, which have other things to do.
PACED: Final = {"TRAFFIC_LARGE_SHARE": "0.0005", "TRAFFIC_PAUSE_S": "0.006"}

# The first fifth warms caches up; the slope is that of the rest.
WARM_SHARE: Final = 0.2
MAX_SLOPE_MIB_PER_H: Final = 1.0

# Memory comes in pages and arenas; a slope of a run shorter than this is mostly their steps.
LEAST_SECONDS: Final = 1500.0


@row(
    fault="soak",
    how=f"a restart every {PACE_S:g} s, under traffic",
    counts="restarts",
    full=everywhere(500),
    short=2,
)
async def soak(trial: Trial) -> None:
    """One restart after the other, evenly; descriptors and memory after each."""
    async with traffic(trial, workers=WORKERS, env=PACED) as run:
        server = run.server
        pace_s = PACE_S if trial.full else 0.0
        descriptors = [open_descriptors(server.pid)]
        memory: list[tuple[float, float]] = []
        for count in range(1, trial.count + 1):
            await server.restart()
            # Reaped is not closed: the launcher closes the last one's descriptors a moment later.
            with suppress(AssertionError):
                await eventually(lambda: _is_settled(server, descriptors[0]), "the old ones have gone")
            descriptors.append(open_descriptors(server.pid))
            uss_bytes = psutil.Process(server.pid).memory_full_info().uss
            memory.append((time.monotonic() - run.began, uss_bytes / 2**20))
            await asyncio.sleep(max(run.began + count * pace_s - time.monotonic(), 0.0))  # the pace
        seconds = time.monotonic() - run.began
        verdict = await run.finish(trial, is_lossless=True)
    trial.equal("restarts", server.count(RESTARTED), trial.count)
    different = {each - descriptors[0] for each in descriptors} - {0}
    trial.check("the launcher's descriptors", f"{descriptors[0]}, +-{different or 0}", not different)
    _check_memory(trial, memory, seconds)
    if trial.full:
        trial.least("messages", verdict.accepted, trial.count * MESSAGES)
        run.check_rate(trial, verdict, seconds)


def _check_memory(trial: Trial, memory: list[tuple[float, float]], seconds: float) -> None:
    warm = [each for each in memory if each[0] >= seconds * WARM_SHARE]
    span = f"{warm[0][1]:.1f} to {warm[-1][1]:.1f} MiB in {warm[-1][0] - warm[0][0]:.0f} s"
    if seconds >= LEAST_SECONDS:
        slope = linear_regression(*zip(*warm, strict=True)).slope * 3600
        what = f"the launcher's memory grows by less than {MAX_SLOPE_MIB_PER_H:g} MiB/h"
        trial.check(what, f"{slope:.2f} MiB/h ({span})", slope < MAX_SLOPE_MIB_PER_H)
    else:
        trial.check("the launcher's memory grows by less than 1 MiB", span, warm[-1][1] - warm[0][1] < 1.0)


def _is_settled(server: Server, descriptors: int) -> bool:
    return len(server.workers()) == WORKERS and open_descriptors(server.pid) == descriptors
