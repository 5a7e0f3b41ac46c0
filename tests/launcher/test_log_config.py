"""Logging: nothing that an app or an operator configures silences what this package says of a failure."""

from __future__ import annotations

import json
import logging
import logging.config
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import asgi_ipc
from asgi_ipc.logs import LastingLogger
from tests.serving import eventually, free_port, listens, serving, started

# It fails in a handler, which it tells itself of when it is asked to.
FAILING = """
import logging.config

from asgi_ipc import ipc

{configure}


@ipc.receive("fail")
def fail(data):
    raise RuntimeError("failed on purpose")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        async with ipc.lifespan(app):
            {later}
            await send({{"type": "lifespan.startup.complete"}})
            await receive()
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    await ipc.send(ipc.pid, "fail")
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"ok"}})
"""

HANDLERS: dict[str, Any] = {
    "version": 1,
    "formatters": {"json": {"format": '{{"of": "{name}", "said": "{message}"}}', "style": "{"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "json"}},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "a root handler": HANDLERS | {"root": {"handlers": ["out"], "level": "INFO"}},
    "uvicorn only": HANDLERS | {"loggers": {"uvicorn": {"handlers": ["out"], "level": "INFO"}}},
    "nothing": {"version": 1},
    "something else": HANDLERS | {"loggers": {"other": {"handlers": ["out"]}}},
    "ours": HANDLERS | {"loggers": {"asgi_ipc": {"handlers": ["out"], "level": "INFO"}}},
}
INI = """[loggers]
keys=root
[handlers]
keys=out
[formatters]
keys=json
[logger_root]
level=INFO
handlers=out
[handler_out]
class=StreamHandler
args=()
formatter=json
[formatter_json]
format={"of": "%(name)s", "said": "%(message)s"}
"""


def failing(folder: Path, configure: str = "", later: str = "pass") -> Path:
    (folder / "failing.py").write_text(FAILING.format(configure=configure, later=later))
    return folder


@pytest.mark.parametrize(
    ("name", "place"),
    [
        *((name, "--log-config") for name in CONFIGS),
        *((name, place) for name in ("nothing", "ours") for place in ("at import", "in the lifespan")),
    ],
)
async def test_a_failing_handler_is_told_of_whatever_was_configured(
    tmp_path: Path, name: str, place: str
) -> None:
    config = CONFIGS[name]
    call = f"logging.config.dictConfig({config!r})"
    options = []
    if place == "--log-config":
        (tmp_path / "log.json").write_text(json.dumps(config))
        options = ["--log-config", str(tmp_path / "log.json")]
    configure = call if place == "at import" else ""
    later = call if place == "in the lifespan" else "pass"
    folder = failing(tmp_path, configure, later)
    async with serving("failing:app", "--app-dir", str(folder), *options, workers=1) as server:
        await eventually(lambda: listens(server.port), "it is bound")
        assert (await server.get("/")).text == "ok"
        await server.said("RuntimeError: failed on purpose")
        if name == "ours" or (name, place) == ("a root handler", "--log-config"):
            assert server.count(r'^\{"of": "asgi_ipc", "said": ".*fail') == 1, server.text


@pytest.mark.parametrize("form", ["json", "yaml", "ini", "dict"])
async def test_every_line_of_the_launcher_has_the_configured_format(tmp_path: Path, form: str) -> None:
    config = CONFIGS["a root handler"]
    file = tmp_path / f"log.{form}"
    # JSON is YAML.
    file.write_text(INI if form == "ini" else json.dumps(config))
    port = free_port()
    if form == "dict":
        options = f"app_dir={str(failing(tmp_path))!r}, port={port}, log_config={config!r}"
        command = ["-c", f"import asgi_ipc; asgi_ipc.run('failing:app', {options})"]
    else:
        command = ["-m", "asgi_ipc.cli", "serve", "failing:app", "--app-dir", str(failing(tmp_path))]
        command += ["--port", str(port), "--log-config", str(file)]
    async with started(*command, port=port) as server:
        await server.said("Application startup complete")
        # The second one finds the port taken, before it has started anything.
        async with started(*command, port=port) as second:
            assert await second.ended() == 3
        assert len(second.lines) == 1
    for line in [*server.lines, *second.lines]:
        assert re.match(r'\{"of": "(uvicorn.error|asyncio)", "said": "', line), server.text
    assert "can't listen on" in second.text
    assert "Uvicorn running on" in server.lines[0]
    assert server.count("Stopping parent process") == 1


@pytest.mark.parametrize("name", ["uvicorn only", "a root handler"])
async def test_why_an_app_cannot_start_is_told_under_any_configuration(tmp_path: Path, name: str) -> None:
    (tmp_path / "log.json").write_text(json.dumps(CONFIGS[name]))
    (tmp_path / "broken.py").write_text("raise RuntimeError('broken on purpose')")
    options = ["--app-dir", str(tmp_path), "--log-config", str(tmp_path / "log.json")]
    async with serving("broken:app", *options) as server:
        assert await server.ended() == 3
        assert server.count("RuntimeError: broken on purpose") == 1


@pytest.fixture
def configured() -> Iterator[logging.Logger]:
    logger = logging.getLogger("asgi_ipc.test")
    yield logger
    logging.getLogger().setLevel(logging.WARNING)
    for each in (logging.getLogger("asgi_ipc"), logging.getLogger("uvicorn.error")):
        each.disabled = False


def test_a_logger_that_was_switched_off_says_the_next_thing_all_the_same(
    configured: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    lasting = LastingLogger("asgi_ipc.test")
    configured.disabled = True
    lasting.warning("seen %s", 1, extra={"kept": 2})
    (record,) = caplog.records
    assert (record.getMessage(), record.name, record.__dict__["kept"]) == ("seen 1", "asgi_ipc.test", 2)
    assert Path(record.pathname) == Path(__file__)
    configured.setLevel(logging.ERROR)
    lasting.warning("not seen")
    assert len(caplog.records) == 1


def test_the_lines_of_the_package_itself_are_all_of_that_kind() -> None:
    package = Path(asgi_ipc.__file__).parent
    found = [file for file in package.rglob("*.py") if "logging.getLogger(" in file.read_text()]
    assert [file.name for file in found] == ["logs.py"]
