"""Pipes: real ones, in one process, on both event loops."""

from __future__ import annotations

import asyncio
import os

import pytest
import uvloop

from asgi_ipc.wire.outbox import Budget, Outbox
from asgi_ipc.wire.packet import PacketParser
from asgi_ipc.wire.packetizer import Route
from asgi_ipc.worker import descriptors
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.transport.pipe_reader import READ_BYTES, REFUSALS, PipeReader
from asgi_ipc.worker.transport.pipes import PipeWriter, unread_bytes
from tests.encoding import find_all
from tests.inprocess import until

COOKIE = b"12345678"
LOOP_FACTORIES = {"asyncio": asyncio.SelectorEventLoop, "uvloop": uvloop.new_event_loop}


def pipe() -> tuple[int, int]:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    return read_end, write_end


class Sender:
    """An outbox and its writer."""

    def __init__(self, fd: int, generation: int, packet_bytes: int = 4096) -> None:
        self.outbox = Outbox(Route(COOKIE, generation, 99, packet_bytes), Budget())
        self.written = 0
        self.broken = 0
        self.writer = PipeWriter(
            asyncio.get_running_loop(), Descriptor(fd), self.outbox, self._on_written, self._on_broken
        )

    def _on_written(self) -> None:
        self.written += 1

    def _on_broken(self) -> None:
        self.broken += 1


class Receiver:
    """A reader, and the packets that it found."""

    def __init__(self, fd: int) -> None:
        self.parser = PacketParser(COOKIE, 4096)
        self.packets: list[tuple[int, int]] = []
        self.drained: list[bool] = []
        self.eofs = 0
        self.reader = PipeReader(asyncio.get_running_loop(), Descriptor(fd), self._on_bytes, self._on_eof)

    def _on_bytes(self, chunk: bytes, drained: bool) -> None:
        self.drained.append(drained)
        self.packets += [
            (packet.sender, packet.number) for packet in find_all(self.parser, chunk, drained=drained)
        ]

    def _on_eof(self) -> None:
        self.eofs += 1

    async def ended(self) -> None:
        await until(lambda: self.eofs > 0)


async def test_much_more_than_a_pipe_holds_goes_through_and_the_end_is_seen_once() -> None:
    read_end, write_end = pipe()
    sender, receiver = Sender(write_end, 1), Receiver(read_end)
    for _ in range(2000):
        assert sender.outbox.offer(b"\x92\xa1n\xda" + bytes(1000))
    sender.writer.close_when_empty()
    assert sender.outbox  # the pipe was full long before
    receiver.reader.resume()
    await receiver.ended()
    assert receiver.packets == [(1, number) for number in range(sender.written)]
    assert sender.written == 2000 / 4  # four of these to a packet
    assert (receiver.eofs, receiver.parser.skips) == (1, 0)
    assert not sender.writer.is_open
    assert not receiver.reader.is_open
    assert receiver.reader.unread_bytes() == 0


async def test_sixteen_writers_share_one_pipe_and_none_starves() -> None:
    read_end, write_end = pipe()
    receiver = Receiver(read_end)
    senders = [Sender(os.dup(write_end), generation) for generation in range(16)]
    os.close(write_end)
    for sender in senders:
        for _ in range(300):
            assert sender.outbox.offer(b"\x92\xa1n\xda" + bytes(3000))
        sender.writer.close_when_empty()
    receiver.reader.resume()
    await receiver.ended()
    assert receiver.parser.skips == 0
    for generation in range(16):
        assert [number for who, number in receiver.packets if who == generation] == list(range(300))
    # When the first has finished, every other has got well under way.
    first_end = receiver.packets.index(next(packet for packet in receiver.packets if packet[1] == 299))
    begun = dict(receiver.packets[:first_end])
    assert len(begun) == 16
    assert min(begun.values()) >= 20


@pytest.mark.parametrize("full_first", [False, True])
async def test_a_reader_that_has_gone_is_told_once_and_the_writer_closes(full_first: bool) -> None:
    read_end, write_end = pipe()
    sender = Sender(write_end, 1)
    for _ in range(100):
        assert sender.outbox.offer(b"\x92\xa1n\xda" + bytes(3000))
    if full_first:
        sender.writer.flush()
        assert sender.broken == 0
    os.close(read_end)
    sender.writer.flush()
    await until(lambda: bool(sender.broken))
    sender.writer.flush()
    assert sender.broken == 1
    assert not sender.writer.is_open


async def test_a_paused_reader_leaves_what_comes_in_the_pipe() -> None:
    read_end, write_end = pipe()
    receiver = Receiver(read_end)
    receiver.reader.resume()
    receiver.reader.pause()
    os.write(write_end, b"stray")
    for _ in range(10):
        await asyncio.sleep(0)
    assert receiver.reader.unread_bytes() == 5
    assert receiver.reader.read_bytes == 0
    receiver.reader.resume()
    os.close(write_end)
    await receiver.ended()
    assert receiver.reader.read_bytes == 5
    assert receiver.parser.skips == 1


async def test_a_pause_that_lasts_does_not_keep_the_event_loop_awake() -> None:
    read_end, write_end = pipe()
    receiver = Receiver(read_end)
    receiver.reader.resume()
    receiver.reader.pause()
    os.write(write_end, b"stray")
    for _ in range(3 * REFUSALS):
        await asyncio.sleep(0)
    assert not asyncio.get_running_loop().remove_reader(read_end)
    receiver.reader.resume()
    os.close(write_end)
    await receiver.ended()
    assert receiver.reader.read_bytes == 5


async def test_a_read_that_is_full_by_chance_still_knows_that_the_pipe_is_empty() -> None:
    read_end, write_end = pipe()
    receiver = Receiver(read_end)
    assert os.write(write_end, bytes(READ_BYTES)) == READ_BYTES == unread_bytes(read_end)
    receiver.reader.resume()
    await until(lambda: bool(receiver.drained))
    assert receiver.drained == [True]
    os.close(write_end)
    await receiver.ended()


async def test_in_a_forked_child_every_owner_has_closed_its_descriptor() -> None:
    read_end, write_end = pipe()
    sender, receiver = Sender(write_end, 1), Receiver(read_end)
    child = os.fork()
    if child == 0:
        closed = not sender.writer.is_open and not receiver.reader.is_open
        for fd in (read_end, write_end):
            try:
                os.fstat(fd)
                closed = False
            except OSError:
                pass
        os._exit(0 if closed else 1)
    _, status = os.waitpid(child, 0)  # noqa: ASYNC222  # it ends at once
    assert os.waitstatus_to_exitcode(status) == 0
    assert sender.writer.is_open
    assert receiver.reader.is_open
    receiver.reader.resume()
    sender.writer.close()
    await receiver.ended()


def test_an_owner_that_is_gone_is_not_called() -> None:
    class Owner:
        def abandon(self) -> None:
            raise AssertionError("called")

    descriptors.register(Owner())
    child = os.fork()
    if child == 0:
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
