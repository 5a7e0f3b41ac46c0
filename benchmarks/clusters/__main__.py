"""The command: figures of a cluster beside the bare client, as a table.

Law: nothing is measured here that was not also checked: a gap, or a drop, ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from asgi_ipc.testing import Server, serve
from benchmarks.judgement import BenchmarkError
from benchmarks.peers import services
from benchmarks.servers import HOST, ROOT

SIZES: Final = (10, 1024, 64 * 1024)
STREAM_BYTES: Final = 64 * 1024 * 1024
MAX_MESSAGES: Final = 200_000
QUESTIONS: Final = 1000
START_S: Final = 20.0
TIMEOUT_S: Final = 120.0

# What was aimed at.
LEAST_OF_BARE: Final = 0.8
MOST_OF_BARE: Final = 3.0


def main() -> int:
    """Measure, and print; 1 if a figure aimed at is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.clusters", description="Two servers over NATS."
    )
    parser.add_argument("--rounds", type=int, default=5)
    lines, missed = asyncio.run(_measure(parser.parse_args().rounds))
    sys.stdout.write("\n".join(lines) + "\n")
    return int(missed)


async def _measure(rounds: int) -> tuple[list[str], bool]:
    with tempfile.TemporaryDirectory() as name:
        async with services.nats(Path(name)) as place:
            url = f"nats://{HOST}:{place.port}"
            return await asyncio.to_thread(_with_servers, url, rounds)


def _with_servers(url: str, rounds: int) -> tuple[list[str], bool]:
    options = ("--cluster", url, "--loop", "uvloop", "--no-access-log")
    with (
        serve("benchmarks.clusters.app:app", *options, workers=1, cwd=ROOT) as first,
        serve("benchmarks.clusters.app:app", *options, workers=1, cwd=ROOT),
        subprocess.Popen(_bare("take", url), stdout=subprocess.PIPE, cwd=ROOT) as taker,
    ):
        try:
            assert taker.stdout is not None
            taker.stdout.readline()
            _meet(first)
            return _table(first, url, rounds)
        finally:
            taker.kill()


def _meet(server: Server) -> None:
    until_s = time.monotonic() + START_S
    while _get(server, "/counters").get("workers", 0) < 2:
        if time.monotonic() > until_s:
            raise BenchmarkError("the servers did not find each other")
        time.sleep(0.1)


def _table(server: Server, url: str, rounds: int) -> tuple[list[str], bool]:
    lines = ["| | over the bridge | bare client | ratio | aim |", "|---|--:|--:|--:|---|"]
    missed = False
    for size in SIZES:
        count = min(STREAM_BYTES // size, MAX_MESSAGES)
        ours, bare, ratios = [], [], []
        for _ in range(rounds):
            before = _get(server, "/counters")
            seconds = _get(server, f"/send?count={count}&size={size}")
            # The counters come once a second.
            time.sleep(1.5)
            after = _get(server, "/counters")
            if after["gaps"] or after["dropped"]:
                raise BenchmarkError("something was dropped or lost")
            envelopes = after["sent"] - before["sent"]
            sent_bytes = after["sent_bytes"] - before["sent_bytes"]
            alone = _run("send", url, envelopes, sent_bytes // envelopes)
            ours.append(sent_bytes / seconds)
            bare.append(sent_bytes / alone)
            ratios.append(alone / seconds)
        ratio = statistics.median(ratios)
        missed |= ratio < LEAST_OF_BARE
        lines.append(
            f"| broadcast, {size:,} B | {_rate(ours)} | {_rate(bare)} | {ratio:.2f} x | "
            f"at least {LEAST_OF_BARE:g} x |"
        )
    ours, bare = [], []
    for _ in range(rounds):
        ours.append(statistics.median(_get(server, f"/ask?count={QUESTIONS}")))
        bare.append(statistics.median(_run("ask", url, QUESTIONS)))
    ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, bare, strict=True))
    missed |= ratio > MOST_OF_BARE
    lines.append(
        f"| request, p50 | {statistics.median(ours) * 1e6:.0f} us | {statistics.median(bare) * 1e6:.0f} us | "
        f"{ratio:.2f} x | at most {MOST_OF_BARE:g} x |"
    )
    return lines, missed


def _rate(bytes_per_s: list[float]) -> str:
    return f"{statistics.median(bytes_per_s) / 1e6:.0f} MB/s"


def _get(server: Server, path: str) -> Any:
    return httpx.get(server.url + path, timeout=TIMEOUT_S).raise_for_status().json()


def _bare(part: str, url: str, *numbers: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.clusters.bare", part, url, *map(str, numbers)]


def _run(part: str, url: str, *numbers: int) -> Any:
    ran = subprocess.run(
        _bare(part, url, *numbers), cwd=ROOT, capture_output=True, timeout=TIMEOUT_S, check=True
    )
    return msgspec.json.decode(ran.stdout)


if __name__ == "__main__":
    sys.exit(main())
