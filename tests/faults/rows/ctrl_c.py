"""One Ctrl-C: a terminal or a supervisor signals the whole process group, under traffic.

Law: every process of the group gets every signal, and together they make one stop of it. A wrapper that
passes on a signal of the terminal makes two kinds of signal of one key, in the same moment.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import dataclass, field
from typing import Final

from tests.faults.oracle import Verdict
from tests.faults.traffic import check_verdict, traffic
from tests.faults.trial import Row, Trial, as_ms, everywhere
from tests.processes import of_session

WORKERS: Final = 4

# The signals that the group gets in one moment; each round has one of these sets, in turn.
FORMS: Final = (
    (signal.SIGINT, signal.SIGTERM),
    (signal.SIGTERM, signal.SIGINT),
    (signal.SIGINT,),
    (signal.SIGTERM,),
)

# A round's moment: after so many large messages, so that the moment differs and is often within a message.
LARGE_AT_MOST: Final = 5

# Log lines of a stop that was not single or not clean.
UNCLEAN: Final = (
    "ending all workers at once",
    "Traceback",
    "KeyboardInterrupt",
    "died",
    "drain timeout",
    "not stopped in time",
)


@dataclass(slots=True)
class Tally:
    """The results of all rounds."""

    statuses: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    unclean: list[str] = field(default_factory=list)
    left_over: int = 0
    verdicts: list[Verdict] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


async def ctrl_c(trial: Trial) -> None:
    """Stop a new server so often."""
    tally = Tally()
    for number in range(trial.count):
        one = trial.part(str(number))
        verdict = await _round(one, number, tally)
        if not (tally.unclean or verdict.faults or verdict.missing):
            shutil.rmtree(one.folder)
    _check(trial, tally)


async def _round(trial: Trial, number: int, tally: Tally) -> Verdict:
    async with traffic(trial, workers=WORKERS) as run:
        server = run.server
        for _ in range(1 + number % LARGE_AT_MOST):
            await run.listener.next(lambda note: bool(note["what"] == "large"))
        began = time.monotonic()
        for each in FORMS[number % len(FORMS)]:
            os.killpg(server.pid, each)
        tally.statuses.append(await server.ended())
        tally.seconds.append(time.monotonic() - began)
        tally.left_over += len(of_session(server.pid))
    verdict = run.verdict()
    tally.stops.append(server.count(r"Received SIG\w+, exiting"))
    tally.unclean += [line for words in UNCLEAN for line in server.found(words)]
    tally.verdicts.append(verdict)
    return verdict


def _check(trial: Trial, tally: Tally) -> None:
    rounds = trial.count
    trial.check("exit status 0", f"{tally.statuses.count(0)} of {rounds}", not any(tally.statuses))
    trial.check("one stop each", f"{tally.stops.count(1)} of {rounds}", set(tally.stops) == {1})
    trial.none("deaths, tracebacks, time-outs, forced ends", tally.unclean)
    left = sum(len(verdict.left) for verdict in tally.verdicts)
    trial.equal("workers that left, cleanly", left, rounds * WORKERS)
    trial.none("processes left over", tally.left_over)
    check_verdict(trial, *tally.verdicts, is_lossless=True)
    trial.say("the slowest stop took", as_ms(max(tally.seconds)))


CTRL_C: Final = Row(
    name="ctrl-c",
    fault="one Ctrl-C",
    how="SIGINT and SIGTERM to the whole process group, both in one moment or either, under traffic",
    counts="stops",
    full=everywhere(20),
    short=4,
    run=ctrl_c,
)
