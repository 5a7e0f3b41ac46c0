"""Runs: against a list of messages, whatever is appended, cut and taken."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asgi_ipc.wire.message import LargeMessage
from asgi_ipc.wire.payload import BATCH_HEADER_BYTES, batch_header
from asgi_ipc.wire.run import Piece, Run
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)
from tests.encoding import as_bytes, large
from tests.engines import Engine, variant

pytestmark = pytest.mark.usefixtures("each_engine")

_sizes = st.integers(0, 40)
_limits = st.integers(1, 60)


def messages_of(front: Piece | LargeMessage) -> list[bytes]:
    """Return the encoded messages of a piece, or the large one."""
    if isinstance(front, LargeMessage):
        return [as_bytes(front)]
    parts = front.parts
    return [prefix + body for prefix, body in zip(parts[::2], parts[1::2], strict=True)]


class RunMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.run_ = Run(50)
        self.model: list[bytes] = []
        self.letters = 0

    def bytes_of(self, size_bytes: int) -> bytes:
        self.letters += 1
        return bytes([self.letters % 256]) * size_bytes

    @rule(prefix_bytes=_sizes, body_bytes=_sizes, count=st.integers(1, 20))
    def append(self, prefix_bytes: int, body_bytes: int, count: int) -> None:
        for _ in range(count):
            prefix, body = self.bytes_of(prefix_bytes), self.bytes_of(body_bytes)
            self.run_.append(prefix, body, len(prefix) + len(body))
            self.model.append(prefix + body)

    @rule(size_bytes=_sizes)
    def append_large(self, size_bytes: int) -> None:
        message = large(self.bytes_of(size_bytes))
        self.run_.append_large(message)
        self.model.append(as_bytes(message))

    @rule(piece_bytes=_limits)
    def grows_to(self, piece_bytes: int) -> None:
        self.run_.piece_bytes = piece_bytes

    @precondition(lambda self: self.model)
    @rule(limit_bytes=_limits)
    def cut_and_take(self, limit_bytes: int) -> None:
        self.run_.cut_front(limit_bytes)
        front = self.run_.take_front()
        taken = messages_of(front)
        assert taken
        assert taken == self.model[: len(taken)]
        assert front.size_bytes == sum(map(len, taken))
        assert front.size_bytes <= limit_bytes or len(taken) == 1
        del self.model[: len(taken)]

    @precondition(lambda self: self.model)
    @rule()
    def look(self) -> None:
        front = self.run_.front
        assert front is not None
        content = messages_of(front)
        assert content == self.model[: len(content)]
        if isinstance(front, Piece):
            memory = bytearray(BATCH_HEADER_BYTES + front.size_bytes + 2)
            front.seal(memory, 1)
            assert memory == b"\0" + front.payload() + b"\0"
            assert front.payload() == batch_header(len(content)) + b"".join(content)

    @rule()
    def clear(self) -> None:
        assert all(as_bytes(message) in self.model for message in self.run_.clear())
        self.model.clear()

    @invariant()
    def a_run_is_empty_when_nothing_waits(self) -> None:
        assert (self.run_.front is None) is (not self.model)


def test_a_run_agrees_with_a_list_of_messages() -> None:
    run_state_machine_as_test(RunMachine)


def test_a_piece_ends_where_the_next_message_does_not_fit() -> None:
    run = Run(100)
    for size_bytes in (60, 40, 1, 99, 101, 5):
        run.append(b"", bytes(size_bytes), size_bytes)
    assert [run.take_front().size_bytes for _ in range(4)] == [100, 100, 101, 5]


def test_what_comes_behind_a_large_message_does_not_overtake_it() -> None:
    run = Run(100)
    run.append(b"a", b"", 1)
    run.append_large(large(b"large"))
    run.append(b"b", b"", 1)
    assert [messages_of(run.take_front()) for _ in range(3)] == [[b"a"], [b"large"], [b"b"]]


def test_the_names_of_this_file_are_those_of_each_engine(each_engine: Engine) -> None:
    assert Run is variant("asgi_ipc.wire.run", each_engine).Run
    assert Run is not variant("asgi_ipc.wire.run", "pure" if each_engine == "native" else "native").Run
