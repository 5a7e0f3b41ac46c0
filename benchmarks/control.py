"""Control: the words between the conductor and a party, and the party's side of the socket.

Law: the words are the same for every subject, and none is spoken while a run is timed. A party carries out
its orders one after the other, and ends when the conductor hangs up, so that nothing outlives the command.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

# The conductor's address for a worker of `asgi-ipc serve`; other parties get it as an argument.
SOCKET_VARIABLE: Final = "ASGI_IPC_BENCHMARK_SOCKET"

# For a run and all that belongs to it; one takes about a second.
RUN_TIMEOUT_S: Final = 30.0

# `one` party to another, one to `each` of the others, `all` to all others; or
# one that will `ask` another, the next question when the answer is here; or one
# to it`self`.
Pattern = Literal["one", "each", "all", "ask", "self"]
# A verb of the public API; or, for all others, what the subject has.
Verb = Literal["nowait", "await", "request", "gather", "publish", "own"]
Handler = Literal["plain", "async"]


class Order(msgspec.Struct, frozen=True):
    """A run.

    Attributes:
        pids: of the parties that take part, by their index in the fleet. The first one sends or asks.
        count: messages of each sender.
        cpu: the only CPU that they may use in this run, if any.
        load_per_s: messages that the third party sends to the second meanwhile.
        burst: messages that a sender sends at once before it pauses; 0 for no pause.
        pause_s: from one burst of a sender to its next.
        subscriptions: of the second party, to what the first publishes; and to other topics.
    """

    pattern: Pattern
    verb: Verb
    handler: Handler
    size_bytes: int
    count: int
    pids: list[int]
    cpu: int | None = None
    load_per_s: int = 0
    burst: int = 0
    pause_s: float = 0.0
    subscriptions: int = 0
    other_subscriptions: int = 0

    @property
    def senders(self) -> range:
        """The parties that send, or ask."""
        return range(len(self.pids)) if self.pattern == "all" else range(1)

    @property
    def receivers(self) -> range:
        """The parties that receive, or answer."""
        if self.pattern in ("one", "ask"):
            return range(1, 2)
        if self.pattern == "self":
            return range(1)
        return range(0 if self.pattern == "all" else 1, len(self.pids))

    def sources(self, index: int) -> Sequence[int]:
        """The parties whose messages that one must get. Answers are judged by who asked."""
        if self.pattern == "ask" or index not in self.receivers:
            return []
        if self.pattern == "self":
            return [index]
        return [sender for sender in self.senders if sender != index]


class Facts(msgspec.Struct, frozen=True):
    """The facts of a run in one party.

    Attributes:
        started_ns: when it began to send, or 0.
        ended_ns: when its last message was handled, or 0.
        cpu_from_ns: processor time that all its threads had used before they began to send or receive.
        taken: messages that were handled.
        wrong: how many of them were not what had to come.
        wrong_at: where in their sequence the first of those were.
        times_ns: of single round trips.
        troubles: what was dropped or failed, by reason.
    """

    started_ns: int = 0
    ended_ns: int = 0
    cpu_from_ns: int = 0
    taken: int = 0
    wrong: int = 0
    wrong_at: list[int] = []
    times_ns: list[int] = []
    troubles: dict[str, int] = {}


class Here(msgspec.Struct, frozen=True, tag=True):
    """A party has begun. `index` is its place in the fleet."""

    index: int
    pid: int


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """Make ready for a run."""

    order: Order


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Ready: whatever a party sends from now on is received."""


class Go(msgspec.Struct, frozen=True, tag=True):
    """Do what was prepared."""


class Done(msgspec.Struct, frozen=True, tag=True):
    """The run has ended here. What was accepted may still be on its way."""

    facts: Facts


class Settle(msgspec.Struct, frozen=True, tag=True):
    """The run has ended everywhere."""


class Settled(msgspec.Struct, frozen=True, tag=True):
    """The processor time, user and system, that all threads have used so far."""

    cpu_ns: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """An error, for the person at the screen."""

    reason: str


class Party(Protocol):
    """One process of a subject."""

    async def prepare(self, order: Order) -> None:
        """Make ready. The party must receive every message sent after this has returned in all parties."""

    async def perform(self, order: Order) -> Facts:
        """Send, receive, or both; return when all has arrived here or RUN_TIMEOUT_S have passed."""


ToConductor: TypeAlias = Here | Ready | Done | Settled | Failed

_to_party = msgspec.json.Decoder(Prepare | Go | Settle)
_to_conductor: msgspec.json.Decoder[ToConductor] = msgspec.json.Decoder(ToConductor)

# A line of the control socket; the times of a run are the longest.
MAX_LINE_BYTES: Final = 4 * 1024 * 1024


async def obey(party: Party, index: int, path: str) -> None:
    """Do what the conductor at `path` says, until it hangs up."""
    reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES)
    cpus = os.sched_getaffinity(0)
    try:
        say(writer, Here(index, os.getpid()))
        order: Order | None = None
        while line := await reader.readline():
            match _to_party.decode(line):
                case Prepare(order):
                    say(writer, await _prepared(party, order, cpus))
                case Go() if order is not None:
                    say(writer, await _performed(party, order))
                case Settle():
                    say(writer, Settled(time.process_time_ns()))
    finally:
        writer.close()


async def _prepared(party: Party, order: Order, cpus: set[int]) -> Ready | Failed:
    os.sched_setaffinity(0, cpus if order.cpu is None else {order.cpu})
    try:
        await party.prepare(order)
    except Exception as error:  # noqa: BLE001  # whatever a peer raises: it is told, and the command fails
        return Failed(repr(error))
    return Ready()


async def _performed(party: Party, order: Order) -> Done | Failed:
    try:
        return Done(await party.perform(order))
    except Exception as error:  # noqa: BLE001  # as above
        return Failed(repr(error))


def say(writer: asyncio.StreamWriter, word: Prepare | Go | Settle | ToConductor) -> None:
    """Write one word."""
    writer.write(msgspec.json.encode(word) + b"\n")


async def hear(reader: asyncio.StreamReader) -> ToConductor:
    """Read one word of a party. Raises EOFError when it has ended."""
    line = await reader.readline()
    if not line:
        raise EOFError
    return _to_conductor.decode(line)
