"""The launcher as PID 1: the parent of every orphan of its pid namespace, as in a container.

Law: the kernel itself calls the launcher PID 1. All checks look from outside, in the tables of the namespace
around it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from asgi_ipc.testing.child import children, is_running
from tests.faults.trial import NotHereError, Row, Trial, as_ms, everywhere
from tests.processes import name_inside
from tests.puppets import Puppets
from tests.serving import Server, eventually, free_port, started

WORKERS: Final = 2
ORPHANS: Final = 20

# The promise: "0 zombies after 2 s".
REAPED_S: Final = 2.0

# Python starts a command without Python of its own: it becomes that command.
_BECOME: Final = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


@dataclass(slots=True)
class Tally:
    """The results of all rounds."""

    as_pid_1: int = 0
    orphans: int = 0
    reaped_s: list[float] = field(default_factory=list)
    zombies: int = 0
    members: int = 0
    statuses: list[int] = field(default_factory=list)
    stopped_s: list[float] = field(default_factory=list)


async def pid1(trial: Trial) -> None:
    """A new server in a new namespace, so often. Raises NotHereError where there can't be one."""
    inside = _in_a_pid_namespace()
    tally = Tally()
    for number in range(trial.count):
        folder = trial.part(str(number)).folder
        async with _serving(inside, folder, *trial.variant.options) as (server, launcher):
            await _round(server, launcher, folder, tally)
    _check(trial, tally)


def _in_a_pid_namespace() -> list[str]:
    """Return the words in front of a command that make it PID 1, as root or with a user namespace."""
    if shutil.which("unshare") is None:
        raise NotHereError("the command unshare (util-linux) is missing")
    refused = ""
    for rights in ([], ["--user", "--map-root-user"]):
        command = ["unshare", *rights, "--pid", "--fork", "--kill-child", "--mount-proc"]
        tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
        if tried.returncode == 0:
            return command
        refused = tried.stderr.strip()
    raise NotHereError(f"this user may not make a pid namespace here: {refused}")


@asynccontextmanager
async def _serving(inside: list[str], folder: Path, *options: str) -> AsyncIterator[tuple[Server, int]]:
    """The puppets' server as PID 1, and the launcher's pid as this process knows it."""
    port = free_port()
    launcher = [sys.executable, "-m", "asgi_ipc.cli", "serve", "tests.apps.puppet:app"]
    listening = ["--port", str(port), "--workers", str(WORKERS), *options]
    env = {"PUPPET_FOLDER": str(folder)}
    async with started("-c", _BECOME, *inside, *launcher, *listening, port=port, env=env) as server:
        await server.started(WORKERS)
        (pid,) = children(server.pid)
        yield server, pid


async def _round(server: Server, launcher: int, folder: Path, tally: Tally) -> None:
    tally.as_pid_1 += name_inside(launcher) == 1
    keeper, victim = sorted(children(launcher), key=name_inside)
    puppets = Puppets(server, folder)
    orphans = await _orphans(puppets, keeper, launcher)
    tally.orphans += len(orphans)
    its_name = name_inside(victim)
    killed_at = time.monotonic()
    # A worker in the same moment: its death must not drown among the orphans'.
    for pid in (*orphans[: ORPHANS // 2], victim, *orphans[ORPHANS // 2 :]):
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not any(map(psutil.pid_exists, orphans)), "they are reaped")
    tally.reaped_s.append(time.monotonic() - killed_at)
    await server.said(rf"Worker \[{its_name}\] died: it was killed by SIGKILL; starting another")
    await server.said("Application startup complete", WORKERS + 1)
    tally.members += len(await puppets.call(name_inside(keeper), "members", WORKERS))
    tally.zombies += sum(not is_running(pid) for pid in children(launcher))
    # It ends although it is the parent of these orphans; the kernel ends them with it.
    await _orphans(puppets, keeper, launcher)
    stopped_at = time.monotonic()
    os.kill(launcher, signal.SIGTERM)
    tally.statuses.append(await server.ended())
    tally.stopped_s.append(time.monotonic() - stopped_at)


async def _orphans(puppets: Puppets, worker: int, launcher: int) -> list[int]:
    """Let a worker leave so many grandchildren; return their pids when the launcher is their parent."""
    before = {*children(launcher)}
    await puppets.call(name_inside(worker), "orphan", ORPHANS)
    orphans = sorted({*children(launcher)} - before)
    assert all(psutil.Process(pid).ppid() == launcher for pid in orphans)
    return orphans


def _check(trial: Trial, tally: Tally) -> None:
    rounds = trial.count
    trial.check("launchers that were PID 1", tally.as_pid_1, tally.as_pid_1 == rounds)
    orphans = rounds * ORPHANS
    trial.check("orphans of theirs, killed in one moment", tally.orphans, tally.orphans == orphans)
    reaped_s = max(tally.reaped_s)
    trial.within("all reaped", reaped_s, REAPED_S)
    trial.none("zombies", tally.zombies)
    members, wanted = tally.members, rounds * WORKERS
    worker = "a worker killed in the same moment is reported and replaced"
    trial.check(worker, f"{members} of {wanted} members", members == wanted)
    status = f"{tally.statuses.count(0)} of {rounds} with 0, the slowest after {as_ms(max(tally.stopped_s))}"
    trial.check(f"SIGTERM, with {ORPHANS} more orphans alive", status, not any(tally.statuses))


PID1: Final = Row(
    name="pid1",
    fault="PID 1",
    how="the launcher in a pid namespace of its own, 20 orphaned grandchildren and a worker killed at once",
    counts="servers",
    full=everywhere(10),
    short=1,
    run=pid1,
)
