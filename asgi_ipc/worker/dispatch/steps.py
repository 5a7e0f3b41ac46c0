"""Steps: the first step of each call of an async handler, in a task.

Law: one interface and one order of starts on every Python. A handler sees an ordinary task that is its own.
On Python 3.11 one standby (eager.py) serves the calls of a turn that end without waiting, as long as no trace
of them is on its task (docs/decisions/0036). Nothing here knows what a message is.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Coroutine
from typing import Any

import asgi_ipc.fast as fast
from asgi_ipc.worker.dispatch import eager
from asgi_ipc.worker.dispatch.eager import Standby

_current_tasks = eager.CURRENT_TASKS
_has_eager_tasks = eager.HAS_EAGER_TASKS
_weak_references = weakref.getweakrefcount


class Steps:
    """Takes first steps, for one event loop."""

    __slots__ = ("_loop", "_name", "_references", "_standby", "_task", "_weak_references")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # The one that has served the last call; None while it takes a step, since that may lead to another.
        self._standby: Standby | None = None
        # Its task, with what is on a task that nobody has touched.
        self._task: Any = None
        self._name = ""
        self._references = 0
        self._weak_references = 0

    def take(self, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context) -> Any:
        """Run a coroutine up to its first wait, in a task of its own.

        Returns the task if the coroutine waits, None if it has ended. Raises what the coroutine raises.
        """
        if _has_eager_tasks:
            return eager.start(coroutine, context, self._loop)
        standby = self._standby
        self._standby = None
        if standby is None or standby.is_over or not self._is_untouched():
            standby = self._replace()
        task = self._task
        waits_for = self._step(task, coroutine, context)
        if waits_for is not ...:
            standby.go_on(coroutine, context, waits_for)
            return task
        if task._must_cancel:
            # As any task that cancels itself and ends.
            raise asyncio.CancelledError
        if task is self._task:
            # No call inside this one has made another.
            self._standby = standby
        return None

    def _step(self, task: Any, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context) -> Any:
        """Run a coroutine to its first wait in the name of that task; what it waits for, or `...`."""
        # Another one, if a task has led to this call.
        outer = _current_tasks.get(self._loop)
        _current_tasks[self._loop] = task
        try:
            return fast.step_in(context, coroutine)
        finally:
            if outer is None:
                del _current_tasks[self._loop]
            else:
                _current_tasks[self._loop] = outer

    def _replace(self) -> Standby:
        standby = Standby(self._loop)
        task = self._task = standby.task
        self._name = task.get_name()
        self._references = fast.references(task)
        self._weak_references = _weak_references(task)
        return standby

    def _is_untouched(self) -> bool:
        """Return whether the task is as it was made: nobody else holds it, or has left something on it."""
        task = self._task
        return (
            fast.references(task) == self._references
            and _weak_references(task) == self._weak_references
            and task._callbacks is None
            and not task._must_cancel
            and task.get_name() is self._name
        )
