"""The bridge: between the workers of one server and the broker.

Law: it waits for the broker and for nobody else. Workers' words are handled at once, in their order; what the
broker does not take in time, or a worker here has no room for, is dropped and counted, and who misses it is
told. The machine decides; here words, envelopes and time are carried to it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from asgi_ipc.bridge.local import Local
from asgi_ipc.bridge.transport import Transport, TransportError
from asgi_ipc.cluster import items, words
from asgi_ipc.cluster.accounts import Loss
from asgi_ipc.cluster.envelope import EPOCH_BYTES, Sealer
from asgi_ipc.cluster.link import Link, Phase
from asgi_ipc.cluster.machine import BEAT_S, GONE_S, Machine
from asgi_ipc.cluster.nodes import NodeState
from asgi_ipc.cluster.port import Reason
from asgi_ipc.cluster.settings import ClusterSettings, shown
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.logs import server_logger as logger
from asgi_ipc.wire.message import OWN_BYTES
from asgi_ipc.worker.dispatch.delivery import current_sender
from asgi_ipc.worker.endpoint import Endpoint
from asgi_ipc.worker.transport.peer import Peer

# Between two tries to connect: doubled each time, and a part of it by chance, so that not all nodes come at
# once.
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0

# The transport is given so much at once.
BURST_BYTES: Final = 1024 * 1024

# Envelopes that are taken before others have their turn.
ENVELOPES_PER_TURN: Final = 64

# A stop waits so long for the broker to take what waits, the farewell among it.
FAREWELL_S: Final = 1.0


class Bridge:
    """One server's bridge. It is the port of its machine.

    `endpoint` is the member that the workers know; `random_bytes` makes the epoch of this life, with the
    generation of the member in front, so that the others know which life is the younger one. `speed` is for
    tests: the seconds of the machine in one of the clock.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        settings: ClusterSettings,
        name: str,
        random_bytes: bytes,
        speed: float = 1.0,
    ) -> None:
        self._endpoint = endpoint
        self._outgoing = endpoint.outgoing
        self._loop = endpoint.outgoing.loop
        self._speed = speed
        self._transport = transport
        self._settings = settings
        me = endpoint.me
        epoch = me.generation.to_bytes(8, "big") + random_bytes[: EPOCH_BYTES - 8]
        self._local = Local(endpoint)
        self._machine = Machine(
            me.node,
            name,
            epoch,
            Sealer(settings.name, settings.secret),
            self,
            # A payload has one largest message, or many small ones, and the topics of a node.
            most_bytes=2 * (endpoint.settings.max_message_bytes + OWN_BYTES),
            envelope_bytes=transport.envelope_bytes,
            now=self._now(),
        )
        # For the broker.
        self._queue: deque[tuple[str | None, bytes]] = deque()
        self._queued_bytes = 0
        self._something = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_flush_due = False
        self._is_complete = False
        self._counts = dict.fromkeys(("sent", "received", "sent_bytes", "received_bytes", "connects"), 0)
        self._told: dict[str, int] = {}
        self._wanted: set[str] = set()

    # --- life

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then say good-bye."""
        registry = self._endpoint._registry
        registry.watch_joins(self._worker_joined)
        registry.watch_leaves(self._worker_left)
        self._endpoint.dispatcher.receive(words.UP, self._said)
        topics = self._endpoint.topics
        topics.on_report = self._reported
        for worker in self._outgoing.peers.workers:
            self._worker_joined(worker)
        tasks = [self._loop.create_task(each) for each in (self._connect(), self._tick())]
        stopped: asyncio.Task[Any] = self._loop.create_task(stop.wait())
        try:
            await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    # They run for ever, or fail.
                    task.result()
            with suppress(TimeoutError, TransportError):
                async with asyncio.timeout(FAREWELL_S):
                    await self._leave()
        finally:
            for ended in (*tasks, stopped):
                ended.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)
            await self._transport.close()

    async def _leave(self) -> None:
        """Have the broker take what waits, and the farewell behind it."""
        self._machine.leave()
        if self._machine.is_connected and self._queued_bytes:
            self._is_empty.clear()
            await self._is_empty.wait()

    async def _connect(self) -> None:
        """Be connected, for ever."""
        delay_s = BACKOFF_FIRST_S
        said = ""
        while True:
            try:
                await self._transport.connect()
            except TransportError as error:
                if str(error) != said:
                    said = str(error)
                    logger.warning(
                        "No connection to the broker at %s (%s); serving this server's workers meanwhile.",
                        self._where,
                        said,
                    )
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
                delay_s = min(2 * delay_s, BACKOFF_MAX_S)
                continue
            delay_s, said = BACKOFF_FIRST_S, ""
            self._counts["connects"] += 1
            logger.info("Connected to the broker at %s as node %s.", self._where, self._endpoint.me.node)
            try:
                await self._carry()
            except TransportError as error:
                logger.warning("The connection to the broker has broken (%s).", error)
            finally:
                self._machine.disconnected()
                self._queue.clear()
                self._queued_bytes = 0
                await self._transport.close()

    @property
    def _where(self) -> str:
        return ", ".join(map(shown, self._settings.urls))

    async def _carry(self) -> None:
        """Carry envelopes both ways until the connection breaks."""
        self._machine.envelope_bytes = self._transport.envelope_bytes
        self._machine.connected(self._now())
        tasks = [self._loop.create_task(each) for each in (self._send(), self._receive())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self) -> None:
        while True:
            while not self._queue:
                self._something.clear()
                await self._something.wait()
            burst: list[tuple[str | None, bytes]] = []
            burst_bytes = 0
            while self._queue and burst_bytes < BURST_BYTES:
                burst.append(self._queue.popleft())
                burst_bytes += len(burst[-1][1])
            await self._transport.publish(burst)
            self._queued_bytes -= burst_bytes
            if not self._queued_bytes:
                self._is_empty.set()
            self._counts["sent"] += len(burst)
            self._counts["sent_bytes"] += burst_bytes

    async def _receive(self) -> None:
        while True:
            for place, envelope in enumerate(await self._transport.receive(), 1):
                self._counts["received"] += 1
                self._counts["received_bytes"] += len(envelope)
                self._machine.arrived(envelope, self._now())
                if place % ENVELOPES_PER_TURN == 0:
                    self._flush_soon()
                    await asyncio.sleep(0)
            self._flush_soon()
            # A broker that always has more must not keep the workers' words waiting.
            await asyncio.sleep(0)

    async def _tick(self) -> None:
        next_s = self._now()
        complete_s = next_s + GONE_S
        while True:
            next_s = max(next_s + BEAT_S, self._now())
            await asyncio.sleep((next_s - self._now()) / self._speed)
            self._machine.tick(self._now())
            if not self._is_complete and self._now() >= complete_s:
                self._is_complete = True
                self._tell_all(words.Complete())
            self._local.retry()
            self._tell_totals()

    def _now(self) -> float:
        return self._loop.time() * self._speed

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        self._machine.flush()

    # --- words of the workers here

    def _worker_joined(self, worker: Worker) -> None:
        self._local.workers[worker.generation] = worker
        self._machine.joined(worker)
        for word in self._view():
            self._local.say(self._local.one(worker.generation), word)
        self._flush_soon()

    def _view(self) -> Iterable[words.Down]:
        """Everything that a worker needs to know."""
        for link in self._machine.links.values():
            if link.is_in_view:
                yield self._node(link)
                for worker in link.workers.values():
                    yield words.WorkerJoined(link.node, worker.pid, worker.slot, worker.generation)
        yield words.Wanted(list(self._wanted), [])
        if self._is_complete:
            yield words.Complete()
        yield words.Totals(self._totals())

    def _worker_left(self, worker: Worker, reason: str, lost: int) -> None:
        self._local.forget(worker.generation)
        self._machine.left(worker.generation, reason)
        self._flush_soon()

    def _reported(self, peer: Peer, added: Iterable[str], dropped: Iterable[str]) -> None:
        generation = peer.worker.generation
        if generation in self._local.workers:
            for topic in added:
                self._machine.subscribed(generation, topic)
            for topic in dropped:
                self._machine.unsubscribed(generation, topic)
            self._flush_soon()

    def _said(self, data: Any) -> None:
        sender = current_sender().generation
        machine = self._machine
        match words.read_up(data):
            case words.Broadcast(count, content):
                machine.broadcast(sender, count, content)
            case words.Publish(topic, count, content):
                machine.publish(sender, topic, count, content)
            case words.Unsent(broadcasts, publications):
                if broadcasts:
                    machine.not_sent(None, broadcasts)
                for topic, count in publications.items():
                    machine.not_sent(topic, count)
            case words.Send(number, node, to, content):
                refusal = machine.send(sender, node, to, content)
                if number:
                    self._local.say(self._local.one(sender), words.Taken(number, refusal or ""))
            case words.Ask(number, node, to, content):
                refusal = machine.ask(sender, node, to, number, content)
                if refusal:
                    self._local.say(self._local.one(sender), words.Taken(number, refusal))
            case words.Answer(node, asker, content):
                machine.tell(node, items.Answer(sender, asker, content))
            case words.Withdraw(node, to, number):
                machine.tell(node, items.Withdraw(sender, to, number))
        self._flush_soon()

    # --- the machine's port

    def has_room(self, size_bytes: int) -> bool:
        # An empty queue takes anything, as an empty outbox does.
        return not self._queued_bytes or self._queued_bytes + size_bytes <= self._settings.outbox_bytes

    def publish(self, to: str | None, envelope: bytes) -> None:
        self._queue.append((to, envelope))
        self._queued_bytes += len(envelope)
        self._something.set()

    def deliver(self, link: Link, item: items.Broadcast | items.Publications | items.Direct) -> None:
        local = self._local
        match item:
            case items.Broadcast(sender, _, count, content):
                local.deliver(local.all(), words.Messages(link.node, sender, count, content), None)
            case items.Publications(sender, topic, _, _, count, content):
                word = words.Messages(link.node, sender, count, content)
                local.deliver(local.subscribers(topic), word, topic)
            case items.Direct(sender, to, _, content):
                local.deliver(local.one(to), words.Messages(link.node, sender, 1, content), None)

    def question(self, link: Link, item: items.Ask | items.Withdraw | items.Heard | items.Answer) -> None:
        node, local = link.node, self._local
        match item:
            case items.Ask(sender, to, number, content):
                peers = local.one(to) if to else local.all()
                asked = local.ask(peers, words.Asked(node, sender, number, content))
                if not to:
                    self._machine.tell(node, items.Heard(sender, number, asked))
            case items.Withdraw(sender, to, number):
                peers = local.one(to) if to else local.all()
                local.say(peers, words.Withdrawn(node, sender, number))
            case items.Heard(asker, number, workers):
                local.say(local.one(asker), words.Heard(node, number, workers))
            case items.Answer(sender, asker, content):
                local.say(local.one(asker), words.Answered(node, sender, content))

    def lost(self, link: Link, loss: Loss | None) -> None:
        if loss is None:
            self._tell_all(words.Lost(link.node, None, {}))
            return
        for generation, count in loss.messages.items():
            self._local.miss(generation, link.node, count, loss.publications.get(generation, {}))
            self._local.tell_missed(generation, link.node)

    def node_changed(self, link: Link) -> None:
        logger.info("Node %s (%s) is %s.", link.node, link.name, self._node(link).state)
        self._tell_all(self._node(link))

    def node_gone(self, link: Link, reason: Reason) -> None:
        how = "has stopped" if reason == "left" else f"was not heard for {GONE_S:g} s; going on without it"
        logger.info("Node %s (%s) %s.", link.node, link.name, how)
        self._tell_all(words.NodeGone(link.node, reason))

    def worker_joined(self, link: Link, worker: Worker) -> None:
        self._tell_all(words.WorkerJoined(link.node, worker.pid, worker.slot, worker.generation))

    def worker_left(self, link: Link, worker: Worker, reason: str) -> None:
        self._tell_all(words.WorkerLeft(link.node, worker.generation, reason))

    def wanted(self, topics: Iterable[str], unwanted: Iterable[str]) -> None:
        self._wanted.difference_update(unwanted)
        self._wanted.update(topics)
        self._tell_all(words.Wanted(list(topics), list(unwanted)))

    def stranger(self, name: str, node: str, oldest: int, newest: int) -> None:
        logger.warning(
            "Node %s (%s) speaks the versions %d to %d of the cluster's words, which this server does not: "
            "it is left out.",
            node,
            ascii(name),
            oldest,
            newest,
        )

    @staticmethod
    def _node(link: Link) -> words.NodeIs:
        state: NodeState = "suspect" if link.phase is Phase.SUSPECT else "connected"
        return words.NodeIs(link.node, link.name, state)

    def _tell_all(self, word: words.Down) -> None:
        self._local.say(self._local.all(), word)

    # --- counters

    def _totals(self) -> dict[str, int]:
        machine = self._machine
        return {
            "connected": int(machine.is_connected),
            "nodes": sum(link.is_in_view for link in machine.links.values()),
            **self._counts,
            "waiting_bytes": self._queued_bytes,
            "dropped": machine.dropped,
            "undelivered": self._local.undelivered,
            "rejected": machine.rejected,
        }

    def _tell_totals(self) -> None:
        totals = self._totals()
        if totals != self._told:
            self._told = totals
            self._tell_all(words.Totals(totals))
