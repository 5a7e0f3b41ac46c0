"""The launcher's death under traffic: its workers end by themselves, and cleanly.

Law: only the end of their lifelines tells the workers. In every fifth round one of them is killed in the same
moment, sometimes before the launcher and sometimes after it, so that no process is left to report its death.
In another fifth a rolling restart has begun, and a worker joins.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Final

from tests.faults.traffic import check_verdict, noted, traffic
from tests.faults.trial import Trial, everywhere, row
from tests.processes import of_session
from tests.serving import binds, watching

WORKERS: Final = 4

# The promise: "workers notice within 1 s, drain and exit, within 5 s when no request is open".
NOTICED_S: Final = 1.0
ENDED_S: Final = 5.0

# The rounds of each cycle in which a worker joins, and in which one is killed: early enough for a short run.
CYCLE: Final = 5
JOINING: Final = 1
WITH_A_WORKER: Final = 2


@row(
    fault="launcher SIGKILL",
    how="under traffic; in every fifth round a worker, too, in the same moment",
    counts="launchers",
    full=everywhere(50),
    short=3,
)
async def launcher_kill(trial: Trial) -> None:
    """Kill the launcher of a new server so often."""
    for number, one in enumerate(trial.rounds()):
        await _round(one, number)


async def _round(trial: Trial, number: int) -> None:
    async with traffic(trial, workers=WORKERS) as run:
        server = run.server
        await run.moment(number)
        joins = number % CYCLE == JOINING
        if joins:
            server.signal(signal.SIGHUP)
            await run.listener.next(noted("joining"))
        pids = server.workers()
        victims = pids[:1] if number % CYCLE == WITH_A_WORKER else []
        with watching(pids) as ends:
            killed_at = time.monotonic()
            for pid in (*victims, server.pid) if number % 2 else (server.pid, *victims):
                os.kill(pid, signal.SIGKILL)
            survivors = set(pids) - set(victims)
            await server.said("The launcher is gone", len(survivors))
            # The time at which this test read the last line: an upper bound.
            trial.within("noticed by the last", time.monotonic() - killed_at, NOTICED_S)
            trial.within("the last has ended", await ends.last() - killed_at, ENDED_S)
        trial.none("orphans", of_session(server.pid))
        trial.equal("the port binds again", binds(server.port))
        await server.ended()
    verdict = run.verdict()
    trial.sums(
        "rounds", {"with a worker killed in the same moment": bool(victims), "while a worker joined": joins}
    )
    left = {note["pid"] for note in verdict.told("left")}
    trial.equal("survivors that left with all delivered", len(left & survivors), len(survivors))
    trial.none("drain timeouts", server.count("drain timeout"))
    check_verdict(trial, verdict)
