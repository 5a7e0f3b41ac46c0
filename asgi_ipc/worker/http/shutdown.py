"""Leaving: how the HTTP side of a worker ends, before uvicorn's own shutdown.

Law: it decides how long each connection may live, and says for what the
worker waits. What connections are is in `worker/http/connections.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from time import monotonic
from typing import Any, Final

import uvicorn

from asgi_ipc.logs import server_logger as logger
from asgi_ipc.printable import printable
from asgi_ipc.worker.assignment import Assignment
from asgi_ipc.worker.http.connections import Connections, Request, Task

# A connection that was accepted and has said nothing yet may be about to: who
# connects first and sends a little later shall get an answer.
LINGER_S: Final = 1.0

# When the launcher is gone: as long as the guard has beyond an orphan's drain (worker/lifeline.py), and less.
ORPHAN_LINGER_S: Final = 0.3

# As uvicorn looks when it waits; and sooner when a stop may be a matter of moments.
_STEP_S: Final = 0.1
_SHORT_STEP_S: Final = 0.01

# A request that holds up a stop is named within the promised 5 s.
NAMED_AFTER_S: Final = 3.0
_LOOK_S: Final = 1.0


class Leaving:
    """One worker's stop.

    Every response that starts says that its connection ends with it. While the worker is relieved (others
    serve on), a connection lives until it has said so or has been idle for `--timeout-keep-alive`;
    otherwise only those live on, for a moment, that have had no request yet.
    """

    def __init__(self, config: uvicorn.Config, connections: Connections, here: Assignment) -> None:
        self._grace_s = config.timeout_graceful_shutdown
        self._idle_s = float(config.timeout_keep_alive)
        # A TLS connection is none of uvicorn's before its handshake, so nobody can see that one is coming.
        self._least_s = LINGER_S if config.is_ssl else 0.0
        self._connections = connections
        self._here = here
        # None that is open now is younger than the stop.
        connections.look()
        self._began = monotonic()
        self._cancelled: set[Task] = set()
        # Since when each connection has been seen to be idle; those that were told that it is over.
        self._idle_since: dict[Any, float] = {}
        self._told: set[Any] = set()

    async def linger(self) -> None:
        """Return when uvicorn may close what is left."""
        # At least once: what was accepted in this turn is a connection only in the next.
        step_s = _SHORT_STEP_S
        while True:
            self._connections.close_after_responses()
            await asyncio.sleep(step_s)
            now = monotonic()
            if not (self._waits_relieved(now) if self._here.is_relieved else self._waits(now)):
                break
            step_s = _STEP_S if self._here.is_relieved else _SHORT_STEP_S
        for connection in self._told:
            if self._connections.is_websocket(connection):
                self._connections.forget(connection)

    def _waits(self, now: float) -> bool:
        linger_s = LINGER_S if self._here.lifeline.is_open else ORPHAN_LINGER_S
        return now < self._began + linger_s and any(map(self._connections.is_silent, self._connections))

    def _waits_relieved(self, now: float) -> bool:
        self._connections.look()
        requests = [each for each in self._connections.requests if each.task not in self._cancelled]
        self._cancel_overdue(requests, now)
        waits = [self._waits_for(each, now) for each in self._connections]
        is_early = now < self._began + self._least_s
        return is_early or any(waits) or bool(requests)

    def _waits_for(self, connection: Any, now: float) -> bool:
        """Whether this connection may live on; tell it if not."""
        if connection in self._told:
            # uvicorn waits for the rest of its response.
            return False
        if self._connections.is_websocket(connection):
            idle_s = 0.0
        elif not self._connections.is_idle(connection):
            self._idle_since.pop(connection, None)
            return True
        elif self._connections.is_http2(connection):
            # A stream that has crossed with GOAWAY is on its way for a moment.
            idle_s = LINGER_S
        elif self._connections.is_silent(connection):
            idle_s = max(self._idle_s, LINGER_S)
        else:
            # uvicorn's own timer comes first, unless half a request has stopped it.
            idle_s = self._idle_s
        if now < self._idle_since.setdefault(connection, now) + idle_s:
            return True
        self._told.add(connection)
        connection.shutdown()
        return False

    def _cancel_overdue(self, requests: list[Request], now: float) -> None:
        """As uvicorn does, but a request that has come to a worker that leaves has its own time."""
        if self._grace_s is None:
            return
        late_s = max(self._grace_s, LINGER_S)
        overdue = [
            each.task
            for each in requests
            if now >= (each.since + late_s if each.since > self._began else self._began + self._grace_s)
        ]
        for task in overdue:
            task.cancel(msg="Task cancelled, timeout graceful shutdown exceeded")
        if overdue:
            logger.error("Cancel %d running task(s), timeout graceful shutdown exceeded", len(overdue))
        self._cancelled.update(overdue)

    async def cancel_deserted(self) -> None:
        """Cancel requests whose clients have gone, when the launcher has, too. Runs until cancelled.

        uvicorn waits for them, and nobody is left who would ever end that.
        """
        # uvicorn tells nobody when a connection ends.
        while self._here.lifeline.is_open or len(self._connections):  # noqa: ASYNC110
            await asyncio.sleep(_STEP_S)
        await asyncio.sleep(ORPHAN_LINGER_S)
        self._connections.look()
        for request in self._connections.requests:
            request.task.cancel(msg="Task cancelled, its client and the launcher are gone")

    # --- what it waits for

    async def tell_waits(self) -> None:
        """Say for what this worker waits, once for each wait that is not over soon. Runs until cancelled."""
        # All that were open by then have been named.
        named_until = 0.0
        said: set[str] = set()
        draining_since: float | None = None
        while True:
            await asyncio.sleep(_LOOK_S)
            now = monotonic()
            self._connections.look()
            if self._here.drains and draining_since is None:
                draining_since = now
            if now < self._began + NAMED_AFTER_S:
                continue
            held = [each for each in self._connections.requests if now >= each.since + NAMED_AFTER_S]
            if held:
                if held[-1].since > named_until:
                    self._say(logging.WARNING, self._describe(held, now))
                named_until = now - NAMED_AFTER_S
            elif draining_since is not None:
                if now >= draining_since + NAMED_AFTER_S and "drain" not in said:
                    said.add("drain")
                    bound = f"--drain-timeout ({self._here.settings.drain_timeout:g} s)"
                    self._say(logging.WARNING, f"messages to be handled; {bound} bounds that")
            elif "idle" not in said and self._here.is_relieved and len(self._connections):
                said.add("idle")
                count = len(self._connections)
                what = f"{count} connection{'' if count == 1 else 's'} on which a request may be under way"
                self._say(logging.INFO, f"{what}; --timeout-keep-alive ({self._idle_s:g} s) bounds that")

    def _describe(self, held: list[Request], now: float) -> str:
        more = f" and {len(held) - 1} more" if held[1:] else ""
        bound = "--timeout-graceful-shutdown would bound that, and is not set"
        if self._grace_s is not None:
            bound = f"--timeout-graceful-shutdown ({self._grace_s:g} s) bounds that"
        return f"{printable(str(held[0]))}, open for {now - held[0].since:.0f} s{more}; {bound}"

    def _say(self, level: int, text: str) -> None:
        logger.log(level, "Worker [%d] leaves, and waits for %s.", os.getpid(), text)
