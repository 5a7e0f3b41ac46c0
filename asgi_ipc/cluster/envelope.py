"""Envelopes: what a broker carries from one node to another, sealed.

Law: nothing in an envelope is believed before `Sealer.open` has returned it. With a secret, nobody without it
can make one, change one, or use one for another receiver, another cluster, or a second time: the seal covers
every byte, the cluster's name, the lives (epochs) of both bridges, and a number that grows.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final, NamedTuple

from asgi_ipc.cluster.nodes import NODE_ID_BYTES

# The versions of what stands in envelopes that this code understands. The head, the seal and a HELLO are the
# same in all versions, so that a node can say which it speaks.
OLDEST_VERSION: Final = 1
NEWEST_VERSION: Final = 1

HELLO: Final = 1  # to everybody: here I am
WHOLE: Final = 2  # items, complete
FIRST: Final = 3  # the first part of items that are larger than the broker takes
MORE: Final = 4
LAST: Final = 5
_KINDS: Final = frozenset({HELLO, WHOLE, FIRST, MORE, LAST})

# One life of a bridge: its generation, so that the younger one is known, and random bytes.
EPOCH_BYTES: Final = 16
NOBODY: Final = bytes(EPOCH_BYTES)

_MAGIC: Final = b"aipc"
_HEAD: Final = struct.Struct(f">4sBB{NODE_ID_BYTES}s{EPOCH_BYTES}s{EPOCH_BYTES}sQ")
HEAD_BYTES: Final = _HEAD.size
SEAL_BYTES: Final = hashlib.sha256().digest_size
# An envelope adds so much to its payload, at most.
ENVELOPE_BYTES: Final = HEAD_BYTES + SEAL_BYTES


class EnvelopeError(Exception):
    """Bytes that are no envelope for this node: not made by a node of this cluster, or damaged."""


class Envelope(NamedTuple):
    """One envelope, opened.

    Attributes:
        version: of the payload.
        node: the sender's id, in hexadecimal digits.
        source, destination: the lives of the bridges; a HELLO is for NOBODY in particular.
        number: counts the envelopes from one life to the other, from 1.
    """

    version: int
    kind: int
    node: str
    source: bytes
    destination: bytes
    number: int
    payload: bytes | memoryview


class Sealer:
    """Seals and opens the envelopes of one cluster. Without a secret it only checks their form."""

    def __init__(self, cluster: str, secret: bytes | None) -> None:
        self._mac = None if secret is None else hmac.new(secret, b"asgi-ipc\0", hashlib.sha256)
        if self._mac is not None:
            name = cluster.encode()
            self._mac.update(len(name).to_bytes(4, "big") + name)

    @property
    def overhead_bytes(self) -> int:
        """Return how many bytes an envelope has beside its payload."""
        return HEAD_BYTES if self._mac is None else ENVELOPE_BYTES

    def seal(self, envelope: Envelope) -> bytes:
        """Return the bytes for the broker."""
        version, kind, node, source, destination, number, payload = envelope
        head = _HEAD.pack(_MAGIC, version, kind, bytes.fromhex(node), source, destination, number)
        return b"".join((head, payload, self._sign(head, payload)))

    def open(self, data: bytes) -> Envelope:
        """Return the envelope. Raises EnvelopeError."""
        stop = len(data) - (0 if self._mac is None else SEAL_BYTES)
        if stop < HEAD_BYTES:
            raise EnvelopeError("shorter than an envelope")
        head, payload = data[:HEAD_BYTES], memoryview(data)[HEAD_BYTES:stop]
        if self._mac is not None and not hmac.compare_digest(self._sign(head, payload), data[stop:]):
            raise EnvelopeError("the seal does not fit")
        magic, version, kind, node, source, destination, number = _HEAD.unpack(head)
        if magic != _MAGIC or kind not in _KINDS:
            raise EnvelopeError("no envelope")
        return Envelope(version, kind, node.hex(), source, destination, number, payload)

    def _sign(self, head: bytes, payload: bytes | memoryview) -> bytes:
        if self._mac is None:
            return b""
        mac = self._mac.copy()
        mac.update(head)
        mac.update(payload)
        return mac.digest()
