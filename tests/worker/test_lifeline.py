"""The lifeline, seen from a worker: words with descriptors, the launcher's end, and the guard."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable

import pytest

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.fleet.words import (
    Beat,
    Entered,
    Gone,
    Handover,
    Interpreter,
    Joined,
    Stop,
    ToWorker,
    Welcome,
    WordError,
    WordParser,
    WriteEnd,
    decode_for_launcher,
    encode_word,
)
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.runtime.guard import Guard
from tests.inprocess import until
from tests.worker.conftest import Line

HANDOVER = Handover(1, 2, Settings(cookie=b"12345678"), Interpreter(["/app"]), {"app": "demo:app"})


class Heard:
    """What a lifeline handed on."""

    def __init__(self, lifeline: Lifeline, on_stop: Callable[[], None] = lambda: None) -> None:
        self.words: list[tuple[ToWorker, Descriptor]] = []
        self._lifeline = lifeline
        self.event = asyncio.Event()
        lifeline.on_word = self._on_word
        lifeline.attach(on_stop)

    def _on_word(self, word: ToWorker) -> None:
        carries = isinstance(word, (Joined, WriteEnd))
        write_end = self._lifeline.take_descriptors()[0] if carries else Descriptor()
        self.words.append((word, write_end))
        self.event.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.words) < count:
                self.event.clear()
                await self.event.wait()


def test_the_handover_comes_first_and_whole(line: Line) -> None:
    ours, lifeline = line
    ours.sendall(encode_word(HANDOVER) + encode_word(Stop())[:3])
    assert lifeline.handover() == HANDOVER
    assert not os.get_inheritable(lifeline.fileno())


@pytest.mark.parametrize(("first", "error"), [(encode_word(Stop()), WordError), (b"", EOFError)])
def test_anything_else_than_a_handover_is_refused(first: bytes, error: type[Exception], line: Line) -> None:
    ours, lifeline = line
    ours.sendall(first)
    ours.close()
    with pytest.raises(error, match=r"Stop instead of a handover|gone before its handover"):
        lifeline.handover()


async def test_words_come_in_order_each_with_its_descriptor(line: Line) -> None:
    ours, lifeline = line
    heard = Heard(lifeline)
    ends = [os.pipe() for _ in range(3)]
    words: list[tuple[ToWorker, int | None]] = [
        (Welcome([Worker(7, 0, 1)]), None),
        (WriteEnd(1), ends[0][1]),
        (Joined(Worker(8, 1, 2)), ends[1][1]),
        (Gone(1, "killed"), None),
        (Joined(Worker(9, 2, 3)), ends[2][1]),
        (Entered([]), None),
    ]
    for word, fd in words:
        if fd is None:
            ours.sendall(encode_word(word))
        else:
            socket.send_fds(ours, [encode_word(word)], [fd])
    await heard.until(len(words))
    assert [word for word, _ in heard.words] == [word for word, _ in words]
    for (_, arrived), (_, sent) in zip(heard.words, words, strict=True):
        assert (arrived.fd >= 0) == (sent is not None)
        if sent is not None:
            assert os.fstat(arrived.fd).st_ino == os.fstat(sent).st_ino
            assert not os.get_inheritable(arrived.fd)
        arrived.close()
    for read_end, write_end in ends:
        os.close(read_end)
        os.close(write_end)


async def test_a_descriptor_that_the_limit_cut_off_is_seen_as_missing_and_the_next_one_is_not_mixed_up(
    line: Line,
) -> None:
    ours, lifeline = line
    heard = Heard(lifeline)
    read_end, write_end = os.pipe()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup(0)
    os.close(highest)
    socket.send_fds(ours, [encode_word(Joined(Worker(8, 1, 2)))], [write_end])
    # No number is free below the limit now (unix(7), MSG_CTRUNC).
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, before[1]))
    try:
        lifeline.drain()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    socket.send_fds(ours, [encode_word(WriteEnd(2))], [write_end])
    await heard.until(2)
    (first, missing), (second, arrived) = heard.words
    assert (first, missing.fd) == (Joined(Worker(8, 1, 2)), -1)
    assert second == WriteEnd(2)
    assert os.fstat(arrived.fd).st_ino == os.fstat(write_end).st_ino
    arrived.close()
    for fd in (read_end, write_end):
        os.close(fd)


async def test_a_descriptor_whose_word_was_cut_off_by_the_launchers_death_is_closed(line: Line) -> None:
    ours, lifeline = line
    ended = asyncio.Event()
    heard = Heard(lifeline, ended.set)
    read_end, write_end = os.pipe()
    # It comes with the first byte (unix(7)); a peer that leaves waits for the last write end.
    socket.send_fds(ours, [encode_word(WriteEnd(2))[:5]], [write_end])
    ours.close()
    os.close(write_end)
    async with asyncio.timeout(10):
        await ended.wait()
    assert heard.words == []
    assert os.read(read_end, 1) == b""
    os.close(read_end)


async def test_the_end_counts_only_behind_the_last_word(line: Line) -> None:
    ours, lifeline = line
    ended: list[int] = []
    heard = Heard(lifeline, lambda: ended.append(len(heard.words)))
    for generation in range(50):
        ours.sendall(encode_word(Gone(generation, "killed")))
    ours.close()
    await heard.until(50)
    await until(lambda: bool(ended))
    assert ended == [50]
    lifeline.send(Beat())
    late: list[str] = []
    lifeline.on_eof(lambda: late.append("at once"))
    assert late == ["at once"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_launcher_that_goes_with_words_unread_is_noticed(loop: str) -> None:
    """It resets the connection then, and uvloop stops watching a descriptor with an error."""
    import uvloop

    async def main() -> None:
        ours, theirs = socket.socketpair()
        lifeline = Lifeline(theirs.detach())
        ended = asyncio.Event()
        Heard(lifeline, ended.set)
        guard = Guard(lifeline, 1.0)
        guard.start()
        lifeline.send(Beat())
        ours.close()
        async with asyncio.timeout(10):
            await ended.wait()
        guard.beat()

    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.SelectorEventLoop
    # In a process of its own, since the guard means it.
    child = os.fork()
    if child == 0:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def test_what_the_launcher_is_too_busy_to_read_waits_and_arrives(line: Line) -> None:
    ours, lifeline = line
    Heard(lifeline)
    count = 50_000
    for _ in range(count):
        lifeline.send(Beat())
    parser = WordParser()
    beats = 0
    ours.setblocking(False)
    async with asyncio.timeout(30):
        while beats < count:
            chunk = await asyncio.get_running_loop().sock_recv(ours, 65536)
            beats += sum(decode_for_launcher(body) == Beat() for body in parser.feed(chunk))
    assert beats == count
