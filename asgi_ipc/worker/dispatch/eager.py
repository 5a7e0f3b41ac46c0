"""Eager tasks: each coroutine is entered at once, in a task of its own.

Law: one interface and one order of starts on every Python. From 3.12 on asyncio
has eager tasks. On 3.11 the first step is taken here, with the functions that
asyncio offers to other implementations of tasks. Nothing here knows what a
message is.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import types
from collections.abc import Coroutine, Generator
from typing import Any

if sys.version_info >= (3, 12):

    def start(
        coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[Any] | None:
        """Run a coroutine up to its first wait, in a task of its own.

        Returns the task if the coroutine waits, None if it has ended. Raises what the coroutine raises.
        """
        task = asyncio.Task(coroutine, loop=loop, context=context, eager_start=True)
        if not task.done():
            return task
        task.result()
        return None

else:
    from asyncio.tasks import _enter_task, _leave_task

    class _FirstStep:
        """The first step of a coroutine: whether it has ended it, and else what the coroutine waits for."""

        __slots__ = ("has_ended", "waits_for")

        def __init__(self) -> None:
            self.has_ended = True
            self.waits_for: Any = None

    @types.coroutine
    def _further_steps(coroutine: Coroutine[Any, Any, Any], first: _FirstStep) -> Generator[Any, Any, Any]:
        """Resume a coroutine behind its first step, for a task that makes this its own first step."""
        thrown: BaseException | None = None
        try:
            yield
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001  # handed on, whatever it is
            # The task was cancelled before the event loop came to it. As in any task, the future that the
            # coroutine waits for is cancelled, and wakes the coroutine with the error.
            future = first.waits_for
            if not (isinstance(error, asyncio.CancelledError) and future and future.cancel(*error.args)):
                thrown = error
        if first.has_ended:
            return None
        waits_for, sent = first.waits_for, None
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
                waits_for = coroutine.send(sent) if thrown is None else coroutine.throw(thrown)
            except StopIteration as end:
                return end.value
            thrown = None

    async def _rest(coroutine: Coroutine[Any, Any, Any], first: _FirstStep) -> Any:
        # A coroutine, not a generator: anyio looks at the state of a task's coroutine.
        return await _further_steps(coroutine, first)

    def start(
        coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, loop: asyncio.AbstractEventLoop
    ) -> asyncio.Task[Any] | None:
        """Run a coroutine up to its first wait, in a task of its own.

        Returns the task if the coroutine waits, None if it has ended. Raises what the coroutine raises.
        """
        first = _FirstStep()
        rest = _rest(coroutine, first)
        # A coroutine that has not begun would not see a cancellation of its task.
        rest.send(None)
        task = asyncio.Task(rest, loop=loop, context=context)
        outer = asyncio.current_task(loop)
        if outer is not None:
            _leave_task(loop, outer)
        _enter_task(loop, task)
        try:
            first.waits_for = context.run(coroutine.send, None)
            first.has_ended = False
        except StopIteration:
            if task.cancelling():
                raise asyncio.CancelledError from None
            return None
        finally:
            _leave_task(loop, task)
            if outer is not None:
                _enter_task(loop, outer)
        return task
