"""Questions: the questions of this worker to others, and their answers.

Law: a question has a number that is never reused. It is open towards each asked worker until the answer is
here, the worker has gone, or the asker no longer waits. An answer to no open question is discarded and
counted.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

from asgi_ipc.errors import (
    InvalidDataError,
    IPCError,
    NoHandlerError,
    NotRunningError,
    RemoteError,
    RequestTimeoutError,
    SendTimeoutError,
    UnknownWorkerError,
    WorkerGoneError,
)
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import ASK, WITHDRAW, Encoded, check_name
from asgi_ipc.worker.dispatch.annotation import Function
from asgi_ipc.worker.dispatch.conversion import answer_converter
from asgi_ipc.worker.dispatch.conversion_errors import ConversionError
from asgi_ipc.worker.dispatch.delivery import current_sender
from asgi_ipc.worker.features.messaging import check_timeout
from asgi_ipc.worker.transport.outgoing import Outgoing, share
from asgi_ipc.worker.transport.peer import Peer
from asgi_ipc.worker.transport.room import Waiter

T = TypeVar("T")

# The outcomes of an answer: the handler's result; no handler; the handler raised; the handler was not called,
# since the data does not fit it.
ANSWERED: Final = 0
NO_HANDLER: Final = 1
RAISED: Final = 2
INVALID_DATA: Final = 3


class Gathered(dict[int, T], Generic[T]):
    """The answers of all asked workers: pid -> answer.

    Attributes:
        errors: pid -> reason for a missing answer: NoHandlerError, InvalidDataError, RemoteError,
            RequestTimeoutError, WorkerGoneError, or UnknownWorkerError.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[int, IPCError] = {}

    @property
    def complete(self) -> bool:
        """Return whether all workers have answered."""
        return not self.errors


class _Open(NamedTuple):
    """A question to one worker: its name, and the answer to come."""

    pid: int
    name: str
    answer: asyncio.Future[Any]


class Questions:
    """The asking half of an endpoint."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._numbers = itertools.count(1)
        # By number and generation of the asked worker.
        self._open: dict[tuple[int, int], _Open] = {}
        self.late = 0

    # --- asking

    async def ask(
        self, to: int | Worker, name: str, data: Any, timeout_s: float | None, reply_type: Any
    ) -> Any:
        """Return the answer of one worker, converted. Raises the error for a missing answer."""
        number, message, convert = self._question(name, data, timeout_s, reply_type)
        peer = self._outgoing.peers.meant_by(to)
        pid = peer.worker.pid
        answer = self._expect(number, name, peer)
        timer = None
        if timeout_s is not None:
            # This takes 0.9 us, and `asyncio.timeout` 4.9.
            timer = self._outgoing.loop.call_later(timeout_s, _expire, answer, pid, name)
        try:
            if not self._outgoing.post(peer, message):
                await self._outgoing.accepted(self._outgoing.queue(peer, message), timeout_s)
            return converted(convert, await answer, pid, name)
        except SendTimeoutError:
            raise RequestTimeoutError(pid, name) from None
        finally:
            if timer is not None:
                timer.cancel()
            self._close(number, [peer])

    async def ask_all(
        self, name: str, data: Any, timeout_s: float | None, reply_type: Any, *, include_self: bool
    ) -> Gathered[Any]:
        """Return the answers of all members that come in time, converted."""
        number, message, convert = self._question(name, data, timeout_s, reply_type)
        members = self._outgoing.peers.members(include_self=include_self)
        answers = {peer: self._expect(number, name, peer) for peer in members.peers}
        waiters = self._put_to_all(number, members.peers, message)
        try:
            if answers:
                await asyncio.wait(answers.values(), timeout=timeout_s)
        finally:
            # Before the word that this worker no longer waits: a question not accepted until now must not be
            # accepted later.
            for waiter in waiters:
                self._outgoing.withdraw(waiter)
            self._close(number, members.peers)
        gathered: Gathered[Any] = Gathered()
        for peer, answer in answers.items():
            pid = peer.worker.pid
            if not answer.done():
                gathered.errors[pid] = RequestTimeoutError(pid, name)
            elif (error := answer.exception()) is None:
                try:
                    gathered[pid] = converted(convert, answer.result(), pid, name)
                except InvalidDataError as misfit:
                    gathered.errors[pid] = misfit
            else:
                assert isinstance(error, IPCError)
                gathered.errors[pid] = error
        return gathered

    def _question(
        self, name: str, data: Any, timeout_s: float | None, reply_type: Any
    ) -> tuple[int, Encoded, Function]:
        """Return a question's number, its message, and the converter of its answers."""
        convert = answer_converter(reply_type)
        check_timeout(timeout_s)
        check_name(name)
        number = next(self._numbers)
        return number, self._outgoing.wrap(ASK, (number, name), data), convert

    def _put_to_all(self, number: int, peers: Iterable[Peer], message: Encoded) -> list[Waiter]:
        """Put a question to all members: at once where there is room, elsewhere as soon as there is."""
        share(message)
        waiters = []
        for peer in peers:
            try:
                if not self._outgoing.post(peer, message):
                    waiter = self._outgoing.queue(peer, message)
                    waiter.future.add_done_callback(partial(self._refused, number, peer.worker.generation))
                    waiters.append(waiter)
            except UnknownWorkerError as error:
                # The worker leaves in this moment.
                self._settle(number, peer.worker.generation, error)
        return waiters

    def _refused(self, number: int, generation: int, accepted: asyncio.Future[None]) -> None:
        """Note that a question no longer waits for room: it is accepted, or never will be."""
        if not accepted.cancelled() and (error := accepted.exception()) is not None:
            assert isinstance(error, Exception)
            self._settle(number, generation, error)

    # --- what is open

    def _expect(self, number: int, name: str, peer: Peer) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._outgoing.loop.create_future()
        self._open[number, peer.worker.generation] = _Open(peer.worker.pid, name, answer)
        return answer

    def _close(self, number: int, peers: Iterable[Peer]) -> None:
        """Withdraw a question from the workers that have not answered."""
        for peer in peers:
            if self._open.pop((number, peer.worker.generation), None) is not None:
                self._outgoing.say(peer, self._outgoing.wrap(WITHDRAW, (), number))

    def _settle(self, number: int, generation: int, error: Exception) -> None:
        question = self._open.pop((number, generation), None)
        if question is not None and not question.answer.done():
            question.answer.set_exception(error)
            # The asker may still wait for room, and never read this exception.
            question.answer.exception()

    def answered(self, data: Any) -> None:
        """Take an answer. Raises TypeError or ValueError for anything else."""
        number, outcome, value = data
        generation = current_sender().generation
        question = self._open.get((number, generation))
        if question is None or question.answer.done():
            self.late += 1
        elif outcome == ANSWERED:
            del self._open[number, generation]
            question.answer.set_result(value)
        elif outcome == NO_HANDLER:
            self._settle(number, generation, NoHandlerError(question.pid, question.name))
        elif outcome == INVALID_DATA:
            field, expected, reason = value
            misfit = InvalidDataError(question.pid, question.name, field, expected, reason)
            self._settle(number, generation, misfit)
        else:
            type_name, text, traceback = value
            error = RemoteError(question.pid, question.name, type_name, text, traceback)
            self._settle(number, generation, error)

    def gone(self, worker: Worker) -> None:
        """Settle the open questions to a dead worker, after its last message."""
        for number, generation in [key for key in self._open if key[1] == worker.generation]:
            self._settle(number, generation, WorkerGoneError(worker.pid))

    def close(self) -> None:
        """Settle all open questions after this worker has left."""
        for number, generation in list(self._open):
            self._settle(number, generation, NotRunningError("ipc.lifespan has ended"))


def _expire(answer: asyncio.Future[Any], pid: int, name: str) -> None:
    """Settle a question whose time is over, unless an answer has come."""
    if not answer.done():
        answer.set_exception(RequestTimeoutError(pid, name))
        # The asker may still wait for room, and never read this exception.
        answer.exception()


def converted(convert: Function, answer: Any, pid: int, name: str) -> Any:
    try:
        return convert(answer)
    except ConversionError as error:
        raise InvalidDataError(pid, name, error.field, error.expected, error.reason, of_answer=True) from None
