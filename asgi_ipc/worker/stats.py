"""Stats: a typed snapshot of one worker's counters.

Law: reading changes nothing; every drop has a reason here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters of one worker since it joined.

    Attributes:
        sent: messages accepted by this worker's verbs, one for each receiver.
        received: messages whose turn has come, with a handler or without.
        discarded: those of them that had no handler.
        handler_errors: handlers, callbacks and leader tasks that raised or were cancelled.
        dropped: what was dropped, by reason; a reason that has not come up is not there.
            Messages: `lost` (accepted here, and never left an outbox because their receiver went or this
            worker's own leave reached its deadline), `unhandled` (arrived, and not given to a handler
            before such a deadline), `partial` (one that lost a piece: its sender was killed, or there was
            a gap), `too_large` (announced as more than `max_message_bytes`), `invalid_name`,
            `invalid_data` (not what their handler's annotation says), `late_answer` (to a question that
            nobody waits for any more), `overflow` (published, and a subscription here had no room; one for
            each subscription), `unsubscribed` (published, and nobody here subscribed to it any more).
            Packets: `stale` (from or to a worker that is not known, or not this one), `repeat`, and
            `gap` (missing in their sender's count).
            `corrupt`: runs of stray bytes, and packets that nothing can be made of.
        outbox_bytes: what waits for each worker, by pid, in bytes of encoded messages.
        reassembly_bytes: pieces of large messages that are not complete.
        loop_lag_s: how late this worker's event loop is: the delay, in seconds, of a timer that
            goes off once a second, the last time.
        max_loop_lag_s: the longest such delay so far.
        engine: what moves the messages: `native`, compiled modules; `pure`, the same in Python.
        cluster: counters of this server's bridge to the others, as it told about a second ago; empty without
            a cluster. `connected` (1 or 0), `nodes` (others in the view), `sent` and `received` (envelopes),
            `sent_bytes`, `received_bytes`, `waiting_bytes` (for the broker), `dropped` (messages to other
            nodes for which there was no room or no broker, one for each node), `undelivered` (messages of
            other nodes for which a worker here had no room, one for each worker), `rejected` (envelopes that
            were forged, damaged, repeated, or for an earlier life), `connects` (to the broker, so far).
    """

    sent: int
    received: int
    discarded: int
    handler_errors: int
    dropped: Mapping[str, int]
    outbox_bytes: Mapping[int, int]
    reassembly_bytes: int
    loop_lag_s: float
    max_loop_lag_s: float
    engine: Literal["native", "pure"]
    cluster: Mapping[str, int]
