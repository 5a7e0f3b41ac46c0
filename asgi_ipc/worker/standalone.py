"""Standalone: a worker without a launcher, and what answers it in the launcher's place.

Law: the relay decides, as it does in a launcher, and its words come back inside the call that asked. There
is no other member, and no descriptor travels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from multiprocessing import current_process
from typing import Final, TypeAlias

from asgi_ipc import multiprocess
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.relay import Relay
from asgi_ipc.fleet.words import ToLauncher, ToRelay
from asgi_ipc.logs import server_logger
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.lifeline import Lifeline, OnWord

_ADVICE = (
    "started by %s with several workers: each is alone, and messages do not reach the others. "
    "To join them, run: asgi-ipc serve APP --workers N"
)


class LocalRelay:
    """The relay of a fleet of one. It has what an endpoint uses of a Lifeline."""

    is_open: Final = True
    on_word: OnWord

    def __init__(self, me: Worker) -> None:
        self._me = me.generation
        self._relay = Relay()
        self._relay.connect(me)

    def send(self, word: ToLauncher) -> None:
        """Pass a word to the relay, and its answers to `on_word`. A lone member waits for no others."""
        if isinstance(word, ToRelay):
            self._relay.hear(self._me, word, 0.0)
        while (item := self._relay.next_item(self._me)) is not None:
            self._relay.wrote(self._me)
            self.on_word(item.word)

    def on_eof(self, callback: Callable[[], None]) -> None:
        """Never call back: the relay lives as long as its worker."""

    def drain(self) -> None:
        """Do nothing: `send` has handled every word."""

    def take_descriptors(self) -> tuple[Descriptor, Descriptor]:
        """Return two empty descriptors: none ever travels."""
        return Descriptor(), Descriptor()


LauncherLink: TypeAlias = Lifeline | LocalRelay


def warn_if_one_of_several() -> None:
    """Log one warning if another server started this process as one of several workers.

    Each of them is a fleet of one, which is rarely meant.
    """
    if "gunicorn.arbiter" in sys.modules:
        server_logger.warning(_ADVICE, "gunicorn")
        return
    # uvicorn and hypercorn pass their Config to each worker; the first worker warns for all.
    workers = getattr(multiprocess.argument_of_child("config"), "workers", 1)
    if isinstance(workers, int) and workers > 1 and current_process().name.endswith("-1"):
        server_logger.warning(_ADVICE, "uvicorn")
