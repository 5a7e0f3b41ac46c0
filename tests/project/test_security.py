"""The trust boundary: what another user cannot do, and what a worker leaves where others could see it.

Law: each attempt is made twice, as root and as an ordinary user, or a refusal
would show nothing.
"""

from __future__ import annotations

import ast
import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from asgi_ipc.wire.packet import BATCH, encode_packet
from asgi_ipc.wire.payload import join_batch
from tests.inprocess import COOKIE, Member, fleet, until
from tests.needs import need_root
from tests.processes import links
from tests.serving import Server, serving

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

# The user "nobody" of Debian and other systems; any user but the server's would do.
NOBODY = 65534

INTRUDER = """
import os, sys

def attempt(function, *arguments):
    try:
        result = function(*arguments)
    except OSError as error:
        return type(error).__name__
    if type(result) is int:
        os.close(result)
    return "done"

def attempts(pid, fds):
    return {
        "list": attempt(os.listdir, f"/proc/{pid}/fd"),
        "name": [attempt(os.readlink, f"/proc/{pid}/fd/{fd}") for fd in fds],
        "send": [attempt(os.open, f"/proc/{pid}/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK) for fd in fds],
        "receive": [attempt(os.open, f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK) for fd in fds],
        "memory": attempt(os.open, f"/proc/{pid}/mem", os.O_RDWR),
        "environment": attempt(os.open, f"/proc/{pid}/environ", os.O_RDONLY),
        "signal": attempt(os.kill, pid, 0),
    }

pid, nobody, *fds = map(int, sys.argv[1:])
print(attempts(pid, fds))
os.setgroups([])
os.setgid(nobody)
os.setuid(nobody)
print(attempts(pid, fds))
"""


def descriptors(pid: int, kind: str) -> list[int]:
    """A process's descriptors of a kind: "pipe" or "socket"."""
    return sorted(fd for fd, link in links(pid).items() if link.startswith(f"{kind}:"))


def unix_names() -> dict[str, list[str]]:
    """Every Unix socket of the machine, as a descriptor's link shows it, and its name if it has one."""
    lines = (line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return {f"socket:[{fields[6]}]": fields[7:] for fields in lines}


def processes(server: Server) -> list[int]:
    """The launcher and its workers."""
    return [server.pid, *server.workers()]


@needs_linux
async def test_another_user_can_neither_list_nor_open_nor_signal() -> None:
    need_root()
    async with serving("tests.apps.stream:app", workers=2) as server:
        await server.started(2)
        for pid in processes(server):
            # Its standard output is a pipe of the test's.
            fds = [fd for fd in descriptors(pid, "pipe") if fd > 2]
            assert len(fds) >= 2
            command = [sys.executable, "-c", INTRUDER, str(pid), str(NOBODY), *map(str, fds)]
            run = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, check=True, timeout=30
            )
            as_root, as_nobody = map(ast.literal_eval, run.stdout.splitlines())
            for what, outcome in as_root.items():
                assert set(_each(outcome)) == {"done"}, f"root itself: {what}"
            for what, outcome in as_nobody.items():
                assert set(_each(outcome)) == {"PermissionError"}, what


def _each(outcome: Any) -> Iterator[str]:
    yield from outcome if isinstance(outcome, list) else [outcome]


@needs_linux
async def test_others_find_no_name_no_file_no_variable_no_secret_argument_and_no_pipe(tmp_path: Path) -> None:
    before = {**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    async with serving("tests.apps.stream:app", workers=2, env=before) as server:
        await server.started(2)
        names = unix_names()
        for pid in processes(server):
            unix = [link for link in links(pid).values() if link in names]
            assert unix, "lifelines are Unix sockets"
            # The socket has neither a path nor an abstract name, which would have no permissions at all.
            assert [names[link] for link in unix if names[link]] == []
            for fd in (fd for fd in descriptors(pid, "pipe") if fd > 2):
                found = os.stat(f"/proc/{pid}/fd/{fd}")
                assert stat.S_ISFIFO(found.st_mode)
                assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, os.geteuid())
        given = psutil.Process(server.pid).environ()
        for pid in server.workers():
            assert psutil.Process(pid).environ() == given
            *_, boot, package, lifeline, pipe, arena, listener = psutil.Process(pid).cmdline()
            assert "asgi_ipc.worker.main" in boot
            assert package.startswith("/"), "a folder"
            assert all(fd.isdecimal() for fd in (lifeline, pipe, arena, listener))
        assert os.listdir(tmp_path) == []


NESTED = b"\xdc\x00\x01\x92\xa1n" + b"\x91" * 3000 + b"\x01"


def _is_message_for_nobody(payload: bytes, member: Member) -> bool:
    """Some Pythons decode what is nested 3,000 deep (3.13); then it is a message without a handler."""
    try:
        msgspec.msgpack.decode(NESTED)
    except RecursionError:
        return False
    return payload == NESTED and member.ipc.stats().discarded == 1


@pytest.mark.parametrize(
    "payload",
    [
        NESTED,
        b"\xdd\xff\xff\xff\xff",
        b"\xdc\x00\x01\x92\xa1n\xc6\xff\xff\xff\xff",
        b"\xdc\x00\x01\x92\xa1n\xc7\x04\x63data",
        b"\xdc\x00\x01\x92\xa3\xed\xa0\x80\xc0",
        msgspec.msgpack.encode([["name"]]),
        msgspec.msgpack.encode({"name": "data"}),
    ],
    ids=["nested", "a long array", "long data", "an extension type", "a lone surrogate", "half", "no batch"],
)
async def test_what_the_cookie_vouches_for_is_still_checked_and_harms_nobody(payload: bytes) -> None:
    async with fleet(2, has_arena=False) as (_, (a, b)):
        os.write(b.write_end, encode_packet(COOKIE, a.worker.generation, 2, 0, BATCH, payload))
        os.write(b.write_end, encode_packet(COOKIE, a.worker.generation, 2, 1, BATCH, join_batch([])))
        await until(lambda: b.ipc.stats().dropped == {"corrupt": 1} or _is_message_for_nobody(payload, b))
        await b.ipc.send(b.pid, "note", "still here")
        assert await b.until(1) == ["still here"]
