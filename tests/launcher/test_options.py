"""Options: what can't be meant is one line that names the option, and nothing has been started."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import ssl
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
import uvicorn
from click.core import ParameterSource

import asgi_ipc
from tests.launcher.refusals import APP, check_line, forked, run_command
from tests.serving import ROOT, SERVE, UVICORN, free_port, serving, started

# A certificate for localhost and its key, the key once more encrypted ("secret"), and somebody else's key.
CERTIFICATES = ROOT / "tests" / "certificates"
CERTIFICATE, KEY = str(CERTIFICATES / "cert.pem"), str(CERTIFICATES / "key.pem")
OTHER_KEY, ENCRYPTED_KEY = str(CERTIFICATES / "other_key.pem"), str(CERTIFICATES / "encrypted_key.pem")
NO_PEM = str(Path(__file__))
TLS = ["--ssl-certfile", CERTIFICATE, "--ssl-keyfile", KEY]
# Without a certificate uvicorn serves plain HTTP, whatever these are.
NEEDS_TLS = (
    ("--ssl-version", "99"),
    ("--ssl-cert-reqs", "9"),
    ("--ssl-ca-certs", "/no/such/file", NO_PEM),
    ("--ssl-ciphers", "nonsense"),
)

# The option that is named, all that is given, and where uvicorn refuses it, too.
Case = tuple[str, list[str]]


def _each(option: str, *values: str) -> list[Case]:
    return [(option, [option, value]) for value in values]


def _missing(module: str) -> list[str]:
    """What can't be meant only where that is not installed."""
    return [] if importlib.util.find_spec(module) else [module]


CASES: list[Case] = [
    *_each("--port", "-1", "65536", "99999", "1.5", "many"),
    *_each("--host", "256.1.1.1", "a" * 64 + ".example", "no host", "no-such-host.invalid"),
    *_each("--fd", "-1", "99", "3"),
    *_each("--uds", "", "/no/such/folder/sock", "/tmp/" + "x" * 200, NO_PEM, "/tmp"),
    *[("--uds-mode", ["--uds", "never", "--uds-mode", mode]) for mode in ("888", "1777", "rw", "")],
    ("--uds-mode", ["--uds-mode", "660"]),
    *[("--uds-owner", ["--uds", "never", "--uds-owner", owner]) for owner in ("nobody-such", ":", "0:9x")],
    ("--uds-owner", ["--uds", "never", "--uds-owner", "4294967295"]),
    ("--uds-owner", ["--uds-owner", "root"]),
    *_each("--workers", "0", "-1", "513", "many"),
    *_each("--loop", "nonsense", *_missing("zuvloop")),
    *_each("--http", "nonsense"),
    *_each("--ws", "nonsense", *_missing("wsproto")),
    ("--http2", ["--http2"]),
    *_each("--ws-max-size", "0", "-1"),
    *_each("--ws-max-queue", "-1", "many"),
    *_each("--ws-ping-interval", "-1", "nan", "inf"),
    *_each("--ws-ping-timeout", "-1", "nan", "inf"),
    *_each("--ws-per-message-deflate", "maybe"),
    *_each("--lifespan", "nonsense"),
    *_each("--interface", "nonsense"),
    *_each("--log-level", "nonsense"),
    *_each("--env-file", "/no/such/file", "BINARY"),
    *_each(
        "--log-config", "/no/such/file", "BAD.json", "LIST.json", "CLASS.json", "VERSION.yaml", "BAD.yaml"
    ),
    *_each("--log-config", "BAD.ini", "BINARY"),
    *_each("--root-path", "/caf\u00e9", "/a\nb"),
    *_each("--limit-concurrency", "0", "-1"),
    *_each("--limit-max-requests", "0", "-1"),
    *_each("--limit-max-requests-jitter", "-1"),
    *_each("--backlog", "-1", "2147483648"),
    *_each("--timeout-keep-alive", "-1", "9999999999"),
    *_each("--timeout-graceful-shutdown", "-1"),
    *_each("--timeout-worker-healthcheck", "1", "0", "-1", "99999"),
    *_each("--header", "no-colon", "a b:c", ":x", "X:\u20ac", "X:a\r\nb"),
    *_each("--app-dir", "/no/such/folder", NO_PEM),
    *_each("--h11-max-incomplete-event-size", "0", "-1"),
    *[("--reload-dir", ["--reload", "--reload-dir", "/no/such/folder"])],
    *[("--reload-include", ["--reload", "--reload-include", pattern]) for pattern in ("/absolute/*",)],
    *_each("--reload-delay", "-1", "nan"),
    *_each("--ssl-certfile", "/no/such/file", NO_PEM, "/tmp"),
    *_each("--ssl-keyfile", KEY),
    *[("--ssl-keyfile", ["--ssl-certfile", CERTIFICATE, "--ssl-keyfile", key]) for key in ("/no", OTHER_KEY)],
    ("--ssl-keyfile-password", ["--ssl-certfile", CERTIFICATE, "--ssl-keyfile", ENCRYPTED_KEY]),
    (
        "--ssl-keyfile-password",
        ["--ssl-certfile", CERTIFICATE, "--ssl-keyfile", ENCRYPTED_KEY, "--ssl-keyfile-password", "wrong"],
    ),
    *((option, [option, value, *TLS]) for option, *values in NEEDS_TLS for value in values),
    *_each("--drain-timeout", "-1", "nan"),
    *_each("--worker-hang-timeout", "1.9", "nan"),
    *_each("--max-message-bytes", "0"),
    *_each("--max-packet-bytes", "1"),
    *_each("--pipe-bytes", "1"),
    *_each("--stop-at-eof", "-1", "99", "3"),
]

ENVIRONMENTS: list[tuple[str, dict[str, str]]] = [
    ("--port", {"UVICORN_PORT": "nonsense"}),
    ("--port", {"UVICORN_PORT": "99999"}),
    ("--reload", {"UVICORN_RELOAD": "maybe"}),
    ("--ssl-certfile", {"UVICORN_SSL_CERTFILE": "/no/such/file"}),
    ("--workers", {"UVICORN_WORKERS": "0"}),
    ("$WEB_CONCURRENCY", {"WEB_CONCURRENCY": "many"}),
    ("$WEB_CONCURRENCY", {"WEB_CONCURRENCY": "0"}),
    ("$WEB_CONCURRENCY", {"WEB_CONCURRENCY": ""}),
]

FILES = {
    "BAD.json": b"{",
    "LIST.json": b"[]",
    "CLASS.json": b'{"version": 1, "handlers": {"a": {"class": "no.such.Handler"}}}',
    "VERSION.yaml": b"version: 2",
    "BAD.yaml": b"a: [\nb: ]",
    "BAD.ini": b"[loggers]\nkeys=nobody\n",
    "BINARY": b"\xff\xfe\x00A=\xe9",
}


def _shown(value: Any) -> str | None:
    return "-".join(value).replace("/", "_")[-60:] if isinstance(value, list) else None


@pytest.mark.parametrize(("option", "arguments"), CASES, ids=_shown)
def test_an_impossible_value_is_one_line_that_names_the_option(
    option: str, arguments: list[str], tmp_path: Path
) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    arguments = [str(tmp_path / each) if each in FILES else each for each in arguments]
    if not {"--port", "--uds", "--fd"} & {*arguments}:
        arguments += ["--port", "0"]
    check_line(option, *forked(run_command(arguments, {})))


@pytest.mark.parametrize(("name", "env"), ENVIRONMENTS)
def test_an_impossible_value_in_the_environment_is_one_line(name: str, env: dict[str, str]) -> None:
    check_line(name, *forked(run_command([] if "UVICORN_PORT" in env else ["--port", "0"], env)))


def test_every_option_of_uvicorns_that_takes_a_number_a_file_or_a_choice_is_among_these() -> None:
    tried = {option for option, _ in CASES}
    free = {"--ssl-keyfile", "--reload-exclude", "--forwarded-allow-ips", "--ssl-keyfile-password"}
    for parameter in uvicorn.main.params:
        if isinstance(parameter, click.Option) and not parameter.is_flag:
            assert parameter.opts[0] in tried | free, "a new option of uvicorn's: which values can't it have?"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"port": "8000"}, "port"),
        ({"port": True}, "port"),
        ({"lifespan": "x"}, "lifespan"),
        ({"interface": "x"}, "interface"),
        ({"log_level": "loud"}, "log_level"),
        ({"log_config": {"version": 2}}, "log_config"),
        ({"use_colors": True, "log_config": {"version": 1}}, "use_colors|log_config"),
        ({"max_message_bytes": 5000.5}, "max_message_bytes"),
        ({"headers": ["X:y"]}, "headers"),
        ({"headers": [("X", 3)]}, "headers"),
        ({"uds": "sock", "uds_mode": 660}, "uds_mode"),
        ({"uds": "sock", "uds_mode": 1.5}, "uds_mode"),
        ({"uds": "\0abstract"}, "abstract"),
        ({"host": 5}, "can't listen on 5"),
        ({"timeout_worker_healthcheck": 1}, "timeout_worker_healthcheck"),
        ({"ssl_context_factory": print}, "ssl_context_factory"),
        ({"app_dir": "/no/such/folder"}, "app_dir"),
        ({"app": print}, "import string"),
        ({"workers": 0}, "workers is a number from 1"),
        ({"no_such_option": 1}, "there is no option 'no_such_option'\n"),
        ({"drain_timout": 1}, "there is no option 'drain_timout'; did you mean 'drain_timeout'?"),
        ({"log_levels": "info"}, "did you mean 'log_level'"),
    ],
    ids=repr,
)
def test_run_refuses_the_same_with_one_error(options: dict[str, Any], named: str) -> None:
    def call() -> None:
        try:
            asgi_ipc.run(**{"app": APP, "port": 0, **options})
        except asgi_ipc.LauncherError as error:
            sys.stderr.write(f"ERROR: {error}\n")
            raise SystemExit(1) from error

    status, said = forked(call)
    check_line("", status, said)
    assert any(name in said for name in named.split("|")), said


def test_run_is_refused_beside_the_main_thread() -> None:
    with (
        ThreadPoolExecutor() as pool,
        pytest.raises(asgi_ipc.LauncherError, match="serve on the main thread: only it gets signals"),
    ):
        pool.submit(asgi_ipc.run, APP).result()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--loop", value) for value in ("no.such:thing", "os:no_such_thing", "os:path")),
        ("--http", "no.such:thing"),
        ("--ws", "os:no_such_thing"),
    ],
)
async def test_what_an_import_string_does_not_find_is_one_line(option: str, value: str) -> None:
    async with serving(APP, option, value) as server:
        assert await server.ended() == 3
        assert server.count("Traceback") == 0, server.text
        assert server.count(f"ERROR: .*{option[2:]}.*{value}") == 1, server.text


@pytest.mark.parametrize("module", ["uvicorn", "asgi_ipc"])
async def test_timeouts_of_run_may_be_fractions_of_a_second(module: str) -> None:
    timeouts = "timeout_graceful_shutdown=2.5, timeout_keep_alive=1.5"
    code = f"import {module}; {module}.run({APP!r}, port=0, workers=2, {timeouts})"
    async with started("-c", code) as server:
        await server.said("Application startup complete", 2)


@pytest.mark.parametrize("by", [SERVE, UVICORN])
async def test_an_app_may_stand_in_a_zip_archive(by: Sequence[str], tmp_path: Path) -> None:
    archive = tmp_path / "apps.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(ROOT / "tests" / "apps" / "plain.py", "zipped.py")
    async with serving("zipped:app", "--app-dir", str(archive), by=by) as server:
        await server.started(2)


@pytest.mark.parametrize("by", [SERVE, UVICORN])
async def test_options_of_tls_without_a_certificate_are_ignored_as_by_uvicorn(
    by: Sequence[str],
) -> None:
    options = [word for option, *values in NEEDS_TLS for word in (option, values[0])]
    async with serving(APP, *options, by=by) as server:
        await server.started(2)
        assert (await server.get("/")).status_code == 200


async def test_an_encrypted_certificate_is_served_with_its_password() -> None:
    files = ["--ssl-certfile", CERTIFICATE, "--ssl-keyfile", ENCRYPTED_KEY]
    async with serving(APP, *files, "--ssl-keyfile-password", "secret") as server:
        await server.started(2)
        trusted = ssl.create_default_context(cafile=CERTIFICATE)
        async with httpx.AsyncClient(verify=trusted) as client:
            assert (await client.get(f"https://127.0.0.1:{server.port}/")).status_code == 200


@pytest.mark.parametrize("option", ["--timeout-worker-healthcheck", "--worker-hang-timeout"])
async def test_a_worker_that_hangs_for_two_seconds_is_replaced_when_two_are_given(
    option: str, tmp_path: Path
) -> None:
    env = {"PUPPET_FOLDER": str(tmp_path)}
    async with serving("tests.apps.puppet:app", option, "2", workers=2, env=env) as server:
        await server.started(2)
        # Who answers has told the launcher that it is ready: nobody is judged before.
        victim = (await server.get("/")).json()["pid"]
        os.kill(victim, signal.SIGSTOP)
        await server.said(rf"Worker \[{victim}\] is stalled")
        await server.said(rf"Worker \[{victim}\] has been stalled for 2 s; replacing it")
        await server.said("Application startup complete", 3)


def test_two_seconds_are_taken_under_uvicorn_too() -> None:
    context = uvicorn.main.make_context("uvicorn", [APP, "--timeout-worker-healthcheck", "2"])
    assert context.params["timeout_worker_healthcheck"] == 2
    assert context.get_parameter_source("timeout_worker_healthcheck") is ParameterSource.COMMANDLINE


@pytest.mark.parametrize("by", [SERVE, UVICORN])
@pytest.mark.parametrize("options", [["--port", "99999"], ["--log-config", NO_PEM]], ids=_shown)
async def test_a_server_that_is_refused_has_a_status_as_uvicorns_has(
    by: Sequence[str], options: list[str]
) -> None:
    async with serving(APP, *options, by=by) as server:
        assert await server.ended() in (1, 2)
        # What uvicorn shows instead of a line.
        assert bool(server.count("Traceback")) is (by == UVICORN)


def test_ports_that_are_taken_on_every_address_are_refused() -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("::", free_port()))
        taken.listen()
        port = str(taken.getsockname()[1])
        for host in ("127.0.0.1", "0.0.0.0", "::1", "::"):
            status, said = forked(run_command(["--port", port, "--host", host], {}))
            check_line("; --port chooses another one", status, said)
