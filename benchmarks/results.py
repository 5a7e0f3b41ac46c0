"""Results: measurements with their circumstances; kept as JSON.

Law: figures are kept as they were measured; this file computes only the median. A figure without its machine,
versions and commit is not written.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.judgement import Run
from benchmarks.servers import ROOT

FOLDER: Final = Path(__file__).parent / "results"

# How long to look at what others do.
BUSY_S: Final = 0.5

PACKAGES: Final = {
    "asgi-ipc": "asgi-worker-ipc",
    "uvicorn": "uvicorn",
    "uvloop": "uvloop",
    "msgspec": "msgspec",
}


class Circumstances(msgspec.Struct, frozen=True):
    """The circumstances of the figures.

    Attributes:
        modified: files differ from that commit.
        busy_cpus: how many CPUs others kept busy before the start. With one of two taken, what is
            measured between two processes is measured on one CPU.
    """

    date: str
    commit: str
    modified: bool
    cpu: str
    cores: int
    kernel: str
    busy_cpus: float
    versions: dict[str, str]

    @property
    def sentence(self) -> str:
        """All of it, on one line."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.cpu}, {self.cores} cores ({self.busy_cpus:.1f} of them busy before), {self.kernel}; "
            f"{versions}; {self._when}"
        )

    @property
    def short(self) -> str:
        """Without versions and kernel."""
        return f"{self.cpu}, {self.cores} cores; {self._when}"

    @property
    def _when(self) -> str:
        return f"commit {self.commit[:12]}{' with changes' if self.modified else ''}; {self.date}"


class Result(msgspec.Struct, frozen=True):
    """A case of one subject.

    Attributes:
        group: results of the same group were taken in the same rounds; `runs` are in their order.
        count: messages of each sender in a run.
    """

    subject: str
    loop: str
    case: str
    shape: str
    group: int
    count: int
    runs: list[Run]

    @property
    def per_second(self) -> float:
        """The median."""
        return statistics.median(run.per_second for run in self.runs)

    @property
    def cpu_us(self) -> float:
        """The median of all runs."""
        return statistics.median(run.cpu_us for run in self.runs)

    @property
    def p50_us(self) -> float:
        """The median of all runs."""
        return statistics.median(run.p50_us for run in self.runs)

    @property
    def p99_us(self) -> float:
        """The median of all runs."""
        return statistics.median(run.p99_us for run in self.runs)


class Footprint(msgspec.Struct, frozen=True):
    """The cost of a server's workers, averaged over them; one value for each of several starts.

    Attributes:
        ready_s: from the command to its last worker's word.
        pss_bytes: memory, counting the worker's part of shared memory.
        idle_cpu_us, idle_wakeups: each for one second without requests.
    """

    subject: str
    loop: str
    workers: int
    ready_s: list[float]
    pss_bytes: list[float]
    idle_cpu_us: list[float]
    idle_wakeups: list[float]


class LeftOut(msgspec.Struct, frozen=True):
    """A subject without a figure, and the reason. `shape` is "" for a subject that is not there at all."""

    subject: str
    shape: str
    reason: str


class Record(msgspec.Struct, frozen=True):
    """Everything that one command has measured.

    Attributes:
        against: the subject of an older commit, or "".
        engine: of this tree's build: "native", "pure", or "" if it does not say.
        instructions: of a message, by case.
        uncounted: why there are none, or "".
    """

    where: Circumstances
    results: list[Result]
    left_out: list[LeftOut] = []
    footprints: list[Footprint] = []
    against: str = ""
    engine: str = ""
    instructions: dict[str, float] = {}
    uncounted: str = ""

    def find(self, subject: str, loop: str, case: str, group: int | None = None) -> Result | None:
        """The one of that name; of that group, or of the first that has it."""
        for result in self.results:
            if (result.subject, result.loop, result.case) == (subject, loop, case) and group in (
                None,
                result.group,
            ):
                return result
        return None

    def footprint(self, subject: str, loop: str) -> Footprint | None:
        """That of a server."""
        for one in self.footprints:
            if (one.subject, one.loop) == (subject, loop):
                return one
        return None


def _rate(run: Run) -> float:
    return run.per_second


def ratio(one: Result, other: Result, of: Callable[[Run], float] = _rate) -> float:
    """The median of the ratios within each round."""
    assert one.group == other.group
    return statistics.median(of(a) / of(b) for a, b in zip(one.runs, other.runs, strict=True))


def circumstances(more_packages: Iterable[str] = ()) -> Circumstances:
    """Those of now and here."""
    versions = {"python": platform.python_version()}
    for name, of in (PACKAGES | {name: name for name in more_packages}).items():
        try:
            versions[name] = version(of)
        except PackageNotFoundError:
            versions[name] = "none"
    return Circumstances(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=_git("rev-parse", "HEAD") or "unknown",
        modified=bool(_git("status", "--porcelain")),
        cpu=_cpu_model(),
        cores=os.cpu_count() or 0,
        kernel=f"{platform.system()} {platform.release()}",
        busy_cpus=_busy_cpus(),
        versions=versions,
    )


def _git(*arguments: str) -> str:
    command = ["git", "--no-optional-locks", *arguments]
    try:
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _busy_cpus() -> float:
    """Over half a second."""
    try:
        before = _cpu_ticks()
        time.sleep(BUSY_S)
        after = _cpu_ticks()
    except OSError:
        return 0.0
    total, idle = (after[part] - before[part] for part in (0, 1))
    return round((1 - idle / total) * (os.cpu_count() or 1), 2) if total else 0.0


def _cpu_ticks() -> tuple[int, int]:
    # proc_stat(5): user nice system idle iowait ...
    fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
    return sum(fields), fields[3] + fields[4]


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def save(record: Record, path: Path) -> None:
    """Write it, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    part.replace(path)


def load(path: Path) -> Record:
    """Read it. Raises OSError or msgspec.DecodeError."""
    return msgspec.json.decode(path.read_bytes(), type=Record)
