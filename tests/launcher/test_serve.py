"""`asgi-ipc serve`: options, failures, and what it says, as its user meets them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
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
from tests.serving import ROOT, eventually, free_port, serving, started


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


async def test_a_port_in_use_is_one_message_without_a_traceback() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = ["-m", "asgi_ipc.cli", "serve", "tests.apps.plain:app", "--workers", "4", "--port", port]
        async with started(*command) as server:
            assert await server.ended() != 0
            (line,) = [line for line in server.lines if "ERROR" in line]
            assert f"can't listen on 127.0.0.1:{port}: " in line
            assert "ddress already in use" in line
            assert "; --port chooses another one" in line
            assert server.count("Traceback") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "demo:app", "--no-such-option"], "No such option"),
        (["serve", "demo:app", "--workers", "0"], "--workers is a number from 1 to 512"),
        (["serve", "demo:app", "--workers", "many"], "Invalid value for '--workers'"),
        (["serve", "demo:app", "--drain-timeout", "-1"], "--drain-timeout is a number from 0"),
        (
            ["serve", "demo:app", "--max-packet-bytes", "5000"],
            "--max-packet-bytes is a number from 128 to 4096",
        ),
        (
            ["serve", "demo:app", "--max-message-bytes", "99999999"],
            "from 1024 to 33554432",
        ),
        (["serve", "demo:app", "--worker-hang-timeout", "1"], "--worker-hang-timeout is a number from 2"),
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


async def test_the_package_runs_as_a_module_and_a_descriptor_that_is_not_open_is_refused() -> None:
    async with started("-m", "asgi_ipc", "serve", "tests.apps.plain:app", "--fd", "99") as server:
        assert await server.ended() == 2
        assert server.count("Error: --fd is an open descriptor, not 99: ") == 1
        assert server.count("Traceback") == 0


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


async def test_run_serves_an_app_beside_the_calling_script(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(
        "from starlette.applications import Starlette\n"
        "from starlette.responses import JSONResponse\n"
        "from starlette.routing import Route\n"
        "from asgi_ipc import ipc\n"
        "async def pids(request):\n"
        "    return JSONResponse([worker.pid for worker in ipc.workers])\n"
        "app = Starlette(routes=[Route('/', pids)], lifespan=ipc.lifespan)\n"
    )
    port = free_port()
    script = tmp_path / "start.py"
    script.write_text(
        "import asgi_ipc\n"
        "if __name__ == '__main__':\n"
        f"    asgi_ipc.run('beside:app', workers=2, port={port}, log_level='info', drain_timeout=5)\n"
        "    print('returned')\n"
    )
    async with started(str(script), port=port, cwd=ROOT) as server:
        pids = await server.started(2)
        assert sorted((await server.get("/")).json()) == sorted(pids)
        assert await server.stop() == 0
        assert server.lines[-1] == "returned"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("asgi_ipc.run(object())", "import string"),
        ("asgi_ipc.run('a:b', no_such_option=1)", "there is no option 'no_such_option'$"),
        (
            "asgi_ipc.run('a:b', drain_timout=1)",
            "there is no option 'drain_timout'; did you mean 'drain_timeout'",
        ),
        ("asgi_ipc.run('a:b', log_levels='info')", "did you mean 'log_level'"),
        ("asgi_ipc.run('a:b', workers=0)", "workers is a number from 1"),
        ("asgi_ipc.run('a:b', port=0, ssl_context_factory=print)", "can't be handed to a worker process"),
        (
            "import threading; t = threading.Thread(target=lambda: asgi_ipc.run('a:b')); t.start(); t.join()",
            "main thread",
        ),
    ],
)
async def test_run_refuses_what_it_cannot_do_with_a_launcher_error(call: str, message: str) -> None:
    async with started("-c", f"import asgi_ipc; {call}") as server:
        await server.ended()
        assert server.count(f"LauncherError: .*{message}") == 1


async def test_run_ends_with_a_status_when_the_app_cannot_start() -> None:
    port = free_port()
    call = f"import asgi_ipc; asgi_ipc.run('tests.apps.missing:app', workers=2, port={port})"
    async with started("-c", call) as server:
        assert await server.ended() == 3
        assert server.count('Could not import module "tests.apps.missing"') == 1


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


async def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    async with serving("tests.apps.plain:app", "--uds", str(path), workers=2) as server:
        await server.started(2)
        import httpx

        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
            assert (await client.get("http://app/")).status_code == 200
    assert not path.exists()


async def test_a_pool_of_the_apps_keeps_no_port_busy_and_ends_with_its_worker(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=2) as (strings, (a, b)):
        child = await strings.call(a, "fork_and_hold", 20)
        await eventually(lambda: not _sockets(child) & _sockets(b), "the child holds no listening socket")
        assert is_running(child)
        assert await strings.call(b, "start_method") == multiprocessing.get_context().get_start_method()
        os.kill(child, signal.SIGTERM)
        await eventually(lambda: not is_running(child), "the forked child answers SIGTERM itself")


async def test_workers_hold_no_descriptor_of_ours_that_a_child_of_theirs_inherits(tmp_path: Path) -> None:
    async with puppets(tmp_path, workers=2) as (strings, (a, b)):
        child = await strings.call(a, "fork_and_hold", 20)
        shared = {links(b)[fd] for fd in (0, 1, 2)}
        # Children of workers have the same resource tracker.
        shared.add(await strings.call(b, "tracker_pipe"))
        # A pipe that both hold is a message pipe: a's own, or b's.
        assert (_pipes(a) & _pipes(b)) - shared
        await eventually(lambda: not (_pipes(child) & _pipes(b)) - shared, "the child has closed ours")
        assert is_running(child)
        os.kill(a, signal.SIGKILL)
        assert len(await strings.call(b, "members", 2)) == 2
        await strings.server.said(f"Worker \\[{a}\\] died")
        os.kill(child, signal.SIGKILL)
        await eventually(lambda: not is_running(child), "the forked child has gone")


def _pipes(pid: int) -> set[str]:
    return named(links(pid).values(), "pipe")


def _sockets(pid: int) -> set[str]:
    return named(links(pid).values(), "socket")


def test_windows_is_told_that_it_is_a_fleet_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(asgi_ipc.LauncherError, match="Unix pipes"):
        asgi_ipc.run("demo:app")
