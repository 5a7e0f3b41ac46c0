"""E: requests a second and their 99th percentile, beside plain uvicorn.

Law: both servers stand ready all the time, and take turns second by second; the first one changes with each
pair. The load generator is `wrk`, a process of its own that costs little beside a Python server.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from benchmarks.judgement import NS_PER_S, BenchmarkError, Run
from benchmarks.results import Result
from benchmarks.rounds import tell
from benchmarks.servers import HOST, Build
from benchmarks.serving.kinds import Running, plain, running, with_ipc

WORKERS: Final = 2

# Enough that both workers accept about as many: with 16, rates differed by a quarter.
CONNECTIONS: Final = 64

RUN_S: Final = 1
TIMEOUT_S: Final = 10.0

# All workers together; half of them each.
MESSAGES_PER_S: Final = 10_000

# Of the messages that were due: fewer were no such load.
LEAST_OF_LOAD: Final = 0.9

# Results of the same rounds; beyond all sizes of fleets.
GROUP: Final = 1_001

_RATE: Final = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_P50: Final = re.compile(r"^\s+50%\s+([\d.]+)(us|ms|s)$", re.MULTILINE)
_P99: Final = re.compile(r"^\s+99%\s+([\d.]+)(us|ms|s)$", re.MULTILINE)
_US: Final = {"us": 1.0, "ms": 1e3, "s": 1e6}


def is_missing() -> str | None:
    """Why this can't be measured here."""
    return None if shutil.which("wrk") else "wrk is not installed: scripts/peers"


async def measure(loop: str, pairs: int, builds: Sequence[Build]) -> list[Result]:
    """So many rounds of: plain uvicorn; then each build idle, and with its workers talking."""
    bare = plain(builds[0])
    turns: list[tuple[str, str, Callable[[Running], Awaitable[Run]], Running]] = []
    done: dict[tuple[str, str], list[Run]] = {}
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(running(bare, loop, WORKERS))
        turns.append((bare.name, "E-plain", _one, server))
        for build in builds:
            server = await stack.enter_async_context(running(with_ipc(build), loop, WORKERS))
            turns += [(build.subject, "E-idle", _one, server), (build.subject, "E-load", _talking, server)]
        for _, _, run_one, server in turns:
            await run_one(server)  # what happens for the first time does not count
        for number in range(pairs):
            for subject, case, run_one, server in turns if number % 2 else reversed(turns):
                run = await run_one(server)
                done.setdefault((subject, case), []).append(run)
                figure = f"{run.per_second:,.0f} requests/s, p99 {run.p99_us:,.0f} us"
                tell(f"{subject} ({loop})", case, number, pairs, figure)
    return [
        Result(subject, loop, case, "E", GROUP, CONNECTIONS, done[subject, case])
        for subject, case, _, _ in turns
    ]


async def _talking(server: Running) -> Run:
    await _set_load(server, MESSAGES_PER_S // WORKERS)
    run = await _one(server)
    facts = await _set_load(server, 0)
    sent = sum(one["sent"] for one in facts)
    if any(one["troubles"] for one in facts):
        raise BenchmarkError(f"messages were lost or out of order while HTTP was measured: {facts}")
    if sent < MESSAGES_PER_S * RUN_S * LEAST_OF_LOAD:
        raise BenchmarkError(f"only {sent} messages were sent in {RUN_S} s, not {MESSAGES_PER_S} a second")
    return run


async def _one(server: Running) -> Run:
    """One run of the load generator."""
    options = ["-t", "1", "-c", str(CONNECTIONS), "-d", f"{RUN_S}s", "--latency"]
    process = await asyncio.create_subprocess_exec(
        "wrk", *options, f"http://{HOST}:{server.port}/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise BenchmarkError(f"wrk has not ended after {TIMEOUT_S:g} s") from None
    return judge(said.decode(), server.pids, process.pid)


def judge(said: str, pids: list[int], client: int) -> Run:
    """The figures in what wrk has said. Raises BenchmarkError if a request failed."""
    found = [pattern.search(said) for pattern in (_RATE, _P50, _P99)]
    if "Non-2xx" in said or "Socket errors" in said or None in found:
        raise BenchmarkError(f"wrk: {said.strip()}")
    rate, p50, p99 = (match for match in found if match is not None)
    return Run(
        senders=[client],
        receivers=pids,
        duration_ns=RUN_S * NS_PER_S,
        per_second=float(rate[1]),
        p50_us=float(p50[1]) * _US[p50[2]],
        p99_us=float(p99[1]) * _US[p99[2]],
    )


async def _set_load(server: Running, per_s: int) -> list[dict[str, Any]]:
    """Have each worker send so many messages a second; 0: no more, and all that was sent is there."""
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(HOST, server.port)
        writer.write(f"GET /load/{per_s} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        said = await reader.read()
        writer.close()
    head, _, body = said.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise BenchmarkError(f"GET /load/{per_s}: {head.decode(errors='replace')}")
    facts: list[dict[str, Any]] = msgspec.json.decode(body)
    return facts
