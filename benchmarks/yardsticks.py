"""Yardsticks: what the machine gives at this hour, to divide by.

Law: no `asgi_ipc` in here, nor any event loop. Times on a shared machine
drift; ratios to a yardstick of the same minutes can be compared.

Y1: two plain Python processes, one 26-byte os.write and one os.read per
message. What a message costs that travels alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any, Final

from benchmarks.cases import NS_PER_S, Run
from benchmarks.payloads import payloads
from benchmarks.server import ROOT, BenchmarkError

# 10 bytes and a header as small as the original's.
Y1_BYTES: Final = 26
Y1_COUNT: Final = 200_000
Y1_QUICK_COUNT: Final = 50_000

TIMEOUT_S: Final = 30.0


def measure_y1(count: int) -> Run:
    """Y1 once. Raises BenchmarkError if a message was lost, altered or out of order."""
    read_fd, write_fd = os.pipe()
    try:
        with _child("read", read_fd, count) as reader, _child("write", write_fd, count) as writer:
            os.close(read_fd)
            os.close(write_fd)
            read_fd = write_fd = -1
            try:
                return _both(writer, reader, count)
            finally:
                for process in (writer, reader):
                    process.kill()
    finally:
        for fd in (read_fd, write_fd):
            if fd >= 0:
                os.close(fd)


def _both(writer: subprocess.Popen[bytes], reader: subprocess.Popen[bytes], count: int) -> Run:
    for process in (reader, writer):
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise BenchmarkError("Y1: a process did not start")
    try:
        wrote = json.loads(writer.communicate(b"go\n", TIMEOUT_S)[0])
        read = json.loads(reader.communicate(timeout=TIMEOUT_S)[0])
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"Y1: not done after {TIMEOUT_S:g} s") from None
    if not read["right"]:
        raise BenchmarkError("Y1: what was read is not what was written")
    duration_ns = read["ended_ns"] - wrote["started_ns"]
    return Run(writer.pid, (reader.pid,), duration_ns, count * NS_PER_S / duration_ns, None, None)


def _child(work: str, fd: int, count: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "benchmarks.yardsticks", work, str(fd), str(count)]
    return subprocess.Popen(command, cwd=ROOT, pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _write(fd: int, count: int) -> dict[str, Any]:
    messages = list(payloads(count, Y1_BYTES))
    _ready()
    sys.stdin.readline()
    write = os.write
    started_ns = time.monotonic_ns()
    for message in messages:
        write(fd, message)
    return {"started_ns": started_ns}


def _read(fd: int, count: int) -> dict[str, Any]:
    expected = list(payloads(count, Y1_BYTES))
    _ready()
    read = os.read
    messages = [read(fd, Y1_BYTES) for _ in range(count)]
    ended_ns = time.monotonic_ns()
    return {"ended_ns": ended_ns, "right": messages == expected and read(fd, 1) == b""}


def _ready() -> None:
    print("ready", flush=True)


if __name__ == "__main__":
    _work, _fd, _count = sys.argv[1:]
    print(json.dumps((_read if _work == "read" else _write)(int(_fd), int(_count))))
