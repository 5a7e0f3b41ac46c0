"""The launcher stopped with SIGSTOP: the workers go on without it, and it does not blame them for its pause.

Law: the pause is as long as the figure says, and nothing else goes wrong meanwhile. The row runs without a
hang timeout, and with one that the pause exceeds; the short form runs the second, harder one.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Final

from tests.faults.traffic import LEAST_RATE, Traffic, check_verdict, traffic, who
from tests.faults.trial import ASYNCIO, SMALL, UVLOOP, Row, Trial
from tests.serving import DEADLINE_S

WORKERS: Final = 4

# The hang timeout of a pause of a minute, and of a short one: the least that the launcher takes.
HANG_TIMEOUT_S: Final = 30
LEAST_HANG_TIMEOUT_S: Final = 4

# The launcher's lines about a worker that does not beat, has died or was ended.
BLAMED: Final = "stalled|died|killing|replacing"


async def launcher_stop(trial: Trial) -> None:
    """Run one way after the other."""
    hang_timeout_s = HANG_TIMEOUT_S if trial.count > HANG_TIMEOUT_S else LEAST_HANG_TIMEOUT_S
    assert trial.count > hang_timeout_s, "the pause is to exceed the hang timeout"
    if trial.full:
        await _pause(trial.part("plain"))
    option = "--worker-hang-timeout", str(hang_timeout_s)
    await _pause(trial.part("hang", f"with {' '.join(option)}: "), *option)


async def _pause(trial: Trial, *options: str) -> None:
    async with traffic(trial, *options, workers=WORKERS) as run:
        server = run.server
        before = server.workers()
        heard_before = await _received(run, before)
        server.signal(signal.SIGSTOP)
        await asyncio.sleep(trial.count)  # the fault: the launcher's pause
        heard_meanwhile = await _received(run, before)
        server.signal(signal.SIGCONT)
        # A new worker shows that the launcher has read the words of the pause, has judged, and goes on as
        # before.
        server.signal(signal.SIGTTIN)
        await server.said("Application startup complete", WORKERS + 1)
        after = server.workers()
        status = await server.stop()
    verdict = run.verdict()
    messages = [heard_meanwhile[pid] - heard_before[pid] for pid in before]
    rate = sum(messages) / trial.count
    trial.check("each worker has heard the others meanwhile", messages, min(messages) > 0)
    # The test suite does not judge speed: it may share its machine.
    least = LEAST_RATE if trial.full else 1
    trial.check(f"at least {least:,} messages a second meanwhile", f"{rate:,.0f}", rate >= least)
    check_verdict(trial, verdict, is_lossless=True)
    gone = [pid for pid in before if pid not in after]
    trial.check("workers gone", gone, not gone and len(after) == WORKERS + 1)
    blamed = server.found(BLAMED)
    trial.none("workers blamed", blamed)
    trial.ended(status)


async def _received(run: Traffic, pids: list[int]) -> dict[int, int]:
    """Return the number of messages that each worker has got so far, by its own count."""
    async with asyncio.timeout(DEADLINE_S):
        answers = await asyncio.gather(*[who(run.server, pid) for pid in pids])
    heard = {}
    for pid, answer in zip(pids, answers, strict=True):
        received = answer["received"]
        assert isinstance(received, int)
        heard[pid] = received
    return heard


LAUNCHER_STOP: Final = Row(
    name="launcher-stop",
    fault="launcher SIGSTOP",
    how="messages go on between the workers; with --worker-hang-timeout too",
    counts="seconds, each of the two ways",
    full={UVLOOP: 60, ASYNCIO: 6, SMALL: 6},
    short=5,
    run=launcher_stop,
)
