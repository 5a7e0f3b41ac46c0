"""Rolling restarts under traffic: every worker sends at the moment it leaves.

Law: the promise of a restart, and nothing else that goes wrong meanwhile.
"""

from __future__ import annotations

import time
from typing import Final

from tests.faults.keeping import Tally, asking
from tests.faults.traffic import traffic
from tests.faults.trial import Trial, everywhere, row
from tests.serving import RESTARTED

WORKERS: Final = 4

# A client that connects and sends so much later must get an answer, too.
SLOW_CLIENT_S: Final = 0.05

# Well above the least rate, and low enough to leave time for the restarts themselves.
PACED: Final = {"TRAFFIC_PAUSE_S": "0.005"}

# Messages that a full run on uvloop is to see, at least.
LEAST_MESSAGES: Final = 1_000_000


@row(
    fault="rolling restart",
    how="SIGHUP under traffic all to all, with replies, broadcasts and 1 MiB data, and clients",
    counts="restarts",
    full=everywhere(200),
    short=2,
    short_everywhere=True,
)
async def restarts(trial: Trial) -> None:
    """Send SIGHUP so often, each time after the last restart is over; clients ask meanwhile."""
    tally = Tally()
    async with traffic(trial, workers=WORKERS, env=PACED) as run:
        async with asking(run.server, tally, 0.0, SLOW_CLIENT_S):
            for _ in range(trial.count):
                await run.server.restart()
        seconds = time.monotonic() - run.began
        verdict = await run.finish(trial, is_lossless=True)
    trial.equal("restarts", run.server.count(RESTARTED), trial.count)
    trial.none("in doubt", verdict.in_doubt)
    if trial.full:
        run.check_rate(trial, verdict, seconds)
    if trial.count >= 200:
        trial.least("messages", verdict.accepted, LEAST_MESSAGES)
    tally.check(trial, "failed requests")
    left, noted = len(verdict.left), len(verdict.told("leaving"))
    trial.say("workers that left", f"{left}, each talking until refused ({noted} noted it)")
    trial.equal("workers that have left, cleanly", left, WORKERS * (trial.count + 1))
    trial.none("drain timeouts", run.server.count("drain timeout"))
