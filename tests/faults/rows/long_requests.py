"""Long requests: open streaming responses and WebSockets while workers leave.

Law: a request that does not end holds up its own worker, as long as it may,
and nothing else: not the restart of the others, no signal, no other client.
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field
from typing import Final

from tests.faults import keeping
from tests.faults.holding import TOLD_SO, Held, hold_stream, hold_websocket
from tests.faults.keeping import asking
from tests.faults.trial import Trial, as_ms, everywhere, row
from tests.serving import Server, serving, watching

WORKERS: Final = 3

# So many that every worker is likely to have some; the kernel deals them out.
STREAMS: Final = 6
WEBSOCKETS: Final = 6

# `--timeout-graceful-shutdown`, long enough for a restart of the others in between.
GRACE_S: Final = 4

# A stop takes so long beside its requests: connections without a request may live 1 s, uvicorn looks every
# 0.1 s, and the messages are drained.
REST_S: Final = 2.0

# A signal is answered within this time, whatever is open.
ANSWERED_S: Final = 1.0

# A client with the pace of a person; more requests would only heat the machine.
CLIENT_PAUSE_S: Final = 0.02

OPTIONS: Final = ("--no-access-log",)

# After the start, and once more when new workers have taken over from the old ones.
ALL_READY: Final = f"All {WORKERS} workers are ready"


@dataclass(slots=True)
class Tally:
    """The results of all rounds; the slowest of each kind of time, in seconds."""

    restarted_s: list[float] = field(default_factory=list)
    answered_s: list[float] = field(default_factory=list)
    held_s: list[float] = field(default_factory=list)
    ended_after_hup_s: list[float] = field(default_factory=list)
    ended_after_term_s: list[float] = field(default_factory=list)
    idle_ended_s: list[float] = field(default_factory=list)
    at_once_s: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    forced_statuses: list[int] = field(default_factory=list)
    # Restarts after which only the worker with the open stream was left of the old.
    left_after_hup: int = 0
    streams: int = 0
    went_on: int = 0
    codes: list[int | None] = field(default_factory=list)
    requests: keeping.Tally = field(default_factory=keeping.Tally)
    unclean: list[str] = field(default_factory=list)


@row(
    fault="long requests",
    how="SIGHUP and SIGTERM with open streaming responses and open WebSockets",
    counts="rounds",
    full=everywhere(10),
    short=1,
)
async def long_requests(trial: Trial) -> None:
    """Two servers side by side, so often: one whose grace ends, one that waits for ever."""
    tally = Tally()
    for _ in range(trial.count):
        async with asyncio.TaskGroup() as parts:
            parts.create_task(_with_a_grace(trial, tally))
            parts.create_task(_without_a_grace(trial, tally))
    _check(trial, tally)


async def _hold(server: Server) -> tuple[list[Held], list[Held]]:
    """Streams and WebSockets, all of them open."""
    streams = await asyncio.gather(*(hold_stream(server.port) for _ in range(STREAMS)))
    sockets = await asyncio.gather(*(hold_websocket(server.port) for _ in range(WEBSOCKETS)))
    return streams, sockets


async def _answer(server: Server, number: signal.Signals, text: str, count: int = 1) -> float:
    """Seconds from a signal to the launcher's line about it."""
    sent_at = time.monotonic()
    server.signal(number)
    await server.said(text, count)
    return time.monotonic() - sent_at


async def _scale(server: Server) -> list[float]:
    """Ask for one worker more and one fewer; return the seconds to each answer."""
    return [
        await _answer(server, signal.SIGTTIN, f"Increasing the number of workers to {WORKERS + 1}"),
        await _answer(server, signal.SIGTTOU, f"Decreasing the number of workers to {WORKERS}"),
    ]


async def _with_a_grace(trial: Trial, tally: Tally) -> None:
    options = (*trial.variant.options, *OPTIONS, "--timeout-graceful-shutdown", str(GRACE_S))
    async with serving("tests.apps.stream:app", *options, workers=WORKERS) as server:
        old = await server.started(WORKERS)
        async with asking(server, tally.requests, CLIENT_PAUSE_S):
            await _restart(server, old, tally)
        await _stop(server, tally)
        tally.statuses.append(await server.ended())
        tally.unclean += server.found("died|drain timeout|not stopped in time|giving the restart up")


async def _restart(server: Server, old: list[int], tally: Tally) -> None:
    """SIGHUP with all that open: the others are replaced, and it ends within the grace."""
    streams, sockets = await _hold(server)
    with watching(old) as ends:
        sent_at = time.monotonic()
        tally.answered_s.append(await _answer(server, signal.SIGHUP, "restarting workers"))
        await server.said(ALL_READY, 2)
        restarted_at = time.monotonic()
        tally.answered_s += await _scale(server)
        ended_at = await ends.last()
    for held in (*streams, *sockets):
        await held.ended()
    tally.restarted_s.append(restarted_at - sent_at)
    tally.held_s.append(ended_at - sent_at)
    # The last one began to leave when its replacement was ready.
    tally.ended_after_hup_s.append(ended_at - restarted_at)
    tally.streams += len(streams)
    tally.went_on += sum(_went_on(stream, restarted_at) for stream in streams)
    tally.codes += [held.code for held in sockets]


def _went_on(stream: Held, since: float) -> bool:
    """Return whether its worker has spoken and heard messages of others after that."""
    return bool(stream.ended_at and stream.ended_at > since) and stream.heard_since(since) > 0


async def _stop(server: Server, tally: Tally) -> None:
    """SIGTERM with all that open: it ends within the grace."""
    streams, sockets = await _hold(server)
    with watching(server.workers()) as ends:
        sent_at = time.monotonic()
        tally.answered_s.append(await _answer(server, signal.SIGTERM, "Received SIGTERM, exiting"))
        ended_s = await ends.last() - sent_at
    tally.held_s.append(ended_s)
    tally.ended_after_term_s.append(ended_s)
    for held in (*streams, *sockets):
        await held.ended()
    tally.codes += [held.code for held in sockets]


async def _without_a_grace(trial: Trial, tally: Tally) -> None:
    """One stream that never ends: all others go, signals are answered, and a second one ends it."""
    options = (*trial.variant.options, *OPTIONS)
    async with serving("tests.apps.stream:app", *options, workers=WORKERS) as server:
        old = await server.started(WORKERS)
        stream = await hold_stream(server.port)
        socket = await hold_websocket(server.port)
        with watching(old) as ends:
            tally.answered_s.append(await _answer(server, signal.SIGHUP, "restarting workers"))
            await server.said(ALL_READY, 2)
            tally.answered_s += await _scale(server)
            tally.left_after_hup += not await ends.all(but=[stream.pid])
        with watching(server.workers()) as ends:
            sent_at = time.monotonic()
            tally.answered_s.append(await _answer(server, signal.SIGTERM, "Received SIGTERM, exiting"))
            tally.idle_ended_s.append(await ends.last(but=[stream.pid]) - sent_at)
            await stream.says_more()
            forced_at = time.monotonic()
            server.signal(signal.SIGTERM)
            tally.forced_statuses.append(await server.ended())
            tally.at_once_s.append(time.monotonic() - forced_at)
        await stream.ended()
        await socket.ended()
        tally.codes.append(socket.code)


def _check(trial: Trial, tally: Tally) -> None:
    restarted_s, answered_s = max(tally.restarted_s), max(tally.answered_s)
    trial.check(
        f"restarts that waited for no request: over before a grace of {GRACE_S} s was",
        as_ms(restarted_s),
        restarted_s < GRACE_S,
    )
    trial.check(
        "streams that went on behind the restart, while their workers heard messages",
        f"{tally.went_on} of {tally.streams}",
        tally.went_on == tally.streams > 0,
    )
    tally.requests.check(trial, "failed requests of others")
    for what, seconds in (("restart", tally.ended_after_hup_s), ("SIGTERM", tally.ended_after_term_s)):
        trial.check(
            f"after a {what}, the last has ended within the grace and {REST_S:g} s for all else",
            f"{max(seconds):.1f} s",
            max(seconds) <= GRACE_S + REST_S,
        )
    held_s = min(tally.held_s)
    trial.check(f"and not before the grace of {GRACE_S} s", f"{held_s:.1f} s", held_s >= GRACE_S)
    clean = not any(tally.statuses) and not tally.unclean
    trial.check("exit status", f"{tally.statuses} {tally.unclean}", clean)
    told = tally.codes.count(TOLD_SO)
    trial.equal("WebSockets ended with 1012", told, len(tally.codes))
    trial.within("signals answered", answered_s, ANSWERED_S)
    left = tally.left_after_hup
    trial.check("without a grace: only workers with a stream outlive a restart", left, left == trial.count)
    idle_s, at_once_s = max(tally.idle_ended_s), max(tally.at_once_s)
    idle = f"without a grace: workers without a request are gone within {REST_S:g} s of SIGTERM"
    trial.check(idle, as_ms(idle_s), idle_s <= REST_S)
    forced = set(tally.forced_statuses) == {128 + signal.SIGTERM}
    trial.check(
        f"and a second SIGTERM ends it within {ANSWERED_S:g} s",
        f"{as_ms(at_once_s)}, status {tally.forced_statuses}",
        forced and at_once_s <= ANSWERED_S,
    )
