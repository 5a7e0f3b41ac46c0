"""Large messages: what a receiver keeps of them, and a sender of the memory that they went through."""

from __future__ import annotations

import tracemalloc

from tests.inprocess import fleet, until

MIB = 1024 * 1024


async def test_a_large_message_that_was_handled_is_gone_before_the_next_is_decoded() -> None:
    peaks_bytes: list[int] = []

    def look(data: bytes) -> None:
        del data
        peaks_bytes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()

    async with fleet(2) as (_, (a, b)):
        b.ipc.receive("look", look)
        data = bytes(MIB)
        # All of them are read at once.
        b.stop_reading()
        tracemalloc.start()
        try:
            for _ in range(3):
                a.ipc.send_nowait(b.pid, "look", data)
            b.go_on_reading()
            await until(lambda: len(peaks_bytes) == 3)
        finally:
            tracemalloc.stop()
    assert max(peaks_bytes) - peaks_bytes[0] < MIB // 2
