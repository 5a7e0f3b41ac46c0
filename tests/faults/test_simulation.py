"""The simulation: that a seed is the same each time, and that what is broken is found.

Law: nothing here sleeps or measures time. That all promises hold in so many
seeds is the row's (rows/pure.py).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from asgi_ipc import engine
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.relay import Reach, Relay
from asgi_ipc.fleet.words import Join, ToRelay, WriteEnd
from asgi_ipc.worker.transport.pipe_reader import PipeReader
from asgi_ipc.worker.transport.pipes import PipeWriter
from tests import engines
from tests.faults.simulation.report import trace_hash
from tests.faults.simulation.seeds import plan_of
from tests.faults.simulation.world import World

# Every broken piece below is found within so many seeds.
ENOUGH = 400


# What is swapped for the simulation are globals of Python modules.
on_the_reference = pytest.mark.skipif(
    engine.name() == "native", reason="run by test_the_simulation_is_on_the_reference"
)


@pytest.mark.skipif(engine.name() == "pure", reason="this is the reference")
def test_the_simulation_is_on_the_reference() -> None:
    with engines.children_run("pure"):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


@on_the_reference
def test_a_seed_is_the_same_to_the_last_event_each_time() -> None:
    for seed in range(30):
        hashes = set()
        for _ in range(2):
            world = World(plan_of(seed))
            world.run()
            hashes.add(trace_hash(world))
        assert len(hashes) == 1


# --- it can fail


def _hand_out_write_ends_early(patch: pytest.MonkeyPatch) -> None:
    """A newcomer gets a member's write end before the member has the word of it."""
    hear, wrote = Relay.hear, Relay.wrote

    def early_join(relay: Relay, generation: int, word: ToRelay, now: float) -> Reach | None:
        members = [worker for worker in _members(relay) if worker.generation != generation]
        news = hear(relay, generation, word, now)
        if isinstance(word, Join):
            for worker in members:
                relay._lines[generation].tell(WriteEnd(worker.generation), worker.generation)
        return news

    def no_more(relay: Relay, generation: int) -> None:
        queues = {other: len(line.queue) for other, line in relay._lines.items()}
        wrote(relay, generation)
        for other, line in relay._lines.items():
            while other != generation and len(line.queue) > queues[other]:
                line.queue.pop()

    patch.setattr(Relay, "hear", early_join)
    patch.setattr(Relay, "wrote", no_more)


def _members(relay: Relay) -> list[Worker]:
    return [line.worker for line in relay._lines.values() if line.joined and not line.leaving]


def _close_a_leavers_write_end_early(patch: pytest.MonkeyPatch) -> None:
    """The launcher does not keep the write end for the members that were promised it."""

    def promised(relay: Relay) -> set[int]:
        return {generation for generation, line in relay._lines.items() if not line.leaving}

    patch.setattr(Relay, "promised", promised)


# What is broken, in words.
BROKEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "does not wait for written bytes that are still unread": lambda patch: patch.setattr(
        PipeReader, "unread_bytes", lambda reader: 0
    ),
    "hands out write ends early": _hand_out_write_ends_early,
    "closes a leaver's write end early": _close_a_leavers_write_end_early,
    "closes a leaver's write end without flushing": lambda patch: patch.setattr(
        PipeWriter, "close_when_empty", PipeWriter.close
    ),
    "leaves a leaver's write end open": lambda patch: patch.setattr(
        PipeWriter, "close_when_empty", PipeWriter.flush
    ),
}


@on_the_reference
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_piece_is_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    BROKEN[what](monkeypatch)
    for seed in range(ENOUGH):
        world = World(plan_of(seed))
        world.run()
        if world.failures:
            return
    pytest.fail(f"not found in {ENOUGH} seeds")
