"""Eager: a task whose first step is taken at once, by whoever makes it.

Law: Python 3.12 and later have eager tasks in asyncio. On 3.11 a standby is a task that is made before its
coroutine is known; steps.py takes the first step in its name. Nothing here knows what a message is.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import types
from collections.abc import Coroutine, Generator
from typing import Any, Final

HAS_EAGER_TASKS: Final = sys.version_info >= (3, 12)

# Which task runs on which loop, in the asyncio of Python 3.11; what `_enter_task` and `_leave_task` change.
CURRENT_TASKS: Final[dict[Any, Any]] = {} if HAS_EAGER_TASKS else vars(asyncio.tasks)["_current_tasks"]


def start(
    coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, loop: asyncio.AbstractEventLoop
) -> asyncio.Task[Any] | None:
    """Run a coroutine up to its first wait, in an eager task; see `Steps.take`."""
    task = asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)  # type: ignore[call-arg, unused-ignore]
    if not task.done():
        return task
    task.result()
    return None


class Standby:
    """A task that goes on with the coroutine that it is given, when the event loop comes to it.

    Attributes:
        coroutine: has taken its first step in the name of the task, and waits; None: no such one.
        context: what the coroutine runs in.
        waits_for: what it waits for.
        is_over: the event loop has come to the task, which can't be given a coroutine any more.
    """

    __slots__ = ("context", "coroutine", "is_over", "task", "waits_for")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.coroutine: Coroutine[Any, Any, Any] | None = None
        self.context: contextvars.Context | None = None
        self.waits_for: Any = None
        self.is_over = False
        rest = _rest(self)
        # A coroutine that has not begun would not see a cancellation of its task.
        rest.send(None)
        self.task: asyncio.Task[Any] = asyncio.Task(rest, loop=loop)

    def go_on(
        self, coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, waits_for: Any
    ) -> None:
        """Have the task go on with a coroutine that waits."""
        self.coroutine, self.context, self.waits_for = coroutine, context, waits_for


async def _rest(standby: Standby) -> Any:
    # A coroutine, not a generator: anyio looks at the state of a task's coroutine.
    return await _further_steps(standby)


@types.coroutine
def _further_steps(standby: Standby) -> Generator[Any, Any, Any]:
    """Resume a coroutine behind its first step, for a task that makes this its own first step."""
    thrown: BaseException | None = None
    try:
        yield
    except GeneratorExit:
        if standby.coroutine is not None:
            standby.coroutine.close()
        raise
    except BaseException as error:  # noqa: BLE001  # handed on, whatever it is
        # The task was cancelled before the event loop came to it. As in any task, the future that the
        # coroutine waits for is cancelled, and wakes the coroutine with the error.
        future = standby.waits_for
        if not (isinstance(error, asyncio.CancelledError) and future and future.cancel(*error.args)):
            thrown = error
    standby.is_over = True
    coroutine, context = standby.coroutine, standby.context
    if coroutine is None or context is None:
        return None
    waits_for, sent = standby.waits_for, None
    while True:
        if thrown is None:
            try:
                sent = yield waits_for
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001  # handed on, whatever it is
                thrown = error
        try:
            if thrown is None:
                waits_for = context.run(coroutine.send, sent)
            else:
                waits_for = context.run(coroutine.throw, thrown)
        except StopIteration as end:
            return end.value
        thrown = None
