"""Links: what one bridge knows of one life of another one.

Law: data, and the envelopes of one direction each: numbers out, numbers and parts in.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final

from asgi_ipc.cluster.accounts import Received, Sent
from asgi_ipc.cluster.envelope import FIRST, LAST, MORE, NEWEST_VERSION, WHOLE, Envelope
from asgi_ipc.cluster.items import ITEMS_HEAD_BYTES, MAX_ITEMS, join_items
from asgi_ipc.fleet.membership import Worker

# Small items share an envelope of up to this size: beyond it a broker gains nothing.
SHARED_BYTES: Final = 64 * 1024


class Phase(enum.Enum):
    """How well the other one is known."""

    GREETED = enum.auto()  # it says that it is there; it has not answered this life of ours
    CONNECTED = enum.auto()
    SUSPECT = enum.auto()  # not heard for a while
    GONE = enum.auto()  # not heard for longer; it is in no view, but what is said is numbered for it


class Link:
    """One life of another node's bridge.

    Attributes:
        version: of the items that both speak.
        workers: there, by generation.
        revision: of its workers and topics, as far as they are known; -1: nothing is.
        heard_at: when its last envelope came, in seconds.
        sent, received: the accounts of both directions.
        number_in: of the last envelope that has come.
        is_returned: it was forgotten meanwhile, so what it said before is unknown.
    """

    def __init__(self, node: str, epoch: bytes, name: str, now: float) -> None:
        self.node = node
        self.epoch = epoch
        self.name = name
        self.version = NEWEST_VERSION
        self.phase = Phase.GREETED
        self.workers: dict[int, Worker] = {}
        self.revision = -1
        self.heard_at = now
        self.sent = Sent()
        self.received = Received()
        self.is_returned = False
        self._number_out = 0
        self.number_in = 0
        self._items: list[bytes] = []
        self._items_bytes = 0
        self._parts: list[bytes | memoryview] = []
        self._parts_bytes = 0

    @property
    def is_in_view(self) -> bool:
        """Return whether it counts as a node of the cluster now."""
        return self.phase in (Phase.CONNECTED, Phase.SUSPECT)

    @property
    def has_spoken(self) -> bool:
        """Return whether anything was taken that it has said to this very life of ours."""
        return self.number_in > 0

    @property
    def numbers(self) -> tuple[int, int]:
        """The last numbers of envelopes, out and in."""
        return self._number_out, self.number_in

    @numbers.setter
    def numbers(self, numbers: tuple[int, int]) -> None:
        self._number_out, self.number_in = numbers

    # --- out

    def add(self, encoded: bytes) -> None:
        """Have an item sent with the next envelopes."""
        self._items.append(encoded)
        self._items_bytes += len(encoded)

    @property
    def is_full(self) -> bool:
        """Return whether there is enough for an envelope."""
        return self._items_bytes >= SHARED_BYTES

    def envelopes(self, node: str, epoch: bytes, most_bytes: int) -> Iterator[Envelope]:
        """Take the items as envelopes of this node, with payloads of up to so many bytes."""
        while self._items:
            payload = join_items(self._take_items())
            if len(payload) <= most_bytes:
                yield self._next(WHOLE, node, epoch, payload)
                continue
            for start in range(0, len(payload), most_bytes):
                stop = start + most_bytes
                kind = FIRST if not start else MORE if stop < len(payload) else LAST
                yield self._next(kind, node, epoch, payload[start:stop])

    def _take_items(self) -> list[bytes]:
        items, self._items = self._items, []
        if self._items_bytes > SHARED_BYTES or len(items) > MAX_ITEMS:
            left_bytes = SHARED_BYTES - ITEMS_HEAD_BYTES
            for place, item in enumerate(items):
                left_bytes -= len(item)
                if (left_bytes < 0 or place == MAX_ITEMS) and place:
                    items, self._items = items[:place], items[place:]
                    break
        self._items_bytes = sum(map(len, self._items))
        return items

    def _next(self, kind: int, node: str, epoch: bytes, payload: bytes) -> Envelope:
        self._number_out += 1
        return Envelope(self.version, kind, node, epoch, self.epoch, self._number_out, payload)

    # --- in

    def take(self, envelope: Envelope, most_bytes: int) -> bytes | memoryview | None:
        """Return the payload that an envelope completes, if it does. Raises ValueError if it came before.

        A part is dropped with the others of its payload if one of them is missing, or if they exceed
        `most_bytes`: the numbers of its messages tell.
        """
        if envelope.number <= self.number_in:
            raise ValueError(f"envelope {envelope.number} behind {self.number_in}")
        is_next = envelope.number == self.number_in + 1
        self.number_in = envelope.number
        kind, payload = envelope.kind, envelope.payload
        if kind in (WHOLE, FIRST) or not is_next:
            had_first = False
            self._drop_parts()
        else:
            had_first = bool(self._parts)
        if kind == WHOLE:
            return payload
        if kind != FIRST and not had_first:
            return None
        self._parts.append(payload)
        self._parts_bytes += len(payload)
        if self._parts_bytes > most_bytes:
            self._drop_parts()
            return None
        if kind != LAST:
            return None
        payload = b"".join(self._parts)
        self._drop_parts()
        return payload

    def _drop_parts(self) -> None:
        self._parts = []
        self._parts_bytes = 0
