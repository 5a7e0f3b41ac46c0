"""One Ctrl-C: a terminal or a supervisor signals the whole process group, under traffic.

Law: every process of the group gets every signal, and what they make of it
together is one stop. A wrapper that hands on what the terminal has sent
already makes two kinds of signal of one key, in the same moment.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import dataclass, field, replace
from typing import Final

from tests.faults.traffic import traffic
from tests.faults.trial import Row, Trial, as_ms, everywhere
from tests.processes import of_session

WORKERS: Final = 4

# What the group gets in one moment; one of them in each round, in turn.
FORMS: Final = (
    (signal.SIGINT, signal.SIGTERM),
    (signal.SIGTERM, signal.SIGINT),
    (signal.SIGINT,),
    (signal.SIGTERM,),
)

# A round's moment: behind so many large messages, so that it is never the same and often within one.
LARGE_AT_MOST: Final = 5

# Whatever shows that it was not one clean stop.
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
    """What all rounds have come to."""

    statuses: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    unclean: list[str] = field(default_factory=list)
    left_over: int = 0
    left: int = 0
    accepted: int = 0
    lost: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


async def ctrl_c(trial: Trial) -> None:
    """Stop a new server so often."""
    tally = Tally()
    for number in range(trial.count):
        folder = trial.folder / str(number)
        folder.mkdir()
        await _round(replace(trial, folder=folder), number, tally)
        if not (tally.unclean or tally.lost or tally.faults):
            shutil.rmtree(folder)
    _check(trial, tally)


async def _round(trial: Trial, number: int, tally: Tally) -> None:
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
    tally.left += len(verdict.left)
    tally.accepted += verdict.accepted
    tally.lost += verdict.accepted - verdict.delivered + verdict.lost
    tally.faults += verdict.faults


def _check(trial: Trial, tally: Tally) -> None:
    rounds = trial.count
    trial.check("exit status 0", f"{tally.statuses.count(0)} of {rounds}", not any(tally.statuses))
    trial.check("one stop each", f"{tally.stops.count(1)} of {rounds}", set(tally.stops) == {1})
    trial.check(
        "deaths, tracebacks, time-outs, forced ends", "; ".join(tally.unclean) or 0, not tally.unclean
    )
    trial.check(
        "workers that left, cleanly", f"{tally.left} of {rounds * WORKERS}", tally.left == rounds * WORKERS
    )
    trial.check("processes left over", tally.left_over, not tally.left_over)
    trial.say("messages accepted", f"{tally.accepted:,}")
    trial.check("lost", tally.lost, not tally.lost)
    trial.check(
        "duplicated, reordered, altered, misdelivered", "; ".join(tally.faults) or 0, not tally.faults
    )
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
