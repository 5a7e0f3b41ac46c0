"""Builds: a native wheel where there is a compiler, and a pure one that works where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from asgi_ipc import engine
from tests.engines import TWINS, need_native
from tests.serving import ROOT

# Beside the installed wheel there is no source: scripts/test leaves a copy here.
SOURCE = ROOT / "source" if (ROOT / "source").exists() else ROOT


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What a build needs, without what an editable install has compiled."""
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "compiled.*")
    shutil.copytree(SOURCE / "asgi_ipc", tmp_path / "source" / "asgi_ipc", ignore=ignored)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(SOURCE / name, tmp_path / "source")
    return tmp_path / "source"


def build(source: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASGI_IPC_")}
    ran = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", "built", *arguments],
        cwd=source,
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout


def installed(source: Path) -> tuple[str, Path]:
    """The one wheel's name, and the folder into which it is unpacked."""
    (wheel,) = (source / "built").glob("*.whl")
    folder = source.parent / "installed"
    zipfile.ZipFile(wheel).extractall(folder)
    return wheel.name, folder


def version(folder: Path) -> str:
    command = [sys.executable, "-W", "error", "-m", "asgi_ipc", "--version"]
    environment = {name: value for name, value in os.environ.items() if name != engine.VARIABLE}
    environment["PYTHONPATH"] = str(folder)
    return subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()[-1]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"CC": "false"}, "there is no C compiler with Python's headers (false: exit status 1)"),
        ({"CC": "/no/such/compiler"}, "/no/such/compiler: No such file or directory"),
        # Even for our own builds: they stop for a warning, not for want of a compiler.
        ({"CC": "false", "ASGI_IPC_STRICT_BUILD": "1"}, "there is no C compiler"),
        ({"ASGI_IPC_PURE": "1"}, "ASGI_IPC_PURE is set"),
    ],
)
def test_where_nothing_can_be_compiled_the_wheel_is_pure_says_why_and_works(
    source: Path, variables: dict[str, str], reason: str
) -> None:
    status, said = build(source, "-t", "wheel", **variables)
    assert status == 0, said
    assert "asgi-ipc is built as pure Python: " in said
    assert reason in said
    name, folder = installed(source)
    assert name.endswith("-py3-none-any.whl")
    assert not [*folder.rglob("*.so"), *folder.rglob("compiled*")]
    assert version(folder) == "pure"


def test_where_there_is_a_compiler_the_wheel_is_native(source: Path) -> None:
    need_native()
    status, said = build(source, "-t", "wheel", ASGI_IPC_STRICT_BUILD="1")
    assert status == 0, said
    name, folder = installed(source)
    assert not name.endswith("-any.whl")
    assert {*folder.rglob("*.so")} == {
        folder.joinpath(*twin.split(".")).with_suffix(engine.SUFFIX) for twin in TWINS
    }
    assert version(folder) == "native"
    # Nothing is left where it was built.
    assert not [*source.rglob("*.so"), *source.rglob("*.c")]


def test_a_warning_of_the_compiler_stops_our_own_builds_and_nobody_elses(source: Path) -> None:
    need_native()
    warned = {"CFLAGS": "-DASGI_IPC_TWICE=1 -DASGI_IPC_TWICE=2"}
    status, said = build(source, "-t", "wheel", **warned)
    assert status == 0, said
    assert "native" in said
    # The probe knows no warnings; the module's compilation does.
    status, said = build(source, "-t", "wheel", ASGI_IPC_STRICT_BUILD="1", **warned)
    assert status != 0
    assert "ASGI_IPC_TWICE" in said


def test_the_source_archive_has_all_that_the_native_engine_is_built_from(source: Path) -> None:
    status, said = build(source, "-t", "sdist")
    assert status == 0, said
    (archive,) = (source / "built").glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"hatch_build.py", "pyproject.toml", "asgi_ipc/engine.py"} <= names
    assert {f"{twin.replace('.', '/')}.pxd" for twin in TWINS} <= names
    assert not [name for name in names if name.endswith(".so") or "compiled." in name]
