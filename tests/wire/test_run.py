"""Runs: cut and taken without losing, mixing or splitting a message."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc.wire.message import LargeMessage
from asgi_ipc.wire.run import Backlog, Run, take_run
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)
from tests.encoding import large

_sizes = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def a_run(sizes: list[int]) -> Run:
    return Run([bytes([place]) * size for place, size in enumerate(sizes)], sum(sizes))


def is_true(run: Run) -> bool:
    return run.size_bytes == sum(map(len, run.messages)) and bool(run.messages)


@given(_sizes, st.integers(1, 60))
def test_a_run_is_cut_where_the_next_message_does_not_fit(sizes: list[int], limit_bytes: int) -> None:
    runs = a_run(sizes).cut(limit_bytes)
    assert [message for run in runs for message in run.messages] == a_run(sizes).messages
    for run, follows in zip(runs, [*runs[1:], None], strict=True):
        assert is_true(run)
        assert run.size_bytes <= limit_bytes or len(run.messages) == 1
        assert follows is None or run.size_bytes + len(follows.messages[0]) > limit_bytes


@given(st.lists(_sizes | st.none(), min_size=1, max_size=6), st.integers(1, 60))
def test_what_is_taken_run_by_run_is_all_in_order(kinds: list[list[int] | None], limit_bytes: int) -> None:
    backlog: Backlog = deque(large(b"large") if sizes is None else a_run(sizes) for sizes in kinds)
    sent = [each for item in backlog for each in (item.messages if isinstance(item, Run) else [item])]
    taken: list[bytes | LargeMessage] = []
    while backlog:
        head = backlog[0]
        if isinstance(head, LargeMessage):
            backlog.popleft()
            taken.append(head)
            continue
        run = take_run(backlog, limit_bytes)
        assert is_true(run)
        assert run.size_bytes <= limit_bytes or len(run.messages) == 1
        taken += run.messages
    assert taken == sent
