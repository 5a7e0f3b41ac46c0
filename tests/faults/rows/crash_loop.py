"""Starts that go wrong: again and again, at all, or only slowly.

Law: a slow or broken worker costs its own slot only. The app's first line counts the starts, and a pause runs
from the note of a death to the note of the next start.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from itertools import pairwise
from typing import Final

from tests.faults.keeping import Tally, asking
from tests.faults.oracle import Note
from tests.faults.traffic import Listener, noted
from tests.faults.trial import Trial, as_ms, everywhere, row
from tests.processes import of_session
from tests.serving import RESTARTED, STARTED, Server, eventually, listens, serving

# The promise: "at most 20 starts of a slot in 5 minutes".
FULL_S: Final = 300
MOST_STARTS: Final = 20

# The promise: "back-off from 0.5 s to 30 s", after a first replacement at once.
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0

# A signal is answered, and a death reported, within this time at any moment.
ANSWERED_S: Final = 1.0

# A worker requested in a short pause joins, and leaves again, within this time.
MEMBER_S: Final = 5.0

# The pause in which the signals come; a short run does not reach long pauses.
PAUSE_OF_A_LONG_RUN_S: Final = 8.0
PAUSE_OF_A_SHORT_RUN_S: Final = 1.0

# A short run's start is above all time-outs: a stall shows after 3.5 s, and 4 s is the least
# --worker-hang-timeout.
SLOW_START_S: Final = 30.0
SHORT_SLOW_START_S: Final = 4.2
HANG_TIMEOUT_S: Final = 4

# A client with the pace of a person; more requests would only heat the machine.
CLIENT_PAUSE_S: Final = 0.02

DYING_SLOT: Final = 1


@row(
    fault="crash loop",
    how="an app that dies 0.1 s after its start; one that cannot start; one that takes long to start",
    counts="seconds of a crash loop",
    full=everywhere(FULL_S),
    short=5,
)
async def crash_loop(trial: Trial) -> None:
    """Run all three side by side; they wait most of the time."""
    async with asyncio.TaskGroup() as parts:
        parts.create_task(_dies_again_and_again(trial))
        parts.create_task(_cannot_start(trial))
        parts.create_task(_starts_slowly(trial))


def pauses() -> list[float]:
    """Yield the pauses between a death and the next start: 0, 0.5, 1, 2..., at most 30."""
    doubled = [FIRST_PAUSE_S * 2**power for power in range(MOST_STARTS)]
    return [0.0, *(min(each, LONGEST_PAUSE_S) for each in doubled)]


def most_starts(seconds: float) -> int:
    """Return the starts for which these pauses leave room in so many seconds, never above the promise."""
    starts = 1
    for pause in pauses():
        seconds -= pause
        if seconds < 0:
            break
        starts += 1
    return min(starts, MOST_STARTS)


@asynccontextmanager
async def _crashing(
    trial: Trial, name: str, *options: str, workers: int, dying_slot: int = -1, start_s: float = 0.0
) -> AsyncIterator[tuple[Server, Listener]]:
    """`tests/apps/crashing.py` in a folder of its own, and what it notes."""
    folder = trial.part(name).folder
    env = {
        "CRASHING_FOLDER": str(folder),
        "CRASHING_SLOT": str(dying_slot),
        "CRASHING_START_S": str(start_s),
    }
    options = (*trial.variant.options, "--no-access-log", *options)
    with closing(Listener(folder)) as listener:
        async with serving("tests.apps.crashing:app", *options, workers=workers, env=env) as server:
            yield server, listener


# --- again and again


async def _dies_again_and_again(trial: Trial) -> None:
    pause_s = PAUSE_OF_A_LONG_RUN_S if trial.full else PAUSE_OF_A_SHORT_RUN_S
    async with _crashing(trial, "dying", workers=2, dying_slot=DYING_SLOT) as (server, listener):
        first = await listener.next(noted("start", slot=DYING_SLOT))
        await server.said(f"exited with status 9; starting another in {pause_s:g} s")

        async def scale(ask: Callable[[int], Awaitable[None]], workers: int, told: str) -> float:
            """Ask for so many workers; the seconds until the one that stays is told of the other."""
            is_told = listener.next(lambda n: (n["what"], n["by"]) == (told, 1) and n["slot"] > DYING_SLOT)
            telling = asyncio.create_task(is_told)
            asked_at = time.monotonic()
            await ask(workers)
            what = f"SIGTTIN and SIGTTOU in a pause of {pause_s:g} s answered"
            trial.within(what, time.monotonic() - asked_at, ANSWERED_S)
            return float((await telling)["at"]) - asked_at

        joined_s = await scale(server.more, 3, "told_join")
        left_s = await scale(server.fewer, 2, "told_leave")
        # The duration of the fault.
        await asyncio.sleep(first["at"] + trial.count - time.monotonic())
        stopped_at = time.monotonic()
        trial.ended(await server.stop(), "exit status of a stop in a pause")
    started = [n["at"] for n in listener.notes if n["what"] == "start" and n["slot"] == DYING_SLOT]
    starts = sum(at <= stopped_at for at in started)
    # Longer than ordered if the machine is slow to reach the awaited pause.
    seconds = stopped_at - first["at"]
    limit = most_starts(seconds)
    trial.check(f"at most {limit} starts in {seconds:.0f} s", starts, 2 < starts <= limit)
    _check_pauses(trial, server, listener.notes)
    limit_s = pause_s if trial.full else MEMBER_S
    trial.check(
        f"the extra worker has joined, and left on request, in {limit_s:g} s",
        f"{as_ms(joined_s)} and {as_ms(left_s)}",
        joined_s + left_s <= limit_s,
    )
    _check_told(trial, listener.notes, until=stopped_at - ANSWERED_S)


def _check_pauses(trial: Trial, server: Server, notes: list[Note]) -> None:
    """Check the pauses as logged, and as measured."""
    lines = server.found(r"exited with status 9; starting another")
    expected = ["another." if not pause else f"another in {pause:g} s." for pause in pauses()]
    logged = [line.rpartition("starting ")[2] for line in lines]
    trial.check("pauses as logged", ", ".join(logged), logged == expected[: len(logged)])
    mine = [note for note in notes if note.get("slot") == DYING_SLOT and note["what"] in ("start", "dies")]
    passed = [
        after["at"] - before["at"]
        for before, after in pairwise(mine)
        if (before["what"], after["what"]) == ("dies", "start")
    ]
    trial.check(
        "from a death to the next start, and never less than logged",
        ", ".join(f"{seconds:.1f} s" for seconds in passed),
        len(passed) > 1 and all(was >= pause for was, pause in zip(passed, pauses(), strict=False)),
    )


def _check_told(trial: Trial, notes: list[Note], *, until: float) -> None:
    """Check that the worker that stays learns of each death, once and soon.

    Only deaths while it is a member count; those after `until` cross the stop of the server.
    """
    since = next(note["at"] for note in notes if note["what"] == "joined" and note["by"] == 1)
    died = {note["by"]: note["at"] for note in notes if note["what"] == "dies" and since < note["at"] < until}
    told = [note for note in notes if note["what"] == "told_leave" and note["by"] == 1 and note["of"] in died]
    slowest_s = max((note["at"] - died[note["of"]] for note in told), default=float("inf"))
    sound = {note["reason"] for note in told} == {"killed"} and slowest_s <= ANSWERED_S
    trial.check(
        f"deaths reported once to the other worker, within {ANSWERED_S:g} s",
        f"{len(told)} of {len(died)}, {as_ms(slowest_s)}",
        sound and len(told) == len({note["of"] for note in told}) == len(died) > 1,
    )


# --- at all


async def _cannot_start(trial: Trial) -> None:
    for app, reason in (
        ("broken_start", "broken on purpose while starting"),
        ("broken_import", "broken on purpose while importing"),
    ):
        began = time.monotonic()
        async with serving(f"tests.apps.{app}:app", *trial.variant.options, workers=2) as server:
            status = await server.ended()
            left_over = of_session(server.pid)
        seconds = time.monotonic() - began
        told = server.count(f"RuntimeError: {reason}")
        trial.check(
            f"{app}: ends with status 3, the reason in the log once, nothing left over",
            f"status {status}, {told} x {reason!r}, {len(left_over)} left over, after {seconds:.1f} s",
            status == 3 and told == 1 and not left_over,
        )


# --- slowly


async def _starts_slowly(trial: Trial) -> None:
    start_s = SLOW_START_S if trial.full else SHORT_SLOW_START_S
    workers = 2 if trial.full else 1
    tally = Tally()
    patience = ("--worker-hang-timeout", str(HANG_TIMEOUT_S))
    async with _crashing(trial, "slow", *patience, workers=workers, start_s=start_s) as (server, listener):
        began = time.monotonic()
        # Several slow starts one after the other take longer than the usual deadline.
        server.deadline_s += start_s * workers
        first = set(await server.started(workers))
        # Its line about the start-up comes before it listens.
        await eventually(lambda: listens(server.port), "somebody listens")
        ready_s = time.monotonic() - began
        async with asking(server, tally, CLIENT_PAUSE_S):
            server.signal(signal.SIGHUP)
            await server.said("restarting workers")
            asked_at = time.monotonic()
            await server.more(workers + 1)
            answered_s = time.monotonic() - asked_at
            await server.said(RESTARTED)
            restarted_s = time.monotonic() - asked_at
            await server.said(STARTED, 2 * workers + 1)
        status = await server.stop()
    trial.check(f"ready after a start-up of {start_s:g} s", f"{ready_s:.1f} s", ready_s >= start_s)
    ended = server.found("died|stalled|killing|giving the restart up")
    trial.none("killed, called stalled, or given up", ended)
    fresh = {note["pid"] for note in listener.notes if note["what"] == "joined"} - first
    trial.check(
        f"a rolling restart of {workers}, in seconds",
        f"{restarted_s:.1f}, {len(fresh)} started",
        restarted_s >= start_s * workers and len(fresh) == workers + 1,
    )
    trial.within("SIGTTIN meanwhile answered", answered_s, ANSWERED_S)
    tally.check(trial, "failed requests meanwhile")
    trial.ended(status, "exit status of a stop then")
