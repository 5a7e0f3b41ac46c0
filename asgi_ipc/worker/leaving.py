"""Leaving: how the HTTP side of a worker ends, before uvicorn's own shutdown.

Law: what tells uvicorn's kinds of connections apart is known here and nowhere
else. A WebSocket is of the class that is configured; HTTP/2 has `cycles`,
HTTP/1 has a `cycle`, and what has neither has said nothing yet.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any, Final

import uvicorn
from uvicorn.server import ServerState

from asgi_ipc.protocol.printable import printable
from asgi_ipc.worker.requests import Request, Requests, Task
from asgi_ipc.worker.station import Station

logger = logging.getLogger("uvicorn.error")

# A connection that was accepted and has said nothing yet may be about to: who
# connects first and sends a little later shall get an answer.
LINGER_S: Final = 1.0

# As uvicorn looks when it waits; and sooner as long as a stop may be a matter of moments.
_STEP_S: Final = 0.1
_FIRST_STEP_S: Final = 0.01

# What holds a stop up is named within the promised 5 s.
NAMED_AFTER_S: Final = 3.0
_LOOK_S: Final = 1.0

# GOAWAY with the highest number: no new streams, and all that have come are answered (RFC 9113, 6.8).
_LAST_STREAM: Final = 2**31 - 1


class Leaving:
    """One worker's stop.

    Every response that starts says that its connection ends with it. While the worker is relieved (others
    serve on), a connection lives until it has said so or has been idle for `--timeout-keep-alive`;
    otherwise only those live on, for a moment, that have had no request yet.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        requests: Requests,
        here: Station,
    ) -> None:
        self._grace_s = config.timeout_graceful_shutdown
        self._idle_s = float(config.timeout_keep_alive)
        # A TLS connection is none of uvicorn's before its handshake, so nobody can see that one is coming.
        self._least_s = LINGER_S if config.is_ssl else 0.0
        self._websocket = config.ws_protocol_class
        self._state = state
        self._requests = requests
        self._here = here
        self._began = time.monotonic()
        # Since when each connection has been seen to be idle; those that were told that it is over.
        self._idle_since: dict[Any, float] = {}
        self._told: set[Any] = set()
        # Whose tasks have been cancelled.
        self._cancelled: set[Task] = set()

    async def linger(self) -> None:
        """Return when uvicorn may close what is left."""
        self._requests.closing = True
        while True:
            now = time.monotonic()
            # At least once: what was accepted in this turn is a connection only in the next.
            await asyncio.sleep(_FIRST_STEP_S if now < self._began + LINGER_S else _STEP_S)
            now = time.monotonic()
            if not (self._waits_relieved(now) if self._here.is_relieved else self._waits(now)):
                break
        # Told already: twice is an error to some.
        self._state.connections.difference_update([each for each in self._told if self._is_websocket(each)])

    def _waits(self, now: float) -> bool:
        return now < self._began + LINGER_S and any(map(self._is_silent, self._state.connections))

    def _waits_relieved(self, now: float) -> bool:
        self._cancel_overdue(now)
        waits = [self._waits_for(each, now) for each in list(self._state.connections)]
        is_early = now < self._began + self._least_s
        return is_early or any(waits) or bool(self._uncancelled())

    def _uncancelled(self) -> list[Request]:
        return [each for each in self._requests.open if each.task not in self._cancelled]

    def _is_websocket(self, connection: Any) -> bool:
        return self._websocket is not None and isinstance(connection, self._websocket)

    def _is_silent(self, connection: Any) -> bool:
        """Whether a connection has had no request yet."""
        has_asked = getattr(connection, "cycle", None) is not None or hasattr(connection, "cycles")
        return not has_asked and not self._is_websocket(connection)

    def _waits_for(self, connection: Any, now: float) -> bool:
        """Whether this connection may live on; tell it if not."""
        if connection in self._told:
            # What is still to be written, uvicorn waits for.
            return False
        idle_s = self._idle_s
        if self._is_websocket(connection):
            idle_s = 0.0
        elif hasattr(connection, "cycles"):
            if connection not in self._idle_since:
                connection.conn.close(0, _LAST_STREAM)
                connection.flush()
            if connection.cycles:
                self._idle_since[connection] = now
                return True
            # A stream that has crossed with GOAWAY is on its way for a moment.
            idle_s = LINGER_S
        elif self._is_silent(connection):
            idle_s = max(idle_s, LINGER_S)
        elif not connection.cycle.response_complete:
            self._idle_since.pop(connection, None)
            return True
        # uvicorn's own timer comes first, unless half a request has stopped it, or none has started it.
        if now < self._idle_since.setdefault(connection, now) + idle_s:
            return True
        self._told.add(connection)
        connection.shutdown()
        return False

    def _cancel_overdue(self, now: float) -> None:
        """As uvicorn does, but a request that has come to a worker that leaves has its own time."""
        if self._grace_s is None:
            return
        overdue = []
        for request in self._uncancelled():
            late = request.began > self._began
            until = request.began + max(self._grace_s, LINGER_S) if late else self._began + self._grace_s
            if now >= until:
                overdue.append(request)
        for request in overdue:
            self._cancelled.add(request.task)
            if request.task is not None:
                request.task.cancel(msg="Task cancelled, timeout graceful shutdown exceeded")
        if overdue:
            logger.error("Cancel %d running task(s), timeout graceful shutdown exceeded", len(overdue))

    # --- what it waits for

    async def tell_waits(self) -> None:
        """Say for what this worker waits, once for each wait that is not over soon. Runs until cancelled."""
        named: set[Task] = set()
        said: set[str] = set()
        draining_since: float | None = None
        while True:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            if self._here.drains:
                draining_since = now if draining_since is None else draining_since
            if now < self._began + NAMED_AFTER_S:
                continue
            held = [each for each in self._requests.open if now >= each.began + NAMED_AFTER_S]
            if held:
                if not named.issuperset(each.task for each in held):
                    self._say(logging.WARNING, self._describe(held[0], len(held) - 1, now))
                named.update(each.task for each in held)
            elif draining_since is not None:
                if now >= draining_since + NAMED_AFTER_S and "drain" not in said:
                    said.add("drain")
                    self._say(
                        logging.WARNING, "messages to be delivered and handled; --drain-timeout bounds that"
                    )
            elif "idle" not in said and self._here.is_relieved and self._state.connections:
                said.add("idle")
                count = len(self._state.connections)
                which = "1 connection" if count == 1 else f"{count} connections"
                bound = f"--timeout-keep-alive ({self._idle_s:g} s)"
                self._say(
                    logging.INFO, f"{which} on which another request may be under way; {bound} bounds that"
                )

    def _describe(self, oldest: Request, others: int, now: float) -> str:
        more = f" and {others} more" if others else ""
        if self._grace_s is None:
            bound = "--timeout-graceful-shutdown would bound that, and is not set"
        else:
            bound = f"--timeout-graceful-shutdown ({self._grace_s:g} s) bounds that"
        return f"{printable(str(oldest))}, open for {now - oldest.began:.0f} s{more}; {bound}"

    def _say(self, level: int, text: str) -> None:
        logger.log(level, "Worker [%d] leaves, and waits for %s.", os.getpid(), text)
