"""What the launcher decides before it starts anything: which options, modes and owners can be meant."""

from __future__ import annotations

import os
import resource
import socket
from pathlib import Path
from typing import Any

import pytest

from asgi_ipc.errors import LauncherError
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.launcher.limits import descriptor_limit
from asgi_ipc.launcher.listening import parse_mode, parse_owner
from asgi_ipc.launcher.options import check, check_descriptor, check_own, check_range, check_workers
from tests.launcher.test_options import CERTIFICATE, ENCRYPTED_KEY, KEY, OTHER_KEY


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"port": 0, "fd": None, "log_level": "INFO", "lifespan": "on", "interface": "asgi3", "loop": "auto"},
        {"limit_concurrency": 1, "timeout_keep_alive": 0.5, "root_path": "/a%20b", "log_level": 10},
        {"headers": [["X-Name", "value"], ("x", "")]},
        {"loop": "module:attribute", "http": object, "ws": "none"},
        {"ssl_certfile": CERTIFICATE, "ssl_keyfile": KEY, "ssl_ca_certs": CERTIFICATE, "ssl_ciphers": "ALL"},
        {"ssl_certfile": CERTIFICATE, "ssl_keyfile": ENCRYPTED_KEY, "ssl_keyfile_password": "secret"},
        {"ssl_ca_certs": "/no/such", "ssl_ciphers": "nonsense", "ssl_version": 99, "ssl_cert_reqs": 9},
    ],
    ids=str,
)
def test_what_can_be_meant_is_let_through(given: dict[str, Any]) -> None:
    check(given)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"headers": [["X-Name", "a\nb"]]}, "headers are a name and a value each"),
        ({"headers": [["X Name", "value"]]}, "headers are a name and a value each"),
        ({"port": 1.0}, "port is a number from 0 to 65535, not 1.0"),
        ({"limit_concurrency": 0}, "limit_concurrency is a number from 1"),
        ({"ssl_certfile": "/no/such", "ssl_keyfile": KEY}, "ssl_certfile can't be used: FileNotFoundError"),
        ({"ssl_certfile": CERTIFICATE, "ssl_keyfile": "/no/such"}, "ssl_keyfile can't be used: FileNot"),
        ({"ssl_certfile": CERTIFICATE, "ssl_keyfile": OTHER_KEY}, "ssl_keyfile can't be used: SSLError"),
        ({"ssl_certfile": CERTIFICATE, "ssl_keyfile": ENCRYPTED_KEY}, "ssl_keyfile_password can't be used"),
        ({"ssl_keyfile": KEY}, "ssl_keyfile needs --ssl-certfile"),
        (
            {"ssl_certfile": CERTIFICATE, "ssl_keyfile": KEY, "ssl_ca_certs": KEY},
            "ssl_ca_certs can't be used",
        ),
        ({"fd": 99_999}, "fd is an open descriptor, not 99999"),
    ],
    ids=str,
)
def test_the_first_that_can_not_be_meant_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(LauncherError, match=f"^{named}"):
        check(given)


def test_a_descriptor_is_one_of_a_socket(tmp_path: Path) -> None:
    with socket.socket() as open_socket, (tmp_path / "file").open("w") as file:
        check({"fd": open_socket.fileno()})
        with pytest.raises(LauncherError, match=f"fd is the descriptor of a socket; {file.fileno()} is none"):
            check({"fd": file.fileno()})


def test_the_descriptor_of_a_parent_may_be_that_of_a_pipe_but_not_the_one_to_listen_on() -> None:
    ends = os.pipe()
    try:
        check_descriptor("stop_at_eof", ends[0], may_be_pipe=True)
        with pytest.raises(LauncherError, match="fd is the descriptor of a socket"):
            check({"fd": ends[0]})
    finally:
        for end in ends:
            os.close(end)


def test_our_own_options_have_ranges_too() -> None:
    check_own(Settings(cookie=b"", drain_timeout=0.0, exit_timeout=0.0, stop_at_eof=0))
    for own, named in (
        (Settings(cookie=b"", drain_timeout=-1.0), "drain_timeout"),
        (Settings(cookie=b"", stop_at_eof=-1), "stop_at_eof"),
        (Settings(cookie=b"", max_message_bytes=1023), "max_message_bytes"),
    ):
        with pytest.raises(LauncherError, match=f"{named} is a number from "):
            check_own(own)


def test_the_descriptor_limit_is_the_soft_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    try:
        assert descriptor_limit() == soft - 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_ends_of_a_range_are_in_it() -> None:
    for value in (1, 3):
        check_range("x", value, 1, 3)
    for bad in (0, 4, True, "2", 2.5):
        with pytest.raises(LauncherError, match="x is a number from 1 to 3, not "):
            check_range("x", bad, 1, 3, whole=True)


def test_the_environment_says_how_many_workers_unless_an_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    assert check_workers(None, 8) == 1
    monkeypatch.setenv("WEB_CONCURRENCY", "8")
    assert (check_workers(None, 8), check_workers(3, 8)) == (8, 3)
    with pytest.raises(LauncherError, match="WEB_CONCURRENCY is a number from 1 to 7, not 8"):
        check_workers(None, 7)
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    with pytest.raises(LauncherError, match="WEB_CONCURRENCY is a number from 1 to 7, not 'many'"):
        check_workers(None, 7)


def test_a_mode_is_octal_text_or_a_number_up_to_777() -> None:
    assert [parse_mode(given) for given in ("0", "660", "777", 0o600)] == [0, 0o660, 0o777, 0o600]
    wrong: list[Any] = ["1000", "8", "-1", 0o1000, -1, "", None, 6.0]
    for given in wrong:
        with pytest.raises(LauncherError, match="uds_mode is a mode from 000 to 777, octal, not "):
            parse_mode(given)


def test_an_owner_is_a_user_or_a_group_or_both() -> None:
    given = ["root", ":root", "root:root", "3", ":4", "3:4", f"{2**32 - 2}"]
    assert [parse_owner(each) for each in given] == [
        (0, -1),
        (-1, 0),
        (0, 0),
        (3, -1),
        (-1, 4),
        (3, 4),
        (2**32 - 2, -1),
    ]
    for each, named in (
        (":", "USER, USER:GROUP or :GROUP"),
        ("nobody-such", "no such user or group"),
        ("0:9x", "no such user or group"),
        (f"{2**32 - 1}", "a number is below 4294967295"),
        (f":{2**32 - 1}", "a number is below 4294967295"),
    ):
        with pytest.raises(LauncherError, match=named):
            parse_owner(each)
