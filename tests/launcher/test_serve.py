"""`asgi-ipc serve`: options, failures, and what it says, as its user meets them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
import uvicorn
from click.testing import CliRunner

import asgi_ipc
from asgi_ipc.cli import main
from asgi_ipc.testing.child import is_running
from tests.processes import links, named
from tests.puppets import puppets
from tests.serving import eventually, free_port, serving, started


async def test_four_workers_serve_and_stop_with_status_0(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=4) as (strings, pids):
        answer = (await strings.server.get("/")).json()
        assert sorted(answer["workers"]) == sorted(pids)
        assert await strings.server.stop() == 0
        assert "Traceback" not in strings.server.text
        assert strings.server.count("Uvicorn running on http://127.0.0.1") == 1
        assert not any(is_running(pid) for pid in pids)


@pytest.mark.parametrize(
    ("app", "reason", "tracebacks"),
    [
        ("tests.apps.broken_import:app", "broken on purpose while importing", 1),
        ("tests.apps.broken_start:app", "broken on purpose while starting", 1),
        ("tests.apps.missing:app", 'Could not import module "tests.apps.missing"', 0),
        ("tests.apps.plain:nothing", 'Attribute "nothing" not found', 0),
        ("tests.apps.finalizing:app", 'Attribute "app" not found', 0),
        ("no_colon", "must be in format", 0),
    ],
)
async def test_an_app_that_cannot_start_is_told_once_and_ends_the_server(
    app: str, reason: str, tracebacks: int
) -> None:
    async with serving(app, workers=4, env={"PUPPET_FOLDER": "/"}) as server:
        assert await server.ended() == 3
        assert server.count(r"^(ERROR: +)?Traceback") == tracebacks, server.text
        assert server.count(reason) >= 1
        assert server.count(r"ERROR:\s+.*stopping the server") == 1
        assert server.workers() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "demo:app", "--no-such-option"], "No such option"),
        (
            ["serve", "demo:app", "--max-packet-bytes", "5000"],
            "is a number from 128 to 4096",
        ),
        (["serve", "demo:app", "--max-message-bytes", "99999999"], "from 1024 to 33554432"),
        (["serve"], "Missing argument 'APP'"),
        (["unknown"], "No such command"),
        (
            ["a.b:app", "--workers", "4"],
            "No such command 'a.b:app'. Did you mean 'main serve a.b:app --workers 4'?",
        ),
    ],
)
def test_a_wrong_option_is_one_message_and_a_status(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert "Traceback" not in result.output


def test_serve_takes_every_option_of_the_installed_uvicorn() -> None:
    ours = {name for parameter in main.commands["serve"].params for name in parameter.opts}
    theirs = {name for parameter in uvicorn.main.params for name in parameter.opts}
    assert theirs <= ours
    assert {"--drain-timeout", "--worker-hang-timeout", "--max-message-bytes"} <= ours
    shown = CliRunner().invoke(main, ["serve", "--help"]).output
    assert all(name in shown for name in ("--ssl-keyfile", "--drain-timeout", "--limit-max-requests"))
    assert f"asgi-ipc {asgi_ipc.__version__}" in CliRunner().invoke(main, ["--version"]).output


async def test_the_environment_counts_under_uvicorns_names(tmp_path: Path) -> None:
    port = free_port()
    env = {"WEB_CONCURRENCY": "3", "UVICORN_PORT": str(port), "UVICORN_ACCESS_LOG": "false"}
    env["PUPPET_FOLDER"] = str(tmp_path)
    async with started("-m", "asgi_ipc.cli", "serve", "tests.apps.puppet:app", port=port, env=env) as server:
        assert len(await server.started(3)) == 3
        assert len((await server.get("/")).json()["workers"]) == 3
        assert await server.stop() == 0
        assert server.count("GET /") == 0


async def test_an_app_that_forgot_the_lifespan_is_told_the_line_to_add() -> None:
    async with serving("tests.apps.plain:app", workers=1) as server:
        (line,) = await server.said("has not entered ipc.lifespan")
        assert "Starlette(lifespan=ipc.lifespan)" in line
        assert (await server.get("/")).status_code == 200


async def test_colours_are_uvicorns() -> None:
    async with serving("tests.apps.broken_import:app", "--use-colors", workers=1) as server:
        await server.ended()
        assert server.count("\x1b\\[31mERROR\x1b\\[0m") >= 1
        assert server.count("\x1b\\[32mINFO\x1b\\[0m") >= 1


async def test_the_interpreters_flags_reach_the_workers(tmp_path: Path) -> None:
    (tmp_path / "flags.py").write_text(
        "import sys\n"
        "from starlette.applications import Starlette\n"
        "from asgi_ipc import ipc\n"
        "print('optimize', sys.flags.optimize, 'dev', sys.flags.dev_mode, 'cwd first', sys.path[0])\n"
        "app = Starlette(lifespan=ipc.lifespan)\n"
    )
    port = free_port()
    command = ["-O", "-X", "dev", "-m", "asgi_ipc.cli", "serve", "flags:app", "--port", str(port)]
    async with started(*command, "--app-dir", str(tmp_path), port=port) as server:
        await server.said(f"optimize 1 dev True cwd first {tmp_path}")


async def test_a_forked_child_of_the_app_holds_no_port_and_no_pipe_of_ours(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=2) as (strings, (a, b)):
        child = await strings.call(a, "fork_and_hold", 20)
        shared = {links(b)[fd] for fd in (0, 1, 2)}
        # Children of workers have the same resource tracker.
        shared.add(await strings.call(b, "tracker_pipe"))
        assert await strings.call(b, "start_method") == multiprocessing.get_context().get_start_method()
        # A pipe that both hold is a message pipe: a's own, or b's.
        assert (_pipes(a) & _pipes(b)) - shared
        await eventually(lambda: not (_pipes(child) & _pipes(b)) - shared, "the child has closed our pipes")
        await eventually(lambda: not _sockets(child) & _sockets(b), "the child holds no listening socket")
        assert is_running(child)
        os.kill(a, signal.SIGKILL)
        assert len(await strings.call(b, "members", 2)) == 2
        await strings.server.said(f"Worker \\[{a}\\] died")
        os.kill(child, signal.SIGTERM)
        await eventually(lambda: not is_running(child), "the forked child answers SIGTERM itself")


def _pipes(pid: int) -> set[str]:
    return named(links(pid).values(), "pipe")


def _sockets(pid: int) -> set[str]:
    return named(links(pid).values(), "socket")


def test_windows_is_told_that_it_is_a_fleet_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(asgi_ipc.LauncherError, match="Unix pipes"):
        asgi_ipc.run("demo:app")
