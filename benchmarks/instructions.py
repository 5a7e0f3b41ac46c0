"""Instructions of a message, counted by valgrind's cachegrind: what a busy machine does not change.

Law: from the program's few messages to its many, divided by the difference: start and end don't count. They
say how much work there is, not how long it takes: a system call is one instruction.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.counted import CASES
from benchmarks.judgement import BenchmarkError
from benchmarks.servers import Build

# Enough that two counts of the same code differ by less than a hundredth: timers fall due in between.
FEW: Final = 500
MANY: Final = 2_500

TIMEOUT_S: Final = 600.0

_REFS: Final = re.compile(r"I +refs: +([\d,]+)")


def are_missing() -> str | None:
    """Why none can be counted here."""
    return None if shutil.which("valgrind") else "valgrind is not installed"


def count(build: Build, cases: Sequence[str] = tuple(CASES)) -> dict[str, float]:
    """Instructions of a message, by case. Raises BenchmarkError if a case failed."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        command += [f"--log-file={folder}/%p", build.python, "-m", "benchmarks.counted", str(FEW), str(MANY)]
        ran = subprocess.run(
            [*command, *cases],
            cwd=build.folder,
            # Sets and dicts of strings in the same order each time.
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        if ran.returncode:
            raise BenchmarkError(f"instructions of a message: {ran.stderr.strip() or 'valgrind failed'}")
        totals: dict[str, list[int]] = {}
        for line in ran.stdout.splitlines():
            pid, case, _ = line.split()
            totals.setdefault(case, []).append(_total(Path(folder, pid).read_text()))
    return {case: (many - few) / (MANY - FEW) for case, (few, many) in totals.items()}


def _total(said: str) -> int:
    found = _REFS.search(said)
    if found is None:
        raise BenchmarkError(f"cachegrind said no total: {said.strip()}")
    return int(found[1].replace(",", ""))
