"""The endpoint: one worker's place in the fleet, from joining to the end of its leave.

Law: it connects the rooms and handles the launcher's words; each room does its own work. Outgoing takes
messages, Incoming brings them, the dispatcher calls their handlers, Leave ends it. A worker without a
launcher is a fleet of one: its pipe is closed from the start and `LocalRelay` answers for the launcher.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from asgi_ipc import engine
from asgi_ipc.cluster.nodes import BRIDGE
from asgi_ipc.fleet.membership import WORKER, Worker
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.fleet.words import (
    Decided,
    Entered,
    Gone,
    Join,
    Joined,
    Leads,
    Left,
    Took,
    ToWorker,
    Welcome,
    WriteEnd,
)
from asgi_ipc.logs import logger
from asgi_ipc.wire.batch import Batch
from asgi_ipc.wire.message import ANSWER, ASK, KNOWN, PUBLISH, TOPICS, WITHDRAW
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.dispatch.delivery import Delivery, current_delivery, large_bytes
from asgi_ipc.worker.dispatch.dispatcher import Dispatcher
from asgi_ipc.worker.dispatch.handler import Handler
from asgi_ipc.worker.dispatch.registry import Registry
from asgi_ipc.worker.features.afar import Afar
from asgi_ipc.worker.features.answers import Answers
from asgi_ipc.worker.features.clustering import Clustering
from asgi_ipc.worker.features.leader import Leading
from asgi_ipc.worker.features.messaging import Messaging
from asgi_ipc.worker.features.once import Claiming
from asgi_ipc.worker.features.requests import Questions
from asgi_ipc.worker.features.topics import Topics
from asgi_ipc.worker.leave import Leave
from asgi_ipc.worker.runtime.heartbeat import Heartbeat
from asgi_ipc.worker.standalone import LauncherLink, LocalRelay
from asgi_ipc.worker.stats import Stats
from asgi_ipc.worker.transport.incoming import Incoming
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peer import Peer
from asgi_ipc.worker.transport.pipes import PipeWriter

# Smaller data in handlers is not counted, unless it is text or bytes: a thousand of them are 4 MiB.
LARGE_BYTES: Final = 4096

# A newcomer waits so long until the members know it: a little longer than the launcher (ENTRY_TIMEOUT_S in
# fleet/relay.py), which then names the members that have not answered.
JOIN_TIMEOUT_S: Final = 6.0


class Endpoint:
    """One worker among its peers. `owner` is the lifespan on whose behalf handlers run.

    Attributes:
        messaging: refuses messages from the leave on.
        replying: takes replies until the leave is over.
        leave: what ends it.
        entries: how many times its lifespan is entered now.
        departing, departed: set when its leave begins, and when it is over.
    """

    def __init__(
        self,
        me: Worker,
        settings: Settings,
        registry: Registry,
        owner: object,
        launcher: LauncherLink | None = None,
        pipe: Descriptor | None = None,
        arena: Descriptor | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self.me = me
        self.settings = settings
        self.entries = 0
        self.departing = asyncio.Event()
        self.departed = asyncio.Event()
        self._registry = registry
        self._owner = owner
        self._context = contextvars.copy_context()
        self._launcher = launcher or LocalRelay(me)
        self._launcher.on_word = self.on_word
        self.heartbeat = heartbeat or Heartbeat()
        self._owns_heartbeat = heartbeat is None
        self.heartbeat.callbacks.append(self._on_heartbeat)
        self.outgoing = Outgoing(me, settings)
        self._self_peer = self.outgoing.add(me, self._context_of(me))
        self.dispatcher = Dispatcher(
            registry, self._pause_reading, self._resume_reading, self._settle_reading
        )
        self.incoming = Incoming(
            self._self_peer,
            self.outgoing,
            pipe or Descriptor(),
            arena or Descriptor(),
            settings,
            self.dispatcher.accept,
            self._deliver,
            self._launcher.drain,
        )
        calls = self.dispatcher.calls
        calls.pid = me.pid
        self.messaging = Messaging(self.outgoing)
        self.replying = Messaging(self.outgoing)
        self.questions = Questions(self.outgoing)
        self.topics = Topics(
            self.outgoing,
            self.messaging,
            self.dispatcher.in_flight,
            self._self_peer,
            settings.max_message_bytes,
        )
        self.dispatcher.node = me.node
        self.clustering = Clustering(
            me,
            settings,
            registry,
            self.outgoing,
            self.dispatcher,
            self.topics,
            self._context_of,
            self._accept,
        )
        self.afar = Afar(self.outgoing, self.clustering, self.questions)
        self._answers = Answers(registry, self.outgoing, calls, self.clustering.route)
        self.clustering.on_question = self._answers.ask
        self.clustering.on_withdrawn = self._answers.withdraw
        self.clustering.on_asker_gone = self._answers.gone
        self.leading = Leading(me, registry, calls, self._context)
        self.claiming = Claiming(self._launcher)
        self.dispatcher.receive(ASK, self._answers.asked)
        self.dispatcher.receive(ANSWER, self.questions.answered)
        self.dispatcher.receive(WITHDRAW, self._answers.withdrawn)
        self.dispatcher.receive(PUBLISH, self.topics.published, from_afar=True)
        self.dispatcher.receive(TOPICS, self.topics.told)
        self.dispatcher.receive(KNOWN, self.topics.answered)
        self.leave = Leave(
            self._launcher,
            self.leading,
            self.dispatcher,
            self.outgoing,
            self.incoming,
            self._close_features,
            settings.drain_timeout,
        )
        self._asked_to_join = False
        self._entered = asyncio.Event()
        # Before `begin`, news of members wait: verbs can't be used yet.
        self._begun = False
        self._early_news: list[Callable[[], None]] = []

    # --- state

    @property
    def is_settled(self) -> bool:
        """Return whether all accepted messages are written, all received ones handled, all news reported."""
        is_quiet = not self._early_news and not self.dispatcher.is_busy
        return self._begun and is_quiet and self.incoming.is_empty and self.outgoing.is_empty()

    def stats(self) -> Stats:
        """The counters now."""
        dispatcher, heartbeat = self.dispatcher, self.heartbeat
        return Stats(
            sent=self.outgoing.sent,
            received=dispatcher.received,
            discarded=dispatcher.discarded,
            handler_errors=dispatcher.calls.errors,
            dropped=self._dropped(),
            outbox_bytes=self.outgoing.outbox_bytes(),
            reassembly_bytes=self.incoming.partial_bytes,
            loop_lag_s=heartbeat.lag_s,
            max_loop_lag_s=max(heartbeat.max_lag_s, heartbeat.lag_s),
            engine=engine.name(),
            cluster=self.clustering.counters,
        )

    def _dropped(self) -> dict[str, int]:
        counts = {
            **self.incoming.dropped(),
            "lost": self.outgoing.lost,
            "late_answer": self.questions.late + self.afar.late,
            "overflow": self.topics.overflowed,
            "unsubscribed": self.topics.unwanted,
            "invalid_name": self.dispatcher.invalid_names,
            "invalid_data": self.dispatcher.calls.invalid_data,
            "unhandled": self.dispatcher.unhandled,
        }
        return {reason: count for reason, count in counts.items() if count}

    # --- joining, and the end

    async def join(self) -> None:
        """Become a member; return when everything that members broadcast from now on arrives here.

        Several callers may wait for that, and each may give up.
        """
        if self._launcher.is_open:
            if not self._asked_to_join:
                self._asked_to_join = True
                self._launcher.on_eof(self._orphaned)
                self._launcher.send(Join())
            try:
                async with asyncio.timeout(JOIN_TIMEOUT_S):
                    await self._entered.wait()
            except TimeoutError:
                logger.warning("the launcher has not answered; not every worker may know this one yet")
        # In the next turn, so that a handler that is registered right behind this misses nothing.
        self.outgoing.loop.call_soon(self.begin)

    def begin(self) -> None:
        """Tell the news of members that came while this joined, and hand messages on from now on."""
        self._begun = True
        news, self._early_news = self._early_news, []
        for tell in news:
            tell()
        self.leading.begin()
        if not self.dispatcher.is_full:
            self.incoming.resume()

    def _close_features(self) -> None:
        self.questions.close()
        self.afar.close()
        self.topics.close()
        self.claiming.close("ipc.lifespan has ended")
        if self._owns_heartbeat:
            self.heartbeat.close()

    def _orphaned(self) -> None:
        """Treat all others as leaving: the launcher has died, and will report no leave any more."""
        self._entered.set()
        self.topics.stop()
        self.claiming.close("the launcher is gone")
        for peer in self.outgoing.peers.all():
            self._seal(peer.worker.generation)
        self.leave.orphaned()

    # --- messages

    def _context_of(self, worker: Worker) -> contextvars.Context:
        """The context for handlers of its messages."""
        context = self._context.copy()
        context.run(current_delivery.set, Delivery(self._owner, worker))
        return context

    def _deliver(self, peer: Peer, batch: Batch) -> None:
        self._accept(peer.context, batch)

    def _accept(self, context: contextvars.Context, batch: Batch) -> None:
        if batch.each_bytes >= LARGE_BYTES:
            context = context.copy()
            context.run(large_bytes.set, batch.each_bytes)
        self.dispatcher.accept(context, batch)

    # The reader and the dispatcher each know the other only as callbacks, and one is made first.

    def _pause_reading(self) -> None:
        self.incoming.pause()

    def _resume_reading(self) -> None:
        self.incoming.resume()

    def _settle_reading(self) -> None:
        self.incoming.settle()

    def _on_heartbeat(self) -> None:
        if not self.leave.is_over:
            self.incoming.arenas.tidy()

    # --- the launcher's words

    def on_word(self, word: ToWorker) -> None:
        """Handle a word of the launcher about the fleet."""
        match word:
            case Welcome(members):
                for worker in members:
                    self._add_peer(worker)
                # Until `Entered` names the members with subscriptions.
                self.topics.expect(worker.generation for worker in members)
            case Joined(worker):
                self._add_peer(worker)
                self._take_write_end(worker.generation)
                self._tell(self._registry.on_join, (worker,))
                self._tell(self._registry.on_worker_join, (worker,))
            case WriteEnd(generation):
                self._take_write_end(generation)
            case Entered(missing, telling):
                self.topics.expect(telling)
                if missing:
                    logger.warning("workers %s have not answered; they may not know this one yet", missing)
                self._entered.set()
            case Left(generation):
                self._seal(generation)
            case Gone(generation, reason):
                self.leading.gone(generation)
                self._bury(generation, reason)
            case Leads(leader):
                self.leading.told(leader)
            case Decided(number, first):
                self.claiming.decided(number, first)
            case _:
                pass

    def _add_peer(self, worker: Worker) -> None:
        peer = self.outgoing.add(worker, self._context_of(worker))
        self.topics.meet(peer)
        if worker.kind == BRIDGE:
            self.clustering.bridge_joined(peer)
            self.messaging.span = self.clustering

    def _take_write_end(self, generation: int) -> None:
        write_end, arena = self._launcher.take_descriptors()
        arrived = write_end.fd >= 0
        self._launcher.send(Took(generation, arrived, not self.topics.is_empty))
        peer = self.outgoing.peers.find(generation)
        if peer is None or not arrived or isinstance(peer.writer, PipeWriter) or self.leave.is_over:
            # A leaver waits until the last of its write ends is closed.
            write_end.close()
            arena.close()
            return
        self.incoming.arenas.attach(peer, arena)
        self.outgoing.connect(peer, write_end)

    def _seal(self, generation: int) -> None:
        """Handle the word that a peer is leaving."""
        peer = self.outgoing.peers.find(generation)
        if peer is not None and peer is not self._self_peer:
            self._bridge_left(peer)
            self.outgoing.seal(peer)
            self.topics.forget(peer)

    def _bury(self, generation: int, reason: str) -> None:
        """Handle a peer's death. Its last messages may still lie in the pipe, before other senders' bytes."""
        peer = self.outgoing.peers.find(generation)
        if peer is None:
            return
        self._bridge_left(peer)
        self.outgoing.lose(peer)
        self.topics.forget(peer)
        self.outgoing.reaped(peer)
        self.incoming.when_read(partial(self._forget, peer, reason))

    def _bridge_left(self, peer: Peer) -> None:
        if peer.worker.kind == BRIDGE:
            self.messaging.span = None
            self.clustering.bridge_left(peer)

    def _forget(self, peer: Peer, reason: str) -> None:
        """Settle a death after the dead peer's last byte has been read."""
        worker = peer.worker
        self.incoming.forget(worker.generation)
        self.outgoing.forget(peer)
        # After its last answers and questions, which wait for their handlers.
        self.dispatcher.behind(partial(self._answers.gone, worker))
        self.dispatcher.behind(partial(self.questions.gone, worker))
        self._tell(self._registry.on_leave, (worker, reason, peer.lost), worker.pid)
        self._tell(self._registry.on_worker_leave, (worker, reason), worker.pid)

    def _tell(self, watchers: Sequence[Handler], news: tuple[Any, ...], pid: int = 0) -> None:
        """Call the present watchers of members, behind the messages read so far and not before `begin`."""
        if news[0].kind != WORKER:
            return
        tell = partial(self.dispatcher.announce, tuple(watchers), news, self._context, pid)
        if self._begun:
            tell()
        else:
            self._early_news.append(tell)
