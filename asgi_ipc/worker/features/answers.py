"""Answers: the questions that others have asked this worker, until they are answered.

Law: a question runs like any other message of its name, in its order and context. The result or exception of
its handler goes to the worker that asked. A question that nobody waits for any more is not answered, and its
handler is cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from asgi_ipc.errors import DeliveryError, IPCError, MessageTooLargeError
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import ANSWER, Encoded, check_name
from asgi_ipc.worker.dispatch.calls import Calls
from asgi_ipc.worker.dispatch.conversion_errors import ConversionError
from asgi_ipc.worker.dispatch.delivery import current_sender
from asgi_ipc.worker.dispatch.handler import Function, Handler
from asgi_ipc.worker.dispatch.registry import Registry
from asgi_ipc.worker.features.requests import ANSWERED, INVALID_DATA, NO_HANDLER, RAISED
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peer import Peer

# In characters. The end of a traceback says where it happened.
MAX_TRACEBACK: Final = 16 * 1024
MAX_TEXT: Final = 4 * 1024


class _Question:
    """A question that has come: who asked it, and the task that runs its handler."""

    __slots__ = ("asker", "is_withdrawn", "number", "task")

    def __init__(self, asker: Worker, number: int) -> None:
        self.asker = asker
        self.number = number
        self.task: asyncio.Task[Any] | None = None
        self.is_withdrawn = False

    @property
    def key(self) -> tuple[str, int, int]:
        """The asker, and the number that the asker has given it."""
        return self.asker.node, self.asker.generation, self.number


class Answers:
    """The answering half of an endpoint.

    `route(asker, answer)` is the peer that an answer goes to, and what is sent to it; None if the asker has
    gone.
    """

    def __init__(
        self,
        registry: Registry,
        outgoing: Outgoing,
        calls: Calls,
        route: Callable[[Worker, Encoded], tuple[Peer | None, Encoded]],
    ) -> None:
        self._handlers = registry.handlers
        self._outgoing = outgoing
        self._calls = calls
        self._route = route
        # Questions to async handlers that have not ended.
        self._open: dict[tuple[str, int, int], _Question] = {}

    # --- the package's own messages

    def asked(self, data: Any) -> None:
        """Handle a question. Raises TypeError or ValueError if it is malformed."""
        number, name, content = data
        if type(number) is not int:
            raise TypeError("a question's number is an int")
        self.ask(number, name, content)

    def ask(self, number: int, name: str, content: Any) -> None:
        """Handle a question of the worker whose message is handled here. Raises InvalidNameError."""
        check_name(name)
        question = _Question(current_sender(), number)
        handler = self._handlers.get(name)
        if handler is None:
            refused = Handler(name, self.asked, is_async=False)
            self._send_soon(question, refused, self._encoded(question, NO_HANDLER, None))
        elif handler.is_async:
            self._open[question.key] = question
            answer = partial(self._answer, question, handler.function)
            self._calls.begin(handler, answer, contextvars.copy_context(), content)
        else:
            self._call(question, handler, content)

    def withdrawn(self, data: Any) -> None:
        """Handle the word that the asker waits for an answer no longer. Raises as `asked`."""
        (number,) = data
        self.withdraw(number)

    def withdraw(self, number: int) -> None:
        """Cancel a question of the worker whose message is handled here."""
        asker = current_sender()
        question = self._open.get((asker.node, asker.generation, number))
        if question is not None:
            self._withdraw(question)

    def gone(self, worker: Worker) -> None:
        """Withdraw the questions of a worker that is dead."""
        for question in [each for each in self._open.values() if each.asker == worker]:
            self._withdraw(question)

    @staticmethod
    def _withdraw(question: _Question) -> None:
        question.is_withdrawn = True
        if question.task is not None:
            question.task.cancel()

    # --- handlers

    def _call(self, question: _Question, handler: Handler, content: Any) -> None:
        """Call a plain handler."""
        try:
            result = handler.function(content)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # the app's own
            self._calls.failed(handler, contextvars.copy_context(), error)
            self._send_soon(question, handler, self._failure(question, error))
        else:
            if inspect.iscoroutine(result):
                self._open[question.key] = question
                answering = self._answer(question, lambda _: result, None)
                self._calls.adopt(handler, answering, contextvars.copy_context())
            else:
                self._send_soon(question, handler, self._encoded(question, ANSWERED, result))

    async def _answer(self, question: _Question, function: Function, content: Any) -> None:
        """Run an async handler, in its task, and send its answer."""
        question.task = asyncio.current_task()
        try:
            # A question may have waited in its handler's lane.
            if not question.is_withdrawn:
                await self._send(question, self._encoded(question, ANSWERED, await function(content)))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            if question.is_withdrawn and isinstance(error, asyncio.CancelledError):
                return
            await self._send(question, self._failure(question, error))
            raise
        finally:
            self._open.pop(question.key, None)

    # --- answers

    def _encoded(self, question: _Question, outcome: int, value: Any) -> Encoded | None:
        """An answer; if `value` can't be carried, the error that says so."""
        try:
            return self._outgoing.wrap(ANSWER, (question.number, outcome), value)
        except (TypeError, ValueError, OverflowError, IPCError) as error:
            return self._failure(question, error)

    def _failure(self, question: _Question, error: BaseException) -> Encoded | None:
        """An answer that names an error; None if even that is too large. Small messages leave out details."""
        if isinstance(error, ConversionError):
            texts = (error.field, error.expected, error.reason)
            said = [_printable(text)[:MAX_TEXT] for text in texts]
            return self._first_that_fits(question, INVALID_DATA, said, [*said[:2], ""], ["", "", ""])
        kind = type(error)
        module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        trace = _printable("".join(traceback.format_exception(error)))[-MAX_TRACEBACK:]
        said = [(module + kind.__qualname__)[:MAX_TEXT], _text(error)[:MAX_TEXT], trace]
        return self._first_that_fits(question, RAISED, said, [*said[:2], ""], [said[0], "", ""])

    def _first_that_fits(self, question: _Question, outcome: int, *versions: list[str]) -> Encoded | None:
        for version in versions:
            with suppress(MessageTooLargeError):
                return self._outgoing.wrap(ANSWER, (question.number, outcome), version)
        return None

    def _send_soon(self, question: _Question, handler: Handler, answer: Encoded | None) -> None:
        """Send an answer; if there is no room now, in a task that counts as the handler's."""
        waiting = self._post(question, answer)
        if waiting is not None:
            self._calls.adopt(handler, self._wait(*waiting), contextvars.copy_context())

    async def _send(self, question: _Question, answer: Encoded | None) -> None:
        waiting = self._post(question, answer)
        if waiting is not None:
            await self._wait(*waiting)

    def _post(self, question: _Question, answer: Encoded | None) -> tuple[Peer, Encoded] | None:
        """Send an answer, if anybody waits for it; what to wait with if there is no room now."""
        if question.is_withdrawn or answer is None:
            return None
        peer, message = self._route(question.asker, answer)
        # An asker that has gone waits for nothing.
        with suppress(DeliveryError):
            if peer is not None and not self._outgoing.post(peer, message):
                return peer, message
        return None

    async def _wait(self, peer: Peer, message: Encoded) -> None:
        with suppress(DeliveryError):
            await self._outgoing.accepted(self._outgoing.queue(peer, message), None)


def _text(error: BaseException) -> str:
    try:
        return _printable(str(error))
    except Exception as failure:  # noqa: BLE001  # the app's own __str__
        return f"(its text can't be had: {type(failure).__qualname__})"


def _printable(text: str) -> str:
    """What UTF-8 can carry."""
    return text.encode(errors="backslashreplace").decode()
