"""The fault "parser": inputs that hypothesis chooses, that every change takes part, that the judge judges.

Law: random executions, counted, are the row's (rows/pure.py); here is what
the row can't see of itself.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given

from asgi_ipc.wire import batch
from asgi_ipc.wire import payload as payloads
from asgi_ipc.wire.reassembler import Reassembler
from tests import engines
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)
from tests.encoding import Packet
from tests.faults import fuzz
from tests.faults.fuzzing import judge, wire
from tests.faults.fuzzing.drawing import CHANGES, scripts
from tests.faults.fuzzing.judge import execute
from tests.faults.fuzzing.reference import scan
from tests.faults.fuzzing.script import Script


@given(scripts())
def test_no_input_is_accepted_that_was_not_sent_and_none_raises(script: Script) -> None:
    execute(script)


def test_every_change_every_forgery_and_every_reason_for_a_drop_takes_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: Counter[str] = Counter()
    drops: Counter[str] = Counter()

    def noting(script: Script) -> judge.Outcome:
        used.update(script.changes)
        return execute(script)

    class Noting(Reassembler):
        def drop(self, reason: str, count: int = 1) -> None:
            drops[reason] += 1
            super().drop(reason, count)

    monkeypatch.setattr(fuzz, "execute", noting)
    monkeypatch.setattr(judge, "Reassembler", Noting)
    assert fuzz.explore(2000, seed=1).failures == []
    assert set(used) == {change.__name__ for change in CHANGES}
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
    reassembler.accept(Packet(1, 2, 0, kind, payload))
    assert reassembler.partial_bytes <= len(payload)


# --- the judge can say no


class _EqualToAll(int):
    """A CRC that is always the right one."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


# The reference: nothing can be broken in a compiled module.
packet = engines.variant("asgi_ipc.wire.packet", "pure")
PacketParser = packet.PacketParser


@pytest.fixture(autouse=True)
def judge_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "PacketParser", PacketParser)


_find, _skip = PacketParser.find, PacketParser._skip
_accept, _decode = Reassembler.accept, payloads._decode_plain


def _accept_any_number(self: Reassembler, found: Any) -> list[batch.Batch]:
    if (stream := self._streams.get(found.sender)) is not None:
        stream.next_number = found.number
    return _accept(self, found)


def _skip_far(self: Any) -> None:
    place = self._at
    _skip(self)
    self._at = max(self._at, place + 40)


def _raise(payload: Any) -> Any:
    raise KeyError("not expected by anyone")


_WITHOUT_CRC: Final = (packet, "_crc32", lambda data, start=0: _EqualToAll())

# What is broken, and by what it is replaced.
BROKEN: Final[dict[str, tuple[Any, str, Callable[..., Any]]]] = {
    "has no CRC": _WITHOUT_CRC,
    "ignores numbers": (Reassembler, "accept", _accept_any_number),
    "keeps what a gap broke": (Reassembler, "_drop_partial", lambda self, stream: None),
    "searches too far": (PacketParser, "_skip", _skip_far),
    "waits for the rest": (PacketParser, "find", lambda self, drained: _find(self, False)),
    "gives up at the end of a read": (PacketParser, "find", lambda self, drained: _find(self, True)),
    "counts no skip": (PacketParser, "_count_skip", lambda self, size: None),
    "trusts the payload": (payloads, "_decode_plain", _raise),
    "reads bytes for text": (
        payloads,
        "_decode_plain",
        lambda payload: [(name, str(data)) for name, data in _decode(payload)],
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_protocol_is_found_out_and_its_failure_replayed(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(*BROKEN[how])
    broken = fuzz.explore(2000, seed=2, shrinks=False)
    (failure,) = broken.failures
    assert broken.crashed == (how == "trusts the payload")
    assert "harmed: " in failure
    assert "read to here, drained" in failure
    assert fuzz.explore(2000, seed=2, shrinks=False).failures == [failure]
    monkeypatch.undo()
    assert fuzz.explore(broken.executions, seed=2).failures == []


def test_plain_chance_finds_a_broken_protocol_too_and_the_same_one_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(*_WITHOUT_CRC)
    (failure,) = fuzz.chance(2000, seed=2).failures
    assert "harmed: " in failure
    assert fuzz.chance(2000, seed=2).failures == [failure]
    monkeypatch.undo()
    assert fuzz.chance(2000, seed=2).failures == []


def test_a_failure_is_shrunk_to_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*_WITHOUT_CRC)
    (failure,) = fuzz.explore(2000, seed=2).failures
    # One sender, one change.
    (first, *_) = [line for line in failure.splitlines() if "harmed: " in line]
    assert first.count("'") == 2


# --- the runner


def test_the_runner_adds_up_its_processes_and_says_what_guided_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # A third is plain chance's.
    monkeypatch.setattr(fuzz, "MOST_DRAWN", 200 if importlib.util.find_spec("atheris") is None else 20)
    report = fuzz.fuzz(301, processes=2, seed=3, guided_share=0.9)
    assert (report.executions, report.failures, report.crashed) == (301, [], 0)
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
from tests.faults import fuzz

def execute(script, done=[]):
    done.append(script)
    if len(done) == 7:
        os.abort()
    return outcome(script)

outcome, fuzz.execute = fuzz.execute, execute
sys.exit(fuzz.main())
"""


def test_a_process_that_dies_is_a_failure_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "CHILD", ("-c", _DYING))
    report = fuzz.fuzz(10, processes=1, seed=5, guided_share=0.0)
    assert not report.ok
    assert report.crashed == 1
    (failure,) = report.failures
    assert failure.startswith("seed 500000: the process ended with status -6")
