"""Options about a cluster: what can't be meant is one line that names the option and has no password."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import pytest

from asgi_ipc.cluster.settings import ClusterSettings
from asgi_ipc.errors import LauncherError
from asgi_ipc.launcher import clustering
from tests.brokers import CERTIFICATE
from tests.launcher.refusals import check_line, forked, run_command

SECRET = "hunter2"

URLS = [
    "nats",
    "localhost:4222",
    "http://localhost",
    f"http://ann:{SECRET}@localhost",
    f"ann:{SECRET}@localhost",
    "nats://",
    f"nats://ann:{SECRET}@",
    f"nats://ann:{SECRET}@:4222",
    f"nats://ann:{SECRET}@localhost:99999",
    f"nats://ann:{SECRET}@localhost:0",
    f"nats://ann:{SECRET}@localhost:port",
    f"nats://ann:{SECRET}@[::1",
    # A password that is not encoded.
    f"nats://ann:{SECRET}#@localhost",
    f"nats://ann:1#{SECRET}@localhost",
    f"nats://ann:1/{SECRET}@localhost",
    f"redis://ann:1?{SECRET}@localhost",
    f"redis://ann:{SECRET}@a,redis://ann:{SECRET}@b",
    f"nats://ann:{SECRET}@a,redis://ann:{SECRET}@b",
    f"nats://ann:{SECRET}@a,,http://b",
    f"nats://ann:{SECRET}@localhost?tls=no",
    f"redis://ann:{SECRET}@localhost?credentials=FILE",
    f"nats://ann:{SECRET}@localhost?credentials=/no/such/file",
    f"nats://ann:{SECRET}@localhost?credentials=",
    " , ",
]

WITH_URL = ["--cluster", f"nats://ann:{SECRET}@127.0.0.1:1"]

OTHERS = [
    *[("--cluster-ca-file", path) for path in ("/no/such/file", "/tmp", "EMPTY", "TEXT", "")],
    *[("--cluster-secret-file", path) for path in ("/no/such/file", "/tmp", "EMPTY", "SPACE", "LARGE", "")],
    *[("--cluster-name", name) for name in ("", "x" * 255, "\u20ac" * 85)],
    *[("--cluster-outbox-bytes", count) for count in ("0", "-1", "1048575", "many", "1.5", str(10**12))],
    *[("--node-name", name) for name in ("x" * 1000, "a\nb")],
]

NEED_A_CLUSTER = [
    ("--cluster-name", "name"),
    ("--cluster-ca-file", str(CERTIFICATE)),
    ("--cluster-secret-file", str(CERTIFICATE)),
]

FILES = {
    "EMPTY": b"",
    "SPACE": b" \n\t",
    "TEXT": b"no certificate",
    "LARGE": b"x" * (64 * 1024 + 1),
}


def _refused(option: str, arguments: list[str], env: dict[str, str] | None = None) -> str:
    status, said = forked(run_command([*arguments, "--port", "0"], env or {}))
    check_line(option, status, said)
    assert SECRET not in said
    return said


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_is_none_is_one_line_without_the_password(url: str) -> None:
    _refused("--cluster", ["--cluster", url])


@pytest.mark.parametrize("url", ["nats://", f"redis://ann:{SECRET}@localhost:0"])
def test_the_same_from_the_environment(url: str) -> None:
    _refused("cluster", [], {clustering.VARIABLE: url})


@pytest.mark.parametrize(("option", "value"), OTHERS, ids=lambda each: each[-30:])
def test_what_cannot_be_meant_is_one_line_that_names_the_option(
    option: str, value: str, tmp_path: Path
) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    value = str(tmp_path / value) if value in FILES else value
    _refused(option, [*WITH_URL, option, value])


@pytest.mark.parametrize(("option", "value"), NEED_A_CLUSTER)
def test_what_needs_a_cluster_says_so(option: str, value: str) -> None:
    assert "needs --cluster" in _refused(option, [option, value])


def _settings(**options: Any) -> ClusterSettings:
    (bridge,) = clustering.bridge_of(options, "module:app")
    return msgspec.convert(bridge.config, ClusterSettings)


def test_settings_are_as_given_and_show_no_password(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"  the secret\n")
    settings = _settings(
        cluster=f"nats://ann:{SECRET}@a:1, nats://b",
        cluster_secret_file=str(file),
        cluster_ca_file=str(CERTIFICATE),
        cluster_outbox_bytes=2 * 1024 * 1024,
    )
    assert settings.urls == (f"nats://ann:{SECRET}@a:1", "nats://b")
    assert (settings.name, settings.secret) == ("module:app", b"the secret")
    assert (settings.ca_file, settings.outbox_bytes) == (str(CERTIFICATE), 2 * 1024 * 1024)
    for text in (repr(settings), str(settings), repr([settings])):
        assert SECRET not in text
        assert "the secret" not in text
        assert "nats://a:1, nats://b" in text


def test_credentials_of_nats_are_a_file_that_the_url_names(tmp_path: Path) -> None:
    file = tmp_path / "a@b.creds"
    file.write_text("-----BEGIN NATS USER JWT-----")
    settings = _settings(cluster=f"nats://localhost?credentials={file}")
    assert (settings.urls, settings.credentials_file) == (("nats://localhost",), str(file))


def test_without_the_library_the_line_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for url, extra in (("nats://a", "nats"), ("tls://a", "nats"), ("redis://a", "redis")):
        with pytest.raises(LauncherError, match=rf"cluster needs .*\[{extra}\]"):
            _settings(cluster=url)


def test_what_the_bridge_is_given_shows_no_password() -> None:
    (bridge,) = clustering.bridge_of({"cluster": f"nats://ann:{SECRET}@a"}, "module:app")
    assert SECRET not in repr(bridge)
