"""The conductor: it gives orders to the parties of a fleet, over one socket for each fleet.

Law: it knows no subject. It says "prepare" to all parties of a run, waits until all are ready, says "go", and
judges their facts. While a run is timed it sleeps. Every wait has an end.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from benchmarks.cases import Case, Shape
from benchmarks.control import (
    MAX_LINE_BYTES,
    RUN_TIMEOUT_S,
    Done,
    Failed,
    Go,
    Here,
    Order,
    Prepare,
    Ready,
    Settle,
    Settled,
    hear,
    say,
)
from benchmarks.judgement import BenchmarkError, Run, judge

T = TypeVar("T", Ready, Done, Settled)

# 64 workers import a web framework on two cores; a loaded machine takes its time.
START_TIMEOUT_S: Final = 60.0

# Parties need time beside the run itself, to make payloads and to collect garbage.
ANSWER_TIMEOUT_S: Final = RUN_TIMEOUT_S + 15.0

# Starts so many parties, which then come to the socket at that path, and ends them.
Start = Callable[[int, str], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing to measure: this package, a peer or a yardstick.

    Attributes:
        loop: its event loop, or "" for none.
        missing: why it has no figure for a shape, or None if it has one.
    """

    name: str
    loop: str
    start: Start
    missing: Callable[[Shape], str | None] = lambda shape: None

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name} ({self.loop})" if self.loop else self.name


@dataclass(frozen=True, slots=True)
class _Line:
    pid: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Fleet:
    """The parties of one subject, ready for runs."""

    def __init__(self, subject: Subject, lines: list[_Line]) -> None:
        self.subject = subject
        self._lines = lines

    @property
    def pids(self) -> list[int]:
        """Of all parties, by index."""
        return [line.pid for line in self._lines]

    async def run(self, case: Case, count: int) -> Run:
        """One run of so many messages from each sender.

        Raises BenchmarkError if a message was lost, altered, repeated or out of order.
        """
        shape = case.shape
        lines = self._lines[: shape.parties]
        order = Order(
            pattern=shape.pattern,
            verb=case.verb,
            handler=case.handler,
            size_bytes=shape.size_bytes,
            count=count,
            pids=[line.pid for line in lines],
            cpu=min(os.sched_getaffinity(0)) if shape.one_cpu else None,
            load_per_s=shape.load_per_s,
            burst=shape.burst,
            pause_s=shape.pause_s,
            subscriptions=shape.subscriptions,
            other_subscriptions=shape.other_subscriptions,
        )
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await asyncio.gather(*(self._ask(line, Prepare(order), Ready) for line in lines))
                done = await asyncio.gather(*(self._ask(line, Go(), Done) for line in lines))
                settled = await asyncio.gather(*(self._ask(line, Settle(), Settled) for line in lines))
            return judge(order, [one.facts for one in done], [one.cpu_ns for one in settled])
        except TimeoutError:
            raise BenchmarkError(
                f"{self.subject.title}, {case.name}: no answer after {ANSWER_TIMEOUT_S:g} s"
            ) from None
        except BenchmarkError as error:
            raise BenchmarkError(f"{self.subject.title}, {case.name}: {error}") from None

    async def _ask(self, line: _Line, word: Prepare | Go | Settle, kind: type[T]) -> T:
        say(line.writer, word)
        try:
            answer = await hear(line.reader)
        except (EOFError, ConnectionError):
            raise BenchmarkError(f"pid {line.pid} has ended") from None
        if isinstance(answer, Failed):
            raise BenchmarkError(f"pid {line.pid}: {answer.reason}")
        if not isinstance(answer, kind):
            raise BenchmarkError(f"pid {line.pid} said {answer}, not {kind.__name__}")
        return answer


@asynccontextmanager
async def assembled(subject: Subject, size: int) -> AsyncIterator[Fleet]:
    """The subject with so many parties, from ready to stopped."""
    arrivals: asyncio.Queue[tuple[int, _Line]] = asyncio.Queue()

    async def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        word = await hear(reader)
        if isinstance(word, Here):
            arrivals.put_nowait((word.index, _Line(word.pid, reader, writer)))

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "conductor")
        server = await asyncio.start_unix_server(arrived, path, limit=MAX_LINE_BYTES)
        async with server, subject.start(size, path):
            lines: dict[int, _Line] = {}
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    while len(lines) < size:
                        index, line = await arrivals.get()
                        lines[index] = line
            except TimeoutError:
                raise BenchmarkError(
                    f"{subject.title}: {len(lines)} of {size} processes after {START_TIMEOUT_S:g} s"
                ) from None
            try:
                yield Fleet(subject, [lines[index] for index in range(size)])
            finally:
                for line in lines.values():
                    line.writer.close()
