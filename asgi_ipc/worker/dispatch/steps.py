"""Steps: a coroutine run by hand, inside a task that was there before it.

Law: every step of a coroutine runs in its own context, and inside a task,
so that `asyncio.timeout`, `current_task` and anyio find what they look for.
Nothing here knows what a message is.
"""

from __future__ import annotations

import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final


class Finished:
    """The result of `first_step` for a coroutine that has ended without suspending."""


FINISHED: Final = Finished()


def first_step(coroutine: Coroutine[Any, Any, Any], context: contextvars.Context) -> object:
    """Run a coroutine to its first suspension: what it waits for, or FINISHED. Raises what it raises."""
    try:
        return context.run(coroutine.send, None)
    except StopIteration:
        return FINISHED


@types.coroutine
def further_steps(
    coroutine: Coroutine[Any, Any, Any], context: contextvars.Context, waits_for: object
) -> Generator[Any, Any, Any]:
    """Await what a suspended coroutine still has to do, in the task that this runs in; its result.

    An exception thrown into the task, such as a cancellation, reaches the coroutine.
    """
    while True:
        step: Callable[[Any], Any]
        try:
            sent = yield waits_for
        except GeneratorExit:
            context.run(coroutine.close)
            raise
        except BaseException as error:  # noqa: BLE001  # handed on, whatever it is
            step, argument = coroutine.throw, error
        else:
            step, argument = coroutine.send, sent
        try:
            waits_for = context.run(step, argument)
        except StopIteration as end:
            return end.value
