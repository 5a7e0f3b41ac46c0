"""Y4: the limit of the interpreter, without any I/O.

Law: MessagePack by msgspec as on the package's wire (an array of [name, data]
for each packet, each message encoded when it is accepted), the handler that
every subject has, and nothing else.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.control import Facts, Order
from benchmarks.party import facts_of, turns
from benchmarks.payloads import Inbox, payloads

# A packet of 4096 bytes holds about so many 10-byte messages.
MESSAGES_PER_BATCH: Final = 200

_BATCH_HEADER: Final = struct.Struct(">BH")
_ARRAY16: Final = 0xDC


class Codec:
    """The only party."""

    def __init__(self, index: int, folder: Path) -> None:
        """It shares nothing."""

    async def prepare(self, order: Order) -> None:
        """Nothing to open."""

    async def perform(self, order: Order) -> Facts:
        """All of it."""
        inbox = Inbox([0], order.count, order.size_bytes, lambda: None)
        messages = payloads(0, order.count, order.size_bytes)
        handlers = {"message": inbox.take}
        encode = msgspec.msgpack.Encoder().encode
        decode = msgspec.msgpack.Decoder(list[tuple[str, Any]]).decode
        started_ns, cpu_from_ns = time.monotonic_ns(), time.process_time_ns()
        for some in turns(messages, MESSAGES_PER_BATCH):
            batch = [encode(("message", data)) for data in some]
            packet = b"".join((_BATCH_HEADER.pack(_ARRAY16, len(batch)), *batch))
            for name, data in decode(packet):
                handlers[name](data)
        return facts_of(inbox, cpu_from_ns, started_ns)
