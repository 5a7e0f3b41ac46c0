"""Questions and publications while workers are killed and replaced.

Law: the workers judge their answers and publications (tests/apps/asking.py); this file kills and restarts
them, and reads their notes.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import Final

from tests.apps.asking import COUNTS, WRONG
from tests.faults.trial import Trial, describe, everywhere, row
from tests.serving import serving

WORKERS: Final = 4

# One turn of so many is a rolling restart.
RESTART_EVERY: Final = 5

# The time in which all live together between two turns.
TOGETHER_S: Final = 0.3


@row(
    fault="killed while asked, and while it publishes",
    how="all ask all and publish, while workers are killed and restarted",
    counts="turns",
    full=everywhere(100),
    short=10,
)
async def asking(trial: Trial) -> None:
    """Kill one of them, wait for its replacement, again and again; between these, restart all."""
    chance = random.Random(trial.count)
    options = (*trial.variant.options, "--log-level", "info")
    env = {"ASKING_FOLDER": str(trial.folder)}
    kills = restarts = 0
    async with serving("tests.apps.asking:app", *options, workers=WORKERS, env=env) as server:
        server.deadline_s = 60.0
        await server.started(WORKERS)
        for turn in range(1, trial.count + 1):
            await asyncio.sleep(TOGETHER_S)  # as the law of the row says
            if turn % RESTART_EVERY:
                # The older half: a young death would be taken for a failed start.
                await server.kill(chance.choice(sorted(server.workers())[: WORKERS // 2]))
                kills += 1
            else:
                await server.restart()
                restarts += 1
        await asyncio.sleep(TOGETHER_S)
        status = await server.stop()
        trial.none("tracebacks except the planned ones", _strange(server.text))
    counts: Counter[str] = Counter()
    for file in trial.folder.glob(f"{COUNTS}*"):
        counts.update(json.loads(file.read_text()))
    wrong = trial.folder / WRONG
    lines = wrong.read_text().splitlines() if wrong.exists() else []
    trial.say("kills, and rolling restarts", f"{kills}, {restarts}")
    trial.say("reported by the leavers", describe(dict(counts)))
    for what in ("answers", "raised", "timeouts", "gone", "publications"):
        trial.check(what, f"{counts[what]:,}", counts[what] > 0)
    trial.none("wrong answers, and gaps or repeats in publications", lines)
    trial.ended(status)


def _strange(text: str) -> list[str]:
    """Return the last lines of unplanned tracebacks."""
    lines = [line for line in text.splitlines() if line.partition(":")[0].endswith("Error")]
    return [line for line in lines if not line.startswith("ValueError: number ")][:3]
