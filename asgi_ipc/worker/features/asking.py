"""Asking: the verbs whose message means one worker of several, or wants an answer.

Law: a verb checks and hands on; what becomes of a question is in questions.py.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from asgi_ipc.errors import UnknownWorkerError, WorkerGoneError
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import Data
from asgi_ipc.worker.features.requests import Gathered
from asgi_ipc.worker.running import YIELD_AFTER_BYTES, YIELD_AFTER_MESSAGES, Running, no_timeout


class Asking(Running):
    """The part of an IPC that asks."""

    async def request(
        self, pid: int | Worker, name: str, data: Data = b"", *, timeout: float | None = 5.0
    ) -> Any:
        """Ask one worker: what its handler of that name gives back.

        A question runs there like a message of its name, in its order; `sender` and `reply` work as ever.
        Cancelling this, or its timeout, cancels an async handler there that has not finished; an answer that
        comes later is discarded and counted (`late_answer` of `stats().dropped`).

        Args:
            pid, name, data: as of `send`; what the handler gives back may be what `data` may be.
            timeout: seconds for all of it, the wait for room included; None: as long as it takes.

        Raises:
            NoHandlerError: that worker has none of this name.
            InvalidDataError: `data` is not what its handler there is annotated with.
            RemoteError: its handler raised, was cancelled, or gave back what a message can't carry.
            RequestTimeoutError: no answer in time.
            UnknownWorkerError: no such member now.
            WorkerGoneError: it died, or left without an answer; told at once.
            Others: as `send`, before anything is sent.
        """
        endpoint = self._active()
        if timeout is not None and not timeout >= 0:
            raise no_timeout(timeout)
        return await endpoint.questions.ask(pid, name, data, timeout)

    async def gather(
        self, name: str, data: Data = b"", *, timeout: float | None = 5.0, include_self: bool = True
    ) -> Gathered:
        """Ask all members at once, this one among them: a dict of pid -> answer, of those that came in time.

        It raises nothing for one that is slow, fails or goes: that costs its own row only, which is in
        `.errors` (pid -> RequestTimeoutError, RemoteError, NoHandlerError, InvalidDataError,
        WorkerGoneError or UnknownWorkerError); `.complete` says whether there is none. Rows are in the
        order of the slots.

        Raises as `send` for what is no message, before anything is sent.
        """
        endpoint = self._active()
        if timeout is not None and not timeout >= 0:
            raise no_timeout(timeout)
        return await endpoint.questions.ask_all(name, data, timeout, include_self=include_self)

    async def send_any(self, name: str, data: Data = b"", *, timeout: float | None = 5.0) -> int:
        """Send one message to exactly one member, the one with the least work waiting; its pid.

        What counts is what this worker can see: its outbox for that member, and what that one has not read.
        Equals take turns. If it goes before the message was accepted, another one gets it.

        Raises as `send`; UnknownWorkerError and WorkerGoneError only if nobody is left.
        """
        outgoing = self._here(self._sending, has_nowait=False)
        if timeout is not None and not timeout >= 0:
            raise no_timeout(timeout)
        message = outgoing.pack(name, data)
        deadline = None if timeout is None else outgoing.loop.time() + timeout
        while True:
            peer = outgoing.least_busy()
            with suppress(UnknownWorkerError):
                if not outgoing.post(peer, message):
                    left_s = None if deadline is None else max(deadline - outgoing.loop.time(), 0.0)
                    try:
                        await self._accepted_by(outgoing, peer, message, left_s)
                    except WorkerGoneError:
                        continue
                outgoing.turn_messages += 1
                if outgoing.turn_messages >= YIELD_AFTER_MESSAGES or outgoing.turn_bytes >= YIELD_AFTER_BYTES:
                    await asyncio.sleep(0)
                return peer.worker.pid
