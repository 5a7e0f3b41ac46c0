"""The reader: the packets in what one read has brought, each taken where it belongs.

Law: it changes nothing about a packet that it does not take to the handlers itself. It knows nothing of
handlers, only where their messages go.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TypeAlias

from asgi_ipc.wire.batch import Batch
from asgi_ipc.wire.packet import BATCH, PacketParser
from asgi_ipc.wire.reassembler import Reassembler
from asgi_ipc.wire.stream import Stream

# Messages that arrived together, and the context for their handlers.
Accept: TypeAlias = Callable[[contextvars.Context, Batch], None]

_batch = BATCH


class Source:
    """A sender whose packets have come: how far, and the context for the handlers of its messages."""

    __slots__ = ("context", "stream")

    def __init__(self, stream: Stream, context: contextvars.Context) -> None:
        self.stream = stream
        self.context = context


class Reader:
    """Takes the packets of one stream of bytes to `me`, a generation.

    `accept` gets the messages of a packet that is a whole batch, is the next of its sender, and interrupts
    no large message: nearly every packet is. `others` gets the parser, which shows another packet.

    Attributes:
        parser: finds the packets.
        sources: the known senders, by generation.
    """

    __slots__ = ("_accept", "_me", "_others", "_reassembler", "parser", "sources")

    def __init__(
        self,
        me: int,
        parser: PacketParser,
        reassembler: Reassembler,
        sources: dict[int, Source],
        accept: Accept,
        others: Callable[[PacketParser], None],
    ) -> None:
        self.parser = parser
        self.sources = sources
        self._me = me
        self._reassembler = reassembler
        self._accept = accept
        self._others = others

    def take(self, chunk: bytes, drained: bool) -> None:
        """Take what one read has brought."""
        parser = self.parser
        parser.feed(chunk)
        while parser.find(drained):
            source = self.sources.get(parser.sender)
            if (
                source is None
                or parser.receiver != self._me
                or parser.kind != _batch
                or not source.stream.take_batch(parser.number)
            ):
                self._others(parser)
                continue
            batch = Batch()
            if not batch.open(parser.data, parser.start, parser.stop):
                self._reassembler.drop("corrupt")
            if batch.spoilt:
                self._reassembler.drop("corrupt", batch.spoilt)
            if batch.left:
                self._accept(source.context, batch)
