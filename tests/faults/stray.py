"""A stray process: it writes bytes that are no packet of the run into a worker's pipe.

Law: it is a process of its own, of the same user, and finds the pipe as any process can, in /proc. Every
write is atomic, like a sender's. It reports the number and size of its writes, and knows nothing of their
effect.

    python -m tests.faults.stray TARGET SEED     (TARGET as JSON)

reads lines, a count and kinds ("1 cut", "1000 random cut"), and answers each with how many bytes it has
written, once they are.
"""

from __future__ import annotations

import os
import random
import select
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec

from asgi_ipc.wire.packet import BATCH, COOKIE_BYTES, HEADER_BYTES, encode_packet
from asgi_ipc.wire.payload import BATCH_HEADER_BYTES, join_batch
from tests.encoding import encode_message

# At least so much is cut off. Less than a cookie could be made good by chance, by the first bytes of the
# packet behind it, which are the cookie: one byte in one of 256 cuts. That packet would be lost then, for
# a bare byte; with the whole cookie it takes chance 2^64 tries.
LEAST_CUT_BYTES: Final = COOKIE_BYTES

# CRC-32 finds any three flipped bits in a packet of this size (Koopman and Chakravarty, 2004).
MOST_FLIPS: Final = 3


# Without a pause a writer that waits inside `write` has the pipe almost for itself, and what it writes
# comes in long runs; like this it comes between good packets.
BURST_WRITES: Final = 4
PAUSE_S: Final = 0.001


class Target(msgspec.Struct, frozen=True):
    """Whose pipe, and what its packets look like. `sender` is a member that it knows."""

    pipe: str
    cookie: bytes
    sender: int
    receiver: int
    max_packet_bytes: int


class Stray:
    """The bytes of each kind."""

    def __init__(self, target: Target, seed: int) -> None:
        self._target = target
        self._random = random.Random(seed)
        self.kinds: dict[str, Callable[[], bytes]] = {
            "random": self._any_bytes,
            "cut": self._cut,
            "flipped": self._flipped,
            "foreign": self._foreign,
        }

    def _packet(self, cookie: bytes) -> bytes:
        """A packet that would be delivered, or else be taken for a repeat or a gap."""
        target = self._target
        room = target.max_packet_bytes - HEADER_BYTES - BATCH_HEADER_BYTES
        data = self._random.randbytes(self._random.randrange(1, room - 32))
        message = encode_message("plain", [target.sender, self._random.randrange(2**32), data], room)
        number = self._random.randrange(2**20)
        return encode_packet(cookie, target.sender, target.receiver, number, BATCH, join_batch([message]))

    def _any_bytes(self) -> bytes:
        return self._random.randbytes(self._random.randrange(1, select.PIPE_BUF + 1))

    def _cut(self) -> bytes:
        packet = self._packet(self._target.cookie)
        return packet[: self._random.randrange(1, len(packet) - LEAST_CUT_BYTES + 1)]

    def _flipped(self) -> bytes:
        packet = bytearray(self._packet(self._target.cookie))
        for bit in self._random.sample(range(len(packet) * 8), self._random.randint(1, MOST_FLIPS)):
            packet[bit // 8] ^= 1 << bit % 8
        return bytes(packet)

    def _foreign(self) -> bytes:
        return self._packet(self._random.randbytes(COOKIE_BYTES))

    def write(self, fd: int, count: int, kinds: list[str]) -> int:
        """So many writes of these kinds; their bytes. Waits whenever the pipe is full."""
        written_bytes = 0
        for number in range(count):
            stray = self.kinds[self._random.choice(kinds)]()
            assert len(stray) <= select.PIPE_BUF
            written_bytes += os.write(fd, stray)
            if number % BURST_WRITES == BURST_WRITES - 1:
                time.sleep(PAUSE_S)  # its own pace
        return written_bytes


def main(target_json: str, seed: str) -> None:
    """Carry out the orders that are read, to the end of the input."""
    target = msgspec.json.decode(target_json, type=Target)
    stray = Stray(target, int(seed))
    # An open file of its own, so O_NONBLOCK, which the members have set on theirs, is not set on it.
    fd = os.open(target.pipe, os.O_WRONLY)
    for line in sys.stdin:
        count, *kinds = line.split()
        sys.stdout.write(f"{stray.write(fd, int(count), kinds)}\n")
        sys.stdout.flush()
    os.close(fd)


if __name__ == "__main__":
    main(*sys.argv[1:])
