"""Engines: the reference and the native variant of one module, side by side in one process.

Law: a variant imports only modules of its own engine, as far as these are compiled. The modules that the rest
of the process uses are left alone.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal

import asgi_ipc
from asgi_ipc import engine
from tests.needs import lack

Engine = Literal["native", "pure"]

FOLDER: Final = Path(asgi_ipc.__path__[0]).parent

# The modules that are compiled, where they are: each has a `.pxd`.
TWINS: Final = sorted(
    {
        ".".join(path.relative_to(FOLDER).with_suffix("").parts)
        for path in (FOLDER / engine.PACKAGE).rglob("*.pxd")
    }
    - {engine.INLINE}
)


def need_native() -> None:
    """Skip the test where nothing is compiled, or fail it if that is required."""
    if engine.name() == "pure" and engine.why_pure(FOLDER) not in ("", f"{engine.VARIABLE} is set"):
        lack("native", "apt-get install gcc python3-dev, and install the package again")
    if not all(FOLDER.joinpath(*twin.split(".")).with_suffix(engine.SUFFIX).exists() for twin in TWINS):
        lack("native", "install the package again, without ASGI_IPC_PURE")


@contextmanager
def children_run(which: Engine) -> Iterator[None]:
    """Have the processes that are started meanwhile run that engine."""
    before = os.environ.get(engine.VARIABLE)
    os.environ[engine.VARIABLE] = "1" if which == "pure" else "0"
    try:
        yield
    finally:
        del os.environ[engine.VARIABLE]
        if before is not None:
            os.environ[engine.VARIABLE] = before


@functools.cache
def variant(name: str, which: Engine) -> Any:
    """Return that module, in Python or compiled. Where it can't be compiled, the test is skipped.

    The variant of this process's engine is the module that everybody imports.
    """
    if which == engine.name():
        return importlib.import_module(name)
    if which == "native":
        need_native()
    return _others(which)[name]


@functools.cache
def _others(which: Engine) -> dict[str, ModuleType]:
    """Import all the modules that are compiled once more, with the engine that this process does not use."""
    for twin in TWINS:
        importlib.import_module(twin)
    ours = {twin: sys.modules.pop(twin) for twin in TWINS}
    finders = [*sys.meta_path]
    sys.meta_path[:] = [finder for finder in finders if finder is not engine.Reference]
    if which == "pure":
        sys.meta_path.insert(0, engine.Reference)
    try:
        others = {twin: importlib.import_module(twin) for twin in TWINS}
    finally:
        sys.meta_path[:] = finders
        for twin, module in ours.items():
            sys.modules[twin] = module
            package, _, last = twin.rpartition(".")
            setattr(sys.modules[package], last, module)
    for module in others.values():
        assert isinstance(module.__loader__, ExtensionFileLoader) is (which == "native"), module
    return others
