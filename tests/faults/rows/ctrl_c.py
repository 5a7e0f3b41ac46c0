"""One Ctrl-C: a terminal or a supervisor signals the whole process group, under traffic.

Law: every process of the group gets every signal, and together they make one stop of it. A wrapper that
passes on a signal of the terminal makes two kinds of signal of one key, in the same moment.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Final

from tests.faults.oracle import Verdict
from tests.faults.traffic import check_verdict, traffic
from tests.faults.trial import Trial, as_ms, everywhere, row
from tests.processes import of_session

WORKERS: Final = 4

# The signals that the group gets in one moment; each round has one of these sets, in turn.
FORMS: Final = (
    (signal.SIGINT, signal.SIGTERM),
    (signal.SIGTERM, signal.SIGINT),
    (signal.SIGINT,),
    (signal.SIGTERM,),
)

# Log lines of a stop that was not single or not clean.
UNCLEAN: Final = (
    "ending all workers at once",
    "Traceback",
    "KeyboardInterrupt",
    "died",
    "drain timeout",
    "not stopped in time",
)


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one stop."""

    status: int
    seconds: float
    stops: int
    unclean: list[str]
    left_over: int
    verdict: Verdict


@row(
    fault="one Ctrl-C",
    how="SIGINT and SIGTERM to the whole process group, both in one moment or either, under traffic",
    counts="stops",
    full=everywhere(20),
    short=4,
)
async def ctrl_c(trial: Trial) -> None:
    """Stop a new server so often."""
    rounds = [await _round(one, number) for number, one in enumerate(trial.rounds())]
    trial.equal("exit status 0", sum(not each.status for each in rounds), trial.count)
    trial.equal("one stop each", sum(each.stops == 1 for each in rounds), trial.count)
    unclean = [line for each in rounds for line in each.unclean]
    trial.none("deaths, tracebacks, time-outs, forced ends", unclean)
    left = sum(len(each.verdict.left) for each in rounds)
    trial.equal("workers that left, cleanly", left, trial.count * WORKERS)
    trial.none("processes left over", sum(each.left_over for each in rounds))
    check_verdict(trial, *(each.verdict for each in rounds), is_lossless=True)
    trial.say("the slowest stop took", as_ms(max(each.seconds for each in rounds)))


async def _round(trial: Trial, number: int) -> Round:
    async with traffic(trial, workers=WORKERS) as run:
        server = run.server
        await run.moment(number)
        began = time.monotonic()
        for each in FORMS[number % len(FORMS)]:
            os.killpg(server.pid, each)
        status = await server.ended()
        seconds = time.monotonic() - began
        left_over = len(of_session(server.pid))
    stops = server.count(r"Received SIG\w+, exiting")
    unclean = server.found("|".join(UNCLEAN))
    return Round(status, seconds, stops, unclean, left_over, run.verdict())
