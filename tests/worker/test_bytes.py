"""Bytes: paths and arguments that are no UTF-8 work as any other."""

from __future__ import annotations

import json
import os
from pathlib import Path

import httpx
import pytest

from asgi_ipc.testing.child import children
from tests.serving import ROOT, Server, eventually, free_port, started

APP = """
import os
import sys


async def app(scope, receive, send):
    if scope["type"] == "http":
        texts = [__file__, os.environ.get("ODD", ""), *sys.argv]
        found = repr([os.fsencode(each) for each in texts])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": found.encode()})
"""
ODD = b"caf\xe9"
ODD_TEXT = os.fsdecode(ODD)


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    folder = tmp_path / ODD_TEXT
    folder.mkdir()
    (folder / "bytesapp.py").write_text(APP)
    return folder


async def answered(server: Server, count: int = 2) -> str:
    await server.said("Started server process", count)
    return (await server.get("/")).text


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (["asgi_ipc.cli", "serve"], "PYTHONPATH"),
        (["asgi_ipc.cli", "serve"], "the working directory"),
        (["asgi_ipc.cli", "serve"], "--app-dir"),
        (["uvicorn"], "PYTHONPATH"),
    ],
)
async def test_the_apps_folder_may_have_any_name(odd: Path, command: list[str], place: str) -> None:
    port = free_port()
    arguments = ["-m", *command, "bytesapp:app", "--workers", "2", "--port", str(port), "--lifespan", "off"]
    env = {"ODD": ODD_TEXT}
    cwd = ROOT
    match place:
        case "PYTHONPATH":
            env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(odd)])
        case "the working directory":
            cwd = odd
        case _:
            arguments += ["--app-dir", str(odd)]
    async with started(*arguments, port=port, env=env, cwd=cwd) as server:
        answer = await answered(server)
        assert repr(os.fsencode(odd / "bytesapp.py")) in answer
        assert repr(ODD) in answer
        if command == ["uvicorn"]:
            await server.stop()
            return
        # A worker that starts later has it, too.
        await server.restart()
        assert repr(os.fsencode(odd / "bytesapp.py")) in await answered(server)
        assert await server.stop() == 0
        assert server.count("Traceback") == 0


async def test_arguments_and_every_file_of_an_option_may_have_any_name(odd: Path) -> None:
    (odd / "log.json").write_text(json.dumps({"version": 1, "root": {"level": "INFO"}}))
    (odd / "env").write_text("A=b\n")
    path = odd / "sock"
    command = ["-m", "asgi_ipc.cli", "serve", "bytesapp:app", "--workers", "2", "--app-dir", str(odd)]
    command += ["--uds", str(path), "--log-config", str(odd / "log.json"), "--env-file", str(odd / "env")]
    certificates = ROOT / "tests" / "certificates"
    for name in ("cert.pem", "key.pem"):
        (odd / name).write_bytes((certificates / name).read_bytes())
    command += ["--ssl-certfile", str(odd / "cert.pem"), "--ssl-keyfile", str(odd / "key.pem")]
    async with started(*command, "--lifespan", "off", "--", "--name", ODD_TEXT) as server:
        await eventually(path.is_socket, "it is bound")
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(path), verify=False)
        ) as client:
            # It waits in the backlog until a worker is there.
            answer = (await client.get("https://app/")).text
        assert answer.endswith(f"b'--name', {ODD!r}]")
        assert await server.stop() == 0
        assert server.count("Traceback") == 0
    assert not path.exists()


async def test_run_passes_a_scripts_own_arguments_on(odd: Path) -> None:
    port = free_port()
    script = odd / "start.py"
    script.write_text(
        "import asgi_ipc\n"
        "if __name__ == '__main__':\n"
        f"    asgi_ipc.run('bytesapp:app', workers=2, port={port}, lifespan='off')\n"
    )
    async with started(str(script), ODD_TEXT, port=port) as server:
        answer = await answered(server)
        assert answer.endswith(f"{os.fsencode(script)!r}, {ODD!r}]")


async def test_an_app_that_fails_there_says_why(odd: Path) -> None:
    (odd / "broken.py").write_text("raise RuntimeError('broken on purpose')\n")
    command = ["-m", "asgi_ipc.cli", "serve", "broken:app", "--app-dir", str(odd), "--port", "0"]
    async with started(*command) as server:
        assert await server.ended() == 3
        assert server.count("RuntimeError: broken on purpose") == 1
        assert server.count(r"caf\\udce9") >= 1
        assert children(server.pid) == []


@pytest.mark.parametrize("given", [["--host", ODD_TEXT], ["--port", ODD_TEXT], ["--no-such", ODD_TEXT]])
async def test_a_wrong_one_is_refused_as_any_other(given: list[str]) -> None:
    async with started("-m", "asgi_ipc.cli", "serve", "tests.apps.plain:app", *given) as server:
        assert await server.ended() in (1, 2, 3)
        assert server.count("Traceback") == 0, server.text
