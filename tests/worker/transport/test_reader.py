"""The reader: what goes to the handlers at once, and what is for others, in both engines."""

from __future__ import annotations

import contextvars
from typing import Any

import pytest

from asgi_ipc.wire.packet import BATCH, COPIED, FRAGMENT_FIRST, encode_packet
from asgi_ipc.wire.payload import join_batch
from asgi_ipc.wire.reassembler import Reassembler
from tests.encoding import encode_unchecked
from tests.engines import Engine, variant

COOKIE = b"a cookie"
ME = 3
SENDER = 7


class World:
    """A reader that knows one sender, and notes where each packet goes."""

    def __init__(self, engine: Engine) -> None:
        self.reassembler = Reassembler(1 << 20)
        self.stream = variant("asgi_ipc.wire.stream", engine).Stream()
        self.context = contextvars.copy_context()
        self.seen: list[Any] = []
        module = variant("asgi_ipc.worker.transport.reader", engine)
        self.reader = module.Reader(
            ME,
            variant("asgi_ipc.wire.packet", engine).PacketParser(COOKIE, 4096),
            self.reassembler,
            {SENDER: module.Source(self.stream, self.context)},
            self.accept,
            lambda packet: self.seen.append((packet.sender, packet.number, packet.kind)),
        )

    def accept(self, context: contextvars.Context, batch: Any) -> None:
        assert context is self.context
        while batch.next():
            self.seen.append(batch.data)

    def take(self, *packets: bytes, drained: bool = True) -> list[Any]:
        self.reader.take(b"".join(packets), drained)
        seen, self.seen[:] = [*self.seen], []
        return seen


@pytest.fixture(params=["pure", "native"])
def here(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def packet(
    number: int, *data: Any, sender: int = SENDER, receiver: int = ME, kind: int = BATCH, payload: bytes = b""
) -> bytes:
    payload = payload or join_batch([encode_unchecked("name", each) for each in data])
    return encode_packet(COOKIE, sender, receiver, number, kind, payload)


def test_the_next_batches_of_a_known_sender_go_to_the_handlers_in_order(here: World) -> None:
    assert here.take(packet(0, b"a", b"b"), packet(1, "c")) == [b"a", b"b", "c"]
    third = packet(2, [1, {"deep": None}])
    assert here.take(third[:20], drained=False) == []
    assert here.take(third[20:]) == [[1, {"deep": None}]]
    assert here.stream.next_number == 3
    assert not here.reassembler.drops


@pytest.mark.parametrize(
    "other",
    [
        packet(0, b"b", sender=SENDER + 1),
        packet(0, b"b", receiver=ME + 1),
        packet(1, b"b"),
        packet(0, kind=COPIED, payload=bytes(8)),
        packet(0, kind=FRAGMENT_FIRST, payload=bytes(8)),
    ],
    ids=["unknown", "not mine", "gap", "copied", "fragment"],
)
def test_each_other_packet_is_for_others_and_changes_nothing(here: World, other: bytes) -> None:
    (seen,) = here.take(other)
    assert isinstance(seen, tuple)
    assert here.stream.next_number == 0
    assert here.take(packet(0, b"a")) == [b"a"]


def test_a_repeat_and_a_batch_inside_a_large_message_are_for_others(here: World) -> None:
    assert here.take(packet(0, b"a"), packet(0, b"a")) == [b"a", (SENDER, 0, BATCH)]
    here.stream.total_bytes = 100
    assert here.take(packet(1, b"b")) == [(SENDER, 1, BATCH)]


def test_what_is_no_batch_is_counted_and_costs_no_other(here: World) -> None:
    assert here.take(packet(0, payload=b"\x93junk"), packet(1, b"b")) == [b"b"]
    assert here.reassembler.drops == {"corrupt": 1}


def test_a_message_with_an_extra_that_is_none_costs_no_other(here: World) -> None:
    spoilt = encode_unchecked("name", b"b")[1:]
    assert here.take(packet(0, payload=b"\xdc\x00\x02\x92" + spoilt + b"\x93" + spoilt + b"\x05")) == [b"b"]
    assert here.reassembler.drops == {"corrupt": 1}


def test_a_forgotten_sender_is_unknown(here: World) -> None:
    del here.reader.sources[SENDER]
    assert here.take(packet(0, b"a")) == [(SENDER, 0, BATCH)]
