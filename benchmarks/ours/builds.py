"""Builds: this tree, an older commit, another interpreter; each a folder to serve from.

Law: a build is complete before anything is measured. Where the package is installed, the installed one is
measured, since only that one has a native core; it must have the sources of this tree.
"""

from __future__ import annotations

import filecmp
import functools
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Final

from benchmarks.conductor import Subject
from benchmarks.control import SOCKET_VARIABLE
from benchmarks.judgement import BenchmarkError
from benchmarks.ours import NAME
from benchmarks.servers import OURS, ROOT, Build, serving

PACKAGE: Final = "asgi_ipc"

# The build of a package, with the download of its build tools.
BUILD_TIMEOUT_S: Final = 300.0

# What an interpreter has installed, seen from outside this tree.
_FIND: Final = f"import {PACKAGE}; print({PACKAGE}.__path__[0])"
_VERSION: Final = "import sys; print('{}.{}'.format(*sys.version_info))"


class NoSuchCommitError(Exception):
    """There is no repository here, or that commit is not in it."""


@contextmanager
def present() -> Iterator[Build]:
    """This tree on this interpreter."""
    with _of_tree(NAME, sys.executable) as build:
        yield build


@contextmanager
def beside(python: str) -> Iterator[Build]:
    """This tree on another interpreter, with that one's version in its name."""
    with _of_tree(f"{NAME}, Python {_said(python, _VERSION)}", python) as build:
        yield build


@contextmanager
def of_commit(revision: str) -> Iterator[Build]:
    """An older commit, built and installed into a folder of its own.

    Raises NoSuchCommitError if it is not to be had here, BenchmarkError if it can't be built.
    """
    archive = subprocess.run(
        ["git", "--no-optional-locks", "archive", revision], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode:
        raise NoSuchCommitError(f"commit {revision}: {archive.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory() as name:
        source, folder = Path(name, "source"), Path(name, "installed")
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
            files.extractall(source, filter="data")
        _install(source, folder)
        yield _served_from(folder, older(revision), sys.executable)


def subject(build: Build, loop: str) -> Subject:
    """Workers of its `asgi-ipc serve` on that event loop."""
    return Subject(build.subject, loop, functools.partial(_start, build, loop))


def _start(build: Build, loop: str, workers: int, socket_path: str) -> AbstractAsyncContextManager[None]:
    # Its workers find the conductor by themselves.
    environment = {SOCKET_VARIABLE: socket_path}
    return serving(build, OURS, "benchmarks.ours.app:app", loop, workers, 0, environment)


def older(revision: str) -> str:
    """Return the name of an older commit in the tables."""
    return f"{NAME} {revision[:7]}"


@contextmanager
def _of_tree(subject: str, python: str) -> Iterator[Build]:
    with tempfile.TemporaryDirectory() as name:
        folder, installed = Path(name), _said(python, _FIND)
        if not installed:
            (folder / PACKAGE).symlink_to(ROOT / PACKAGE)
        elif changed := _changed(Path(installed)):
            raise BenchmarkError(
                f"{python} has another tree's build, which differs in {', '.join(changed)}: install this one"
            )
        yield _served_from(folder, subject, python)


def _served_from(folder: Path, subject: str, python: str) -> Build:
    (folder / "benchmarks").symlink_to(ROOT / "benchmarks")
    ran = _run([python, "-m", f"{PACKAGE}.cli", "--version"], folder)
    if ran.returncode:
        raise BenchmarkError(f"{subject} does not start: {ran.stdout.strip()}")
    last = ran.stdout.split()[-1]
    return Build(subject, python, folder, last if last in ("native", "pure") else "")


def _install(source: Path, folder: Path) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--target", str(folder)]
    ran = _run([sys.executable, "-m", "pip", "install", *options, str(source)], source)
    if ran.returncode:
        raise BenchmarkError(f"pip can't build it: {ran.stdout.strip()}")


def _said(python: str, program: str) -> str:
    """Return what that program says there, or "" if it fails. `-I`: neither this folder nor PYTHONPATH."""
    ran = _run([python, "-I", "-c", program], Path("/"))
    return "" if ran.returncode else ran.stdout.strip()


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=BUILD_TIMEOUT_S,
    )


def _changed(installed: Path) -> list[str]:
    """Return some of the tree's modules that are not the same there."""
    here = ROOT / PACKAGE
    modules = sorted(str(path.relative_to(here)) for path in here.rglob("*.py"))
    _, different, missing = filecmp.cmpfiles(here, installed, modules, shallow=False)
    return (different + missing)[:3]
