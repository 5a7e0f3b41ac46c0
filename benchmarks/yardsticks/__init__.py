"""Yardsticks: the speed of the machine at this hour, to divide by.

Law: no `asgi_ipc` in here. Times on a shared machine drift; ratios to a
yardstick of the same minutes can be compared.

Y1  two plain Python processes, one 26-byte os.write and one os.read per
    message: the cost of a message that travels alone
Y2  bandwidth of 4096-byte writes through a pipe that is read 64 KiB at a time
Y3  ping-pong of two processes over two pipes with `add_reader`: the cost of a
    round trip on that event loop, free or with both on one CPU
Y4  encode, decode and call a handler in one process, no I/O: the limit of the
    interpreter
Y5  1 MiB copied into and out of shared memory by two processes
Y6  a hand-written Protocol that joins the bare bytes of a turn: what a socket
    can, in every case that peers have, too
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from benchmarks.cases import MIB, Shape
from benchmarks.conductor import Subject
from benchmarks.process import Factory, spawned
from benchmarks.unix_protocol import UnixProtocol
from benchmarks.yardsticks.codec import Codec
from benchmarks.yardsticks.memory import Memory
from benchmarks.yardsticks.ping_pong import PingPong
from benchmarks.yardsticks.pipe import WRITE_BYTES, Bandwidth, OneByOne

# 10 bytes and a header as small as the original's.
Y1_BYTES: Final = 26

Y1: Final = Shape("Y1", "one", 2, 2, Y1_BYTES)
Y2: Final = Shape("Y2", "one", 2, 2, WRITE_BYTES)
Y3_FREE: Final = Shape("Y3-free", "ask", 2, 2, 10)
Y3_ONE_CPU: Final = Shape("Y3-one-cpu", "ask", 2, 2, 10, one_cpu=True)
Y4: Final = Shape("Y4", "self", 1, 1, 10)
Y5: Final = Shape("Y5", "one", 2, 2, MIB)


@asynccontextmanager
async def _beside_a_folder(factory: Factory, loop: str, size: int, path: str) -> AsyncIterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        async with spawned(factory, size, path, loop, Path(folder)):
            yield


def _subject(name: str, factory: Factory, loop: str = "") -> Subject:
    return Subject(name, loop, functools.partial(_beside_a_folder, factory, loop))


def subjects(loops: Sequence[str], shapes: Sequence[Shape]) -> list[tuple[Subject, list[Shape]]]:
    """Each with what is measured of it beside those shapes, which all have fleets of one size."""
    found = [(_subject("Y4", Codec), [Y4])]
    if all(shape.burst for shape in shapes):
        # Of growth only the processor time counts, which is compared by Y4.
        return found
    found += [(_subject("Y1", OneByOne), [Y1]), (_subject("Y2", Bandwidth), [Y2])]
    if any(shape.is_round_trip and not shape.asks_all for shape in shapes):
        found += [(_subject("Y3", PingPong, loop), [Y3_FREE, Y3_ONE_CPU]) for loop in loops]
    if any(shape.size_bytes == MIB for shape in shapes):
        found.append((_subject("Y5", Memory), [Y5]))
    if alike := [shape for shape in shapes if not shape.is_ours_alone]:
        found.append((_subject("Y6", UnixProtocol, "uvloop"), alike))
    return found
