"""F, and the idle half of G: start-up, memory, and the work of a server without requests.

Law: the kinds of server take turns, one at a time, since memory that several processes share is counted
in parts. Figures are of the workers; on either side another process starts and watches them.
"""

from __future__ import annotations

import asyncio
import compileall
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from benchmarks.judgement import NS_PER_US
from benchmarks.results import Footprint
from benchmarks.rounds import tell
from benchmarks.servers import ROOT, Build
from benchmarks.serving.kinds import Kind, plain, running, with_ipc

WORKERS: Final = 4

PACKAGES: Final = ("asgi_ipc", "benchmarks")

# Work that start-up has put off is done after this time.
SETTLE_S: Final = 1.0

KIB: Final = 1024


# As many beats of each worker.
IDLE_S: Final = 3.0


async def measure(loop: str, runs: int, builds: Sequence[Build]) -> list[Footprint]:
    """Plain uvicorn and each build so many times, in turns."""
    # An installed package has its bytecode, as uvicorn has; this one may run from its sources.
    for package in PACKAGES:
        compileall.compile_dir(ROOT / package, quiet=1)
    kinds = [plain(builds[0]), *map(with_ipc, builds)]
    done: dict[Kind, list[tuple[float, float, float, float]]] = {kind: [] for kind in kinds}
    for number in range(runs):
        for kind in kinds if number % 2 else reversed(kinds):
            one = await _one(kind, loop)
            done[kind].append(one)
            ready_s, pss_bytes, cpu_us, wakeups = one
            figure = f"ready {ready_s:.2f} s, {pss_bytes / KIB / KIB:.1f} MiB; "
            figure += f"idle: {cpu_us:,.0f} us and {wakeups:.1f} wake-ups a second"
            tell(f"{kind.name} ({loop})", "F", number, runs, figure)
    return [
        Footprint(kind.name, loop, WORKERS, *(list(values) for values in zip(*samples, strict=True)))
        for kind, samples in done.items()
    ]


async def _one(kind: Kind, loop: str) -> tuple[float, float, float, float]:
    async with running(kind, loop, WORKERS) as server:
        await asyncio.sleep(SETTLE_S)
        pss_bytes = sum(psutil.Process(pid).memory_full_info().pss for pid in server.pids) / WORKERS
        before = [_activity(pid) for pid in server.pids]
        await asyncio.sleep(IDLE_S)
        after = [_activity(pid) for pid in server.pids]
    cpu_ns, wakeups = (
        sum(late[part] - early[part] for early, late in zip(before, after, strict=True)) / WORKERS / IDLE_S
        for part in (0, 1)
    )
    return server.ready_s, pss_bytes, cpu_ns / NS_PER_US, wakeups


def _activity(pid: int) -> tuple[int, int]:
    """Processor time in ns, and how often one of its threads went to sleep, so far.

    From `schedstat`: the same as utime and stime, which count in hundredths of a second.
    """
    cpu_ns = switches = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        cpu_ns += int((thread / "schedstat").read_text().split()[0])
        status = (thread / "status").read_text()
        switches += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return cpu_ns, switches
