"""Publishing: the verbs of topics.

Law: a verb checks, encodes and posts; who subscribes to what is in topics.py,
what waits for a subscriber in subscription.py.
"""

from __future__ import annotations

from asgi_ipc.errors import InvalidNameError
from asgi_ipc.wire.message import PUBLISH, Data, check_name
from asgi_ipc.worker.features.subscription import Overflow, Subscription
from asgi_ipc.worker.features.topics import Topics
from asgi_ipc.worker.running import (
    RECEIVERS_AS_ONE_MESSAGE,
    YIELD_AFTER_BYTES,
    YIELD_AFTER_MESSAGES,
    Running,
    no_timeout,
)
from asgi_ipc.worker.transport.peers import Members


class Publishing(Running):
    """The part of an IPC that publishes and subscribes."""

    async def publish(self, topic: str, data: Data = b"", *, timeout: float | None = 5.0) -> tuple[int, ...]:
        """Send one message to all who subscribe to a topic; return the pids of the workers that took it.

        Workers without a subscriber are sent nothing. Publications of one worker arrive in the order in which
        they were accepted, in each subscription. Outboxes that are full are waited for as in `broadcast`, and
        it raises nothing for slow or vanished members.

        Args:
            topic: 1 to 254 bytes of UTF-8, no control characters.
            data, timeout: as of `send`.

        Raises as `broadcast`; InvalidNameError for what can't be a topic.
        """
        outgoing = self._here(self._sending)
        if timeout is not None and not timeout >= 0:
            raise no_timeout(timeout)
        members = self._audience(topic)
        message = outgoing.wrap(PUBLISH, (topic,), data)
        took, full = outgoing.post_to_each(members, message)
        outgoing.turn_messages += 1 + len(took) // RECEIVERS_AS_ONE_MESSAGE
        if full or outgoing.turn_messages >= YIELD_AFTER_MESSAGES or outgoing.turn_bytes >= YIELD_AFTER_BYTES:
            return await self._rest_of_each(outgoing, took, full, message, timeout)
        return tuple(took)

    def publish_nowait(self, topic: str, data: Data = b"") -> tuple[int, ...]:
        """As `publish`, without waiting; if one outbox is full, to nobody: WouldBlockError.

        May be called from any thread of the worker.
        """
        outgoing = self._sending
        if outgoing is None:
            outgoing = self._elsewhere()
        members = self._audience(topic)
        return tuple(outgoing.post_to_all(members, outgoing.wrap(PUBLISH, (topic,), data)))

    def subscribe(
        self, topic: str, *, overflow: Overflow = "wait", max_messages: int = 1000, until_stop: bool = False
    ) -> Subscription:
        """Subscribe to a topic: `async with ipc.subscribe(topic) as messages: ...`, to be iterated.

        Each message is a Publication: `.topic`, `.data`, `.sender` (a pid) and `.missed` (how many this
        subscription has lost since the one before).

        Once it is entered, it gets every publication that this worker accepts from then on, and every one
        that another member accepts that knew of it; what was under way to this worker already may come, too.
        Entering waits until all members know, which takes one round trip; for one that does not answer it
        waits for a second at most, logs that, and does not wait for it again until it has answered. A worker
        that joins later publishes nothing before it knows.

        Args:
            topic: 1 to 254 bytes of UTF-8, no control characters.
            overflow: what happens when `max_messages` wait here:
                `wait`: nothing is lost. Messages beyond `max_messages` count as handlers in flight: at 10,000
                (or 256 MiB) this worker reads no more, for no subscription and no handler, and `publish`
                waits until its deadline. An answer that the subscriber waits for may lie behind these
                messages, so a subscriber that asks for each message must keep up;
                `drop_oldest`, `drop_newest`: one is lost, counted (`overflow` of `stats().dropped`) and told
                with the next message (`.missed`);
                `close`: the iteration ends, behind what waits, with SubscriptionOverflowError.
            max_messages: at least 1; and no more than 32 MiB.
            until_stop: end the iteration when this worker is told to stop, rather than with the lifespan:
                for streaming responses, which a stop or a restart would wait for.

        Raises InvalidNameError or ValueError here, and NotRunningError when it is entered.
        """
        check_name(topic, "topic")
        return Subscription(
            self._topics_here, topic, overflow=overflow, max_messages=max_messages, until_stop=until_stop
        )

    def _audience(self, topic: str) -> Members:
        topics = self._entered().topics
        try:
            return topics.audience(topic)
        except InvalidNameError as error:
            raise InvalidNameError(error.name, error.reason, "topic") from None

    def _topics_here(self) -> Topics:
        return self._active().topics
