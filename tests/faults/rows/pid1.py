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
from pathlib import Path
from typing import Final

import psutil

from asgi_ipc.testing.child import children, is_running
from tests.faults.trial import NotHereError, Trial, everywhere, row
from tests.processes import name_inside
from tests.puppets import Puppets
from tests.serving import STARTED, Server, eventually, free_port, started

WORKERS: Final = 2
ORPHANS: Final = 20

# The promise: "0 zombies after 2 s".
REAPED_S: Final = 2.0

# Python starts a command without Python of its own: it becomes that command.
_BECOME: Final = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


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
    for one in trial.rounds():
        async with _serving(inside, one.folder, *trial.variant.options) as (server, launcher):
            await _round(one, server, launcher)


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


async def _round(trial: Trial, server: Server, launcher: int) -> None:
    trial.equal("launchers that were PID 1", name_inside(launcher) == 1)
    keeper, victim = sorted(children(launcher), key=name_inside)
    puppets = Puppets(server, trial.folder)
    orphans = await _orphans(puppets, keeper, launcher)
    trial.equal("orphans of theirs, killed in one moment", len(orphans), ORPHANS)
    its_name = name_inside(victim)
    killed_at = time.monotonic()
    # A worker in the same moment: its death must not drown among the orphans'.
    for pid in (*orphans[: ORPHANS // 2], victim, *orphans[ORPHANS // 2 :]):
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not any(map(psutil.pid_exists, orphans)), "they are reaped")
    trial.within("all reaped", time.monotonic() - killed_at, REAPED_S)
    await server.said(rf"Worker \[{its_name}\] died: it was killed by SIGKILL; starting another")
    await server.said(STARTED, WORKERS + 1)
    members = await puppets.call(name_inside(keeper), "members", WORKERS)
    trial.equal("members, when a worker killed in the same moment is replaced", len(members), WORKERS)
    trial.none("zombies", [pid for pid in children(launcher) if not is_running(pid)])
    # It ends although it is the parent of these orphans; the kernel ends them with it.
    await _orphans(puppets, keeper, launcher)
    stopped_at = time.monotonic()
    os.kill(launcher, signal.SIGTERM)
    trial.ended(await server.ended(), f"exit status of a SIGTERM with {ORPHANS} more orphans alive")
    trial.at_most("the slowest such stop took", time.monotonic() - stopped_at)


async def _orphans(puppets: Puppets, worker: int, launcher: int) -> list[int]:
    """Let a worker leave so many grandchildren; return their pids when the launcher is their parent."""
    before = {*children(launcher)}
    await puppets.call(name_inside(worker), "orphan", ORPHANS)
    orphans = sorted({*children(launcher)} - before)
    assert all(psutil.Process(pid).ppid() == launcher for pid in orphans)
    return orphans
