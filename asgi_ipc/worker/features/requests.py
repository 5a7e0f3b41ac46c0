"""Questions: what this worker has asked others, and what came of it.

Law: a question has a number that no other ever has, and is open towards each
worker that was asked until its answer is here, the worker has gone, or nobody
waits any more. Whatever answers no open question is discarded and counted.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Iterable
from functools import partial
from typing import Any, Final, NamedTuple

from asgi_ipc.errors import (
    InvalidDataError,
    IPCError,
    NoHandlerError,
    NotRunningError,
    RemoteError,
    RequestTimeoutError,
    UnknownWorkerError,
    WorkerGoneError,
)
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import ASK, WITHDRAW, Encoded, check_name
from asgi_ipc.worker.dispatch.delivery import sender_of
from asgi_ipc.worker.features.messaging import check_timeout
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peers import Peer
from asgi_ipc.worker.transport.room import Waiter

# What an answer says: here is what the handler gave back; there is none; it raised this; it was not
# called, since the data does not fit it.
ANSWERED: Final = 0
NO_HANDLER: Final = 1
RAISED: Final = 2
INVALID_DATA: Final = 3


class Gathered(dict[int, Any]):
    """What every worker that was asked has answered: pid -> answer.

    Attributes:
        errors: pid -> why there is no answer: NoHandlerError, InvalidDataError, RemoteError,
            RequestTimeoutError, WorkerGoneError, or UnknownWorkerError.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[int, IPCError] = {}

    @property
    def complete(self) -> bool:
        """Whether everybody has answered."""
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
        # By number and generation of who was asked.
        self._open: dict[tuple[int, int], _Open] = {}
        self.late = 0

    # --- asking

    async def ask(self, to: int | Worker, name: str, data: Any, timeout_s: float | None) -> Any:
        """The answer of one worker. Raises what stands for it if there is none."""
        check_timeout(timeout_s)
        check_name(name)
        number = next(self._numbers)
        message = self._outgoing.wrap(ASK, (number, name), data)
        peer = self._outgoing.peers.meant_by(to)
        answer = self._expect(number, name, peer)
        try:
            async with asyncio.timeout(timeout_s):
                if not self._outgoing.post(peer, message):
                    await self._outgoing.accepted(self._outgoing.queue(peer, message), None)
                return await answer
        except TimeoutError:
            # It may have come in the very moment in which the time was over.
            if answer.done() and not answer.cancelled():
                return answer.result()
            raise RequestTimeoutError(peer.worker.pid, name) from None
        finally:
            self._close(number, [peer])

    async def ask_all(self, name: str, data: Any, timeout_s: float | None, *, include_self: bool) -> Gathered:
        """The answers of all members, as far as they come in time."""
        check_timeout(timeout_s)
        check_name(name)
        number = next(self._numbers)
        message = self._outgoing.wrap(ASK, (number, name), data)
        members = self._outgoing.peers.members(include_self=include_self)
        answers = {peer: self._expect(number, name, peer) for peer in members.peers}
        waiters = self._put_to_all(number, members.peers, message)
        try:
            if answers:
                await asyncio.wait(answers.values(), timeout=timeout_s)
        finally:
            # Before it is said that nobody waits: what is not accepted by now shall not be.
            for waiter in waiters:
                self._outgoing.withdraw(waiter)
            self._close(number, members.peers)
        gathered = Gathered()
        for peer, answer in answers.items():
            pid = peer.worker.pid
            if not answer.done():
                gathered.errors[pid] = RequestTimeoutError(pid, name)
            elif (error := answer.exception()) is None:
                gathered[pid] = answer.result()
            else:
                assert isinstance(error, IPCError)
                gathered.errors[pid] = error
        return gathered

    def _put_to_all(self, number: int, peers: Iterable[Peer], message: Encoded) -> list[Waiter]:
        """Put a question to everybody: at once where there is room, else each as soon as there is."""
        waiters = []
        for peer in peers:
            try:
                if not self._outgoing.post(peer, message):
                    waiter = self._outgoing.queue(peer, message)
                    waiter.future.add_done_callback(partial(self._refused, number, peer.worker.generation))
                    waiters.append(waiter)
            except UnknownWorkerError as error:
                # It leaves in this very moment.
                self._settle(number, peer.worker.generation, error)
        return waiters

    def _refused(self, number: int, generation: int, accepted: asyncio.Future[None]) -> None:
        """One that waited for room need not any more: it is accepted, or will never be."""
        if not accepted.cancelled() and (error := accepted.exception()) is not None:
            assert isinstance(error, Exception)
            self._settle(number, generation, error)

    # --- what is open

    def _expect(self, number: int, name: str, peer: Peer) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._outgoing.loop.create_future()
        self._open[number, peer.worker.generation] = _Open(peer.worker.pid, name, answer)
        return answer

    def _close(self, number: int, peers: Iterable[Peer]) -> None:
        """Nobody waits any more: whoever has not answered need not."""
        for peer in peers:
            if self._open.pop((number, peer.worker.generation), None) is not None:
                self._outgoing.say(peer, self._outgoing.wrap(WITHDRAW, (), number))

    def _settle(self, number: int, generation: int, error: Exception) -> None:
        question = self._open.pop((number, generation), None)
        if question is not None and not question.answer.done():
            question.answer.set_exception(error)
            # Whoever asked may be waiting for room still, and never look at it.
            question.answer.exception()

    def answered(self, context: contextvars.Context, data: Any) -> None:
        """An answer has come. Raises TypeError or ValueError if it is none."""
        number, outcome, value = data
        sender = sender_of(context)
        generation = sender.generation if sender is not None else 0
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
        """That worker is dead, and all that it has said has been heard."""
        for number, generation in [key for key in self._open if key[1] == worker.generation]:
            self._settle(number, generation, WorkerGoneError(worker.pid))

    def close(self) -> None:
        """This worker has left: there will be no answer."""
        for number, generation in list(self._open):
            self._settle(number, generation, NotRunningError("ipc.lifespan has ended"))
