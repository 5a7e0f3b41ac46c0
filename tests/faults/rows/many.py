"""Many workers: as many as fit an ordinary user's 1,024 descriptors, started, scaled and reloaded.

Law: all of them talk to all others all the time, slowly; the figures are of
the whole fleet: every pair, every message, every descriptor of the launcher.
"""

from __future__ import annotations

import time
from typing import Final

from tests.faults.ordinary import ordinary
from tests.faults.reach import Reach
from tests.faults.traffic import Traffic, check_verdict, traffic
from tests.faults.trial import ASYNCIO, SMALL, UVLOOP, Row, Trial
from tests.processes import is_ordinary, open_descriptors
from tests.serving import eventually

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
        server = run.server
        is_so = is_ordinary(server.pid) and all(map(is_ordinary, server.workers()))
        trial.check(f"an ordinary user with {DESCRIPTORS:,} descriptors", "yes" if is_so else "no", is_so)
        reach = Reach(run)
        await _check_pairs(trial, reach, workers, "after the start", deadline_s)
        before = open_descriptors(server.pid)
        await _scale(trial, run, reach, workers, deadline_s)
        await _reload(trial, run, reach, workers, deadline_s)
        after = open_descriptors(server.pid)
        trial.check("descriptors of the launcher, before and after", f"{before}, {after}", before == after)
        most = max(map(open_descriptors, server.workers()))
        trial.say("the most descriptors of a worker", most)
        began = time.monotonic()
        status = await server.stop()
        trial.say("stop of all", f"{time.monotonic() - began:.1f} s")
    _check_end(trial, run, status)


async def _check_pairs(trial: Trial, reach: Reach, workers: int, when: str, deadline_s: float) -> None:
    began = time.monotonic()
    settled = await reach.settle(workers, deadline_s=deadline_s)
    trial.check(f"pairs {when}", settled, not settled.silent and not settled.named)
    trial.say(f"until every pair was heard {when}", f"{time.monotonic() - began:.1f} s")


async def _scale(trial: Trial, run: Traffic, reach: Reach, workers: int, deadline_s: float) -> None:
    server = run.server
    began = time.monotonic()
    for count in range(1, SCALED_BY + 1):
        await server.more(workers + count)
    await server.started(workers + SCALED_BY)
    trial.say(f"{SCALED_BY} workers more", f"{time.monotonic() - began:.1f} s")
    await _check_pairs(trial, reach, workers + SCALED_BY, f"with {SCALED_BY} more", deadline_s)
    began = time.monotonic()
    for count in range(SCALED_BY - 1, -1, -1):
        await server.fewer(workers + count)
    await eventually(lambda: len(server.workers()) == workers, f"{workers} workers are left")
    trial.say(f"{SCALED_BY} workers fewer", f"{time.monotonic() - began:.1f} s")


async def _reload(trial: Trial, run: Traffic, reach: Reach, workers: int, deadline_s: float) -> None:
    server = run.server
    began = time.monotonic()
    await server.restart()
    seconds = time.monotonic() - began
    trial.say("reload", f"{seconds:.1f} s, {seconds / workers:.2f} s for each worker")
    await _check_pairs(trial, reach, workers, "after the reload", deadline_s)


def _check_end(trial: Trial, run: Traffic, status: int) -> None:
    verdict = run.verdict()
    check_verdict(trial, verdict, is_lossless=True)
    timeouts = run.server.count("drain timeout|have not answered")
    trial.none("drain timeouts and joins without an answer", timeouts)
    refused = run.server.count("RLIMIT_NOFILE")
    trial.none("lines about the limit", refused)
    trial.ended(status)


MANY: Final = Row(
    name="many",
    fault="many workers, unprivileged",
    how="started, scaled and reloaded as an ordinary user with 1,024 descriptors, all talking to all",
    counts="workers",
    # Not times but workers: a tenth of 64 says nothing, so the others have fewer, not a tenth.
    full={UVLOOP: 64, ASYNCIO: 16, SMALL: 16},
    short=6,
    run=many,
)
