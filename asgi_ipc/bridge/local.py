"""Local: the workers of this server, as the bridge tells them what concerns them.

Law: no worker is waited for. What one has no room for is noted, and it is told before anything else of that
node as soon as it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from asgi_ipc.cluster import words
from asgi_ipc.errors import DeliveryError
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import OWN_BYTES, Encoded, Packer
from asgi_ipc.wire.payload import batch_capacity_bytes
from asgi_ipc.worker.endpoint import Endpoint
from asgi_ipc.worker.transport.outgoing import share
from asgi_ipc.worker.transport.peer import Peer


class Local:
    """The workers here.

    Attributes:
        workers: those that have been told who is there, by generation.
        undelivered: messages of other nodes for which a worker had no room, one for each worker.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.workers: dict[int, Worker] = {}
        self.undelivered = 0
        self._outgoing = endpoint.outgoing
        self._topics = endpoint.topics
        self._packer = Packer(
            endpoint.settings.max_message_bytes + OWN_BYTES,
            batch_capacity_bytes(endpoint.settings.max_packet_bytes),
        )
        # The messages missed since the last word for which there was room: by generation and node.
        self._missed: dict[tuple[int, str], tuple[int, dict[str, int]]] = {}

    def forget(self, generation: int) -> None:
        """A worker has gone."""
        self.workers.pop(generation, None)
        self._missed = {key: kept for key, kept in self._missed.items() if key[0] != generation}

    # --- who

    def one(self, generation: int) -> Iterable[Peer]:
        """Return that worker, if it is here."""
        peer = self._outgoing.peers.find(generation)
        return () if peer is None else (peer,)

    def all(self) -> Iterable[Peer]:
        """Return all workers, but those that have not been told who is there."""
        members = self._outgoing.peers.members(include_self=False).peers
        return [peer for peer in members if peer.worker.generation in self.workers]

    def subscribers(self, topic: str) -> Iterable[Peer]:
        """Return the workers that subscribe to a topic."""
        return self._topics.wanted_by(topic).peers

    # --- what they are told

    def say(self, peers: Iterable[Peer], word: words.Down) -> None:
        """Have workers get a word as soon as there is room."""
        message = self._word(word)
        share(message)
        for peer in peers:
            self._outgoing.say(peer, message)

    def deliver(self, peers: Iterable[Peer], word: words.Messages, topic: str | None) -> None:
        """Give workers messages of another node; those of a topic are publications."""
        message = self._word(word)
        share(message)
        publications = {} if topic is None else {topic: word.count}
        for peer in peers:
            if not self._post(peer, word.node, message):
                self.miss(peer.worker.generation, word.node, word.count, publications)
                self.undelivered += word.count

    def ask(self, peers: Iterable[Peer], word: words.Asked) -> list[int]:
        """Give workers a question of another node; who got it, by generation."""
        message = self._word(word)
        share(message)
        return [peer.worker.generation for peer in peers if self._post(peer, word.node, message)]

    def _word(self, word: words.Down) -> Encoded:
        return self._packer.own(words.DOWN, word)

    def _post(self, peer: Peer, node: str, message: Encoded) -> bool:
        """Give a worker what comes from a node, behind what it missed of it. False: there is no room."""
        generation = peer.worker.generation
        if (generation, node) in self._missed and not self.tell_missed(generation, node):
            return False
        try:
            return self._outgoing.post(peer, message)
        except DeliveryError:
            # It leaves.
            return True

    # --- what they miss

    def miss(self, generation: int, node: str, count: int, publications: dict[str, int]) -> None:
        """Note what a worker misses of a node."""
        before, by_topic = self._missed.get((generation, node), (0, {}))
        for topic, lost in publications.items():
            by_topic[topic] = by_topic.get(topic, 0) + lost
        self._missed[generation, node] = before + count, by_topic

    def tell_missed(self, generation: int, node: str) -> bool:
        """Tell a worker what it missed of a node; whether there was room for it."""
        message = self._word(words.Lost(node, *self._missed[generation, node]))
        for peer in self.one(generation):
            with suppress(DeliveryError):
                if not self._outgoing.post(peer, message):
                    return False
        del self._missed[generation, node]
        return True

    def retry(self) -> None:
        """Tell those who miss something and had no room for the word."""
        for generation, node in list(self._missed):
            self.tell_missed(generation, node)
