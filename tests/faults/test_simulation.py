"""The simulation, in short: some hundred seeds, the named schedules, and that it can fail.

Law: nothing here sleeps or measures time; the long form is
`python -m tests.faults.simulation`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asgi_ipc.protocol.lifeline import WriteEnd
from asgi_ipc.protocol.membership import Worker
from asgi_ipc.protocol.relay import Item, Relay
from asgi_ipc.worker.pipes import PipeReader, PipeWriter
from tests.faults.simulation import Report, simulate
from tests.faults.simulation.plan import STEPS
from tests.faults.simulation.report import trace_hash
from tests.faults.simulation.seeds import NAMED, find, plan_of
from tests.faults.simulation.world import World

# Some tens of workers are killed at each step of the protocol in so many.
SEEDS = range(300)

# Every broken piece below is found within so many seeds.
ENOUGH = 400


@pytest.fixture(scope="module")
def report() -> Report:
    return simulate(SEEDS, processes=1)


def test_every_promise_holds_in_some_hundred_schedules(report: Report) -> None:
    assert report.failures == []
    assert report.seeds == len(SEEDS)
    assert report.accepted >= report.delivered > 10 * len(SEEDS)


@pytest.mark.parametrize("step", STEPS)
def test_workers_are_killed_at_every_step_of_the_protocol(step: str, report: Report) -> None:
    assert report.kills[step] > 0


@pytest.mark.parametrize("name", NAMED)
def test_a_named_schedule_contains_its_event_and_keeps_the_promises(name: str) -> None:
    world = find(name)
    assert world.failures == []
    assert world.events[name] > 0


def test_a_seed_is_the_same_to_the_last_event_each_time() -> None:
    for seed in range(30):
        hashes = set()
        for _ in range(2):
            world = World(plan_of(seed))
            world.run()
            hashes.add(trace_hash(world))
        assert len(hashes) == 1


# --- it can fail


def _forget_the_dead_at_once(patch: pytest.MonkeyPatch) -> None:
    """What they have written, and nobody has read yet, is not waited for."""
    patch.setattr(PipeReader, "unread_bytes", lambda reader: 0)


def _hand_out_write_ends_early(patch: pytest.MonkeyPatch) -> None:
    """A newcomer gets a member's write end before the member was told of it."""
    join, wrote = Relay.join, Relay.wrote

    def early_join(relay: Relay, generation: int, now: float) -> None:
        members = [worker for worker in _members(relay) if worker.generation != generation]
        join(relay, generation, now)
        for worker in members:
            relay._lines[generation].queue.append(Item(WriteEnd(worker.generation), worker.generation))

    def no_more(relay: Relay, generation: int) -> None:
        queues = {other: len(line.queue) for other, line in relay._lines.items()}
        wrote(relay, generation)
        for other, line in relay._lines.items():
            while other != generation and len(line.queue) > queues[other]:
                line.queue.pop()

    patch.setattr(Relay, "join", early_join)
    patch.setattr(Relay, "wrote", no_more)


def _members(relay: Relay) -> list[Worker]:
    return [line.worker for line in relay._lines.values() if line.joined and not line.leaving]


def _close_a_leavers_write_end_early(patch: pytest.MonkeyPatch) -> None:
    """The launcher does not keep it for those who were promised it."""

    def is_promised(relay: Relay, generation: int) -> bool:
        line = relay._lines.get(generation)
        return line is not None and not line.leaving

    patch.setattr(Relay, "is_promised", is_promised)


def _close_without_flushing(patch: pytest.MonkeyPatch) -> None:
    """What was accepted for a leaver is not written before its write end is closed."""
    patch.setattr(PipeWriter, "close_when_empty", PipeWriter.close)


def _leave_write_ends_open(patch: pytest.MonkeyPatch) -> None:
    """A leaver's peers flush, and forget to close."""
    patch.setattr(PipeWriter, "close_when_empty", PipeWriter.flush)


@pytest.mark.parametrize(
    "broken",
    [
        _forget_the_dead_at_once,
        _hand_out_write_ends_early,
        _close_a_leavers_write_end_early,
        _close_without_flushing,
        _leave_write_ends_open,
    ],
)
def test_a_broken_piece_is_found(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    for seed in range(ENOUGH):
        world = World(plan_of(seed))
        world.run()
        if world.failures:
            return
    pytest.fail(f"not found in {ENOUGH} seeds")
