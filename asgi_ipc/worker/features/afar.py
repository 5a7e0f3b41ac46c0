"""Afar: messages and questions to single workers of other servers, and the answers.

Law: a question is open until its answers are here, whoever was asked has gone, or nobody waits any more. The
bridge refuses at once what it can't send; nothing here waits for a broker.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterable
from typing import Any, Final, Generic, TypeVar

from asgi_ipc.cluster import words
from asgi_ipc.cluster.nodes import Node
from asgi_ipc.errors import (
    InvalidDataError,
    IPCError,
    NoHandlerError,
    NotConnectedError,
    NotRunningError,
    RemoteError,
    RequestTimeoutError,
    SendTimeoutError,
    UnknownWorkerError,
    WorkerGoneError,
)
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import Data, check_name
from asgi_ipc.worker.dispatch.conversion import answer_converter
from asgi_ipc.worker.features.clustering import Clustering, content_of
from asgi_ipc.worker.features.messaging import check_timeout
from asgi_ipc.worker.features.requests import ANSWERED, INVALID_DATA, NO_HANDLER, Questions, converted
from asgi_ipc.worker.transport.outgoing import Outgoing

T = TypeVar("T")

# How long a message waits before it is given to a bridge again that had no room for it.
RETRY_S: Final = 0.05


class ClusterGathered(dict[Worker, T], Generic[T]):
    """The answers of all asked workers: Worker -> answer.

    Attributes:
        errors: the reason for each missing answer, by Worker; or by Node, if nothing was heard of that node.
            NoHandlerError, InvalidDataError, RemoteError, RequestTimeoutError, WorkerGoneError,
            UnknownWorkerError or NotConnectedError.
    """

    def __init__(self) -> None:
        super().__init__()
        self.errors: dict[Worker | Node, IPCError] = {}

    @property
    def complete(self) -> bool:
        """Return whether every worker that was in the view when the question was asked has answered."""
        return not self.errors


class _Open:
    """A question to one worker, or to all of a node.

    Attributes:
        answers: by worker, as they come: the value, or the error.
        missing: the workers whose answer is missing; None as long as nothing was heard.
        done: set when nothing is missing.
    """

    __slots__ = ("answers", "done", "error", "missing", "name", "node")

    def __init__(self, node: str, name: str, missing: set[Worker] | None, done: asyncio.Future[None]) -> None:
        self.node = node
        self.name = name
        self.missing = missing
        self.done = done
        self.answers: dict[Worker, Any] = {}
        self.error: IPCError | None = None

    def settle(self, worker: Worker, outcome: Any) -> None:
        self.answers.setdefault(worker, outcome)
        if self.missing is not None:
            self.missing.discard(worker)
            if not self.missing:
                self.end()

    def fail(self, error: IPCError) -> None:
        """End without (more) answers."""
        self.error = error
        self.end()

    def end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Afar:
    """The asking half towards other servers.

    Attributes:
        late: answers that nobody waited for any more.
    """

    def __init__(self, outgoing: Outgoing, clustering: Clustering, questions: Questions) -> None:
        self.late = 0
        self._outgoing = outgoing
        self._clustering = clustering
        self._questions = questions
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open] = {}
        self._sent: dict[int, asyncio.Future[str]] = {}
        clustering.on_answered = self._answered
        clustering.on_heard = self._heard
        clustering.on_taken = self._taken
        clustering.on_node_gone = self._node_gone
        clustering.on_worker_gone = self._worker_gone
        clustering.on_bridge_gone = self._bridge_gone

    # --- messages

    async def send(self, worker: Worker, name: str, data: Data, timeout: float | None) -> None:
        """Send one message to a worker of another server; see `Cluster.send`."""
        check_timeout(timeout)
        content = content_of(self._outgoing.pack(name, data))
        loop = self._outgoing.loop
        deadline = None if timeout is None else loop.time() + timeout
        while (refusal := await self._try_to_send(worker, content, deadline)) == "full":
            if deadline is not None and loop.time() >= deadline:
                raise SendTimeoutError(worker.pid)
            await asyncio.sleep(RETRY_S)
        if refusal:
            raise _refused(worker, refusal)

    def send_nowait(self, worker: Worker, name: str, data: Data) -> None:
        """Send one message, or raise; what the bridge refuses later is lost and counted. From any thread."""
        content = content_of(self._outgoing.pack(name, data))
        self._check(worker)
        word = words.Send(0, worker.node, worker.generation, content)
        if threading.get_ident() != self._outgoing.thread:
            self._outgoing.loop.call_soon_threadsafe(self._clustering.say, word)
        elif not self._clustering.say(word):
            raise NotConnectedError(worker.pid)

    async def _try_to_send(self, worker: Worker, content: bytes, deadline: float | None) -> str:
        self._check(worker)
        number = next(self._numbers)
        taken: asyncio.Future[str] = self._outgoing.loop.create_future()
        self._sent[number] = taken
        try:
            if not self._clustering.say(words.Send(number, worker.node, worker.generation, content)):
                return "full" if self._clustering.has_bridge else "not connected"
            async with asyncio.timeout_at(deadline):
                return await taken
        except TimeoutError:
            raise SendTimeoutError(worker.pid) from None
        finally:
            del self._sent[number]

    def _check(self, worker: Worker) -> None:
        """Raise UnknownWorkerError or NotConnectedError for a worker that can't be reached now."""
        if self._clustering.find(worker) is None:
            raise UnknownWorkerError(worker.pid)
        if not self._clustering.has_bridge:
            raise NotConnectedError(worker.pid)

    # --- questions

    async def ask(self, worker: Worker, name: str, data: Data, timeout: float | None, reply_type: Any) -> Any:
        """Return the answer of one worker of another server; see `Cluster.request`."""
        convert = answer_converter(reply_type)
        check_timeout(timeout)
        check_name(name)
        content = content_of(self._outgoing.pack(name, data))
        self._check(worker)
        number, question = self._begin(worker.node, name, {worker})
        try:
            if not self._clustering.say(words.Ask(number, worker.node, worker.generation, content)):
                raise NotConnectedError(worker.pid)
            await self._wait([question], timeout)
            if worker not in question.answers:
                raise _of(question.error, worker) or RequestTimeoutError(worker.pid, name)
            outcome = question.answers[worker]
            if isinstance(outcome, IPCError):
                raise outcome
            return converted(convert, outcome, worker.pid, name)
        finally:
            self._end(number, question, worker.generation)

    async def ask_all(
        self, name: str, data: Data, timeout: float | None, reply_type: Any, *, include_self: bool
    ) -> ClusterGathered[Any]:
        """Return the answers of the workers of all servers; see `Cluster.gather`."""
        convert = answer_converter(reply_type)
        check_timeout(timeout)
        check_name(name)
        content = content_of(self._outgoing.pack(name, data))
        here, *others = self._clustering.view
        gathered: ClusterGathered[Any] = ClusterGathered()
        begun: list[tuple[int, Node, _Open]] = []
        try:
            for node in others:
                number, question = self._begin(node.id, name, None)
                begun.append((number, node, question))
                if not self._clustering.say(words.Ask(number, node.id, 0, content)):
                    question.fail(NotConnectedError(0))
            local, _ = await asyncio.gather(
                self._questions.ask_all(name, data, timeout, reply_type, include_self=include_self),
                self._wait([question for _, _, question in begun], timeout),
            )
            for worker in here.workers:
                # One that has joined since then was asked, too, and is not in the view of the start.
                if worker.pid in local:
                    gathered[worker] = local[worker.pid]
                elif worker.pid in local.errors:
                    gathered.errors[worker] = local.errors[worker.pid]
            for _, node, question in begun:
                self._collect(gathered, node, question, convert)
        finally:
            for number, _, question in begun:
                self._end(number, question, 0)
        return gathered

    @staticmethod
    def _collect(gathered: ClusterGathered[Any], node: Node, question: _Open, convert: Any) -> None:
        """Add what one node has answered."""
        if question.missing is None and not question.answers:
            gathered.errors[node] = question.error or RequestTimeoutError(0, question.name)
            return
        for worker, outcome in question.answers.items():
            try:
                if isinstance(outcome, IPCError):
                    raise outcome
                gathered[worker] = converted(convert, outcome, worker.pid, question.name)
            except IPCError as error:
                gathered.errors[worker] = error
        for worker in {*node.workers, *(question.missing or ())} - question.answers.keys():
            gathered.errors[worker] = _of(question.error, worker) or RequestTimeoutError(
                worker.pid, question.name
            )

    def _begin(self, node: str, name: str, missing: set[Worker] | None) -> tuple[int, _Open]:
        number = next(self._numbers)
        question = self._open[number] = _Open(node, name, missing, self._outgoing.loop.create_future())
        return number, question

    @staticmethod
    async def _wait(questions: Iterable[_Open], timeout: float | None) -> None:
        waiting = [question.done for question in questions if not question.done.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=timeout)

    def _end(self, number: int, question: _Open, to: int) -> None:
        del self._open[number]
        if not question.done.done():
            self._clustering.say(words.Withdraw(question.node, to, number))

    # --- what comes back

    def _answered(self, worker: Worker, number: int, outcome: int, value: Any) -> None:
        question = self._open.get(number)
        if question is None or question.node != worker.node or worker in question.answers:
            self.late += 1
            return
        name = question.name
        if outcome == ANSWERED:
            question.settle(worker, value)
        elif outcome == NO_HANDLER:
            question.settle(worker, NoHandlerError(worker.pid, name))
        elif outcome == INVALID_DATA:
            question.settle(worker, InvalidDataError(worker.pid, name, *value))
        else:
            question.settle(worker, RemoteError(worker.pid, name, *value))

    def _heard(self, node: str, number: int, generations: list[int]) -> None:
        question = self._open.get(number)
        remote = self._clustering.nodes.get(node)
        if question is None or question.node != node or question.missing is not None or remote is None:
            return
        asked = {remote.workers[each] for each in generations if each in remote.workers}
        question.missing = asked - question.answers.keys()
        if not question.missing:
            question.end()

    def _taken(self, number: int, refusal: str) -> None:
        taken = self._sent.get(number)
        if taken is not None and not taken.done():
            taken.set_result(refusal)
        question = self._open.get(number)
        if question is not None and refusal:
            question.fail(_refused(None, refusal))

    def _worker_gone(self, worker: Worker) -> None:
        for question in self._open.values():
            if question.missing is not None and worker in question.missing:
                question.settle(worker, WorkerGoneError(worker.pid))

    def _node_gone(self, node: str) -> None:
        for question in self._open.values():
            if question.node == node:
                question.fail(WorkerGoneError(0))

    def _bridge_gone(self) -> None:
        for taken in self._sent.values():
            if not taken.done():
                taken.set_result("not connected")
        for question in self._open.values():
            question.fail(NotConnectedError(0))

    def close(self) -> None:
        """Settle everything that is open after this worker has left."""
        for taken in self._sent.values():
            if not taken.done():
                taken.set_result("not connected")
        for question in self._open.values():
            question.fail(NotRunningError("ipc.lifespan has ended"))


def _refused(worker: Worker | None, refusal: str) -> IPCError:
    pid = 0 if worker is None else worker.pid
    if refusal == "full":
        return SendTimeoutError(pid)
    return UnknownWorkerError(pid) if refusal == "unknown" else NotConnectedError(pid)


def _of(error: IPCError | None, worker: Worker) -> IPCError | None:
    """The error of a whole question, for one worker."""
    if isinstance(error, WorkerGoneError | NotConnectedError | UnknownWorkerError | SendTimeoutError):
        return type(error)(worker.pid)
    return error
