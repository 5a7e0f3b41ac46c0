"""Engines: the reference and the native variant of one module, side by side in one process.

Law: a variant imports only modules of its own engine, compiled or not, when it is imported itself. The
modules that the rest of the process uses are left alone.
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

# Both engines have the same: the first knows which engine runs, and tests catch the errors of the second.
_SHARED: Final = frozenset({f"{engine.PACKAGE}.engine", f"{engine.PACKAGE}.errors"})

# What was imported of the engine that this process does not use.
_OTHERS: Final[dict[str, ModuleType]] = {}


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
    """Return that module, as it is with that engine. Where nothing can be compiled, the test is skipped.

    The variant of this process's engine is the module that everybody imports.
    """
    if which == engine.name():
        return importlib.import_module(name)
    if which == "native":
        need_native()
    with _others_in_place(which):
        module = importlib.import_module(name)
    assert isinstance(module.__loader__, ExtensionFileLoader) is (which == "native" and name in TWINS), module
    return module


@contextmanager
def _others_in_place(which: Engine) -> Iterator[None]:
    """Have the modules that are imported meanwhile be those of the engine that this process does not use."""
    package = sys.modules[engine.PACKAGE]
    finders, attributes = [*sys.meta_path], {**vars(package)}
    ours = _taken_out()
    sys.modules.update(_OTHERS)
    sys.meta_path[:] = [finder for finder in finders if finder is not engine.Reference]
    if which == "pure":
        sys.meta_path.insert(0, engine.Reference)
    try:
        yield
    finally:
        sys.meta_path[:] = finders
        _OTHERS.update(_taken_out())
        sys.modules.update(ours)
        for name in vars(package).keys() - attributes.keys():
            delattr(package, name)
        vars(package).update(attributes)


def _taken_out() -> dict[str, ModuleType]:
    """Take the modules of the package that each engine has for itself out of those that are imported."""
    names = [name for name in sys.modules if name.startswith(f"{engine.PACKAGE}.") and name not in _SHARED]
    return {name: sys.modules.pop(name) for name in names}
