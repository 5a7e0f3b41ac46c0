"""Settings: the options that uvicorn does not have, and their defaults.

Law: nothing in this file asks the kernel or the clock. Here and nowhere else stands a default. The
launcher checks the options of an operator (`launcher/options.py`) and hands all of them to its workers.
"""

from __future__ import annotations

from sys import platform
from typing import Final

import msgspec

# A write of at most this many bytes never mixes with another writer's: PIPE_BUF of pipe(7), and of POSIX.
PIPE_BUF: Final = 4096 if platform == "linux" else 512

# Three missed beats, and a bit, show as a stall well within the promised 5 s;
# more often would wake idle workers for nothing.
BEAT_S: Final = 1.0

# An operator who loses patience sooner has four beats judged all the same: the
# loop of a busy worker may well be late for one.
BEATS_OF_A_HANG: Final = 4


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The settings that all workers of one run share.

    Every field but `cookie` and `node` is an option; times are in seconds.

    Attributes:
        cookie: the random bytes that every packet of this run begins with.
        node: the id of this server, new at each start; see `ipc.cluster`.
        node_name: its name, for people; "": the host's.
        drain_timeout: a leaving worker may take so long to deliver and handle its messages.
        exit_timeout: its process may take so long after that to end by itself.
        worker_hang_timeout: replace a worker whose event loop has stood still so long; None: never.
        max_message_bytes: the largest encoded message; by default half of an outbox, so that it fits one
            that has something in it.
        max_packet_bytes: the largest packet, at most the system's PIPE_BUF.
        pipe_bytes: the capacity to ask for each pipe; None: the system's default.
        uds_mode: the mode of the socket's file (`uds`), as octal digits or a number; None: that of the file
            that it replaces, or 666.
        uds_owner: the owner of that file, as USER, USER:GROUP or :GROUP, names or numbers; None: this user.
        wrap: put `ipc.wrap` around the app.
        stop_at_eof: the descriptor of a pipe or socket whose end of file is one stop; None: only signals are.
    """

    cookie: bytes
    node: str = ""
    node_name: str = ""
    drain_timeout: float = 10.0
    exit_timeout: float = 2.0
    worker_hang_timeout: float | None = None
    max_message_bytes: int = 16 * 1024 * 1024
    max_packet_bytes: int = PIPE_BUF
    pipe_bytes: int | None = None
    uds_mode: str | int | None = None
    uds_owner: str | None = None
    wrap: bool = False
    stop_at_eof: int | None = None

    @property
    def beat_s(self) -> float:
        """How often each worker says that its event loop turns, in seconds."""
        return beat_s(self.worker_hang_timeout)


OPTIONS: Final = frozenset(Settings.__struct_fields__) - {"cookie", "node"}

DEFAULTS: Final = Settings(cookie=b"")


def beat_s(hang_timeout_s: float | None) -> float:
    """How often a worker is to beat, in seconds, when it is replaced after so long without a beat."""
    return BEAT_S if hang_timeout_s is None else min(BEAT_S, hang_timeout_s / BEATS_OF_A_HANG)
