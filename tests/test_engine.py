"""The engine: which one runs is chosen by the environment, checked against the text, and told truly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asgi_ipc import engine
from tests.engines import FOLDER, TWINS, need_native, variant
from tests.inprocess import fleet
from tests.needs import required

SAID = """
import asyncio, asgi_ipc
from asgi_ipc.testing import fleet
from asgi_ipc.wire import packet

async def main():
    async with fleet(1) as (worker,):
        print(worker.stats().engine, packet.__file__, asgi_ipc.__file__)

asyncio.run(main())
"""


def run(*arguments: str, folder: Path = FOLDER, **variables: str) -> list[str]:
    """The words that Python says with that folder's package."""
    environment = {name: value for name, value in os.environ.items() if name != engine.VARIABLE}
    environment |= {"PYTHONPATH": str(folder)} | variables
    command = [sys.executable, "-W", "error", *arguments]
    # In that folder: with -c, the working directory comes before PYTHONPATH.
    return subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()


def copied(tmp_path: Path) -> Path:
    """A copy of the package, compiled modules included."""
    shutil.copytree(FOLDER / "asgi_ipc", tmp_path / "asgi_ipc", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_an_installed_native_engine_runs_unless_the_environment_says_pure() -> None:
    need_native()
    for value, expected in (("", "native"), ("0", "native"), ("1", "pure")):
        said, file, _ = run("-c", SAID, ASGI_IPC_PURE=value)
        assert (said, Path(file).suffix) == (expected, ".py" if expected == "pure" else ".so")
        assert run("-m", "asgi_ipc", "--version", ASGI_IPC_PURE=value)[-1] == expected


async def test_this_process_says_which_engine_it_runs() -> None:
    twins = {Path(variant(twin, engine.name()).__file__).suffix for twin in TWINS}
    assert twins == {".so" if engine.name() == "native" else ".py"}
    async with fleet(1) as (_, (worker,)):
        assert worker.ipc.stats().engine == engine.name()


def test_where_the_native_engine_is_required_this_process_runs_it() -> None:
    if "native" in required() and not engine.is_set(engine.VARIABLE):
        assert engine.name() == "native"


@pytest.mark.parametrize("suffix", [".py", ".pxd"])
def test_what_was_edited_since_it_was_compiled_runs_in_python(tmp_path: Path, suffix: str) -> None:
    need_native()
    folder = copied(tmp_path)
    assert run("-c", SAID, folder=folder)[0] == "native"
    source = folder.joinpath(*TWINS[0].split(".")).with_suffix(suffix)
    source.write_text(source.read_text() + "\n# edited\n")
    said, file, package = run("-c", SAID, folder=folder)
    assert (said, Path(file).suffix) == ("pure", ".py")
    assert Path(package).is_relative_to(folder)


def test_a_compiled_module_without_a_record_does_not_run(tmp_path: Path) -> None:
    need_native()
    folder = copied(tmp_path)
    (folder / "asgi_ipc" / engine.RECORD).unlink()
    said, file, _ = run("-c", SAID, folder=folder)
    assert (said, Path(file).suffix) == ("pure", ".py")


def test_a_program_without_sources_runs_what_was_compiled(tmp_path: Path) -> None:
    need_native()
    folder = copied(tmp_path)
    folder.joinpath(*TWINS[0].split(".")).with_suffix(".py").unlink()
    (folder / "asgi_ipc" / engine.RECORD).unlink()
    assert run("-c", SAID, folder=folder)[0] == "native"


def test_two_variants_of_a_module_are_there_side_by_side() -> None:
    name = TWINS[0]
    pure, native = variant(name, "pure"), variant(name, "native")
    assert [Path(each.__file__).suffix for each in (pure, native)] == [".py", ".so"]
    assert sys.modules[name] is variant(name, engine.name())
