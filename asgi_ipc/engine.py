"""Engine: which one runs, the reference in Python or its modules compiled.

Law: this module is imported before all others of the package, and imports none of them. A compiled module
runs only if every module that was compiled still has the text that it was compiled from. Otherwise the
reference runs, all of it.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec, PathFinder
from importlib.util import source_hash, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

# Set to 1, it picks the reference: when the package is imported, and when its wheel is built.
VARIABLE: Final = "ASGI_IPC_PURE"

PACKAGE: Final = "asgi_ipc"

# A compiled module's file ends in this. It differs for each version and kind of Python.
SUFFIX: Final = EXTENSION_SUFFIXES[0]

# Its functions are compiled into the modules that call them; by itself it stands in Python, always.
INLINE: Final = f"{PACKAGE}.fast"

# Beside this file: what hatch_build.py has compiled for this Python, a module and its digest a line.
RECORD: Final = f"compiled{SUFFIX}.txt"


def is_set(variable: str) -> bool:
    """Return whether this variable of the environment is set, and not to 0."""
    return os.environ.get(variable, "") not in ("", "0")


def digest(module: str, folder: Path) -> str:
    """Return what changes with a module's `.py` or `.pxd`. `folder` holds the package."""
    source = folder.joinpath(*module.split("."))
    texts = (source.with_suffix(suffix).read_bytes() for suffix in (".py", ".pxd"))
    return source_hash(b"\0".join(texts)).hex()


def why_pure(folder: Path) -> str:
    """Return why the reference of the package in `folder` is to run, or "" if the compiled modules may."""
    if is_set(VARIABLE):
        return f"{VARIABLE} is set"
    try:
        for line in (folder / PACKAGE / RECORD).read_text().splitlines():
            module, _, recorded = line.partition(" ")
            compiled = folder.joinpath(*module.split(".")).with_suffix(SUFFIX)
            if module != INLINE and not compiled.exists():
                return f"{module} is not there, compiled"
            if digest(module, folder) != recorded:
                return f"{module} has changed since it was compiled"
    except OSError:
        return "nothing is compiled for this Python"
    return ""


class Reference:
    """Finds the modules of the package by their `.py`, though a compiled one lies beside it."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{PACKAGE}."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, ExtensionFileLoader):
            source = Path(spec.loader.path).parent / f"{name.rpartition('.')[2]}.py"
            # A program that PyInstaller has made carries the compiled module only.
            if source.exists():
                return spec_from_file_location(name, source)
        return spec


@functools.cache
def name() -> Literal["native", "pure"]:
    """Return which engine runs, by what is imported. Ask when the package is."""
    ours = (module for key, module in [*sys.modules.items()] if key.startswith(f"{PACKAGE}."))
    is_native = any(isinstance(getattr(module, "__loader__", None), ExtensionFileLoader) for module in ours)
    return "native" if is_native else "pure"


if why_pure(Path(__file__).parent.parent):
    sys.meta_path.insert(0, Reference)
