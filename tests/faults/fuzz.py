"""The fault "parser": the pure protocol under structurally mutated input that carries the valid cookie.

Law: it bounds itself: so many executions, in processes of so many each, and
none of them waited for without end. A seed is the same each time.

    python -m tests.faults.fuzz --executions 1000000
    python -m tests.faults.fuzz --here drawn --executions 20000 --seed 12 --verbose

The first prints each failure, shrunk, with its seed. The second repeats one
process's part in this process and says each script before it is executed:
that of a process that has died is the last one.

fuzzing/drawing.py draws a script, and fuzzing/judge.py judges it. Coverage guides a part of the executions
when atheris is installed. Of very many, plain chance chooses most: nine in the time of one that hypothesis
chooses, and not shrunk.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as with_seed

from asgi_ipc.wire.packet import PacketParser
from asgi_ipc.wire.reassembler import Reassembler
from tests.faults.fuzzing.drawing import random_script, scripts
from tests.faults.fuzzing.judge import BrokenPromiseError, execute
from tests.faults.fuzzing.script import Script
from tests.serving import ROOT

# Coverage of this little code is complete after some ten thousand executions; what remains are rare
# combinations, for which hypothesis' own variety counts more than guidance.
GUIDED_SHARE: Final = 0.1

# So many of the others are hypothesis' choice at most, and the rest plain chance's.
MOST_DRAWN: Final = 500_000

# Executions of one process: hypothesis remembers all that it has tried, some KiB each.
PART: Final = 20_000

# The module that one process runs, as arguments of the interpreter.
CHILD: Final = ("-m", "tests.faults.fuzz")

# An execution takes about 1.5 ms, guided or drawn, a tenth of it by chance; shrinking may take minutes.
START_S: Final = 420.0
EXECUTION_S: Final = 0.02

# Of a guided process: what libFuzzer starts from, and how long one execution may take.
SEED_INPUTS: Final = 64
INPUT_BYTES: Final = 512
TIMEOUT_S: Final = 60


class Report(msgspec.Struct):
    """The sum of the outcomes of executions.

    Attributes:
        guided: how many of the executions atheris guided.
        reached: executions that gave the reassembler at least one packet.
        delivered: packets that made the receiver deliver.
        unharmed: executions in which an unharmed sender was owed every message, and each of them came.
        chances: senders that lost a message because a cut packet was completed, by chance, by their first
            bytes.
        failures: each in words.
        crashed: how many of them are no broken promise but an error or a dead process.
        coverage: libFuzzer's last words on it, for each guided process.
        note: why nothing was guided, if it was to be.
    """

    executions: int = 0
    guided: int = 0
    reached: int = 0
    delivered: int = 0
    unharmed: int = 0
    chances: int = 0
    failures: list[str] = []
    crashed: int = 0
    seconds: float = 0.0
    coverage: list[str] = []
    note: str = ""

    def execute(self, script: Script) -> None:
        """Run one execution and add it. Raises what it raises."""
        self.executions += 1
        outcome = execute(script)
        self.reached += outcome.reached > 0
        self.delivered += outcome.delivered
        self.unharmed += outcome.unharmed > 0
        self.chances += outcome.chances

    def fail(self, error: Exception, seed: int) -> None:
        """Add a failure; hypothesis has written its script into the notes of the error."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = "".join(traceback.format_exception_only(error)).strip()
        self.failures.append(f"seed {seed}: {said}\n({place.name}, line {place.lineno})")
        self.crashed += not isinstance(error, BrokenPromiseError)

    def add(self, other: Report) -> None:
        for name in Report.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def ok(self) -> bool:
        """No failure, and at least half of the executions reached the reassembler."""
        return not self.failures and self.reached >= self.executions / 2

    def __str__(self) -> str:
        total = max(self.executions, 1)
        lines = [
            f"{self.executions:,} executions ({self.guided:,} guided) in {self.seconds:.0f} s, "
            f"{self.executions / max(self.seconds, 1e-9):,.0f} per second",
            f"{self.reached / total:.1%} reached the reassembler; "
            f"{self.delivered:,} packets delivered messages",
            f"{self.unharmed / total:.1%} had a sender that was owed every message; "
            f"{self.chances:,} senders lost one to a cut packet that their own bytes completed",
            *(f"coverage: {words}" for words in self.coverage),
            *([self.note] if self.note else []),
            f"{len(self.failures):,} failures, {self.crashed:,} of them crashes",
            *self.failures,
        ]
        return "\n".join(lines)


# --- one process


def explore(executions: int, seed: int, *, shrinks: bool = True, verbose: bool = False) -> Report:
    """Have hypothesis draw so many scripts, in this process, until one fails."""
    report = Report()
    holds = _property(report, executions, seed, shrinks=shrinks, verbose=verbose)
    try:
        holds()
    except Exception as error:  # noqa: BLE001 - that nothing is raised is what is tested
        report.fail(error, seed)
    return report


def chance(executions: int, seed: int) -> Report:
    """Have plain chance choose so many scripts, in this process, until one fails."""
    report = Report()
    for number in range(executions):
        script = random_script(f"{seed}-{number}")
        try:
            report.execute(script)
        except Exception as error:  # noqa: BLE001 - as above
            error.add_note(repr(script))
            report.fail(error, seed)
            break
    return report


def _property(
    report: Report, executions: int, seed: int, *, shrinks: bool = True, verbose: bool = False
) -> Any:
    @with_seed(seed)
    @settings(
        max_examples=executions,
        phases=[Phase.generate, *([Phase.shrink] if shrinks else [])],
        verbosity=Verbosity.verbose if verbose else Verbosity.normal,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(scripts())
    def holds(script: Script) -> None:
        report.execute(script)

    return holds


def guide(executions: int, seed: int, finish: Callable[[Report], None]) -> None:
    """Have libFuzzer choose the bytes that scripts are drawn from. Does not return: `finish` is called."""
    atheris: Any = importlib.import_module("atheris")
    report = Report()
    fuzz_one_input = _property(report, executions, seed).hypothesis.fuzz_one_input
    # Branches only: to follow the compared values, too, halves the speed, and
    # what is drawn is not what is compared with the cookie or the CRC.
    for cls in (PacketParser, Reassembler):
        for function in vars(cls).values():
            if inspect.isfunction(function):
                function.__code__ = atheris.patch_code(function.__code__, trace_dataflow=False)

    def execute_one(data: bytes) -> None:
        try:
            fuzz_one_input(data)
        except Exception as error:  # noqa: BLE001 - as above
            report.fail(error, seed)
        if report.executions >= executions or report.failures:
            report.guided = report.executions
            finish(report)
            # libFuzzer has no other way out that leaves the exit status 0.
            os._exit(0)

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        rng = random.Random(seed)
        inputs = [Path(folder) / str(number) for number in range(SEED_INPUTS)]
        for path in inputs:
            path.write_bytes(rng.randbytes(INPUT_BYTES))
        options = [
            "fuzz",
            f"-max_len={INPUT_BYTES}",
            "-len_control=0",
            f"-seed={rng.randrange(1, 2**31)}",
            f"-timeout={TIMEOUT_S}",
            f"-artifact_prefix={folder}/",
            f"-seed_inputs={','.join(map(str, inputs))}",
        ]
        atheris.Setup(options, execute_one)
        atheris.Fuzz()


# --- all of them


def fuzz(executions: int, processes: int = 2, seed: int = 0, guided_share: float = GUIDED_SHARE) -> Report:
    """Run so many executions, spread over processes.

    Coverage guides `guided_share` of them if atheris is installed.
    """
    report = Report()
    if guided_share and importlib.util.find_spec("atheris") is None:
        guided_share = 0.0
        report.note = "atheris is not installed: nothing was guided"
    started = time.monotonic()
    guided = round(executions * guided_share)
    drawn = min(executions - guided, MOST_DRAWN)
    shares = (("drawn", drawn), ("guided", guided), ("chance", executions - guided - drawn))
    parts = [(count, how) for how, share in shares for count in _parts(share, processes)]
    with ThreadPoolExecutor(processes) as pool:
        runs = [pool.submit(_run, *part, seed * 100_000 + index) for index, part in enumerate(parts)]
        for run in runs:
            report.add(run.result())
    report.seconds = time.monotonic() - started
    return report


def _parts(executions: int, processes: int) -> Iterable[int]:
    size = min(PART, -(-executions // processes))
    while executions:
        yield min(size, executions)
        executions -= min(size, executions)


def _run(executions: int, how: str, seed: int) -> Report:
    """One process; its death or its silence is a failure like any other."""
    command = [sys.executable, *CHILD, "--here", how, "--executions", str(executions), "--seed", str(seed)]
    try:
        ran = subprocess.run(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=START_S + executions * EXECUTION_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Report(failures=[f"seed {seed}: the process did not end"], crashed=1)
    if ran.returncode:
        last = ran.stderr.strip().rpartition("\n")[2]
        reason = f"seed {seed}: the process ended with status {ran.returncode}: {last}"
        return Report(failures=[reason], crashed=1)
    report = msgspec.json.decode(ran.stdout.splitlines()[-1], type=Report)
    report.coverage = re.findall(r"cov: \d+ ft: \d+ corp: \d+", ran.stderr)[-1:]
    return report


def main() -> int:
    """The command; 1 when something failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.fuzz", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--here", choices=("drawn", "guided", "chance"), help="in this process; its report is the last line"
    )
    parser.add_argument("--verbose", action="store_true", help="with --here drawn: say each script")
    chosen = parser.parse_args()
    if chosen.here is None:
        report = fuzz(chosen.executions, seed=chosen.seed)
        sys.stdout.write(f"{report}\n")
        return int(not report.ok)
    if chosen.here == "guided":
        guide(chosen.executions, chosen.seed, _say)
    elif chosen.here == "chance":
        _say(chance(chosen.executions, chosen.seed))
    else:
        _say(explore(chosen.executions, chosen.seed, verbose=chosen.verbose))
    return 0


def _say(report: Report) -> None:
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
