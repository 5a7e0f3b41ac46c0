"""The fault "parser": the pure protocol under structurally mutated input that carries the valid cookie.

Law: it bounds itself: so many executions, in so many processes, and none of
them waited for without end. Every failure is printed as decisions that
`--replay` executes again.

    python -m tests.faults.fuzz --executions 10000000 --processes 2
    python -m tests.faults.fuzz --replay a56a2871...

fuzzing/drawing.py makes an execution, and fuzzing/judge.py judges it. Coverage guides a part of the
executions when atheris is installed; the rest is random, and several times as fast.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.fuzzing.child import Now, Tally
from tests.faults.fuzzing.drawing import build
from tests.faults.fuzzing.judge import execute
from tests.faults.fuzzing.reference import scan

ROOT: Final = Path(__file__).resolve().parents[2]

# Coverage of this little code is complete after some ten thousand executions;
# what remains are rare combinations, for which speed counts more than guidance.
GUIDED_SHARE: Final = 0.1

# The module that one process runs, as arguments of the interpreter.
CHILD: Final = ("-m", "tests.faults.fuzzing.child")

# An execution takes about 0.15 ms, guided twice that; ten times as much is a hang.
START_S: Final = 120.0
EXECUTION_S: Final = 0.003


@dataclass(frozen=True, slots=True)
class Report:
    """The results of a fuzzing session."""

    executions: int
    # How many of them atheris guided.
    guided: int
    # The share of executions that gave the reassembler at least one packet.
    reached: float
    # Packets that made the receiver deliver messages.
    delivered: int
    # The share of executions in which a sender that nobody harmed was among those
    # that were; each of its messages came.
    unharmed: float
    # Senders that lost a message because a cut packet was completed, by chance, by their first bytes.
    chances: int
    # Executions that broke a promise, raised or ended their process, and those that did the latter two.
    failed: int
    crashed: int
    # "decisions-in-hex reason", the first of them.
    failures: list[str]
    seconds: float
    # libFuzzer's last words on it, for each process.
    coverage: list[str]
    # Why nothing was guided, if it was to be.
    note: str = ""

    @property
    def ok(self) -> bool:
        """No failure, and at least half of the executions reached the reassembler."""
        return not self.failed and self.reached >= 0.5

    def __str__(self) -> str:
        lines = [
            f"{self.executions:,} executions ({self.guided:,} guided) in {self.seconds:.0f} s, "
            f"{self.executions / max(self.seconds, 1e-9):,.0f} per second",
            f"{self.reached:.1%} reached the reassembler; {self.delivered:,} packets delivered messages",
            f"{self.unharmed:.1%} had a sender that was owed every message; "
            f"{self.chances:,} senders lost one to a cut packet that their own bytes completed",
            *(f"coverage: {words}" for words in self.coverage),
            *([self.note] if self.note else []),
            f"{self.failed:,} failures, {self.crashed:,} of them crashes",
            *self.failures,
        ]
        return "\n".join(lines)


def fuzz(
    executions: int,
    processes: int = 2,
    seed: int = 0,
    guided: bool = True,
    *,
    guided_share: float = GUIDED_SHARE,
) -> Report:
    """Run so many executions, spread over processes.

    `guided_share` of them is guided by coverage, if `guided` and if atheris is
    installed. The random part is the same for the same seed and number of
    processes.
    """
    note = ""
    if guided and importlib.util.find_spec("atheris") is None:
        guided = False
        note = "atheris is not installed: nothing was guided"
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        children = []
        try:
            for index in range(processes):
                share = executions // processes + (index < executions % processes)
                share_guided = round(share * guided_share) if guided else 0
                folder = Path(name) / str(index)
                children.append(_Child(folder, share, share_guided, f"{seed}/{index}"))
            tallies = [each.tally() for each in children]
        finally:
            for each in children:
                each.end()
        coverage = [words for each in children if (words := each.coverage())]
    total = sum(tally.executions for tally in tallies)
    return Report(
        executions=total,
        guided=sum(tally.guided for tally in tallies),
        reached=sum(tally.reached for tally in tallies) / max(total, 1),
        delivered=sum(tally.delivered for tally in tallies),
        unharmed=sum(tally.unharmed for tally in tallies) / max(total, 1),
        chances=sum(tally.chances for tally in tallies),
        failed=sum(tally.failed for tally in tallies),
        crashed=sum(tally.crashed for tally in tallies),
        failures=[failure for tally in tallies for failure in tally.failures],
        seconds=time.monotonic() - started,
        coverage=coverage,
        note=note,
    )


class _Child:
    """One fuzzing process and its folder."""

    def __init__(self, folder: Path, executions: int, guided: int, seed: str) -> None:
        folder.mkdir()
        self._folder = folder
        self._deadline = time.monotonic() + START_S + executions * EXECUTION_S
        command = [sys.executable, *CHILD, str(folder), str(executions), str(guided), seed]
        with (folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def tally(self) -> Tally:
        """Return the child's results; its death or its silence is a failure like any other."""
        try:
            status = self._process.wait(max(0.0, self._deadline - time.monotonic()))
            reason = f"the process ended with status {status}"
        except subprocess.TimeoutExpired:
            status = None
            reason = "the process did not end"
        result = self._folder / "tally.json"
        if status == 0 and result.exists():
            return Tally(**json.loads(result.read_text()))
        decisions = Now.read(self._folder / "now")
        last = self._output().strip().rpartition("\n")[2]
        return Tally(failed=1, crashed=1, failures=[f"{decisions.hex()} {reason}: {last}"])

    def coverage(self) -> str:
        """How many branches, how many features of them, and how many inputs show all these."""
        found = re.findall(r"cov: \d+ ft: \d+ corp: \d+", self._output())
        return found[-1] if found else ""

    def end(self) -> None:
        """Leave no process behind."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _output(self) -> str:
        return (self._folder / "output").read_text(errors="replace")


def replay(decisions: bytes) -> str:
    """Print the script of these decisions and its outcome."""
    script = build(decisions)
    lines = [
        f"cookie {script.run.cookie.hex()}, packets of at most {script.run.max_packet_bytes} bytes; "
        f"harmed: {sorted(script.touched)}, forged: {sorted(script.forged)}"
    ]
    start = 0
    for write, owner in zip(script.writes, script.owners, strict=True):
        genuine = " as it was sent" if (write, owner) in script.sources else ""
        lines.append(f"{start:6} write of {len(write)} bytes by {owner}{genuine}: {write.hex()}")
        start += len(write)
    lines.extend(f"{stop:6} read to here{', drained' * drained}" for stop, drained in script.reads)
    found = scan(script.run, b"".join(script.writes), script.reads)
    for place, packet in zip(found.places, found.packets, strict=True):
        lines.append(
            f"{place:6} packet {packet.number} of {packet.sender} to {packet.receiver}, kind {packet.kind}"
        )
    outcome = execute(decisions)
    lines.append(outcome.failure or f"no failure: {outcome}")
    return "\n".join(lines)


def main() -> int:
    """The command; 1 when something failed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.fuzz", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guided-share", type=float, default=GUIDED_SHARE)
    parser.add_argument(
        "--replay", metavar="HEX", type=bytes.fromhex, help="execute these decisions, and say what"
    )
    arguments = parser.parse_args()
    if arguments.replay is not None:
        sys.stdout.write(replay(arguments.replay) + "\n")
        return int(execute(arguments.replay).failure is not None)
    report = fuzz(
        arguments.executions,
        arguments.processes,
        arguments.seed,
        guided=arguments.guided_share > 0,
        guided_share=arguments.guided_share,
    )
    sys.stdout.write(f"{report}\n")
    return int(not report.ok)


if __name__ == "__main__":
    sys.exit(main())
