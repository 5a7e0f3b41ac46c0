"""Long requests: open streaming responses and WebSockets while workers leave.

Law: a request that does not end holds up its own worker, as long as it may,
and nothing else: not the restart of the others, no signal, no other client.
"""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Final

from tests.faults.holding import TOLD_SO, Held, hold_stream, hold_websocket
from tests.faults.keeping import Tally, asking
from tests.faults.trial import Trial, everywhere, row
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


@row(
    fault="long requests",
    how="SIGHUP and SIGTERM with open streaming responses and open WebSockets",
    counts="rounds",
    full=everywhere(10),
    short=1,
)
async def long_requests(trial: Trial) -> None:
    """Two servers side by side, so often: one whose grace ends, one that waits for ever."""
    for _ in range(trial.count):
        async with asyncio.TaskGroup() as parts:
            parts.create_task(_with_a_grace(trial))
            parts.create_task(_without_a_grace(trial))


async def _hold(server: Server) -> tuple[list[Held], list[Held]]:
    """Streams and WebSockets, all of them open."""
    streams = await asyncio.gather(*(hold_stream(server.port) for _ in range(STREAMS)))
    sockets = await asyncio.gather(*(hold_websocket(server.port) for _ in range(WEBSOCKETS)))
    return streams, sockets


async def _ended(trial: Trial, *held: Held) -> None:
    """Wait until the server has ended all of these."""
    for each in held:
        await each.ended()
    sockets = [each for each in held if each.is_socket]
    told = sum(socket.code == TOLD_SO for socket in sockets)
    trial.equal("WebSockets ended with 1012", told, len(sockets))


async def _answer(trial: Trial, server: Server, number: signal.Signals, text: str) -> None:
    """Send a signal, and wait for the launcher's line about it."""
    sent_at = time.monotonic()
    server.signal(number)
    await server.said(text)
    trial.within("signals answered", time.monotonic() - sent_at, ANSWERED_S)


async def _restart_and_scale(trial: Trial, server: Server) -> float:
    """Send SIGHUP, and ask for one worker more and one fewer; when the new ones were ready."""
    await _answer(trial, server, signal.SIGHUP, "restarting workers")
    await server.said(ALL_READY, 2)
    restarted_at = time.monotonic()
    await _answer(trial, server, signal.SIGTTIN, f"Increasing the number of workers to {WORKERS + 1}")
    await _answer(trial, server, signal.SIGTTOU, f"Decreasing the number of workers to {WORKERS}")
    return restarted_at


async def _with_a_grace(trial: Trial) -> None:
    options = (*trial.variant.options, *OPTIONS, "--timeout-graceful-shutdown", str(GRACE_S))
    tally = Tally()
    async with serving("tests.apps.stream:app", *options, workers=WORKERS) as server:
        old = await server.started(WORKERS)
        async with asking(server, tally, CLIENT_PAUSE_S):
            await _restart(trial, server, old)
        await _stop(trial, server)
        trial.ended(await server.ended())
    trial.none("unclean ends", server.found("died|drain timeout|not stopped in time|giving the restart up"))
    tally.check(trial, "failed requests of others")


async def _restart(trial: Trial, server: Server, old: list[int]) -> None:
    """SIGHUP with all that open: the others are replaced, and it ends within the grace."""
    streams, sockets = await _hold(server)
    with watching(old) as ends:
        sent_at = time.monotonic()
        restarted_at = await _restart_and_scale(trial, server)
        ended_at = await ends.last()
    await _ended(trial, *streams, *sockets)
    what = f"restarts that waited for no request: over before a grace of {GRACE_S} s was"
    trial.at_most(what, restarted_at - sent_at, GRACE_S)
    went_on = sum(_went_on(stream, restarted_at) for stream in streams)
    what = "streams that went on behind the restart, while their workers heard messages"
    trial.equal(what, went_on, STREAMS)
    # The last one began to leave when its replacement was ready.
    _check_grace(trial, "restart", ended_at - sent_at, ended_at - restarted_at)


def _went_on(stream: Held, since: float) -> bool:
    """Return whether its worker has spoken and heard messages of others after that."""
    return bool(stream.ended_at and stream.ended_at > since) and stream.heard_since(since) > 0


def _check_grace(trial: Trial, what: str, held_s: float, leaving_s: float) -> None:
    """Check how long requests were held after a signal, and how long the last worker took to leave."""
    trial.check(f"no {what} ends them before the grace of {GRACE_S} s", f"{held_s:.1f} s", held_s >= GRACE_S)
    text = f"after a {what}, the last has ended within the grace and {REST_S:g} s for all else"
    trial.at_most(text, leaving_s, GRACE_S + REST_S)


async def _stop(trial: Trial, server: Server) -> None:
    """SIGTERM with all that open: it ends within the grace."""
    streams, sockets = await _hold(server)
    with watching(server.workers()) as ends:
        sent_at = time.monotonic()
        await _answer(trial, server, signal.SIGTERM, "Received SIGTERM, exiting")
        ended_s = await ends.last() - sent_at
    await _ended(trial, *streams, *sockets)
    _check_grace(trial, "SIGTERM", ended_s, ended_s)


async def _without_a_grace(trial: Trial) -> None:
    """One stream that never ends: all others go, signals are answered, and a second one ends it."""
    options = (*trial.variant.options, *OPTIONS)
    async with serving("tests.apps.stream:app", *options, workers=WORKERS) as server:
        old = await server.started(WORKERS)
        stream = await hold_stream(server.port)
        socket = await hold_websocket(server.port)
        with watching(old) as ends:
            await _restart_and_scale(trial, server)
            outlived = await ends.all(but=[stream.pid])
            trial.none("without a grace: workers without a stream that outlive a restart", outlived)
        with watching(server.workers()) as ends:
            sent_at = time.monotonic()
            await _answer(trial, server, signal.SIGTERM, "Received SIGTERM, exiting")
            what = "without a grace: workers without a request are gone after SIGTERM"
            trial.within(what, await ends.last(but=[stream.pid]) - sent_at, REST_S)
            await stream.says_more()
            forced_at = time.monotonic()
            server.signal(signal.SIGTERM)
            forced = await server.ended()
            trial.within("and a second SIGTERM ends it", time.monotonic() - forced_at, ANSWERED_S)
        trial.ended(forced, "exit status of a second SIGTERM", 128 + signal.SIGTERM)
        await _ended(trial, stream, socket)
