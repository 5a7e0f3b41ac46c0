"""Settings: the defaults that stand for the system's, and the beats that a hang timeout asks for."""

from __future__ import annotations

import select

from asgi_ipc.fleet.settings import BEAT_S, DEFAULTS, OPTIONS, PIPE_BUF, beat_s
from asgi_ipc.wire.outbox import MAX_OUTBOX_BYTES


def test_a_packet_is_by_default_as_large_as_one_atomic_write() -> None:
    assert DEFAULTS.max_packet_bytes == PIPE_BUF == select.PIPE_BUF


def test_the_largest_message_is_by_default_half_of_an_outbox() -> None:
    assert 2 * DEFAULTS.max_message_bytes == MAX_OUTBOX_BYTES


def test_the_cookie_is_no_option() -> None:
    assert "cookie" not in OPTIONS
    assert "drain_timeout" in OPTIONS


def test_a_worker_beats_four_times_before_it_is_hung_and_once_a_second_otherwise() -> None:
    assert [beat_s(after_s) for after_s in (None, 2.0, 4.0, 60.0)] == [BEAT_S, 0.5, 1.0, BEAT_S]
