"""The build: compiles every module of the package that has a `.pxd` beside it, where that can be done.

Law: without a compiler, Python's headers or Cython the wheel is pure, and one line says why. A compiler's
warning stops our own builds (ASGI_IPC_STRICT_BUILD=1), and nobody else's. What is compiled is written down
beside it, for asgi_ipc/engine.py to check.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STRICT = "ASGI_IPC_STRICT_BUILD"
WARNINGS = ["-Wall", "-Wextra", "-Werror"]

DIRECTIVES = {
    "language_level": 3,
    # Types come from the .pxd only: an annotation must mean the same in both.
    "annotation_typing": False,
    # A compiled function need not bind like a method of Python; that costs on each call.
    "binding": False,
}

PROBE = "#include <Python.h>\nint asgi_ipc_probe;\n"


class NotCompiledError(Exception):
    """Something could not be compiled; it says what."""


class Hook(BuildHookInterface[Any]):
    """Compiles for a wheel into a folder of its own, and for an editable install beside the sources."""

    PLUGIN_NAME = "custom"

    # What is compiled for a wheel, until the wheel is written.
    _folder: tempfile.TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """What the isolated build needs, too: Cython, where it can be used."""
        return [] if self._why_pure() else [self.config["cython"]]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        is_editable = version == "editable"
        engine = _load_engine(root)
        if is_editable:
            # Gone until all is compiled again: an interrupted build must not look like a finished one.
            (root / engine.PACKAGE / engine.RECORD).unlink(missing_ok=True)
        reason = self._why_pure()
        if not reason:
            build = root if is_editable else self._make_folder()
            try:
                files = _compile(root, build, engine)
            except ImportError as error:
                reason = f"there is no Cython ({error})"
            except NotCompiledError as error:
                if engine.is_set(STRICT):
                    raise
                reason = str(error)
            else:
                build_data["pure_python"] = False
                build_data["infer_tag"] = True
                if not is_editable:
                    build_data["force_include"].update({str(build / file): file for file in files})
        said = f"pure Python: {reason}" if reason else f"native, for {engine.SUFFIX}"
        self.app.display_warning(f"asgi-ipc is built as {said}")

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def _make_folder(self) -> Path:
        self._folder = tempfile.TemporaryDirectory()
        return Path(self._folder.name)

    def _why_pure(self) -> str:
        """Return why nothing can be compiled here, or ""."""
        engine = _load_engine(Path(self.root))
        if engine.is_set(engine.VARIABLE):
            return f"{engine.VARIABLE} is set"
        if os.name != "posix" or sys.implementation.name != "cpython":
            return "only CPython on Unix is compiled for"
        if sysconfig.get_config_var("Py_GIL_DISABLED"):
            return "a free-threaded Python has not been tried"
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(PROBE)
            try:
                _run_compiler(source, source.with_suffix(engine.SUFFIX))
            except NotCompiledError as error:
                return f"there is no C compiler with Python's headers ({error})"
        return ""


def _load_engine(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("asgi_ipc_engine", root / "asgi_ipc" / "engine.py")
    assert spec is not None
    assert spec.loader is not None
    engine = importlib.util.module_from_spec(spec)
    finders = [*sys.meta_path]
    spec.loader.exec_module(engine)
    sys.meta_path[:] = finders
    return engine


def _compile(root: Path, build: Path, engine: ModuleType) -> list[str]:
    """Compile into `build`, and return the files, record last, relative to it."""
    from Cython.Compiler import Options

    is_strict = engine.is_set(STRICT)
    Options.warning_errors = is_strict
    files, lines = [], []
    for declarations in sorted((root / engine.PACKAGE).rglob("*.pxd")):
        path = declarations.relative_to(root).with_suffix("")
        module = ".".join(path.parts)
        lines.append(f"{module} {engine.digest(module, root)}\n")
        if module == engine.INLINE:
            continue
        target = path.with_suffix(engine.SUFFIX)
        (build / target).parent.mkdir(parents=True, exist_ok=True)
        _compile_module(root, module, build / target, is_strict)
        files.append(str(target))
    record = Path(engine.PACKAGE, engine.RECORD)
    (build / record).write_text("".join(lines))
    return [*files, str(record)]


def _compile_module(root: Path, module: str, target: Path, is_strict: bool) -> None:
    from Cython.Compiler.Errors import CompileError
    from Cython.Compiler.Main import CompilationOptions, compile_single  # type: ignore[attr-defined]

    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(root):
        generated = Path(folder, f"{module}.c")
        options = CompilationOptions(compiler_directives=DIRECTIVES, output_file=str(generated))  # type: ignore[no-untyped-call]
        try:
            result = compile_single(f"{module.replace('.', '/')}.py", options, full_module_name=module)  # type: ignore[no-untyped-call]
        except CompileError as error:
            raise NotCompiledError(str(error)) from error
        if result.num_errors:
            raise NotCompiledError(f"Cython can't translate {module}")
        # A whole file in its place at once: a process may have loaded the old one.
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            _run_compiler(generated, beside, *(WARNINGS if is_strict else []))
        except NotCompiledError as error:
            raise NotCompiledError(f"{module}: {error}") from error
        beside.replace(target)


def _run_compiler(source: Path, target: Path, *flags: str) -> None:
    """Make an extension module of one C file, with the compiler and flags that made this Python, or $CC."""

    def words(variable: str) -> list[str]:
        return shlex.split(sysconfig.get_config_var(variable) or "")

    link = words("LDSHARED")
    if compiler := shlex.split(os.environ.get("CC", "")):
        link[: len(words("CC"))] = compiler
    includes = [f"-I{sysconfig.get_path(kind)}" for kind in ("include", "platinclude")]
    command = [*link, *words("CFLAGS"), *words("CCSHARED"), *includes, "-O3", "-g0", *flags]
    command += shlex.split(os.environ.get("CFLAGS", ""))
    command += [str(source), "-o", str(target), *shlex.split(os.environ.get("LDFLAGS", ""))]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotCompiledError(f"{command[0]}: {error.strerror}") from error
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if "error" in line] or ran.stderr.splitlines()
        first, *_ = [*filter(None, said), f"exit status {ran.returncode}"]
        raise NotCompiledError(f"{command[0]}: {first}")
