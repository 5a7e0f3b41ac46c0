"""The launcher's death under traffic: its workers end by themselves, and cleanly.

Law: only the end of their lifelines tells the workers. In every fifth round one of them is killed in the same
moment, sometimes before the launcher and sometimes after it, so that no process is left to report its death.
In another fifth a rolling restart has begun, and a worker joins.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Final

from tests.faults.oracle import Verdict
from tests.faults.traffic import check_verdict, traffic
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


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one kill."""

    with_a_worker: bool
    noticed_s: float
    ended_s: float
    orphans: int
    bound: bool
    verdict: Verdict
    survivors: int
    left: int
    drain_timeouts: int

    @property
    def is_clean(self) -> bool:
        verdict = self.verdict
        return (
            self.noticed_s <= NOTICED_S
            and self.ended_s <= ENDED_S
            and self.bound
            and self.left == self.survivors
            and not (verdict.faults or verdict.missing_between(verdict.left))
            and not (self.orphans or self.drain_timeouts)
        )


@row(
    fault="launcher SIGKILL",
    how="under traffic; in every fifth round a worker, too, in the same moment",
    counts="launchers",
    full=everywhere(50),
    short=3,
)
async def launcher_kill(trial: Trial) -> None:
    """Kill the launcher of a new server so often."""
    rounds = [await _round(one, number) for number, one in enumerate(trial.rounds())]
    trial.equal("clean", sum(each.is_clean for each in rounds), trial.count)
    with_a_worker = sum(each.with_a_worker for each in rounds)
    wanted = len(range(WITH_A_WORKER, trial.count, CYCLE))
    text = "of them with a worker killed in the same moment"
    trial.check(text, with_a_worker, with_a_worker == wanted > 0)
    trial.say("of them while a worker joined", len(range(JOINING, trial.count, CYCLE)))
    trial.within("noticed by the last", max(each.noticed_s for each in rounds), NOTICED_S)
    trial.within("the last has ended", max(each.ended_s for each in rounds), ENDED_S)
    trial.none("orphans", sum(each.orphans for each in rounds))
    trial.equal("the port binds again", sum(each.bound for each in rounds), trial.count)
    left, survivors = sum(each.left for each in rounds), sum(each.survivors for each in rounds)
    trial.equal("survivors that left with all delivered", left, survivors)
    trial.none("drain timeouts", sum(each.drain_timeouts for each in rounds))
    check_verdict(trial, *(each.verdict for each in rounds))


async def _round(trial: Trial, number: int) -> Round:
    async with traffic(trial, workers=WORKERS) as run:
        server = run.server
        await run.moment(number)
        if number % CYCLE == JOINING:
            server.signal(signal.SIGHUP)
            await run.listener.next(lambda note: note["what"] == "joining")
        pids = server.workers()
        victims = pids[:1] if number % CYCLE == WITH_A_WORKER else []
        with watching(pids) as ends:
            killed_at = time.monotonic()
            for pid in (*victims, server.pid) if number % 2 else (server.pid, *victims):
                os.kill(pid, signal.SIGKILL)
            survivors = set(pids) - set(victims)
            await server.said("The launcher is gone", len(survivors))
            # The time at which this test read the last line: an upper bound.
            noticed_s = time.monotonic() - killed_at
            ended_s = await ends.last() - killed_at
        orphans = of_session(server.pid)
        bound = binds(server.port)
        await server.ended()
    verdict = run.verdict()
    return Round(
        with_a_worker=bool(victims),
        noticed_s=noticed_s,
        ended_s=ended_s,
        orphans=len(orphans),
        bound=bound,
        verdict=verdict,
        survivors=len(survivors),
        left=len({note["pid"] for note in verdict.told("left")} & survivors),
        drain_timeouts=server.count("drain timeout"),
    )
