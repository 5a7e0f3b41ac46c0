"""The layers: who imports whom, read off the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import asgi_ipc

PACKAGE = Path(asgi_ipc.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

IMPURE = {
    "asyncio",
    "fcntl",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "uvicorn",
    "uvloop",
}


def imports(file: Path) -> set[str]:
    """The full names of the modules (and of what is imported from them) in one file."""
    package = [PACKAGE.name, *file.relative_to(PACKAGE).parts[:-1]]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def below(folder: str) -> list[Path]:
    files = [file for file in FILES if file.is_relative_to(PACKAGE / folder)]
    assert files
    return files


def of(prefix: str, names: set[str]) -> set[str]:
    """Those of `names` that are `prefix` or in it."""
    return {name for name in names if name == prefix or name.startswith(prefix + ".")}


def shown(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


@pytest.mark.parametrize("file", below("wire") + below("fleet"), ids=shown)
def test_the_pure_libraries_ask_neither_kernel_nor_loop_nor_clock(file: Path) -> None:
    assert not {name for name in imports(file) if name.split(".")[0] in IMPURE}


@pytest.mark.parametrize("room", ["wire", "fleet"])
def test_a_pure_library_imports_only_itself_the_errors_and_printable(room: str) -> None:
    for file in below(room):
        ours = of("asgi_ipc", imports(file))
        assert ours == of(f"asgi_ipc.{room}", ours) | of("asgi_ipc.errors", ours) | of(
            "asgi_ipc.printable", ours
        )


@pytest.mark.parametrize("file", below("launcher"), ids=shown)
def test_the_launcher_never_imports_the_worker(file: Path) -> None:
    assert not of("asgi_ipc.worker", imports(file))


@pytest.mark.parametrize("file", below("worker"), ids=shown)
def test_a_worker_never_imports_the_launcher(file: Path) -> None:
    assert not of("asgi_ipc.launcher", imports(file))


@pytest.mark.parametrize("file", below("worker/transport"), ids=shown)
def test_transport_knows_nothing_of_handlers(file: Path) -> None:
    ours = imports(file)
    assert not of("asgi_ipc.worker.dispatch", ours) | of("asgi_ipc.worker.features", ours)


@pytest.mark.parametrize("file", below("worker/dispatch"), ids=shown)
def test_dispatch_knows_nothing_of_pipes(file: Path) -> None:
    ours = imports(file)
    assert not of("asgi_ipc.worker.transport", ours) | of("asgi_ipc.worker.features", ours)


@pytest.mark.parametrize("file", [file for file in FILES if file not in below("testing")], ids=shown)
def test_nothing_in_the_product_imports_the_test_kit(file: Path) -> None:
    assert not of("asgi_ipc.testing", imports(file))


@pytest.mark.parametrize("file", [file for file in FILES if file.name != "plugin.py"], ids=shown)
def test_nothing_but_the_plugin_imports_pytest(file: Path) -> None:
    assert not of("pytest", imports(file))


def test_the_plugin_loads_neither_the_launcher_nor_uvicorn() -> None:
    # It is loaded in every test run of whoever has the package installed.
    code = "import sys, asgi_ipc.testing.plugin; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not of("asgi_ipc.launcher", set(loaded.split())) | of("uvicorn", set(loaded.split()))


@pytest.mark.parametrize("file", FILES, ids=shown)
def test_no_web_framework_is_imported_anywhere(file: Path) -> None:
    for framework in ("starlette", "fastapi", "django", "flask", "litestar", "quart"):
        assert not of(framework, imports(file))


@pytest.mark.parametrize("file", FILES, ids=shown)
def test_nothing_is_pickled_or_evaluated(file: Path) -> None:
    assert not {name for name in imports(file) if name.split(".")[0] in {"pickle", "marshal", "shelve"}}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}


def test_every_module_opens_with_its_law() -> None:
    for file in FILES:
        assert ast.get_docstring(ast.parse(file.read_text())), shown(file)
