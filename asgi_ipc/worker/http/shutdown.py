"""Shutdown: what a worker does with its connections before uvicorn's own shutdown.

Law: it decides how long each connection may live, and logs what the worker
waits for. `connections.py` knows what connections are.
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

# A client that connected and sends its request a moment later gets an answer.
LINGER_S: Final = 1.0

# The same without a launcher: less than what the guard grants beyond an orphan's drain (runtime/guard.py).
ORPHAN_LINGER_S: Final = 0.3

# As often as uvicorn looks when it waits; more often when the stop may take moments only.
_STEP_S: Final = 0.1
_SHORT_STEP_S: Final = 0.01

# A request that holds up a stop is named within the promised 5 s.
NAMED_AFTER_S: Final = 3.0
_LOOK_S: Final = 1.0


class Shutdown:
    """The stop of one worker.

    Every response that starts says `Connection: close`. While other workers serve on (the worker is
    "relieved"), a connection lives until such a response or until it was idle for `--timeout-keep-alive`.
    Otherwise, only a connection that has had no request yet lives on, for a moment.
    """

    def __init__(self, config: uvicorn.Config, connections: Connections, assignment: Assignment) -> None:
        self._grace_s = config.timeout_graceful_shutdown
        self._idle_s = float(config.timeout_keep_alive)
        # uvicorn does not know of a TLS connection before the end of its handshake.
        self._min_wait_s = LINGER_S if config.is_ssl else 0.0
        self._connections = connections
        self._assignment = assignment
        self._lifeline = assignment.lifeline
        # So that every request that is open now counts as older than the stop.
        connections.look()
        self._began = monotonic()
        self._cancelled: set[Task] = set()
        # Since when each connection is idle, and the connections that were told to end.
        self._idle_since: dict[Any, float] = {}
        self._told: set[Any] = set()

    async def wait_for_connections(self) -> None:
        """Return when uvicorn may close the rest."""
        # At least one step: a socket that was accepted in this turn is a connection only in the next.
        step_s = _SHORT_STEP_S
        while True:
            self._connections.close_after_responses()
            await asyncio.sleep(step_s)
            now = monotonic()
            waits = self._waits_relieved if self._lifeline.is_relieved else self._waits
            if not waits(now):
                break
            step_s = _STEP_S if self._lifeline.is_relieved else _SHORT_STEP_S
        for connection in self._told:
            if self._connections.is_websocket(connection):
                self._connections.forget(connection)

    def _waits(self, now: float) -> bool:
        linger_s = LINGER_S if self._lifeline.is_open else ORPHAN_LINGER_S
        return now < self._began + linger_s and any(map(self._connections.is_silent, self._connections))

    def _waits_relieved(self, now: float) -> bool:
        self._connections.look()
        requests = [each for each in self._connections.requests if each.task not in self._cancelled]
        self._cancel_overdue(requests, now)
        # A list: each connection has to be looked at, and told.
        lives = [self._may_live(each, now) for each in self._connections]
        return now < self._began + self._min_wait_s or any(lives) or bool(requests)

    def _may_live(self, connection: Any, now: float) -> bool:
        """Return whether this connection may live on; tell it to end if not."""
        if connection in self._told:
            # uvicorn's shutdown waits for the rest of its response.
            return False
        if self._connections.is_websocket(connection):
            idle_s = 0.0
        elif not self._connections.is_idle(connection):
            self._idle_since.pop(connection, None)
            return True
        elif self._connections.is_http2(connection):
            # A client may have opened a stream before GOAWAY reached it.
            idle_s = LINGER_S
        elif self._connections.is_silent(connection):
            idle_s = max(self._idle_s, LINGER_S)
        else:
            # uvicorn's own timer ends it sooner, unless half a request stopped that timer.
            idle_s = self._idle_s
        if now < self._idle_since.setdefault(connection, now) + idle_s:
            return True
        self._told.add(connection)
        connection.shutdown()
        return False

    def _cancel_overdue(self, requests: list[Request], now: float) -> None:
        """Cancel as uvicorn does; the time of a request that came after the stop begins when it came."""
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
        """Cancel the requests of clients that are gone, once the launcher is gone, too. Runs until cancelled.

        uvicorn would wait for them without end, and no launcher is left to kill this worker.
        """
        # uvicorn has no event for the end of a connection.
        while self._lifeline.is_open or len(self._connections):  # noqa: ASYNC110
            await asyncio.sleep(_STEP_S)
        await asyncio.sleep(ORPHAN_LINGER_S)
        self._connections.look()
        for request in self._connections.requests:
            request.task.cancel(msg="Task cancelled, its client and the launcher are gone")

    # --- the log

    async def report_waits(self) -> None:
        """Log what this worker waits for, once for each wait that takes long. Runs until cancelled."""
        # Every request that was open before this time has been named.
        named_until = 0.0
        reported: set[str] = set()
        draining_since: float | None = None
        while True:
            await asyncio.sleep(_LOOK_S)
            now = monotonic()
            self._connections.look()
            endpoint = self._assignment.endpoint
            if endpoint is not None and endpoint.leave.is_under_way and draining_since is None:
                draining_since = now
            if now < self._began + NAMED_AFTER_S:
                continue
            held = [each for each in self._connections.requests if now >= each.since + NAMED_AFTER_S]
            if held:
                if held[-1].since > named_until:
                    self._report(logging.WARNING, self._describe(held, now))
                named_until = now - NAMED_AFTER_S
            elif draining_since is not None:
                if now >= draining_since + NAMED_AFTER_S and "drain" not in reported:
                    reported.add("drain")
                    bound = f"--drain-timeout ({self._assignment.settings.drain_timeout:g} s)"
                    self._report(logging.WARNING, f"messages to be handled; {bound} bounds that")
            elif "idle" not in reported and self._lifeline.is_relieved and len(self._connections):
                reported.add("idle")
                count = len(self._connections)
                what = f"{count} connection{'' if count == 1 else 's'} on which a request may be under way"
                self._report(logging.INFO, f"{what}; --timeout-keep-alive ({self._idle_s:g} s) bounds that")

    def _describe(self, held: list[Request], now: float) -> str:
        more = f" and {len(held) - 1} more" if held[1:] else ""
        bound = "--timeout-graceful-shutdown would bound that, and is not set"
        if self._grace_s is not None:
            bound = f"--timeout-graceful-shutdown ({self._grace_s:g} s) bounds that"
        return f"{printable(str(held[0]))}, open for {now - held[0].since:.0f} s{more}; {bound}"

    def _report(self, level: int, text: str) -> None:
        logger.log(level, "Worker [%d] stops, and waits for %s.", os.getpid(), text)
