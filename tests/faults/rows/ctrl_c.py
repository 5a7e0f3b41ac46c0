"""One Ctrl-C: a terminal or a supervisor signals the whole process group, under traffic.

Law: every process of the group gets every signal, and together they make one stop of it. A wrapper that
passes on a signal of the terminal makes two kinds of signal of one key, in the same moment.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Final

from tests.faults.traffic import check_verdict, traffic
from tests.faults.trial import Trial, everywhere, row
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


@row(
    fault="one Ctrl-C",
    how="SIGINT and SIGTERM to the whole process group, both in one moment or either, under traffic",
    counts="stops",
    full=everywhere(20),
    short=4,
)
async def ctrl_c(trial: Trial) -> None:
    """Stop a new server so often."""
    for number, one in enumerate(trial.rounds()):
        await _round(one, number)


async def _round(trial: Trial, number: int) -> None:
    async with traffic(trial, workers=WORKERS) as run:
        server = run.server
        await run.moment(number)
        began = time.monotonic()
        for each in FORMS[number % len(FORMS)]:
            os.killpg(server.pid, each)
        trial.equal("exit status 0", await server.ended() == 0)
        trial.at_most("the slowest stop took", time.monotonic() - began)
        trial.none("processes left over", of_session(server.pid))
    trial.equal("one stop each", server.count(r"Received SIG\w+, exiting"))
    trial.none("deaths, tracebacks, time-outs, forced ends", server.found("|".join(UNCLEAN)))
    verdict = run.verdict()
    trial.equal("workers that left, cleanly", len(verdict.left), WORKERS)
    check_verdict(trial, verdict, is_lossless=True)
