"""Solo: what the launcher is to others, for a worker that has none.

Law: the relay decides, as it does in a launcher, and its words come back
inside the call that asked. There is nobody else to tell, and no descriptor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.relay import Relay
from asgi_ipc.fleet.words import Claim, Join, Release, Resigned, ToLauncher, ToWorker
from asgi_ipc.worker.descriptors import Descriptor


class Launcher(Protocol):
    """Whom a worker says its words to: a Lifeline, or Solo."""

    is_open: bool

    def send(self, word: ToLauncher) -> None:
        """Say a word."""

    def on_eof(self, callback: Callable[[], None]) -> None:
        """Call back when nobody hears any more."""

    def drain(self) -> None:
        """Hear every word that was said so far."""

    def take_descriptors(self) -> tuple[Descriptor, Descriptor]:
        """Take the write end and the arena of the word that is being heard; either may be missing."""


class Solo:
    """The relay of a fleet of one."""

    def __init__(self, me: Worker, on_word: Callable[[ToWorker], None]) -> None:
        self.is_open = True
        self._me = me.generation
        self._on_word = on_word
        self._relay = Relay()
        self._relay.connect(me)

    def send(self, word: ToLauncher) -> None:
        """Hand on what the relay answers. It never waits for a tick: nobody else must answer first."""
        match word:
            case Join():
                self._relay.join(self._me, 0.0)
            case Resigned() | Claim() | Release():
                self._relay.hear(self._me, word)
        while (item := self._relay.next_item(self._me)) is not None:
            self._relay.wrote(self._me)
            self._on_word(item.word)

    def on_eof(self, callback: Callable[[], None]) -> None:
        """It is there for as long as its worker is."""

    def drain(self) -> None:
        """Every word is heard inside the call that asked for it."""

    def take_descriptors(self) -> tuple[Descriptor, Descriptor]:
        """None ever comes."""
        return Descriptor(), Descriptor()
