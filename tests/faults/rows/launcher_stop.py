"""The launcher stopped with SIGSTOP: the workers go on without it, and it does not blame them for its pause.

Law: the pause is as long as the figure says, and nothing else goes wrong meanwhile. The row runs without a
hang timeout, and with one that the pause exceeds; the short form runs the second, harder one.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Final

from tests.faults.traffic import LEAST_RATE, Traffic, traffic
from tests.faults.trial import ASYNCIO, SMALL, UVLOOP, Trial, row
from tests.serving import DEADLINE_S

WORKERS: Final = 4

# The hang timeout of a pause of a minute, and of a short one: the least that the launcher takes.
HANG_TIMEOUT_S: Final = 30
LEAST_HANG_TIMEOUT_S: Final = 4

# The launcher's lines about a worker that does not beat, has died or was ended.
BLAMED: Final = "stalled|died|killing|replacing"


@row(
    fault="launcher SIGSTOP",
    how="messages go on between the workers; with --worker-hang-timeout too",
    counts="seconds, each of the two ways",
    full={UVLOOP: 60, ASYNCIO: 6, SMALL: 6},
    short=5,
)
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
        await run.finish(trial, is_lossless=True)
    messages = [heard_meanwhile[pid] - heard_before[pid] for pid in before]
    trial.check("each worker has heard the others meanwhile", messages, min(messages) > 0)
    # The test suite does not judge speed: it may share its machine.
    least = LEAST_RATE if trial.full else 1
    trial.least("messages a second meanwhile", sum(messages) / trial.count, least)
    gone = [pid for pid in before if pid not in after]
    trial.check("workers gone", gone, not gone and len(after) == WORKERS + 1)
    trial.none("workers blamed", server.found(BLAMED))


async def _received(run: Traffic, pids: list[int]) -> dict[int, int]:
    """Return the number of messages that each worker has got so far, by its own count."""
    heard: dict[int, int] = {}
    async with asyncio.timeout(DEADLINE_S):
        while not heard.keys() >= set(pids):
            # At once: one request at a time may always meet the same worker.
            for answer in await asyncio.gather(*(run.server.get("/who") for _ in pids)):
                heard.setdefault(answer.json()["pid"], answer.json()["received"])
    return heard
