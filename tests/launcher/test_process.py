"""One child process, seen from its parent: started, spoken to, reaped, and refused."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys

import pytest

from asgi_ipc.fleet.settings import Settings
from asgi_ipc.fleet.words import Failed, Handover, Interpreter, ToLauncher, encode_word
from asgi_ipc.launcher.process import LifelineFullError, WorkerProcess, describe_status
from tests.processes import links
from tests.serving import DEADLINE_S, eventually


async def _until_reaped(process: WorkerProcess) -> int:
    await eventually(lambda: process.reap() is not None, "the child has ended")
    status = process.reap()
    assert status is not None
    return status


def _handover(path: list[str]) -> Handover:
    options = {"app": "tests.apps.missing:app", "log_level": "error"}
    return Handover(0, 1, Settings(cookie=b"12345678"), Interpreter(path), options)


async def test_a_word_larger_than_the_socket_takes_is_written_in_parts_and_arrives_whole() -> None:
    process = WorkerProcess(1, [], None)
    try:
        word = _handover([*sys.path, *["x" * 1000] * 2000])
        encoded = encode_word(word)
        refusals = set()
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    process.write_word(encoded, None)
                    break
                except LifelineFullError as full:
                    refusals.add((full.begun, full.soon))
                    writable = asyncio.Event()
                    asyncio.get_running_loop().add_writer(process.lifeline, writable.set)
                    await writable.wait()
                    asyncio.get_running_loop().remove_writer(process.lifeline)
        assert refusals == {(True, False)}
        # The child has understood it: it fails for the reason that the handover gives.
        assert await _until_reaped(process) != 0
        said: list[ToLauncher] = []
        ended = False
        while not ended:
            new, ended = process.read_words()
            said += new
        (failure,) = [each for each in said if isinstance(each, Failed)]
        assert 'Could not import module "tests.apps.missing"' in failure.reason
    finally:
        process.close()


async def test_words_to_a_child_that_has_ended_are_an_os_error_and_its_status_stays() -> None:
    process = WorkerProcess(1, [], None)
    process.signal(signal.SIGKILL)
    assert await _until_reaped(process) == -signal.SIGKILL
    assert process.reap() == -signal.SIGKILL
    process.signal(signal.SIGKILL)  # nobody else's pid by now
    word = _handover([])
    with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
        process.write_word(encode_word(word), None)
    assert process.read_words() == ([], True)
    process.close()
    process.close_write_end()


def test_a_process_that_the_kernel_refuses_leaves_nothing_open() -> None:
    before = links().keys()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(fd) for fd in before) + 1
    # Room for none of its descriptors, for the pipe, for the pipe and the lifeline.
    for room in (0, 2, 4):
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + room, limits[1]))
        taken = []
        try:
            while True:
                taken.append(os.dup(0))
        except OSError:
            pass
        for fd in taken[len(taken) - room :]:
            os.close(fd)
        try:
            with pytest.raises(OSError, match="Too many open files"):
                WorkerProcess(1, [], None)
        finally:
            for fd in taken[: len(taken) - room]:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert links().keys() == before


async def test_the_child_holds_its_own_ends_and_nothing_else_of_the_parent() -> None:
    other = socket.socket()
    process = WorkerProcess(1, [other], 16 * 1024)
    assert process.pipe_bytes == 16 * 1024
    held = set(links(process.pid).values())
    ours = f"pipe:[{os.fstat(process.write_end).st_ino}]"
    assert ours in held
    assert links()[process.lifeline.fileno()] not in held
    assert f"socket:[{os.fstat(other.fileno()).st_ino}]" in held
    process.signal(signal.SIGKILL)
    await _until_reaped(process)
    process.close()
    other.close()


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exited with status 0"), (3, "exited with status 3"), (-9, "was killed by SIGKILL")]
    + [(-99, "was killed by signal 99")],
)
def test_a_status_is_told_in_words(status: int, words: str) -> None:
    assert describe_status(status) == words
