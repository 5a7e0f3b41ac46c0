"""Leading: the tasks that run in the leader only.

Law: leader tasks run from the launcher's word that this worker leads to the moment in which it resigns. A
worker resigns after the last of them has ended. So there are never two leaders at once: a worker that can't
end its tasks does not resign, and leads until its process has ended.
"""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import suppress
from typing import Final

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.slots import BACKOFF_MAX_S, backoff_s
from asgi_ipc.worker.dispatch.calls import Calls
from asgi_ipc.worker.dispatch.handler import Handler
from asgi_ipc.worker.dispatch.registry import Registry

# A task that has run for longer than any pause between two failures begins again with the shortest pause.
SOUND_AFTER_S: Final = BACKOFF_MAX_S


class Leading:
    """The leader, as this worker knows it, and its tasks if this worker leads.

    Attributes:
        leader: the leader; None if there is none, or the word of the next has not come yet.
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
        """Return whether this worker leads, and has not begun to resign."""
        return self.leader == self._me and not self._ended

    @property
    def running(self) -> list[str]:
        """The tasks that have not ended."""
        return [handler.name for handler, task in self._tasks.items() if not task.done()]

    def told(self, leader: Worker | None) -> None:
        """Take the launcher's word of the leader."""
        self.leader = leader
        self._start()

    def gone(self, generation: int) -> None:
        """Note that a process has ended; the word of the next leader comes after that."""
        if self.leader is not None and self.leader.generation == generation:
            self.leader = None

    def begin(self) -> None:
        """Start the tasks from here on, since verbs may be used."""
        self._begun = True
        self._start()

    async def end(self) -> None:
        """Cancel the tasks, and wait until they have ended. No task starts after that."""
        tasks = self.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel the tasks, once; return the tasks that have not ended. No task starts after that."""
        tasks = [task for task in self._tasks.values() if not task.done()]
        if not self._ended:
            self._ended = True
            self._registry.on_leader_task = None
            for task in tasks:
                task.cancel()
        return tasks

    # --- tasks

    def _registered(self) -> None:
        """Note a new task, from any thread."""
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
        """Run a task until it returns or is cancelled; again and again if it fails."""
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
                    # Foreign code cancelled it, but only the launcher decides about leadership.
                    task.uncancel()
                self._calls.failed(handler, self._context, error)
            else:
                return
            if self._ended:
                return
            failures = 1 if self._loop.time() - began > SOUND_AFTER_S else failures + 1
            # The pauses between two starts of a worker, except that the first one is not zero.
            await asyncio.sleep(backoff_s(failures + 1))
