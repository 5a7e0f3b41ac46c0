"""Electing: who of all workers is to do what only one may do.

Law: the launcher decides, and is asked; nothing of it is agreed upon between
workers, nor does a message pay for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from asgi_ipc.worker.running import Running


class Electing(Running):
    """The part of an IPC that is about the one among many."""

    @property
    def leader(self) -> int | None:
        """The pid of the worker that leads; None for the moment in which nobody does.

        Raises NotRunningError outside the lifespan.
        """
        leader = self._entered().leading.leader
        return leader.pid if leader is not None else None

    @property
    def is_leader(self) -> bool:
        """Whether this worker leads; False from the moment in which it begins to resign.

        Raises NotRunningError outside the lifespan.
        """
        return self._entered().leading.is_mine

    async def run_once(self, key: str) -> bool:
        """True for the first that asks of all workers, for as long as the server runs; False for all others.

        So also after a restart, and if the first has died since. Only a call that was cancelled, so that
        nobody knows of its True, does not count.

        Args:
            key: 1 to 254 bytes of UTF-8, no control characters. Those of `once` are others.

        Raises:
            LauncherError: there are 10,000 keys of `run_once` and `once`; those are still decided.
            InvalidNameError: not a key.
            NotRunningError: outside the lifespan, on another event loop, or the launcher is gone.
        """
        return bool(await self._active().claiming.first("run_once", key))

    @asynccontextmanager
    async def once(self, key: str, *, scope: Literal["restart", "fleet"] = "restart") -> AsyncIterator[bool]:
        """`async with ipc.once(key) as first:` True in one worker, whose block runs while the others wait.

        They get False once it has left the block. If it left it with an exception, or died inside, the one
        that has waited longest is the first. Without `async with asyncio.timeout(...)` around, that may take
        as long as the block.

        Args:
            key: as of `run_once`.
            scope: `restart`: a rolling restart does it once more, in the first of its workers; one that
                replaces a dead worker belongs to the last restart. `fleet`: for as long as the server runs.

        Raises:
            ValueError: there is no such scope.
            Others: as `run_once`.
        """
        if scope not in ("restart", "fleet"):
            raise ValueError(f"the scope of a key is 'restart' or 'fleet', not {scope!r}")
        claiming = self._active().claiming
        number = await claiming.first(scope, key)
        if not number:
            yield False
            return
        done = False
        try:
            yield True
            done = True
        finally:
            claiming.release(number, done=done)
