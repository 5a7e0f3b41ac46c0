"""Topics: the subscribers of each topic, here and in other workers, and the publications.

Law: a publication is a message to the workers that have a subscriber. Each worker reports its topics to every
member. At any moment one report to each member is under way, and later changes go with the next one. Send a
peer everything until it reports its topics: it discards the surplus, but a missing publication would be lost.
"""

from __future__ import annotations

import asyncio
from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from asgi_ipc.logs import logger
from asgi_ipc.wire.message import KNOWN, PUBLISH, TOPICS, check_name
from asgi_ipc.worker.dispatch.backpressure import InFlight
from asgi_ipc.worker.dispatch.delivery import current_sender, large_bytes, size_bytes_of
from asgi_ipc.worker.features.messaging import Messaging
from asgi_ipc.worker.features.publication import Publication, Subscriber
from asgi_ipc.worker.features.waiting import Sent
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peer import Peer
from asgi_ipc.worker.transport.peers import Receivers

# Entering a subscription waits so long for members to know of it. No healthy member takes as long. A member
# that has taken as long once is not waited for again until it has answered.
KNOWN_TIMEOUT_S: Final = 1.0

# The size of one report: some thousand topics, and little beside the other messages to that worker in a turn.
MAX_WORD_BYTES: Final = 32 * 1024

_NOBODY: Final = Receivers((), ())


class _Listener:
    """Another member, and what it knows of this worker's subscriptions.

    Attributes:
        changed: topics not reported to it yet, each with the number of its last change, in that order.
        known: the last change that it has acknowledged.
        has_all: it has got a report of all topics at least once.
        is_telling: a report is under way.
        is_late: it has not answered in time, nor since then.
        waits: the changes whose acknowledgement a subscription waits for, each with its future.
    """

    __slots__ = ("changed", "has_all", "is_late", "is_telling", "known", "peer", "waits")

    def __init__(self, peer: Peer, revisions: dict[str, int]) -> None:
        self.peer = peer
        self.changed = dict(revisions)
        self.known = 0
        self.has_all = False
        self.is_telling = False
        self.is_late = False
        self.waits: dict[int, asyncio.Future[None]] = {}


class Topics:
    """The subscriptions of one worker, and the known ones of others.

    Attributes:
        overflowed: publications for which a subscription here had no room.
        unwanted: publications that came without a subscriber here.
        stopped: this worker has begun to stop.
        on_report: called with the peer that reports, the topics that it subscribes to now, and
            those that it subscribes to no more.
        in_flight: the handlers in flight here.
    """

    def __init__(
        self, outgoing: Outgoing, messaging: Messaging, in_flight: InFlight, me: Peer, max_message_bytes: int
    ) -> None:
        self.overflowed = 0
        self.unwanted = 0
        self.stopped = False
        self.on_report: Callable[[Peer, Sequence[str], Sequence[str]], None] | None = None
        self.new_future = outgoing.loop.create_future
        self.in_flight = in_flight
        self._outgoing = outgoing
        self._messaging = messaging
        self._me = me
        self._max_word_bytes = min(MAX_WORD_BYTES, max_message_bytes // 2)
        # Here: subscriptions by topic, and the number of the change with which each topic began.
        self._here: dict[str, dict[Subscriber, None]] = {}
        self._revisions: dict[str, int] = {}
        self._revision = 0
        self._listeners: dict[Peer, _Listener] = {}
        # The subscribers of each topic, replaced as a whole, since any thread may read them.
        self._audience: dict[str, Receivers] = {}
        # Receivers with known subscriptions, and members without a report yet.
        self._heard: set[Peer] = set()
        self._unheard: tuple[Peer, ...] = ()

    # --- publishing

    def publish(self, topic: str, data: Any, timeout: float | None, *, spans: bool = True) -> Sent:
        """Send one message to all subscribers of a topic; see `Messaging.to_each` for the result.

        `spans`: to those on other servers, too.
        """
        self._messaging.check(timeout)
        audience = self.audience(topic)
        message = self._outgoing.wrap(PUBLISH, (topic,), data)
        sent = self._messaging.to_each(audience, message, timeout)
        if self._messaging.span is not None and spans:
            self._messaging.span.publish(topic, message)
        return sent

    def publish_nowait(self, topic: str, data: Any, *, spans: bool = True) -> tuple[int, ...]:
        """As `publish`, or raise WouldBlockError and send it to none. From any thread."""
        self._messaging.check_open()
        audience = self.audience(topic)
        message = self._outgoing.wrap(PUBLISH, (topic,), data)
        took = tuple(self._outgoing.post_to_all(audience, message))
        if self._messaging.span is not None and spans:
            self._messaging.span.publish(topic, message)
        return took

    def audience(self, topic: str) -> Receivers:
        """Return the receivers of a publication. Raises InvalidNameError. From any thread."""
        audience = self._audience.get(topic)
        if audience is None:
            check_name(topic, "topic")
            audience = _NOBODY
        for peer in self._unheard:
            audience = _with(audience, peer)
        return audience

    def published(self, data: Any) -> None:
        """Give a publication to the subscriptions; it has no handler."""
        topic, content = data
        sender = current_sender()
        subscriptions = self._here.get(topic)
        if subscriptions is None:
            self.unwanted += 1
            self._correct()
            return
        # All share the same object, except subscriptions that have lost something before.
        pid = sender.pid if sender.node == self._me.worker.node else None
        entry = Publication(topic, content, sender, 0, pid), size_bytes_of(content, large_bytes.get())
        for subscription in subscriptions:
            subscription.put(entry)

    def _correct(self) -> None:
        """Report to a member that sends an unwanted publication, if it has no full report yet."""
        listener = self._listener()
        if listener is not None and not listener.has_all and not listener.is_telling:
            self._say_word(listener)

    def lost(self, publications: Mapping[str, int]) -> None:
        """Tell subscriptions how many publications of other servers they have lost, by topic."""
        for topic, count in publications.items():
            for subscription in self._here.get(topic, ()):
                subscription.lost(count)

    # --- subscribing

    def add(self, subscription: Subscriber) -> None:
        """Add a subscription: it gets publications of this worker now, and of others as soon as they know."""
        topic = subscription.topic
        if topic in self._here:
            self._here[topic][subscription] = None
            return
        self._here[topic] = {subscription: None}
        self._want(self._me, [topic])
        self._has_changed(topic)
        self._revisions[topic] = self._revision

    def remove(self, subscription: Subscriber) -> None:
        """Remove a subscription."""
        topic = subscription.topic
        subscriptions = self._here.get(topic, {})
        if subscription not in subscriptions:
            return
        del subscriptions[subscription]
        if not subscriptions:
            del self._here[topic], self._revisions[topic]
            self._want_no_more(self._me, [topic])
            self._has_changed(topic)

    async def known(self, topic: str) -> None:
        """Wait until every member knows that this worker subscribes to the topic, for a bounded time."""
        revision = self._revisions[topic]
        missing = [each for each in self._listeners.values() if each.known < revision and not each.is_late]
        if not missing:
            return
        answers = {each.waits.setdefault(revision, self.new_future()): each for each in missing}
        _, late = await asyncio.wait(answers, timeout=KNOWN_TIMEOUT_S)
        for answer in late:
            listener = answers[answer]
            if not listener.is_late:
                listener.is_late = True
                logger.warning(
                    "worker [%d]: worker %d has not answered; it may not know yet what is subscribed to here",
                    self._me.worker.pid,
                    listener.peer.worker.pid,
                )

    def wanted_by(self, topic: str) -> Receivers:
        """Return the members that are known to subscribe to a topic."""
        return self._audience.get(topic, _NOBODY)

    def stop(self) -> None:
        """Begin to stop: end the streams that must not hold up the stop."""
        self.stopped = True
        for subscription in self._all():
            if subscription.until_stop:
                self.remove(subscription)
                subscription.end()

    def close(self) -> None:
        """End all subscriptions after this worker has left."""
        for subscription in self._all():
            subscription.end()

    def _all(self) -> list[Subscriber]:
        return [each for subscriptions in self._here.values() for each in subscriptions]

    # --- reports to others

    def meet(self, peer: Peer) -> None:
        """Add a member that this worker can address from now on."""
        self._listeners[peer] = _Listener(peer, self._revisions)
        self._tell(self._listeners[peer])

    @property
    def is_empty(self) -> bool:
        """Return whether there is no subscription here."""
        return not self._here

    def _has_changed(self, topic: str) -> None:
        self._revision += 1
        for listener in self._listeners.values():
            listener.changed.pop(topic, None)
            listener.changed[topic] = self._revision
            self._tell(listener)

    def _tell(self, listener: _Listener) -> None:
        """Report changes to a member, unless a report to it is under way."""
        if listener.changed and not listener.is_telling:
            self._say_word(listener)

    def _say_word(self, listener: _Listener) -> None:
        added: list[str] = []
        dropped: list[str] = []
        left_bytes = self._max_word_bytes
        # A topic without a change since then is known, or was never there.
        revision = self._revision
        for topic, changed in listener.changed.items():
            left_bytes -= len(topic.encode()) + 3
            if left_bytes < 0 and (added or dropped):
                break
            revision = changed
            (added if topic in self._here else dropped).append(topic)
        for topic in (*added, *dropped):
            del listener.changed[topic]
        listener.has_all = not listener.changed
        listener.is_telling = True
        head = (revision, int(listener.has_all))
        self._outgoing.say(listener.peer, self._outgoing.wrap(TOPICS, head, [added, dropped]))

    def answered(self, data: Any) -> None:
        """Take a member's acknowledgement of this worker's changes."""
        (known,) = data
        listener = self._listener()
        if listener is None:
            return
        listener.known = int(known)
        listener.is_telling = False
        listener.is_late = False
        for revision in [each for each in listener.waits if each <= listener.known]:
            listener.waits.pop(revision).set_result(None)
        self._tell(listener)

    def _sender(self) -> Peer | None:
        """The member whose message is handled here, unless it is forgotten."""
        return self._outgoing.peers.find(current_sender().generation)

    def _listener(self) -> _Listener | None:
        peer = self._sender()
        return self._listeners.get(peer) if peer is not None else None

    # --- reports of others

    def expect(self, generations: Iterable[int]) -> None:
        """Expect reports from these members; all others have no subscriptions."""
        found = [self._outgoing.peers.find(generation) for generation in generations]
        # A full report may have come before, if the launcher was slow.
        self._unheard = tuple(peer for peer in found if peer is not None and peer not in self._heard)

    def told(self, data: Any) -> None:
        """Take a member's report. Raises TypeError or ValueError for anything else."""
        revision, has_all, (added, dropped) = data
        peer = self._sender()
        if peer is None or peer.leaving:
            return
        self._want(peer, added)
        self._want_no_more(peer, dropped)
        if self.on_report is not None:
            self.on_report(peer, added, dropped)
        if has_all:
            self._heard.add(peer)
            self._unheard = tuple(each for each in self._unheard if each is not peer)
        self._outgoing.say(peer, self._outgoing.wrap(KNOWN, (), revision))

    def forget(self, peer: Peer) -> None:
        """Forget a member that is no longer addressed and no longer publishes."""
        self._unheard = tuple(each for each in self._unheard if each is not peer)
        self._want_no_more(peer, list(self._audience))
        self._heard.discard(peer)
        listener = self._listeners.pop(peer, None)
        if listener is not None:
            for answer in listener.waits.values():
                answer.set_result(None)

    def _want(self, peer: Peer, topics: Sequence[str]) -> None:
        for topic in topics:
            check_name(topic)
            self._audience[topic] = _with(self._audience.get(topic, _NOBODY), peer)

    def _want_no_more(self, peer: Peer, topics: Sequence[str]) -> None:
        for topic in topics:
            members = self._audience.get(topic, _NOBODY)
            if members.peers == (peer,):
                del self._audience[topic]
            elif peer in members.peers:
                self._audience[topic] = _without(members, peer)


# Ten thousand topics change at once when a member goes, so neither function sorts.


def _with(members: Receivers, peer: Peer) -> Receivers:
    """Return the members with this one among them, in the order of their slots."""
    if peer in members.peers:
        return members
    place = bisect(members.peers, _order_of(peer), key=_order_of)
    pid = peer.worker.pid
    peers, pids = members
    return Receivers((*peers[:place], peer, *peers[place:]), (*pids[:place], pid, *pids[place:]))


def _without(members: Receivers, peer: Peer) -> Receivers:
    place = members.peers.index(peer)
    peers, pids = members
    return Receivers(peers[:place] + peers[place + 1 :], pids[:place] + pids[place + 1 :])


def _order_of(peer: Peer) -> tuple[int, int]:
    return peer.worker.slot, peer.worker.generation
