"""Claiming: the claims of this worker to keys, until they are answered and over.

Law: every claim that is not over is taken back, however its wait ends, also if no task reads its answer.
Otherwise no worker would ever be first again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asgi_ipc.errors import NotRunningError, TooManyKeysError
from asgi_ipc.fleet.claims import MAX_KEYS, Scope
from asgi_ipc.fleet.words import Claim, Release
from asgi_ipc.wire.message import check_name
from asgi_ipc.worker.standalone import LauncherLink


class Claiming:
    """The claims of one worker."""

    def __init__(self, launcher: LauncherLink) -> None:
        self._launcher = launcher
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[bool | None]] = {}

    async def claim(self, key: str) -> bool:
        """Return whether this call is the first that claims the key."""
        return bool(await self._first("claim", key))

    @asynccontextmanager
    async def once(self, key: str, per: Scope) -> AsyncIterator[bool]:
        """True inside for the first; for all others False, once the first is done."""
        if per not in ("restart", "server"):
            raise ValueError(f"`per` is 'restart' or 'server', not {per!r}")
        number = await self._first(per, key)
        if not number:
            yield False
            return
        done = False
        try:
            yield True
            done = True
        finally:
            self._release(number, done=done)

    async def _first(self, scope: Scope, key: str) -> int:
        """Wait for the decision; return the claim's number, to release it by, or 0 if another one was first.

        Raises TooManyKeysError, or NotRunningError if there is no launcher to decide.
        """
        check_name(key, "key")
        if not self._launcher.is_open:
            raise NotRunningError("the launcher is gone")
        number = next(self._numbers)
        decision = self._waiting[number] = self._loop.create_future()
        try:
            # After the entry: in a fleet of one the answer comes inside the call.
            self._launcher.send(Claim(number, scope, key))
            first = await decision
        except BaseException:
            self._release(number, done=False)
            raise
        finally:
            del self._waiting[number]
        if first is None:
            raise TooManyKeysError(key, MAX_KEYS)
        return number if first else 0

    def _release(self, number: int, *, done: bool) -> None:
        """Tell the launcher that the first is done, or gives up."""
        self._launcher.send(Release(number, done))

    def decided(self, number: int, first: bool | None) -> None:
        """Take the launcher's answer. If no task waits for it, the claim is released elsewhere."""
        decision = self._waiting.get(number)
        if decision is not None and not decision.done():
            decision.set_result(first)

    def close(self, reason: str) -> None:
        """End all waits: no answer will come."""
        for decision in self._waiting.values():
            if not decision.done():
                decision.set_exception(NotRunningError(reason))
                # The asking task may have been cancelled in this moment.
                decision.exception()
