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
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from asgi_ipc.testing.child import children, is_running
from tests.faults.trial import NotHereError, Trial, as_ms, everywhere, row
from tests.processes import name_inside
from tests.puppets import Puppets
from tests.serving import STARTED, Server, eventually, free_port, started

WORKERS: Final = 2
ORPHANS: Final = 20

# The promise: "0 zombies after 2 s".
REAPED_S: Final = 2.0

# Python starts a command without Python of its own: it becomes that command.
_BECOME: Final = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one server."""

    is_pid_1: bool
    orphans: int
    reaped_s: float
    zombies: int
    members: int
    status: int
    stopped_s: float


@row(
    fault="PID 1",
    how="the launcher in a pid namespace of its own, 20 orphaned grandchildren and a worker killed at once",
    counts="servers",
    full=everywhere(10),
    short=1,
)
async def pid1(trial: Trial) -> None:
    """A new server in a new namespace, so often. Raises NotHereError where there can't be one."""
    inside = _in_a_pid_namespace()
    rounds = []
    for one in trial.rounds():
        async with _serving(inside, one.folder, *trial.variant.options) as (server, launcher):
            rounds.append(await _round(server, launcher, one.folder))
    trial.equal("launchers that were PID 1", sum(each.is_pid_1 for each in rounds), trial.count)
    orphans = sum(each.orphans for each in rounds)
    trial.equal("orphans of theirs, killed in one moment", orphans, trial.count * ORPHANS)
    trial.within("all reaped", max(each.reaped_s for each in rounds), REAPED_S)
    trial.none("zombies", sum(each.zombies for each in rounds))
    members, wanted = sum(each.members for each in rounds), trial.count * WORKERS
    worker = "a worker killed in the same moment is reported and replaced"
    trial.check(worker, f"{members} of {wanted} members", members == wanted)
    clean = sum(not each.status for each in rounds)
    slowest = as_ms(max(each.stopped_s for each in rounds))
    text = f"{clean} of {trial.count} with 0, the slowest after {slowest}"
    trial.check(f"SIGTERM, with {ORPHANS} more orphans alive", text, clean == trial.count)


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


async def _round(server: Server, launcher: int, folder: Path) -> Round:
    is_pid_1 = name_inside(launcher) == 1
    keeper, victim = sorted(children(launcher), key=name_inside)
    puppets = Puppets(server, folder)
    orphans = await _orphans(puppets, keeper, launcher)
    its_name = name_inside(victim)
    killed_at = time.monotonic()
    # A worker in the same moment: its death must not drown among the orphans'.
    for pid in (*orphans[: ORPHANS // 2], victim, *orphans[ORPHANS // 2 :]):
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not any(map(psutil.pid_exists, orphans)), "they are reaped")
    reaped_s = time.monotonic() - killed_at
    await server.said(rf"Worker \[{its_name}\] died: it was killed by SIGKILL; starting another")
    await server.said(STARTED, WORKERS + 1)
    members = len(await puppets.call(name_inside(keeper), "members", WORKERS))
    zombies = sum(not is_running(pid) for pid in children(launcher))
    # It ends although it is the parent of these orphans; the kernel ends them with it.
    await _orphans(puppets, keeper, launcher)
    stopped_at = time.monotonic()
    os.kill(launcher, signal.SIGTERM)
    status = await server.ended()
    stopped_s = time.monotonic() - stopped_at
    return Round(is_pid_1, len(orphans), reaped_s, zombies, members, status, stopped_s)


async def _orphans(puppets: Puppets, worker: int, launcher: int) -> list[int]:
    """Let a worker leave so many grandchildren; return their pids when the launcher is their parent."""
    before = {*children(launcher)}
    await puppets.call(name_inside(worker), "orphan", ORPHANS)
    orphans = sorted({*children(launcher)} - before)
    assert all(psutil.Process(pid).ppid() == launcher for pid in orphans)
    return orphans
