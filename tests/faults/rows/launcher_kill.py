"""The launcher's death under traffic: its workers end by themselves, and cleanly.

Law: only the end of their lifelines tells the workers. In every fifth round one of them is killed in the same
moment, sometimes before the launcher and sometimes after it, so that no process is left to report its death.
In another fifth a rolling restart has begun, and a worker joins.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from typing import Final

from tests.faults.oracle import Verdict
from tests.faults.traffic import Traffic, check_verdict, traffic
from tests.faults.trial import Row, Trial, everywhere
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

# A round's moment: after so many large messages, so that the moment differs and is often within a message.
LARGE_AT_MOST: Final = 5


@dataclass(slots=True)
class Tally:
    """The results of all rounds."""

    clean: int = 0
    with_a_worker: int = 0
    noticed_s: list[float] = field(default_factory=list)
    ended_s: list[float] = field(default_factory=list)
    orphans: int = 0
    bound: int = 0
    verdicts: list[Verdict] = field(default_factory=list)
    survivors: int = 0
    left: int = 0
    drain_timeouts: int = 0


async def launcher_kill(trial: Trial) -> None:
    """Kill the launcher of a new server so often."""
    tally = Tally()
    for number in range(trial.count):
        one = trial.part(str(number))
        if await _round(one, number, tally):
            tally.clean += 1
            shutil.rmtree(one.folder)
    _check(trial, tally)


async def _round(trial: Trial, number: int, tally: Tally) -> bool:
    """Kill one launcher; return whether all promises held."""
    async with traffic(trial, workers=WORKERS) as run:
        server = run.server
        for _ in range(1 + number % LARGE_AT_MOST):
            await run.listener.next(lambda note: bool(note["what"] == "large"))
        if number % CYCLE == JOINING:
            server.signal(signal.SIGHUP)
            await run.listener.next(lambda note: bool(note["what"] == "joining"))
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
    left = _left_cleanly(run, verdict, survivors)
    tally.with_a_worker += bool(victims)
    tally.noticed_s.append(noticed_s)
    tally.ended_s.append(ended_s)
    tally.orphans += len(orphans)
    tally.bound += bound
    tally.survivors += len(survivors)
    tally.left += left
    tally.verdicts.append(verdict)
    tally.drain_timeouts += server.count("drain timeout")
    in_time = noticed_s <= NOTICED_S and ended_s <= ENDED_S
    sound = not verdict.faults and not verdict.missing_between(verdict.left) and left == len(survivors)
    return in_time and sound and bound and not orphans and not server.count("drain timeout")


def _left_cleanly(run: Traffic, verdict: Verdict, survivors: set[int]) -> int:
    """Return how many survivors have ended their lifespans."""
    return len({note["pid"] for note in verdict.told("left")} & survivors)


def _check(trial: Trial, tally: Tally) -> None:
    rounds = trial.count
    trial.equal("clean", tally.clean, rounds)
    wanted = len(range(WITH_A_WORKER, rounds, CYCLE))
    trial.check(
        "of them with a worker killed in the same moment",
        tally.with_a_worker,
        tally.with_a_worker == wanted > 0,
    )
    trial.say("of them while a worker joined", len(range(JOINING, rounds, CYCLE)))
    noticed_s, ended_s = max(tally.noticed_s), max(tally.ended_s)
    trial.within("noticed by the last", noticed_s, NOTICED_S)
    trial.within("the last has ended", ended_s, ENDED_S)
    trial.none("orphans", tally.orphans)
    trial.equal("the port binds again", tally.bound, rounds)
    trial.equal("survivors that left with all delivered", tally.left, tally.survivors)
    trial.none("drain timeouts", tally.drain_timeouts)
    check_verdict(trial, *tally.verdicts)


LAUNCHER_KILL: Final = Row(
    name="launcher-kill",
    fault="launcher SIGKILL",
    how="under traffic; in every fifth round a worker, too, in the same moment",
    counts="launchers",
    full=everywhere(50),
    short=3,
    run=launcher_kill,
)
