"""Entry: where `run` may be called, beside `uvicorn.run` where that says what is right, and its options."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import uvicorn

from asgi_ipc import entry
from asgi_ipc.fleet.settings import OPTIONS
from asgi_ipc.launcher import clustering
from tests.serving import free_port, started

APP = """
import os
import sys

import {server}


async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": __name__.encode()}})

"""
RUN = "{server}.run('{app}', workers=2, port=int(os.environ['PORT']), lifespan='off')\n"


@pytest.mark.parametrize("app", ["itself:app", "__main__:app"])
@pytest.mark.parametrize(
    ("server", "how"),
    [("asgi_ipc", "by its path"), ("asgi_ipc", "as a module"), ("uvicorn", "by its path")],
)
async def test_a_script_serves_its_own_app(tmp_path: Path, server: str, app: str, how: str) -> None:
    run = RUN.format(server=server, app=app)
    (tmp_path / "itself.py").write_text(
        APP.format(server=server) + f"if __name__ == '__main__':\n    {run}    print('returned')\n"
    )
    port = free_port()
    command = [str(tmp_path / "itself.py")] if how == "by its path" else ["-m", "itself"]
    async with started(*command, port=port, env={"PORT": str(port)}, cwd=tmp_path) as running:
        await running.said("Started server process", 2)
        # uvicorn's workers have it under multiprocessing's name then.
        assert (await running.get("/")).text in ("itself", "__mp_main__")
        await running.stop()
        assert running.count("Traceback") == 0
        assert running.lines[-1] == "returned"


async def test_without_a_guard_there_is_one_error_that_names_it_and_the_module(tmp_path: Path) -> None:
    script = tmp_path / "itself.py"
    script.write_text(APP.format(server="asgi_ipc") + RUN.format(server="asgi_ipc", app="itself:app"))
    async with started(str(script), env={"PORT": str(free_port())}) as server:
        assert await server.ended() == 3
        assert server.count("Traceback") == 1
        (line,) = server.found("LauncherError: ")
        assert "by the module 'itself' in a worker, which imports it" in line
        assert "if __name__ == '__main__':" in line
        # No worker has bound anything.
        assert server.count("Uvicorn running on") == 1


async def test_the_module_that_a_worker_imports_may_be_another_one_than_the_apps(tmp_path: Path) -> None:
    (tmp_path / "itself.py").write_text("import other\n" + APP.format(server="asgi_ipc"))
    (tmp_path / "other.py").write_text("import asgi_ipc\nasgi_ipc.run('itself:app', port=0)\n")
    command = ["-m", "asgi_ipc.cli", "serve", "itself:app", "--port", "0", "--app-dir", str(tmp_path)]
    async with started(*command) as server:
        assert await server.ended() == 3
        assert server.count("by the module 'other' in a worker, .*__main__") == 1
        assert server.count("Uvicorn running on") == 1
        assert server.count("Traceback") == 1


@pytest.mark.parametrize(
    "call",
    ["asgi_ipc.run('tests.apps.plain:app', port=0)", "cli.main(['serve', 'tests.apps.plain:app'])"],
)
async def test_inside_a_running_loop_there_is_one_error_before_anything_is_bound(
    tmp_path: Path, call: str
) -> None:
    script = tmp_path / "inside.py"
    script.write_text(
        "import asyncio\nimport asgi_ipc\nfrom asgi_ipc import cli\n"
        f"async def main():\n    {call}\nasyncio.run(main())\n"
    )
    async with started(str(script)) as server:
        assert await server.ended() == 1
        assert server.count("Traceback") <= 1
        (line,) = server.found("Error: asgi_ipc.run")
        assert "__main__" in line
        assert server.count("Uvicorn running on") == 0


async def test_a_child_of_multiprocessings_that_imports_the_script_does_not_serve(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing\n"
        "import asgi_ipc\n"
        "if __name__ == '__main__':\n"
        "    child = multiprocessing.get_context('spawn').Process(target=print)\n"
        "    child.start()\n"
        "    child.join()\n"
        "    raise SystemExit(child.exitcode)\n"
        "asgi_ipc.run('tests.apps.plain:app', workers=2, port=0)\n"
    )
    async with started(str(script)) as server:
        assert await server.ended() == 1
        assert server.count("Uvicorn running on") == 0
        assert server.count("Traceback") == 1
        assert server.count("by the module '__mp_main__' in a child process, .*__main__") == 1, server.text


async def test_a_program_in_no_file_has_no_app_that_a_worker_could_import() -> None:
    async with started("-c", "import asgi_ipc; asgi_ipc.run('__main__:app', port=0)") as server:
        assert await server.ended() == 1
        assert server.count("LauncherError: no worker can import '__main__:app'") == 1


def test_the_typed_options_are_ours_and_those_of_uvicorn_that_can_be_handed_over() -> None:
    typed = frozenset(entry.Options.__annotations__)
    uvicorns = frozenset(inspect.signature(uvicorn.Config).parameters)
    # The first two are arguments of their own; no worker can be given a function.
    uvicorns -= {"app", "workers", "callback_notify", "ssl_context_factory"}
    ours = OPTIONS | clustering.OPTIONS
    assert typed >= ours | uvicorns | {"app_dir"}
    # Not in the oldest uvicorn that is supported.
    assert typed - ours - uvicorns <= {"app_dir", "http2"}
