"""Answers: the questions of others to this worker, until they are answered.

Law: a question runs like any other message of its name, in its order and context. The result or the exception
of its handler goes to the very worker that asked. If that worker no longer waits, the handler is cancelled
and no answer is sent.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final

from asgi_ipc.errors import DeliveryError, IPCError, MessageTooLargeError
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import ANSWER, Encoded
from asgi_ipc.worker.dispatch.calls import Calls
from asgi_ipc.worker.dispatch.conversion_errors import ConversionError
from asgi_ipc.worker.dispatch.delivery import Asked, sender_of
from asgi_ipc.worker.dispatch.registry import Handler, Registry
from asgi_ipc.worker.features.requests import ANSWERED, INVALID_DATA, NO_HANDLER, RAISED
from asgi_ipc.worker.transport.outgoing import Outgoing

# In characters; the end of a traceback shows the place of the error.
MAX_TRACEBACK: Final = 16 * 1024
MAX_TEXT: Final = 4 * 1024


class _Question:
    """A question: its asker, and the task that runs it."""

    __slots__ = ("asker", "context", "is_withdrawn", "number", "task")

    def __init__(self, asker: Worker, number: int, context: contextvars.Context) -> None:
        self.asker = asker
        self.number = number
        self.context = context
        self.task: asyncio.Task[Any] | None = None
        self.is_withdrawn = False


class Answers:
    """The answering half of an endpoint."""

    def __init__(self, registry: Registry, outgoing: Outgoing, calls: Calls) -> None:
        self._handlers = registry.handlers
        self._outgoing = outgoing
        self._calls = calls
        # Async questions until they have ended, by asker and number.
        self._open: dict[tuple[int, int], _Question] = {}

    # --- arriving messages

    def asked(self, context: contextvars.Context, data: Any) -> tuple[Handler, Any] | None:
        """Take a question; return its handler and data. Raises TypeError or ValueError for anything else."""
        number, name, content = data
        asker = sender_of(context)
        if asker is None or type(number) is not int:
            raise TypeError("no question")
        question = _Question(asker, number, context)
        handler = self._handlers.get(name)
        if handler is None:
            return Handler(name, partial(self._refuse, question), is_async=False), None
        if not handler.is_async:
            return Handler(name, partial(self._call, question, handler), is_async=False), content
        self._open[asker.generation, number] = question
        return handler, Asked(content, partial(self._await, question, content))

    def withdrawn(self, context: contextvars.Context, data: Any) -> None:
        """Withdraw a question that has no asker any more. Raises TypeError or ValueError for other data."""
        (number,) = data
        asker = sender_of(context)
        question = self._open.get((asker.generation, number)) if asker is not None else None
        if question is not None:
            self._withdraw(question)

    def gone(self, worker: Worker) -> None:
        """Withdraw all questions of a dead worker."""
        for question in [each for each in self._open.values() if each.asker is worker]:
            self._withdraw(question)

    @staticmethod
    def _withdraw(question: _Question) -> None:
        question.is_withdrawn = True
        if question.task is not None:
            question.task.cancel()

    # --- handlers

    def _refuse(self, question: _Question, _: object) -> Awaitable[None] | None:
        return self._say(question, NO_HANDLER, None)

    def _call(self, question: _Question, handler: Handler, content: Any) -> Awaitable[None] | None:
        """Call a plain handler. Returns a coroutine if the answer must wait."""
        try:
            result = handler.function(content)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # the app's own
            self._calls.failed(handler, question.context, error)
            return self._say_error(question, error)
        if inspect.iscoroutine(result):
            self._open[question.asker.generation, question.number] = question
            return self._finish(question, result)
        return self._say(question, ANSWERED, result)

    async def _finish(self, question: _Question, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Await the coroutine of a plain handler, unless the question has been withdrawn meanwhile."""
        if question.is_withdrawn:
            coroutine.close()
            del self._open[question.asker.generation, question.number]
            return
        await self._answer(question, lambda: coroutine)

    async def _await(self, question: _Question, content: Any, handler: Handler) -> None:
        """Await an async handler."""
        if question.is_withdrawn:
            del self._open[question.asker.generation, question.number]
            return
        await self._answer(question, partial(handler.function, content))

    async def _answer(self, question: _Question, begin: Callable[[], Awaitable[Any]]) -> None:
        question.task = asyncio.current_task()
        try:
            result = await begin()
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            if question.is_withdrawn and isinstance(error, asyncio.CancelledError):
                return
            saying = self._say_error(question, error)
            if saying is not None:
                await saying
            raise
        else:
            saying = self._say(question, ANSWERED, result)
            if saying is not None:
                await saying
        finally:
            self._open.pop((question.asker.generation, question.number), None)

    # --- answers

    def _say_error(self, question: _Question, error: BaseException) -> Awaitable[None] | None:
        if isinstance(error, ConversionError):
            return self._say_misfit(question, error)
        kind = type(error)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        trace = _printable("".join(traceback.format_exception(error)))[-MAX_TRACEBACK:]
        said = [(module + kind.__qualname__)[:MAX_TEXT], _text(error)[:MAX_TEXT], trace]
        # If messages must be small, the name of the error alone is better than nothing.
        return self._say_as_much(question, RAISED, said, [*said[:2], ""], [said[0], "", ""])

    def _say_misfit(self, question: _Question, misfit: ConversionError) -> Awaitable[None] | None:
        told = (misfit.field, misfit.expected, misfit.reason)
        said = [_printable(text)[:MAX_TEXT] for text in told]
        return self._say_as_much(question, INVALID_DATA, said, [*said[:2], ""], ["", "", ""])

    def _say_as_much(self, question: _Question, outcome: int, *said: list[str]) -> Awaitable[None] | None:
        """Send the first of these that is not too large."""
        for each in said:
            try:
                return self._post(question, self._outgoing.wrap(ANSWER, (question.number, outcome), each))
            except MessageTooLargeError:
                continue
        return None

    def _say(self, question: _Question, outcome: int, value: Any) -> Awaitable[None] | None:
        """Answer; a coroutine if there is no room now."""
        try:
            message = self._outgoing.wrap(ANSWER, (question.number, outcome), value)
        except (TypeError, ValueError, OverflowError, IPCError) as error:
            # `value` is the handler's result; a message can carry the error in its place.
            return self._say_error(question, error)
        return self._post(question, message)

    def _post(self, question: _Question, message: Encoded) -> Awaitable[None] | None:
        if question.is_withdrawn:
            return None
        peer = self._outgoing.peers.find(question.asker.generation)
        try:
            if peer is None or self._outgoing.post(peer, message):
                return None
        except DeliveryError:
            return None
        return self._say_later(question, message)

    async def _say_later(self, question: _Question, message: Encoded) -> None:
        peer = self._outgoing.peers.find(question.asker.generation)
        if peer is not None:
            # An asker that has gone waits for nothing.
            with suppress(DeliveryError):
                await self._outgoing.accepted(self._outgoing.queue(peer, message), None)


def _text(error: BaseException) -> str:
    try:
        return _printable(str(error))
    except Exception as failure:  # noqa: BLE001  # the app's own __str__
        return f"(its text can't be had: {type(failure).__qualname__})"


def _printable(text: str) -> str:
    """Return `text` in a form that UTF-8 can carry."""
    return text.encode(errors="backslashreplace").decode()
