"""Missing needs: their tests are skipped and the end of the run says so, or they fail if it is required."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import ROOT

TESTS = """
import pytest
from tests.needs import need

@pytest.mark.parametrize("number", range(2))
def test_in_a_browser(number):
    need("chromium")

def test_with_less():
    pass
"""


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["alone", "in workers"])
def test_what_is_missing_is_said_at_the_end_with_what_installs_it(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    status, *lines = _run(tmp_path, *options)
    assert status == "0"
    assert lines[-2:-1] == ["2 tests skipped for want of chromium (apt-get install chromium)"]
    assert "1 passed, 2 skipped" in lines[-1]


def test_what_is_required_and_missing_fails(tmp_path: Path) -> None:
    status, *lines = _run(tmp_path, require="nginx,chromium")
    assert status == "1"
    assert "chromium is required and not here: apt-get install chromium" in "\n".join(lines)
    assert "2 failed, 1 passed" in lines[-1]


def test_what_is_required_and_not_known_is_an_error(tmp_path: Path) -> None:
    status, *lines = _run(tmp_path, require="netscape")
    assert status == "4"
    assert any("ASGI_IPC_REQUIRE" in line and "netscape" in line and "chromium" in line for line in lines)


def _run(folder: Path, *options: str, require: str = "") -> list[str]:
    """Run these tests where there is no program at all: the status, and the lines that were said."""
    (folder / "test_some.py").write_text(TESTS)
    (folder / "conftest.py").write_text("from tests.conftest import *\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    ran = subprocess.run(
        [*command, "--rootdir", str(folder), *options, str(folder)],
        env={**os.environ, "PATH": str(folder), "PYTHONPATH": str(ROOT), "ASGI_IPC_REQUIRE": require},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return [str(ran.returncode), *(ran.stdout + ran.stderr).splitlines()]
