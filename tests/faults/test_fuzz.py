"""The fault "parser": inputs that hypothesis chooses, that every change takes part, that the judge judges.

Law: random executions, counted, are the row's (rows/pure.py); here is what
the row can't see of itself.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_ipc.wire import batch, packet
from asgi_ipc.wire.batch import Reassembler
from asgi_ipc.wire.packet import PacketParser
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)
from tests.faults import fuzz
from tests.faults.fuzzing import drawing, judge, script, wire
from tests.faults.fuzzing.child import MAX_DECISIONS_BYTES, random_decisions
from tests.faults.fuzzing.judge import execute
from tests.faults.fuzzing.reference import scan


@given(st.binary(max_size=MAX_DECISIONS_BYTES))
@example(b"")
def test_no_input_is_accepted_that_was_not_sent_and_none_raises(decisions: bytes) -> None:
    assert execute(decisions).failure is None


def test_every_change_every_forgery_and_every_reason_for_a_drop_takes_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: Counter[str] = Counter()
    drops: Counter[str] = Counter()

    def noted(change: script.Change) -> script.Change:
        def noting(made: script.Script, decisions: script.Decisions) -> None:
            used[change.__name__] += 1
            change(made, decisions)

        return noting

    class Noting(Reassembler):
        def _drop(self, reason: str, count: int = 1) -> None:
            drops[reason] += 1
            super()._drop(reason, count)

    changes = drawing.CHANGES
    monkeypatch.setattr(drawing, "CHANGES", tuple(map(noted, changes)))
    monkeypatch.setattr(judge, "Reassembler", Noting)
    for decisions in random_decisions("all", 3000):
        execute(decisions)
    assert set(used) == {change.__name__ for change in changes}
    assert set(drops) == {"repeat", "gap", "partial", "corrupt", "too_large"}


@pytest.mark.parametrize("run", wire.RUNS, ids=lambda run: run.cookie.hex())
def test_no_junk_holds_a_packet_and_every_forgery_is_one(run: wire.Run) -> None:
    for junk in run.junk:
        assert scan(run, junk, [(len(junk), True)]).packets == []
    for kind, payload in run.forgeries:
        forged = wire.forge(run.cookie, 1, 2, 3, kind, payload)
        assert len(forged) <= run.max_packet_bytes
        assert scan(run, forged, [(len(forged), True)]).packets == [(1, 2, 3, kind, payload)]


@pytest.mark.parametrize(("kind", "payload"), wire.RUNS[0].forgeries, ids=repr)
def test_no_forged_payload_raises(kind: int, payload: bytes) -> None:
    reassembler = Reassembler(wire.MAX_MESSAGE_BYTES)
    reassembler.accept(packet.Packet(1, 2, 0, kind, memoryview(payload)))
    assert reassembler.partial_bytes <= len(payload)


# --- the judge can say no


class _EqualToAll(int):
    """A CRC that is always the right one."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


_feed, _skip = PacketParser.feed, PacketParser._skip
_accept = Reassembler.accept


def _without_crc(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(packet, "_crc32", lambda data, start=0: _EqualToAll())


def _without_numbers(patch: pytest.MonkeyPatch) -> None:
    def accept(self: Reassembler, found: packet.Packet) -> list[batch.Message]:
        if (stream := self._streams.get(found.sender)) is not None:
            stream.next_number = found.number
        return _accept(self, found)

    patch.setattr(Reassembler, "accept", accept)


def _that_keeps_what_a_gap_broke(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Reassembler, "_drop_partial", lambda self, stream: None)


def _that_searches_too_far(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PacketParser, "_skip", lambda self, data, at: max(_skip(self, data, at), 40))


def _that_waits_for_the_rest(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PacketParser, "feed", lambda self, chunk, *, drained: _feed(self, chunk, drained=False))


def _that_gives_up_at_the_end_of_a_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PacketParser, "feed", lambda self, chunk, *, drained: _feed(self, chunk, drained=True))


def _that_counts_no_skip(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PacketParser, "_count_skip", lambda self, size: None)


def _that_trusts_the_payload(patch: pytest.MonkeyPatch) -> None:
    def decode(payload: Any) -> Any:
        raise KeyError("not expected by anyone")

    patch.setattr(batch, "_decode", decode)


def _that_reads_bytes_for_text(patch: pytest.MonkeyPatch) -> None:
    decode = batch._decode
    patch.setattr(batch, "_decode", lambda payload: [(name, str(data)) for name, data in decode(payload)])


def _first_failure(seed: str, executions: int) -> bytes | None:
    failing: Iterator[bytes] = (each for each in random_decisions(seed, executions) if execute(each).failure)
    return next(failing, None)


@pytest.mark.parametrize(
    "break_it",
    [
        _without_crc,
        _without_numbers,
        _that_keeps_what_a_gap_broke,
        _that_searches_too_far,
        _that_waits_for_the_rest,
        _that_gives_up_at_the_end_of_a_read,
        _that_counts_no_skip,
        _that_trusts_the_payload,
        _that_reads_bytes_for_text,
    ],
)
def test_a_broken_protocol_is_found_out_and_its_failure_replayed(
    monkeypatch: pytest.MonkeyPatch, break_it: Callable[[pytest.MonkeyPatch], None]
) -> None:
    break_it(monkeypatch)
    found = _first_failure("broken", 2000)
    assert found is not None
    failure = execute(found).failure
    assert failure is not None
    assert execute(found).crashed is (break_it is _that_trusts_the_payload)
    assert failure in fuzz.replay(found)
    monkeypatch.undo()
    assert execute(found).failure is None


# --- the runner


def test_the_runner_adds_up_its_processes_and_says_what_guided_it() -> None:
    report = fuzz.fuzz(301, processes=2, seed=3, guided_share=0.9)
    assert (report.executions, report.failures, report.failed, report.crashed) == (301, [], 0, 0)
    assert report.ok
    if importlib.util.find_spec("atheris") is None:
        assert report.guided == 0
        assert "atheris" in report.note
    else:
        assert report.guided == 271
        assert report.coverage
    assert "301 executions" in str(report)


_DYING = """
import os, sys
from pathlib import Path
from tests.faults.fuzzing import child

def execute(decisions, done=[]):
    done.append(decisions)
    if len(done) == 7:
        os.abort()
    return outcome(decisions)

outcome, child.execute = child.execute, execute
child.main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
"""


def test_a_process_that_dies_is_a_failure_with_the_decisions_that_killed_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fuzz, "CHILD", ("-c", _DYING))
    report = fuzz.fuzz(10, processes=1, seed=5, guided=False)
    assert not report.ok
    assert report.crashed == 1
    *_, seventh = random_decisions("5/0", 7)
    (failure,) = report.failures
    assert failure.startswith(f"{seventh.hex()} the process ended with status -6")
