"""Arguments: what a worker finds in `sys.argv`, beside uvicorn's workers."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path

import click
import pytest

from asgi_ipc.cli import main
from tests.serving import SERVE, UVICORN, free_port, serving, started

ARGS = """
import argparse
import os
import sys

import {server}

parser = argparse.ArgumentParser()
parser.add_argument("--env", required=True)
parser.add_argument("rest", nargs="*")
options = parser.parse_args()
sys.stdout.write(f"in {{__name__}} {{options.env}} {{sys.argv}}\\n")


async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    answer = repr([options.env, options.rest, sys.argv])
    await send({{"type": "http.response.body", "body": answer.encode()}})


if __name__ == "__main__":
    {server}.run("args:app", workers=2, port=int(os.environ["PORT"]), lifespan="off")
"""


@pytest.mark.parametrize("server", ["asgi_ipc", "uvicorn"])
async def test_a_script_that_parses_its_arguments_finds_them_in_its_workers(
    tmp_path: Path, server: str
) -> None:
    script = tmp_path / "args.py"
    script.write_text(ARGS.format(server=server))
    port = free_port()
    given = ["--env", "prod", "a b", "--", "-c"]
    async with started(str(script), *given, port=port, env={"PORT": str(port)}) as running:
        # The line of the script itself, and those of its workers.
        await running.said("in args prod ", 2)
        await running.said("Started server process", 2)
        answer = (await running.get("/")).text
        assert answer == repr(["prod", ["a b", "-c"], [str(script), *given]])
        await running.stop()
        assert "Traceback" not in running.text


async def test_behind_two_dashes_stand_the_apps_own_arguments(tmp_path: Path) -> None:
    (tmp_path / "args.py").write_text(ARGS.format(server="asgi_ipc"))
    own = ["--env", "prod", "--", "--workers", "-h"]
    options = ["--app-dir", str(tmp_path), "--lifespan", "off", "--", *own]
    async with serving("args:app", *options) as server:
        await server.said("in args prod ", 2)
        program, *rest = ast.literal_eval((await server.get("/")).text)[2]
        assert rest == own
        assert program.endswith("cli.py")


@pytest.mark.parametrize(
    ("given", "env", "found"),
    [
        (["--", "a:b"], "", ("a:b", [])),
        (["--", "-h"], "", ("-h", [])),
        (["--port", "1", "--", "a:b", "--", "--env", "x"], "", ("a:b", ["--env", "x"])),
        (["a:b", "--", "c:d", "--", "e"], "", ("a:b", ["c:d", "--", "e"])),
        (["--", "c:d"], "a:b", ("a:b", ["c:d"])),
    ],
)
def test_the_app_itself_may_stand_behind_two_dashes_as_under_uvicorn(
    given: list[str], env: str, found: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UVICORN_APP", env)
    context = main.commands["serve"].make_context("serve", given, auto_envvar_prefix="UVICORN")
    assert (context.params["app"], context.obj) == found


@pytest.mark.parametrize(
    ("given", "error"), [(["--", "a:b", "x"], r"unexpected extra argument \(x\)"), (["--"], "Missing")]
)
def test_behind_two_dashes_that_begin_with_the_app_stands_nothing_else(given: list[str], error: str) -> None:
    with pytest.raises(click.UsageError, match=error):
        main.commands["serve"].make_context("serve", given)


PLAIN = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
"""


@pytest.mark.parametrize("own", [[], ["--env", "prod"]])
async def test_a_worker_that_is_started_later_has_the_same_arguments(own: list[str], tmp_path: Path) -> None:
    (tmp_path / "bare.py").write_text("import sys\nsys.stdout.write(f'argv {sys.argv[1:]}\\n')\n" + PLAIN)
    async with serving("bare:app", "--app-dir", str(tmp_path), *(["--", *own] if own else [])) as server:
        await server.said(re.escape(f"argv {own}"), 2)
        await server.restart()
        assert server.count(re.escape(f"argv {own}")) == server.count("^argv") == 4


@pytest.mark.parametrize("by", [SERVE, UVICORN])
async def test_a_stray_argument_stays_an_error(by: Sequence[str]) -> None:
    async with serving("tests.apps.plain:app", "stray", by=by) as server:
        assert await server.ended() == 2
        assert server.count(r"Got unexpected extra argument \(stray\)") == 1
