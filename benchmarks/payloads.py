"""Payloads: data with content of its own for each message, and the check on arrival.

Law: no I/O but a look at the clock. Sender and receiver derive the same sequence from (sender, count, size),
so the receiver compares every byte of every message with the expected one. One comparison finds any message
that is lost, altered, repeated or out of order.

The check is a part of every figure, so it is small: a closure that compares
and nothing else. There is no counter in it; the last message to come is an
object whose comparison notes the time.
"""

from __future__ import annotations

import itertools
import operator
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final

# A payload begins with one character for its sender and nine digits for its number. The smallest payload has
# nothing else. All is ASCII, since one peer carries only text.
NUMBER_BYTES: Final = 10

# Up to here all payloads of a run are made before the clock starts. Larger ones
# are joined as they are sent: a list of them would have to be fetched from main
# memory, while joining 1 KiB takes some 50 ns in the cache.
MAX_PREPARED_BYTES: Final = 128

# Up to here what must come is joined for the comparison; above, its two parts
# are compared one by one, which costs less than a copy.
MAX_JOINED_BYTES: Final = 1024

# Different bodies behind the number, so that a piece of one large message does
# not fit into its neighbours unnoticed; not more of them than a cache holds.
MAX_BODIES: Final = 16
MAX_BODIES_BYTES: Final = 1024 * 1024

# Wrong messages that are named; behind the first, all may be wrong.
MAX_NAMED: Final = 5


def payloads(sender: int, count: int, size_bytes: int) -> Iterable[bytes]:
    """`count` different payloads of `size_bytes` each, the same ones in every process.

    Raises ValueError for a size below NUMBER_BYTES.
    """
    joined = _joined(iter(_numbers(sender, count)), size_bytes)
    return tuple(joined) if size_bytes <= MAX_PREPARED_BYTES else joined


def _numbers(sender: int, count: int) -> tuple[bytes, ...]:
    # A tuple of bytes is nothing that the garbage collector looks at.
    first = b"%c" % (ord("A") + sender)
    return tuple([first + b"%09d" % number for number in range(count)])


def _joined(numbers: Iterator[bytes], size_bytes: int) -> Iterator[bytes]:
    bodies = _bodies(size_bytes)
    return map(operator.add, numbers, itertools.cycle(bodies)) if bodies else numbers


def _bodies(size_bytes: int) -> list[bytes]:
    if size_bytes < NUMBER_BYTES:
        raise ValueError(f"a payload has at least {NUMBER_BYTES} bytes, not {size_bytes}")
    length = size_bytes - NUMBER_BYTES
    if not length:
        return []
    # A sequence that anyone can make again, not a secret.
    source = random.Random(size_bytes)
    count = max(2, min(MAX_BODIES, MAX_BODIES_BYTES // length))
    return [source.randbytes((length + 1) // 2).hex()[:length].encode() for _ in range(count)]


class _Parts:
    """A large payload that must come, compared without being joined."""

    __slots__ = ("_body", "_number")

    def __init__(self, number: bytes, body: bytes) -> None:
        self._number = number
        self._body = body

    def __ne__(self, data: object) -> bool:
        return not (
            isinstance(data, bytes)
            and len(data) == NUMBER_BYTES + len(self._body)
            and data.startswith(self._number)
            and data.endswith(self._body)
        )


class _Last:
    """The last expected payload; comparing it notes the time."""

    __slots__ = ("_expected", "_on_last", "has_come")

    def __init__(self, expected: object, on_last: Callable[[], None]) -> None:
        self.has_come = False
        self._expected = expected
        self._on_last = on_last

    def __ne__(self, data: object) -> bool:
        self.has_come = True
        self._on_last()
        return data != self._expected


class _Stream:
    """The expected payloads of one sender."""

    def __init__(self, sender: int, count: int, size_bytes: int, on_last: Callable[[], None]) -> None:
        numbers, bodies = _numbers(sender, count), _bodies(size_bytes)
        last = numbers[-1] + bodies[(count - 1) % len(bodies)] if bodies else numbers[-1]
        self._before_last = iter(numbers[:-1])
        expected: Iterator[object]
        if size_bytes > MAX_JOINED_BYTES:
            expected = map(_Parts, self._before_last, itertools.cycle(bodies))
        else:
            expected = _joined(self._before_last, size_bytes)
            if size_bytes <= MAX_PREPARED_BYTES:
                expected = self._before_last = iter(tuple(expected))
        self._last = _Last(last, on_last)
        # Nothing is expected behind it: what comes all the same is wrong.
        self.following = itertools.chain(expected, [self._last], itertools.repeat(None)).__next__
        self._count = count

    @property
    def taken(self) -> int:
        """Messages so far."""
        return self._count - operator.length_hint(self._before_last) - (not self._last.has_come)


class Inbox:
    """Compares what arrives with what must arrive, and notes when the last message did.

    Give it to the subject as its handler: `take`, or `take_async` for one that
    expects a coroutine function that does not suspend.

    Attributes:
        wrong: messages that were not what had to come next.
        wrong_at: the positions of the first of them in their sender's sequence.
        ended_ns: when the last expected one was handed over, on the system-wide monotonic clock; or 0.
    """

    def __init__(
        self, senders: Iterable[int], count: int, size_bytes: int, on_done: Callable[[], None]
    ) -> None:
        self._on_done = on_done
        self._streams = {
            ord("A") + sender: _Stream(sender, count, size_bytes, self._one_is_done) for sender in senders
        }
        self._unfinished = len(self._streams)
        self.wrong = 0
        self.wrong_at: list[int] = []
        self.ended_ns = 0
        self.take, self.take_async = self._handlers()
        if not self._streams:
            on_done()

    @property
    def taken(self) -> int:
        """Messages of all senders so far."""
        return sum(stream.taken for stream in self._streams.values())

    def _handlers(self) -> tuple[Callable[[Any], None], Callable[[Any], Coroutine[Any, Any, None]]]:
        wrong = self._note_wrong
        if len(self._streams) == 1:
            (only,) = self._streams.values()
            following = only.following

            def take(data: Any) -> None:
                if data != following():
                    wrong(data)

            async def take_async(data: Any) -> None:
                if data != following():
                    wrong(data)

            return take, take_async

        following_of = {first: stream.following for first, stream in self._streams.items()}

        def take_of_several(data: Any) -> None:
            if data != following_of[data[0]]():
                wrong(data)

        async def take_of_several_async(data: Any) -> None:
            if data != following_of[data[0]]():
                wrong(data)

        return take_of_several, take_of_several_async

    def _note_wrong(self, data: object) -> None:
        self.wrong += 1
        if len(self.wrong_at) < MAX_NAMED:
            first = data[0] if isinstance(data, bytes) and data else 0
            stream = self._streams.get(first) or next(iter(self._streams.values()))
            self.wrong_at.append(stream.taken - 1)

    def _one_is_done(self) -> None:
        self._unfinished -= 1
        if not self._unfinished:
            self.ended_ns = time.monotonic_ns()
            self._on_done()
