"""Steps: the first step of each call of an async handler, in a task.

Law: one interface and one order of starts on every Python. A handler sees an ordinary task that is its own.
On Python 3.11 one standby (eager.py) serves the calls of a turn that end without waiting, as long as no trace
of them is on its task (docs/decisions/0036). Nothing here knows what a message is.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Coroutine
from typing import Any

import asgi_ipc.fast as fast
from asgi_ipc.worker.dispatch import eager
from asgi_ipc.worker.dispatch.eager import Standby

_has_eager_tasks = eager.HAS_EAGER_TASKS
_weak_references = weakref.getweakrefcount


class Steps:
    """Takes first steps, for one event loop."""

    __slots__ = ("_loop", "_standby", "_untouched")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # The one that has served the last call; None while it takes a step, since that may lead to another.
        self._standby: Standby | None = None
        # The traces on the task of a new standby.
        self._untouched: tuple[Any, ...] | None = None

    def take(self, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context) -> Any:
        """Run a coroutine up to its first wait, in a task of its own.

        Returns the task if the coroutine waits, None if it has ended. Raises what the coroutine raises.
        """
        if _has_eager_tasks:
            return eager.start(coroutine, context, self._loop)
        standby = self._standby
        self._standby = None
        if standby is None or standby.is_over or self._traces(standby) != self._untouched:
            standby = Standby(self._loop)
            if self._untouched is None:
                self._untouched = self._traces(standby)
        waits_for = self._step(standby.task, coroutine, context)
        if waits_for is not ...:
            standby.go_on(coroutine, context, waits_for)
            return standby.task
        if standby.task.cancelling():
            # As any task that cancels itself and ends.
            raise asyncio.CancelledError
        self._standby = standby
        return None

    def _step(self, task: Any, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context) -> Any:
        """Run a coroutine to its first wait in the name of that task; what it waits for, or `...`."""
        loop = self._loop
        outer = None
        try:
            _enter_task(loop, task)
        except RuntimeError:
            # A task has led to this call.
            outer = asyncio.current_task(loop)
            assert outer is not None
            _leave_task(loop, outer)
            _enter_task(loop, task)
        try:
            return fast.step_in(context, coroutine)
        finally:
            _leave_task(loop, task)
            if outer is not None:
                _enter_task(loop, outer)

    def _traces(self, standby: Standby) -> tuple[Any, ...]:
        """Return who holds a task, and what others can leave on it."""
        task: Any = standby.task
        return (
            fast.references(task),
            _weak_references(task),
            task._callbacks,
            task._must_cancel,
            task.get_name() == standby.name,
        )
