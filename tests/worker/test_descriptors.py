"""Descriptors and forks: what has come and has no owner yet is nobody's after a fork, either."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from asgi_ipc.fleet.words import ToWorker, WriteEnd, encode_word
from asgi_ipc.worker.descriptors import Descriptor
from tests.processes import links
from tests.worker.conftest import Line

# How long a fork on another thread is watched for coming through where it has to wait.
HELD_UP_S = 0.2


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def _holds(link: str) -> int:
    """How many descriptors of this process are that file."""
    return list(links().values()).count(link)


def _held_by_a_forked_child(link: str) -> int:
    child = os.fork()
    if child == 0:
        os._exit(_holds(link))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def test_a_descriptor_is_closed_once_and_in_every_forked_child() -> None:
    descriptor = Descriptor(os.memfd_create("owned"))
    link = links()[descriptor.fd]
    assert _held_by_a_forked_child(link) == 0
    assert _holds(link) == 1
    number = descriptor.fd
    descriptor.close()
    assert descriptor.fd == -1
    assert _holds(link) == 0
    # Somebody else gets the number.
    assert os.open("/dev/null", os.O_RDONLY) == number
    descriptor.close()
    os.close(number)


def test_a_descriptor_that_was_given_away_is_left_alone() -> None:
    descriptor = Descriptor(os.memfd_create("given"))
    link = links()[descriptor.fd]
    fd = descriptor.release()
    descriptor.close()
    assert _held_by_a_forked_child(link) == 1
    os.close(fd)


async def test_a_fork_while_words_are_handed_on_keeps_none_of_their_descriptors(
    pipe: tuple[int, int], line: Line
) -> None:
    link = links()[pipe[0]]
    ours, lifeline = line
    in_children: list[int] = []

    def on_word(word: ToWorker) -> None:
        # As a callback of on_join may do it: it runs between this word and the next.
        in_children.append(_held_by_a_forked_child(link))
        lifeline.take_descriptors()[0].close()

    lifeline.on_word = on_word
    lifeline.attach(lambda: None)
    for generation in (1, 2, 3):
        socket.send_fds(ours, [encode_word(WriteEnd(generation))], [pipe[1]])
    lifeline.drain()
    # The two ends that this test has opened itself.
    assert in_children == [2, 2, 2]


async def test_a_fork_on_another_thread_waits_until_what_arrives_is_held(
    pipe: tuple[int, int], line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = links()[pipe[0]]
    ours, lifeline = line
    arrived: list[Descriptor] = []
    in_child: list[int] = []
    forking = threading.Thread(target=lambda: in_child.append(_held_by_a_forked_child(link)))
    receive = socket.recv_fds

    def recv_fds(*arguments: int) -> tuple[bytes, list[int], int, object]:
        received = receive(*arguments)  # type: ignore[arg-type]
        if received[1]:
            # In the very moment in which the descriptor is here and nobody knows of it.
            forking.start()
            forking.join(HELD_UP_S)
        return received

    lifeline.on_word = lambda word: arrived.append(lifeline.take_descriptors()[0])
    lifeline.attach(lambda: None)
    monkeypatch.setattr(socket, "recv_fds", recv_fds)
    socket.send_fds(ours, [encode_word(WriteEnd(1))], [pipe[1]])
    lifeline.drain()
    forking.join()
    assert in_child == [2]
    assert len(arrived) == 1
    arrived[0].close()
