"""Does the suite notice? Plant one bug at a time in a copy, and run the tests there until one fails.

    python -m tests.faults.planted [--only NAME ...] [--processes N] [--page]

Law: the command only reads the working tree. The tests and every process that they start run the copy's
package, and the command checks that. A bug counts as caught only if a named test fails with the bug and
passes without it. A stage that runs over its bound is ended with all its processes, and names no test.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from asgi_ipc.testing.child import Child
from tests.faults import guarantees
from tests.faults.planted_bugs import PLANTED, Planted, PlantError

ROOT: Final = guarantees.ROOT

# The last outcome of each bug, for the page.
KNOWN: Final = ROOT / "docs" / "planted.json"
PACKAGE: Final = "asgi_ipc"

# All that the tests need; a copy has no `.git`, no environment and no caches.
COPIED: Final = (PACKAGE, "tests", "demo", "pyproject.toml")

# The quickest first: most bugs end there. A later pattern takes what no earlier one has.
STAGES: Final[tuple[tuple[str, ...], ...]] = (
    ("wire", "fleet", "cluster"),
    ("worker/transport", "worker/dispatch", "worker/features", "worker"),
    ("launcher", "testing", "bridge", "project", "."),
    ("faults",),
)

# The demo, its browser and the shape of the source say nothing about these bugs.
EXCLUDED: Final = ("demo/*", "project/test_source.py")

# Bounds one test that hangs: pytest-timeout ends it and names it. No test that passes comes near.
TEST_TIMEOUT_S: Final = 60

# Bounds a stage in which something hangs that no test is blamed for.
STAGE_TIMEOUT_S: Final = 1200.0

# Between two looks at a run that has not ended, and at an operator who wants no more.
_POLL_S: Final = 0.1

# pytest's exit statuses: nothing failed, and nothing was left to run; and one that is our own fault.
_PASSED: Final = frozenset({0, 5})
_USAGE: Final = 4

_HUNG: Final = "from pytest-timeout"
_SUMMARY: Final = "short test summary info"
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+?::[^\[\s]+(?:\[.*?\](?= - |$))?|\S+)", re.MULTILINE)


class RunError(Exception):
    """The runner can't do its work here; nothing has been learned about a bug."""


T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one run of pytest: the first failing test, or a remark if it ended badly without one."""

    failed: str | None = None
    remark: str | None = None
    # pytest-timeout has ended a test.
    hung: bool = False


class Copy:
    """A copy of the project in a temporary folder, in which pytest can run until `stop` is set."""

    def __init__(
        self, source: Path, folder: str, stop: threading.Event, timeout_s: float = STAGE_TIMEOUT_S
    ) -> None:
        self.root = Path(folder) / "copy"
        self.stop = stop
        self._timeout_s = timeout_s
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "COVERAGE_", "COV_CORE_"))
        }
        self._environment["PYTHONPATH"] = str(self.root)
        # No compiled module: it would not have the bug.
        ignored = shutil.ignore_patterns("__pycache__", ".*", "*.so")
        for name in COPIED:
            if (source / name).is_dir():
                shutil.copytree(source / name, self.root / name, ignore=ignored)
            else:
                shutil.copy2(source / name, self.root / name)
        self._check()

    def _check(self) -> None:
        """Raise RunError unless what is imported with this copy's environment is this copy."""
        code = f"import {PACKAGE}, tests; print({PACKAGE}.__file__); print(tests.__file__)"
        # From elsewhere, as a child process may be: the working directory must not be what decides.
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.root.parent,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RunError(f"the copy can't be imported:\n{done.stderr.rstrip()}")
        for file in done.stdout.splitlines():
            if not Path(file).resolve().is_relative_to(self.root.resolve()):
                raise RunError(f"{file} would be tested instead of the copy in {self.root}")

    def test(self, targets: Iterable[str], deselected: Iterable[str] = ()) -> Verdict:
        """Run these files or tests until the first failure, and end all that they leave behind."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        # The same examples every time, or a bug would be caught today and not tomorrow.
        command += ["--hypothesis-seed", "0", "--timeout", str(TEST_TIMEOUT_S)]
        command += [f"--deselect={test}" for test in deselected]
        child = Child([*command, *targets], env=self._environment, cwd=self.root)
        deadline = time.monotonic() + self._timeout_s
        try:
            while (status := child.status) is None and time.monotonic() < deadline:
                if self.stop.wait(_POLL_S):
                    raise RunError("stopped")
        finally:
            child.close()
        if status is None:
            return Verdict(remark=f"ran over {self._timeout_s:g} s", hung=True)
        if status in _PASSED:
            return Verdict()
        if status == _USAGE:
            raise RunError(f"pytest refuses its arguments:\n{child.output.rstrip()}")
        _, found, summary = child.output.rpartition(_SUMMARY)
        failure = _FAILED.search(summary) if found else None
        if failure is None:
            return Verdict(remark=f"pytest ended with status {status} and named no test")
        return Verdict(failed=failure[1], hung=_HUNG in child.output)


def attempt_all(
    attempt: Callable[[T], R], subjects: Iterable[T], jobs: int, stop: threading.Event
) -> list[R]:
    """Call `attempt` with each of them in threads, `jobs` at a time; the first error stops all runs."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(attempt, subject) for subject in subjects]
        try:
            return [future.result() for future in futures]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def stages(tests: Path) -> list[list[str]]:
    """The test files of each stage, relative to the folder above `tests`, each file once."""
    taken = {path for pattern in EXCLUDED for path in tests.glob(pattern)}
    found = []
    for rooms in STAGES:
        files: list[str] = []
        for room in rooms:
            # What has no room stands directly in the folder.
            for path in sorted(tests.glob("test_*.py") if room == "." else (tests / room).rglob("test_*.py")):
                if path not in taken:
                    taken.add(path)
                    files.append(str(path.relative_to(tests.parent)))
        found.append(files)
    return found


def try_bug(bug: Planted, clean: Copy) -> str | None:
    """Plant one bug in a copy of its own and run the stages there; the test that catches it."""
    began = time.monotonic()
    # Tests that fail without the bug, too: they say nothing about it.
    unfit: list[str] = []
    with tempfile.TemporaryDirectory(prefix="planted-", ignore_cleanup_errors=True) as folder:
        # Of the clean copy: the working tree may change while this runs.
        copy = Copy(clean.root, folder, clean.stop)
        path = copy.root / PACKAGE / bug.file
        path.write_text(bug.plant(path.read_text()))
        for number, files in enumerate(stages(copy.root / "tests"), 1):
            while True:
                verdict = copy.test(files, unfit)
                if verdict.remark is not None:
                    say(f"{bug.name}: stage {number} {verdict.remark}")
                if verdict.failed is None:
                    break
                if clean.test([verdict.failed]) == Verdict():
                    say(f"{bug.name}: {verdict.failed} ({time.monotonic() - began:.0f} s)")
                    return verdict.failed
                if verdict.failed in unfit:
                    raise RunError(f"{verdict.failed} fails without a bug and can't be left out")
                unfit.append(verdict.failed)
                say(f"{bug.name}: {verdict.failed} fails without the bug, too")
    say(f"{bug.name}: NOTHING ({time.monotonic() - began:.0f} s)")
    return None


def try_all(bugs: Sequence[Planted], processes: int) -> dict[str, str | None]:
    """Try every bug, `processes` at a time; the test that catches each, by its name."""
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="unplanted-", ignore_cleanup_errors=True) as folder:
        clean = Copy(ROOT, folder, stop)
        for bug in bugs:
            # All of them before the first run: a place that has moved shows at once.
            bug.plant((clean.root / PACKAGE / bug.file).read_text())
        caught = attempt_all(lambda bug: try_bug(bug, clean), bugs, processes, stop)
    return {bug.name: test for bug, test in zip(bugs, caught, strict=True)}


def write_page(caught_by: dict[str, str | None]) -> None:
    """Add the outcomes to what is known, and put all of it into the page."""
    known: dict[str, str | None] = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    known |= caught_by
    KNOWN.write_text(json.dumps(known, indent=1) + "\n")
    lines = ["| bug | in | what a user would see | caught by |", "|---|---|---|---|"]
    for bug in PLANTED:
        if bug.name in known:
            test = f"`{known[bug.name]}`" if known[bug.name] else "**nothing**"
            lines.append(f"| {bug.name} | {bug.file} | {bug.breaks} | {test} |")
    guarantees.put(guarantees.PLANTED, "\n".join(lines))


def main() -> int:
    """Run the command; 0 if every bug was caught, 1 if one was not, 2 if it could not be found out."""
    names = [bug.name for bug in PLANTED]
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.planted", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, default=names)
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="how many bugs at a time")
    parser.add_argument("--page", action="store_true", help="put the outcomes into docs/guarantees.md, too")
    chosen = parser.parse_args()
    # Ended politely like with Ctrl-C, so that no copy and no server stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        caught_by = try_all([bug for bug in PLANTED if bug.name in chosen.only], chosen.processes)
    except (RunError, PlantError) as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    if chosen.page:
        write_page(caught_by)
    return 0 if all(caught_by.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
