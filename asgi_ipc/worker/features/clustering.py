"""Clustering: the other servers of the cluster, as this worker knows them, and what goes to them.

Law: all of it goes through the bridge of this server, a member of a kind of its own, and nothing waits for
    it. What fans out is put together until the turn ends; what the bridge has no room for is counted, and the
    bridge is told when it has. What comes from another server is dispatched like any message, in the context
    of its sender.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any, Final

from asgi_ipc.cluster import words
from asgi_ipc.cluster.nodes import Node, NodeState
from asgi_ipc.errors import DeliveryError
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.wire.batch import Batch
from asgi_ipc.wire.message import OWN_BYTES, Encoded, LargeMessage, Packer
from asgi_ipc.wire.payload import ONE_MESSAGE, batch_capacity_bytes, batch_header
from asgi_ipc.worker.dispatch.dispatcher import Dispatcher
from asgi_ipc.worker.dispatch.registry import Registry
from asgi_ipc.worker.features.topics import Topics
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peer import Peer

# What fans out in one turn shares a word of up to this size.
SHARED_BYTES: Final = 64 * 1024
MAX_SHARED_MESSAGES: Final = 4096

# How long a word that says what was lost waits for room before it is tried again.
RETRY_S: Final = 0.25


class _Remote:
    """One other node of the view."""

    __slots__ = ("contexts", "name", "node", "state", "workers")

    def __init__(self, node: str, name: str, state: NodeState) -> None:
        self.node = node
        self.name = name
        self.state: NodeState = state
        self.workers: dict[int, Worker] = {}
        self.contexts: dict[int, contextvars.Context] = {}


class _Batch:
    """Messages of one turn that go to the bridge together: broadcasts, or publications of one topic."""

    __slots__ = ("count", "parts", "size_bytes", "topic")

    def __init__(self, topic: str | None) -> None:
        self.topic = topic
        self.count = 0
        self.parts: list[bytes] = []
        self.size_bytes = 0


class Clustering:
    """The other nodes, and the way to them.

    Attributes:
        nodes: the other nodes of the view, by id.
        counters: the bridge's, as it told last.
        on_question, on_withdrawn, on_answered, on_heard, on_taken: take what concerns questions.
        on_node_gone, on_worker_gone, on_asker_gone, on_bridge_gone: told before the app is.
    """

    def __init__(
        self,
        me: Worker,
        settings: Settings,
        registry: Registry,
        outgoing: Outgoing,
        dispatcher: Dispatcher,
        topics: Topics,
        context_of: Callable[[Worker], contextvars.Context],
        deliver: Callable[[contextvars.Context, Batch], None],
    ) -> None:
        self._me = me
        self._name = settings.node_name
        self._registry = registry
        self._outgoing = outgoing
        self._dispatcher = dispatcher
        self._topics = topics
        self._context_of = context_of
        self._deliver = deliver
        self._context = contextvars.copy_context()
        self._packer = Packer(
            settings.max_message_bytes + OWN_BYTES, batch_capacity_bytes(settings.max_packet_bytes)
        )
        self.nodes: dict[str, _Remote] = {}
        self.counters: dict[str, int] = {}
        self._bridge: Peer | None = None
        # The nodes that this bridge has named; another one may have named more before.
        self._named: set[str] = set()
        # Topics with subscribers on other nodes. Any thread may look.
        self._wanted: dict[str, None] = {}
        self._batch: _Batch | None = None
        self._is_flush_due = False
        # What the bridge had no room for.
        self._unsent = 0
        self._unsent_of: dict[str, int] = {}
        self._is_retry_due = False
        self.on_question: Callable[[int, str, Any], None]
        self.on_withdrawn: Callable[[int], None]
        self.on_answered: Callable[[Worker, int, int, Any], None]
        self.on_heard: Callable[[str, int, list[int]], None]
        self.on_taken: Callable[[int, str], None]
        self.on_node_gone: Callable[[str], None]
        self.on_worker_gone: Callable[[Worker], None]
        self.on_asker_gone: Callable[[Worker], None]
        self.on_bridge_gone: Callable[[], None]
        dispatcher.receive(words.DOWN, self._told)

    # --- the view

    @property
    def here(self) -> Node:
        """This worker's own node."""
        return Node(self._me.node, self._name, "here", self._outgoing.peers.workers)

    @property
    def view(self) -> tuple[Node, ...]:
        """All nodes, this one first, the others in the order in which they came."""
        return (self.here, *(self._node(remote) for remote in self.nodes.values()))

    @staticmethod
    def _node(remote: _Remote) -> Node:
        workers = sorted(remote.workers.values(), key=lambda worker: (worker.slot, worker.generation))
        return Node(remote.node, remote.name, remote.state, tuple(workers))

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers of all nodes."""
        return tuple(worker for node in self.view for worker in node.workers)

    def is_here(self, worker: Worker) -> bool:
        """Return whether a worker belongs to this node."""
        return worker.node == self._me.node

    def find(self, worker: Worker) -> Worker | None:
        """Return a worker of another node, if it can be addressed."""
        remote = self.nodes.get(worker.node)
        found = remote.workers.get(worker.generation) if remote is not None else None
        return found if found == worker else None

    # --- the bridge of this node

    @property
    def has_bridge(self) -> bool:
        """Return whether this node is one of a cluster, and its bridge runs."""
        return self._bridge is not None

    def bridge_joined(self, peer: Peer) -> None:
        """Use this bridge from now on."""
        self._bridge = peer
        self._named = set()
        self._unsent, self._unsent_of = 0, {}

    def bridge_left(self, peer: Peer) -> None:
        """That bridge takes nothing any more. What it had is unknown, and its successor says so."""
        if self._bridge is peer:
            self._bridge = self._batch = None
            self.on_bridge_gone()

    # --- what fans out

    def broadcast(self, message: Encoded) -> None:
        """Send a message to all workers of all other nodes. From any thread."""
        if self._bridge is not None:
            self._fan_out(None, message)

    def publish(self, topic: str, message: Encoded) -> None:
        """Send a publication to its subscribers on other nodes. From any thread."""
        if topic in self._wanted and self._bridge is not None:
            self._fan_out(topic, message)

    def _fan_out(self, topic: str | None, message: Encoded) -> None:
        if threading.get_ident() != self._outgoing.thread:
            self._outgoing.loop.call_soon_threadsafe(self._put, topic, message)
            return
        self._put(topic, message)

    def _put(self, topic: str | None, message: Encoded) -> None:
        batch = self._batch
        if batch is not None and (
            batch.topic != topic
            or batch.size_bytes + len(message) > SHARED_BYTES
            or batch.count == MAX_SHARED_MESSAGES
        ):
            self.flush()
            batch = None
        if batch is None:
            batch = self._batch = _Batch(topic)
            if not self._is_flush_due:
                self._is_flush_due = True
                self._outgoing.loop.call_soon(self._end_turn)
        batch.parts += _parts(message)
        batch.count += 1
        batch.size_bytes += len(message)

    def _end_turn(self) -> None:
        self._is_flush_due = False
        self.flush()

    def flush(self) -> None:
        """Give the bridge what was put together, before anything else goes there."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        count, content = batch.count, b"".join((batch_header(batch.count), *batch.parts))
        word = (
            words.Broadcast(count, content)
            if batch.topic is None
            else words.Publish(batch.topic, count, content)
        )
        if not self._say_unsent() or not self._say(word):
            if batch.topic is None:
                self._unsent += count
            else:
                self._unsent_of[batch.topic] = self._unsent_of.get(batch.topic, 0) + count
            self._retry_soon()

    def _say_unsent(self) -> bool:
        """Tell the bridge what it had no room for; whether it knows all of it now."""
        if not self._unsent and not self._unsent_of:
            return True
        if self._say(words.Unsent(self._unsent, self._unsent_of)):
            self._unsent, self._unsent_of = 0, {}
            return True
        return False

    def _retry_soon(self) -> None:
        if not self._is_retry_due:
            self._is_retry_due = True
            self._outgoing.loop.call_later(RETRY_S, self._retry)

    def _retry(self) -> None:
        self._is_retry_due = False
        if self._bridge is not None and not self._say_unsent():
            self._retry_soon()

    def _say(self, word: words.Up) -> bool:
        """Say a word to the bridge. False: there is no room, or no bridge."""
        if self._bridge is None:
            return False
        try:
            return self._outgoing.post(self._bridge, self._packer.own(words.UP, word))
        except DeliveryError:
            return False

    # --- what is addressed

    def say(self, word: words.Up) -> bool:
        """Say a word to the bridge, behind what was said before. False: there is no room, or no bridge."""
        self.flush()
        return self._say(word)

    def route(self, asker: Worker, answer: Encoded) -> tuple[Peer | None, Encoded]:
        """Return the peer that takes an answer to its asker, and what is sent to it."""
        if self.is_here(asker):
            return self._outgoing.peers.find(asker.generation), answer
        word = words.Answer(asker.node, asker.generation, content_of(answer))
        return self._bridge, self._packer.own(words.UP, word)

    # --- what the bridge says

    def _told(self, data: Any) -> None:
        word = words.read_down(data)
        match word:
            case words.Messages(node, sender, count, content):
                self._receive(node, sender, count, content)
            case words.Lost(node, messages, publications):
                self._lost(node, messages, publications)
            case words.Asked(node, sender, number, content):
                self._in_context(node, sender, self._asked, number, content)
            case words.Withdrawn(node, sender, number):
                self._in_context(node, sender, self.on_withdrawn, number)
            case words.Answered(node, sender, content):
                self._answered(node, sender, content)
            case words.Heard(node, number, workers):
                self.on_heard(node, number, workers)
            case words.Taken(number, refusal):
                self.on_taken(number, refusal)
            case words.NodeIs(node, name, state):
                self._node_is(node, name, state)
            case words.NodeGone(node, reason):
                self._node_gone(node, reason)
            case words.WorkerJoined(node, pid, slot, generation):
                self._worker_joined(node, Worker(pid, slot, generation, node=node))
            case words.WorkerLeft(node, generation, reason):
                self._worker_left(node, generation, reason)
            case words.Complete():
                for node in self.nodes.keys() - self._named:
                    self._node_gone(node, "lost")
            case words.Wanted(topics, unwanted):
                for topic in unwanted:
                    self._wanted.pop(topic, None)
                self._wanted.update(dict.fromkeys(topics))
            case words.Totals(counters):
                self.counters = counters

    def _announce(self, watchers: list[Any], *news: Any) -> None:
        self._dispatcher.announce(tuple(watchers), news, self._context)

    def _node_is(self, node: str, name: str, state: NodeState) -> None:
        remote = self.nodes.get(node)
        is_new = remote is None
        if remote is None:
            remote = self.nodes[node] = _Remote(node, name, state)
        remote.name, remote.state = name, state
        if is_new:
            self._announce(self._registry.on_node_join, self._node(remote))
        elif node not in self._named:
            # Another bridge of this node has known it before, and what that one had is lost.
            self._announce(self._registry.on_gap, self._node(remote), None)
        self._named.add(node)

    def _node_gone(self, node: str, reason: str) -> None:
        remote = self.nodes.get(node)
        if remote is None:
            return
        for generation in list(remote.workers):
            self._worker_left(node, generation, reason)
        del self.nodes[node]
        self.on_node_gone(node)
        self._announce(self._registry.on_node_leave, self._node(remote), reason)

    def _worker_joined(self, node: str, worker: Worker) -> None:
        remote = self.nodes.get(node)
        if remote is not None and worker.generation not in remote.workers:
            remote.workers[worker.generation] = worker
            self._announce(self._registry.on_worker_join, worker)

    def _worker_left(self, node: str, generation: int, reason: str) -> None:
        remote = self.nodes.get(node)
        worker = remote.workers.pop(generation, None) if remote is not None else None
        if remote is not None and worker is not None:
            remote.contexts.pop(generation, None)
            self.on_worker_gone(worker)
            self.on_asker_gone(worker)
            self._announce(self._registry.on_worker_leave, worker, reason)

    def _lost(self, node: str, messages: int | None, publications: dict[str, int]) -> None:
        self._topics.lost(publications)
        remote = self.nodes.get(node)
        if remote is not None:
            self._announce(self._registry.on_gap, self._node(remote), messages)

    # --- what comes from other nodes

    def _context_from(self, node: str, sender: int) -> contextvars.Context | None:
        """The context for handlers of that worker's messages; None: it is not known."""
        remote = self.nodes.get(node)
        worker = remote.workers.get(sender) if remote is not None else None
        if remote is None or worker is None:
            return None
        context = remote.contexts.get(sender)
        if context is None:
            context = remote.contexts[sender] = self._context_of(worker)
        return context

    def _receive(self, node: str, sender: int, count: int, content: bytes) -> None:
        context = self._context_from(node, sender)
        if context is not None:
            batch = _opened(content)
            if count == 1:
                batch.each_bytes = len(content)
            self._deliver(context, batch)

    def _in_context(self, node: str, sender: int, function: Callable[..., None], *arguments: Any) -> None:
        context = self._context_from(node, sender)
        if context is not None:
            context.copy().run(function, *arguments)

    def _asked(self, number: int, content: bytes) -> None:
        name, data = _message(content)
        self.on_question(number, name, data)

    def _answered(self, node: str, sender: int, content: bytes) -> None:
        remote = self.nodes.get(node)
        worker = remote.workers.get(sender) if remote is not None else None
        _, (number, outcome, value) = _message(content)
        if worker is not None:
            self.on_answered(worker, number, outcome, value)


def _parts(message: Encoded) -> tuple[bytes, ...]:
    return (message.prefix, message.body) if isinstance(message, LargeMessage) else (message,)


def content_of(message: Encoded) -> bytes:
    """Return a message as words and items carry it: as a batch of one."""
    return b"".join((ONE_MESSAGE, *_parts(message)))


def _opened(content: bytes) -> Batch:
    """Return messages as a batch. Raises ValueError if they are none."""
    batch = Batch()
    if not batch.open(content, 0, len(content)):
        raise ValueError("no messages")
    return batch


def _message(content: bytes) -> tuple[str, Any]:
    """Return the name and data of one message. Raises ValueError if it is none."""
    batch = _opened(content)
    if not batch.next():
        raise ValueError("no message")
    return batch.name, batch.data
