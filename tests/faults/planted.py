"""Does the suite notice? Plant one bug at a time in a copy, and run the tests there until one fails.

    python -m tests.faults.planted [--only NAME ...] [--python BIN] [--processes N] [--json FILE]

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
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

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
    ("wire", "fleet"),
    ("worker/transport", "worker/dispatch", "worker/features", "worker"),
    ("launcher", "testing", "project", "."),
    ("faults",),
)

# The demo, its browser and the shape of the source say nothing about these bugs.
EXCLUDED: Final = ("demo/*", "project/test_source.py")

# Bounds one test that hangs: pytest-timeout ends it and names it. No test that passes comes near.
TEST_TIMEOUT_S: Final = 60

# Bounds a stage in which something hangs that no test is blamed for.
STAGE_TIMEOUT_S: Final = 1200.0

_POLL_S: Final = 0.1

# pytest's exit statuses: nothing failed, and nothing was left to run; and one that is our own fault.
_PASSED: Final = frozenset({0, 5})
_USAGE: Final = 4

_HUNG: Final = "from pytest-timeout"
_SUMMARY: Final = "short test summary info"
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+?::[^\[\s]+(?:\[.*?\](?= - |$))?|\S+)", re.MULTILINE)


class RunError(Exception):
    """The runner can't do its work here; nothing has been learned about a bug."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run. `stop` is set when the operator wants no more."""

    python: str
    stage_timeout_s: float
    stop: threading.Event


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one bug. `remarks`: failures without a named test, by stage."""

    bug: Planted
    caught_by: str | None
    seconds: float
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one run of pytest: the first failing test, or a remark if it ended badly without one."""

    failed: str | None = None
    remark: str | None = None
    # pytest-timeout has ended a test.
    hung: bool = False


class Copy:
    """A copy of the project in a temporary folder, in which pytest can run."""

    def __init__(self, source: Path, folder: Path, options: Options) -> None:
        self._folder = folder
        self._options = options
        self.root = folder / "copy"
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTEST_", "COVERAGE_", "COV_CORE_"))
        }
        self._environment["PYTHONPATH"] = str(self.root)
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        for name in COPIED:
            if (source / name).is_dir():
                shutil.copytree(source / name, self.root / name, ignore=ignored)
            else:
                shutil.copy2(source / name, self.root / name)

    def plant(self, bug: Planted) -> None:
        """Put the bug into this copy's package."""
        path = self.root / PACKAGE / bug.file
        path.write_text(bug.plant(path.read_text()))

    def check(self) -> None:
        """Raise RunError unless what is imported with this copy's environment is this copy."""
        code = f"import {PACKAGE}, tests; print({PACKAGE}.__file__); print(tests.__file__)"
        # From elsewhere, as a child process may be: the working directory must not be what decides.
        done = subprocess.run(
            [self._options.python, "-c", code],
            cwd=self._folder,
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
        """Run these files or tests until the first failure."""
        command = [self._options.python, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        # The same examples every time, or a bug would be caught today and not tomorrow.
        command += ["--hypothesis-seed", "0", "--timeout", str(TEST_TIMEOUT_S)]
        command += [f"--deselect={test}" for test in deselected]
        log = self._folder / f"pytest-{threading.get_ident()}.log"
        # A file, because a process that outlives pytest would keep a pipe open.
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command, *targets],
                cwd=self.root,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            in_time = self._wait(process)
        text = log.read_text(errors="replace")
        if not in_time:
            return Verdict(remark=f"ran over {self._options.stage_timeout_s:g} s", hung=True)
        if process.returncode in _PASSED:
            return Verdict()
        if process.returncode == _USAGE:
            raise RunError(f"pytest refuses its arguments:\n{text.rstrip()}")
        _, found, summary = text.rpartition(_SUMMARY)
        failure = _FAILED.search(summary) if found else None
        if failure is None:
            return Verdict(remark=f"pytest ended with status {process.returncode} and named no test")
        return Verdict(failed=failure[1], hung=_HUNG in text)

    def _wait(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for pytest and end what it leaves behind; whether it ended by itself and in time."""
        deadline = time.monotonic() + self._options.stage_timeout_s
        # WNOWAIT: until it is reaped below, its process group can't be anybody else's.
        how = os.WEXITED | os.WNOWAIT | os.WNOHANG
        ended = False
        try:
            while not ended and time.monotonic() < deadline and not self._options.stop.wait(_POLL_S):
                ended = os.waitid(os.P_PID, process.pid, how) is not None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self._options.stop.is_set():
            raise RunError("stopped")
        return ended


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


def try_bug(bug: Planted, clean: Copy, options: Options) -> Outcome:
    """Plant one bug in a copy of its own and run the stages there until a test catches it."""
    began = time.monotonic()
    remarks: list[str] = []
    # Tests that fail without the bug, too: they say nothing about it.
    unfit: list[str] = []
    with tempfile.TemporaryDirectory(prefix="planted-", ignore_cleanup_errors=True) as folder:
        # Of the clean copy: the working tree may change while this runs.
        copy = Copy(clean.root, Path(folder), options)
        copy.plant(bug)
        copy.check()
        for number, files in enumerate(stages(copy.root / "tests"), 1):
            while True:
                verdict = copy.test(files, unfit)
                if verdict.remark is not None:
                    remarks.append(f"stage {number} {verdict.remark}")
                if verdict.failed is None:
                    break
                if clean.test([verdict.failed]) == Verdict():
                    return Outcome(bug, verdict.failed, time.monotonic() - began, tuple(remarks))
                if verdict.failed in unfit:
                    raise RunError(f"{verdict.failed} fails without a bug and can't be left out")
                unfit.append(verdict.failed)
                remarks.append(f"{verdict.failed} fails without the bug, too")
    return Outcome(bug, None, time.monotonic() - began, tuple(remarks))


def try_all(bugs: Sequence[Planted], options: Options, processes: int) -> list[Outcome]:
    """Try every bug, `processes` at a time; in the order given."""

    def attempt(bug: Planted) -> Outcome:
        outcome = try_bug(bug, clean, options)
        sys.stderr.write(f"{bug.name}: {outcome.caught_by or 'nothing'} ({outcome.seconds:.0f} s)\n")
        return outcome

    with tempfile.TemporaryDirectory(prefix="unplanted-", ignore_cleanup_errors=True) as folder:
        clean = Copy(ROOT, Path(folder), options)
        clean.check()
        for bug in bugs:
            # All of them before the first run: a place that has moved shows at once.
            bug.plant((clean.root / PACKAGE / bug.file).read_text())
        with ThreadPoolExecutor(processes) as pool:
            futures = [pool.submit(attempt, bug) for bug in bugs]
            try:
                return [future.result() for future in futures]
            except BaseException:
                options.stop.set()
                pool.shutdown(cancel_futures=True)
                raise


def table(outcomes: Iterable[Outcome]) -> str:
    """The outcomes as a Markdown table, and below it what was remarkable."""
    outcomes = list(outcomes)
    remarks = [f"- {each.bug.name}: {remark}" for each in outcomes for remark in each.remarks]
    rows = _rows({each.bug.name: each.caught_by for each in outcomes})
    return "\n".join([*rows, *([""] if remarks else []), *remarks]) + "\n"


def _rows(caught_by: Mapping[str, str | None]) -> list[str]:
    """Return a line for each bug with a known outcome."""
    lines = ["| bug | in | what a user would see | caught by |", "|---|---|---|---|"]
    for bug in PLANTED:
        if bug.name in caught_by:
            test = caught_by[bug.name]
            lines.append(
                f"| {bug.name} | {bug.file} | {bug.breaks} | {f'`{test}`' if test else '**nothing**'} |"
            )
    return lines


def write_page(outcomes: Iterable[Outcome]) -> None:
    """Add the outcomes to what is known, and put all of it into the page."""
    known: dict[str, str | None] = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    known |= {each.bug.name: each.caught_by for each in outcomes}
    KNOWN.write_text(json.dumps(known, indent=1) + "\n")
    guarantees.put(guarantees.PLANTED, "\n".join(_rows(known)))


def as_json(outcomes: Iterable[Outcome]) -> str:
    """The outcomes for a program: a list, with null for what nothing caught."""
    rows = [
        {
            "name": outcome.bug.name,
            "file": outcome.bug.file,
            "breaks": outcome.bug.breaks,
            "caught_by": outcome.caught_by,
        }
        for outcome in outcomes
    ]
    return json.dumps(rows, indent=2) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 if every bug was caught, 1 if one was not, 2 if it could not be found out."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.planted", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=[bug.name for bug in PLANTED], help="try these bugs"
    )
    parser.add_argument(
        "--python", default=sys.executable, metavar="BIN", help="the interpreter to test with"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="how many bugs at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes there, too")
    parser.add_argument("--page", action="store_true", help="put the outcomes into docs/guarantees.md, too")
    parser.add_argument(
        "--stage-timeout", type=float, default=STAGE_TIMEOUT_S, metavar="S", help="seconds for one stage"
    )
    chosen = parser.parse_args(arguments)
    if chosen.processes < 1:
        parser.error("--processes is at least 1")
    # A relative path means this folder; pytest runs in another.
    python = os.path.abspath(chosen.python) if os.sep in chosen.python else chosen.python
    options = Options(python, chosen.stage_timeout, threading.Event())
    # Ended politely like with Ctrl-C, so that no copy and no server stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bugs = [bug for bug in PLANTED if chosen.only is None or bug.name in chosen.only]
    try:
        outcomes = try_all(bugs, options, chosen.processes)
    except (RunError, PlantError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    sys.stdout.write(table(outcomes))
    if chosen.page:
        write_page(outcomes)
    if chosen.json is not None:
        chosen.json.write_text(as_json(outcomes))
    return 0 if all(outcome.caught_by for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
