"""Leading: what runs in the leader only.

Law: leader tasks run from the launcher's word that this worker leads to the
moment in which it resigns, which is said when the last of them has ended. So
there are never two at once: whoever can't end them doesn't say so, and leads
until its process has ended.
"""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import suppress
from typing import Final

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.slots import BACKOFF_MAX_S, backoff_s
from asgi_ipc.worker.dispatch.calls import Calls
from asgi_ipc.worker.dispatch.registry import Handler, Registry

# A task that has run for longer than any pause between two failures begins anew with the shortest.
SOUND_AFTER_S: Final = BACKOFF_MAX_S


class Leading:
    """The leader, as this worker knows it, and its tasks if that is this one.

    Attributes:
        leader: who leads; None: nobody, or the next has not been told yet.
    """

    def __init__(self, me: Worker, registry: Registry, calls: Calls, context: contextvars.Context) -> None:
        self.leader: Worker | None = None
        self._me = me
        self._registry = registry
        self._calls = calls
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[Handler, asyncio.Task[None]] = {}
        self._begun = self._ended = False
        registry.on_leader_task = self._registered

    @property
    def is_mine(self) -> bool:
        """Whether this worker leads, and has not begun to resign."""
        return self.leader == self._me and not self._ended

    @property
    def running(self) -> list[str]:
        """The tasks that have not ended."""
        return [handler.name for handler, task in self._tasks.items() if not task.done()]

    def told(self, leader: Worker | None) -> None:
        """The launcher says who leads."""
        self.leader = leader
        self._start()

    def gone(self, generation: int) -> None:
        """That process has ended; the next leader is told of behind that."""
        if self.leader is not None and self.leader.generation == generation:
            self.leader = None

    def begin(self) -> None:
        """Verbs may be used from here on."""
        self._begun = True
        self._start()

    async def end(self) -> None:
        """Cancel the tasks, and wait until they have ended. None is started any more."""
        tasks = self.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel the tasks, once; those that have not ended. None is started any more."""
        tasks = [task for task in self._tasks.values() if not task.done()]
        if not self._ended:
            self._ended = True
            self._registry.on_leader_task = None
            for task in tasks:
                task.cancel()
        return tasks

    # --- tasks

    def _registered(self) -> None:
        """There is another task; on whatever thread."""
        with suppress(RuntimeError):  # the loop is closed: this worker has ended
            self._loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        if not self._begun or not self.is_mine:
            return
        for handler in tuple(self._registry.leader_tasks):
            if handler not in self._tasks:
                run = self._run(handler)
                self._tasks[handler] = self._loop.create_task(run, context=self._context.copy())

    async def _run(self, handler: Handler) -> None:
        """Until it returns, or is cancelled; again and again if it fails."""
        task = asyncio.current_task()
        assert task is not None
        failures = 0
        while True:
            began = self._loop.time()
            try:
                await handler.function()
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:  # the app's own
                if isinstance(error, asyncio.CancelledError) and task.cancelling():
                    if self._ended:
                        raise
                    # By somebody else, who does not decide who leads.
                    task.uncancel()
                self._calls.failed(handler, self._context, error)
            else:
                return
            if self._ended:
                return
            failures = 1 if self._loop.time() - began > SOUND_AFTER_S else failures + 1
            # As between two starts of a worker, but for the first, which is not at once.
            await asyncio.sleep(backoff_s(failures + 1))
