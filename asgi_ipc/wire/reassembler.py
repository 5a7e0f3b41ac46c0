"""The reassembler: packets of each sender become batches of messages.

Law: nothing in this file asks the kernel or the clock, and no size on the wire makes it allocate memory: a
first fragment's total is only a limit.
"""

from __future__ import annotations

from asgi_ipc.wire.arena import ACKNOWLEDGED_BYTES, PLACE
from asgi_ipc.wire.batch import Batch
from asgi_ipc.wire.packet import BATCH, COPIED, FRAGMENT_FIRST, FRAGMENT_MORE, FoundPacket
from asgi_ipc.wire.payload import ONE_MESSAGE, SERIAL_BYTES, TOTAL_BYTES, read_serials, read_total
from asgi_ipc.wire.stream import Placed, Stream


class Reassembler:
    """Reassembles the messages of each sender to this receiver from its packets.

    A repeat is dropped, a gap is counted, and a message that a gap makes impossible to complete is dropped.
    `drops` counts by reason: `repeat` and `corrupt` (packets), `gap` (packets missing), `partial` (messages
    that can't be completed), `too_large` (messages). Pieces that continue a dropped message are dropped with
    it. Pieces that continue nothing are `corrupt`, counted once for a row of them.

    Attributes:
        fetched: by sender, the serial of the last place that was read and must be acknowledged now. Less
            than ACKNOWLEDGED_BYTES is owed until `pay` is called.
        copied: (sender, serial), the acknowledgements of places in this worker's own arena.
        reading: the senders of batches that are left in their arenas; see `note_read`.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._streams: dict[int, Stream] = {}
        self.partial_bytes = 0
        self.drops: dict[str, int] = {}
        self.fetched: dict[int, int] = {}
        self.copied: list[tuple[int, int]] = []
        self.reading: dict[int, Stream] = {}

    def attach(self, sender: int, memory: memoryview) -> None:
        """Read a sender's arena through this mapping from now on."""
        self.stream_of(sender).memory = memory

    def stream_of(self, sender: int) -> Stream:
        """Return the state of that sender's packets. It ends with `forget`."""
        stream = self._streams.get(sender)
        if stream is None:
            stream = self._streams[sender] = Stream()
        return stream

    def accept(self, packet: FoundPacket) -> list[Batch]:
        """The batches of messages that `packet` completes, in order; none is empty.

        Call `note_read` when they have been read, or some time later.
        """
        stream = self.stream_of(packet.sender)
        if packet.number != stream.next_number:
            if packet.number < stream.next_number:
                self.drop("repeat")
                return []
            self.drop("gap", packet.number - stream.next_number)
            self._drop_partial(stream)
            # The missing packets may have begun a message.
            stream.is_skipping = True
        stream.next_number = packet.number + 1
        if packet.kind == BATCH:
            self._drop_partial(stream)
            stream.is_skipping = False
            return self._opened(packet.data, packet.start, packet.stop)
        payload = packet.data[packet.start : packet.stop]
        if packet.kind == FRAGMENT_FIRST:
            return self._begin(stream, payload)
        if packet.kind == FRAGMENT_MORE:
            return self._continue(stream, payload)
        if packet.kind == COPIED:
            # This may come between two pieces of a large message.
            self._read_serials(packet.sender, payload)
            return []
        self._drop_partial(stream)
        stream.is_skipping = False
        return self._read_places(packet.sender, stream, payload)

    def pay(self) -> None:
        """Move the owed acknowledgements to `fetched`."""
        for sender, stream in self._streams.items():
            if stream.owed_bytes:
                stream.owed_bytes = 0
                self.fetched[sender] = stream.owed_serial

    def forget(self, sender: int) -> None:
        """Drop the unfinished message of a departed sender, and read its arena for the last time."""
        stream = self._streams.pop(sender, None)
        for placed in stream.reading if stream is not None else ():
            placed.batch.copy_rest()
        self.note_read()
        self.fetched.pop(sender, None)
        if stream is not None:
            self._drop_partial(stream)

    def close(self) -> None:
        """Drop the unfinished messages of all senders."""
        for sender in list(self._streams):
            self.forget(sender)

    def _read_serials(self, sender: int, serials: bytes) -> None:
        if len(serials) % SERIAL_BYTES:
            self.drop("corrupt")
            return
        self.copied += [(sender, serial) for (serial,) in read_serials(serials)]

    def _read_places(self, sender: int, stream: Stream, places: bytes) -> list[Batch]:
        if len(places) % PLACE.size:
            self.drop("corrupt")
            return []
        batches: list[Batch] = []
        for serial, offset, length in PLACE.iter_unpack(places):
            if stream.memory is None:
                self.drop("corrupt")
                continue
            batch = Batch()
            if not batch.open_block(stream.memory, serial, offset, length) and not batch.is_overwritten:
                self.drop("corrupt")
            self._count_spoilt(batch)
            stream.reading.append(Placed(batch, serial, length))
            if batch.left:
                batches.append(batch)
        self.reading[sender] = stream
        return batches

    def note_read(self) -> None:
        """Find the batches that have been read out of the arenas, and owe their acknowledgements."""
        for sender, stream in list(self.reading.items()):
            reading = stream.reading
            while reading and not reading[0].batch.is_in_block:
                batch, serial, length = reading.popleft()
                if batch.is_overwritten:
                    self.drop("corrupt")
                else:
                    stream.owed_serial = serial
                    stream.owed_bytes += length
            if stream.owed_bytes >= ACKNOWLEDGED_BYTES:
                stream.owed_bytes = 0
                self.fetched[sender] = stream.owed_serial
            if not reading:
                del self.reading[sender]

    def _begin(self, stream: Stream, payload: bytes) -> list[Batch]:
        self._drop_partial(stream)
        stream.is_skipping = True
        if len(payload) <= TOTAL_BYTES:
            self.drop("corrupt")
            return []
        (total,) = read_total(payload)
        if not total:
            self.drop("corrupt")
            return []
        if total > self._max_message_bytes:
            self.drop("too_large")
            return []
        stream.total_bytes = total
        stream.is_skipping = False
        return self._continue(stream, payload[TOTAL_BYTES:])

    def _continue(self, stream: Stream, piece: bytes) -> list[Batch]:
        if not stream.total_bytes:
            if not stream.is_skipping:
                self.drop("corrupt")
                stream.is_skipping = True
            return []
        stream.pieces.append(piece)
        stream.have_bytes += len(piece)
        self.partial_bytes += len(piece)
        if stream.have_bytes < stream.total_bytes:
            return []
        if stream.have_bytes > stream.total_bytes:
            self._drop_partial(stream)
            stream.is_skipping = True
            return []
        encoded = b"".join((ONE_MESSAGE, *stream.pieces))
        self._clear(stream)
        batches = self._opened(encoded, 0, len(encoded))
        for batch in batches:
            batch.each_bytes = len(encoded)
        return batches

    def _opened(self, data: bytes, start: int, stop: int) -> list[Batch]:
        batch = Batch()
        if not batch.open(data, start, stop):
            self.drop("corrupt")
        self._count_spoilt(batch)
        return [batch] if batch.left else []

    def _count_spoilt(self, batch: Batch) -> None:
        if batch.spoilt:
            self.drop("corrupt", batch.spoilt)

    def _drop_partial(self, stream: Stream) -> None:
        if stream.total_bytes:
            self.drop("partial")
            self._clear(stream)

    def _clear(self, stream: Stream) -> None:
        self.partial_bytes -= stream.have_bytes
        stream.pieces = []
        stream.have_bytes = stream.total_bytes = 0

    def drop(self, reason: str, count: int = 1) -> None:
        """Count what was dropped."""
        self.drops[reason] = self.drops.get(reason, 0) + count
