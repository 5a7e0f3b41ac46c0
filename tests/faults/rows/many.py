"""Many workers: as many as fit an ordinary user's 1,024 descriptors, started, scaled and reloaded.

Law: all of them talk to all others all the time, slowly; the figures are of
the whole fleet: every pair, every message, every descriptor of the launcher.
"""

from __future__ import annotations

import time
from typing import Final

from tests.faults.ordinary import ordinary
from tests.faults.reach import Reach
from tests.faults.traffic import traffic
from tests.faults.trial import ASYNCIO, SMALL, UVLOOP, Trial, row
from tests.processes import is_ordinary, open_descriptors
from tests.serving import Server, eventually

# An ordinary user's descriptors by default.
DESCRIPTORS: Final = 1024

# The number of workers that are added, and removed again.
SCALED_BY: Final = 3

# Each worker has two talkers that speak to all, one pause apart. Together they send some thousand messages a
# second, which leaves the machine time for starting processes.
MESSAGES_PER_S: Final = 2_000

# A reload replaces them one after the other, half a second each on two cores that are idle. Ten times as
# much for each, and this for all, bounds only failure.
PER_WORKER_S: Final = 5.0
AT_LEAST_S: Final = 60.0


@row(
    fault="many workers, unprivileged",
    how="started, scaled and reloaded as an ordinary user with 1,024 descriptors, all talking to all",
    counts="workers",
    # Not times but workers: a tenth of 64 says nothing, so the others have fewer, not a tenth.
    full={UVLOOP: 64, ASYNCIO: 16, SMALL: 16},
    short=6,
)
async def many(trial: Trial) -> None:
    """`trial.count` workers."""
    workers = trial.count
    user = ordinary(DESCRIPTORS)
    talk = {
        "TRAFFIC_PAUSE_S": str(2 * workers * workers / MESSAGES_PER_S),
        "TRAFFIC_LARGE_SHARE": "0.001",
        # This row does not need their clocks, and sixty of them would cost time.
        "TRAFFIC_LAG_S": "1",
    }
    deadline_s = AT_LEAST_S + workers * PER_WORKER_S
    began = time.monotonic()
    async with traffic(trial, workers=workers, env=talk, user=user, deadline_s=deadline_s) as run:
        trial.say(f"start of {workers} workers", f"{time.monotonic() - began:.1f} s")
        server, reach = run.server, Reach(run)
        is_so = is_ordinary(server.pid) and all(map(is_ordinary, server.workers()))
        trial.yes(f"an ordinary user with {DESCRIPTORS:,} descriptors", is_so)
        await _check_pairs(trial, reach, workers, "after the start")
        before = open_descriptors(server.pid)
        await _scale(trial, server, reach, workers)
        began = time.monotonic()
        await server.restart()
        seconds = time.monotonic() - began
        trial.say("reload", f"{seconds:.1f} s, {seconds / workers:.2f} s for each worker")
        await _check_pairs(trial, reach, workers, "after the reload")
        after = open_descriptors(server.pid)
        trial.check("descriptors of the launcher, before and after", f"{before}, {after}", before == after)
        trial.say("the most descriptors of a worker", max(map(open_descriptors, server.workers())))
        with trial.timing("stop of all"):
            await run.finish(trial, is_lossless=True)
    timeouts = server.count("drain timeout|have not answered")
    trial.none("drain timeouts and joins without an answer", timeouts)
    trial.none("lines about the limit", server.count("RLIMIT_NOFILE"))


async def _check_pairs(trial: Trial, reach: Reach, workers: int, when: str) -> None:
    with trial.timing(f"until every pair was heard {when}"):
        await reach.check(trial, when, workers)


async def _scale(trial: Trial, server: Server, reach: Reach, workers: int) -> None:
    with trial.timing(f"{SCALED_BY} workers more"):
        for count in range(1, SCALED_BY + 1):
            await server.more(workers + count)
        await server.started(workers + SCALED_BY)
    await _check_pairs(trial, reach, workers + SCALED_BY, f"with {SCALED_BY} more")
    with trial.timing(f"{SCALED_BY} workers fewer"):
        for count in range(SCALED_BY - 1, -1, -1):
            await server.fewer(workers + count)
        await eventually(lambda: len(server.workers()) == workers, f"{workers} workers are left")
