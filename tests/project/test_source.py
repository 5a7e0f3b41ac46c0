"""Promises of the source beyond the laws that `make lint` checks with ruff and `.importlinter`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from asgi_ipc import worker


def test_the_plugin_loads_neither_the_launcher_nor_uvicorn() -> None:
    # pytest loads it in every test run wherever the package is installed.
    code = "import sys, asgi_ipc.testing.plugin; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "asgi_ipc.testing.plugin" in loaded
    assert not [name for name in loaded.split() if name.startswith(("asgi_ipc.launcher", "uvicorn"))]


def test_the_worker_folder_stays_a_house_with_rooms() -> None:
    files = list(Path(worker.__path__[0]).glob("*.py"))
    assert len(files) <= 14
