"""Limits: a fleet that can't be whole is not begun, and who runs into a limit is told what to do."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import resource
import socket
from pathlib import Path

import pytest

from asgi_ipc.errors import LauncherError
from asgi_ipc.fleet.descriptor_budget import launcher_needs, too_few_to_start, worker_needs
from asgi_ipc.launcher.limits import (
    DEFAULT_PIPE_BYTES,
    PipeWatch,
    check_descriptors,
    describe_refusal,
    descriptor_limit,
)
from asgi_ipc.launcher.process import WorkerProcess
from tests.serving import serving, started


@pytest.mark.parametrize("limit", [6, 20, worker_needs(8) - 1])
async def test_too_few_descriptors_for_all_workers_are_one_message_before_anything_is_started(
    limit: int,
) -> None:
    under = ("prlimit", f"--nofile={limit}")
    async with serving("tests.apps.plain:app", workers=8, under=under) as server:
        assert await server.ended() == 1
        (line,) = server.lines
        # What the launcher has open by itself is in the number that it needs.
        needs = re.match(
            r"Error: 8 workers need at least (\d+) descriptors in the launcher and (\d+) in", line
        )
        assert needs is not None
        assert int(needs[1]) >= launcher_needs(8, 3)
        assert int(needs[2]) == worker_needs(8)
        assert f"a process may have {limit} here (RLIMIT_NOFILE). Raise it: ulimit -n" in line
        assert "or start fewer workers" in line


async def test_just_enough_descriptors_are_enough() -> None:
    under = ("prlimit", f"--nofile={worker_needs(4)}")
    async with serving("tests.apps.plain:app", workers=4, under=under) as server:
        assert len(await server.started(4)) == 4
        assert (await server.get("/")).status_code == 200
        assert await server.stop() == 0
        assert "RLIMIT_NOFILE" not in server.text


def test_more_workers_than_a_limit_allows_are_refused_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        check_descriptors(70)
        with pytest.raises(
            LauncherError, match=r"200 workers need at least 6\d\d descriptors .* have 256 here"
        ):
            check_descriptors(200)
        monkeypatch.setattr(os, "listdir", _no_such_folder)
        check_descriptors(70)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _no_such_folder(path: str) -> list[str]:
    raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)


def test_one_worker_is_not_called_workers() -> None:
    assert too_few_to_start(1, 20, 30, 16).startswith("1 worker needs at least 20 descriptors")


def test_the_limit_of_a_process_that_has_gone_is_taken_to_be_ones_own() -> None:
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    assert descriptor_limit(child) == descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EMFILE, r"this process may have \d+ descriptors .*RLIMIT_NOFILE\). Raise it: ulimit -n"),
        (errno.ENFILE, r"fs.file-max.*fs.pipe-user-pages-hard"),
        (errno.EAGAIN, r"no more processes. Raise the limit: ulimit -u"),
        (errno.ENOMEM, r"Cannot allocate memory"),
    ],
)
def test_what_the_kernel_refuses_is_told_with_what_raises_its_limit(number: int, words: str) -> None:
    text = describe_refusal(OSError(number, os.strerror(number)))
    assert os.strerror(number) in text
    assert re.search(words, text)


async def test_an_app_that_has_used_up_all_descriptors_is_told_of_the_limit(tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(
        "import os\nheld = []\nwhile True:\n    held.append(os.open('/dev/null', os.O_RDONLY))\n"
    )
    async with serving("greedy:app", "--app-dir", str(tmp_path), under=("prlimit", "--nofile=64")) as server:
        assert await server.ended() == 3
        assert server.count("OSError: .Errno 24. Too many open files") == 1
        assert server.count("this process may have 64 descriptors and all are in use") == 1


def test_small_pipes_are_warned_of_once_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "uvicorn.error")
    now = 0.0
    watch = PipeWatch(None, clock=lambda: now)
    for given in (None, DEFAULT_PIPE_BYTES, 8192, DEFAULT_PIPE_BYTES, 8192):
        watch.saw(given)
    assert len(caplog.records) == 1
    now = PipeWatch.WARN_AGAIN_S
    watch.saw(8192)
    watch.saw(8192)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert all("pipes of 8,192 bytes instead of 65,536" in text for text in texts)
    assert "fs.pipe-user-pages-soft" in texts[0]


def test_a_pipe_that_may_not_be_larger_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    ask = fcntl.fcntl

    def refuse(fd: int, command: int, value: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ:
            asked.append((fd, value))
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return ask(fd, command, value)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    process = WorkerProcess(1, [], 1024 * 1024)
    process.signal(9)
    os.waitpid(process.pid, 0)
    assert asked == [(process.write_end, 1024 * 1024)]
    assert process.pipe_bytes == DEFAULT_PIPE_BYTES
    process.reaped(-9)
    process.close()


async def test_a_limit_is_told_of_before_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        command = ["-m", "asgi_ipc.cli", "serve", "tests.apps.plain:app", "--workers", "64", "--port", port]
        async with started(*command, under=("prlimit", "--nofile=64")) as server:
            assert await server.ended() == 1
            assert server.count("RLIMIT_NOFILE") == 1
