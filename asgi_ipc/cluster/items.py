"""Items: what one bridge says to another, several in one envelope.

Law: data. `content` is a batch of messages that workers have encoded; no bridge looks into it. Generations
name workers: those of the sender's node in `sender`, those of the receiver's in `to` and `asker`.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from asgi_ipc.cluster.envelope import EnvelopeError

# A worker: pid, slot, generation.
Said: TypeAlias = tuple[int, int, int]


class _Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The base of all items."""


# --- about the two nodes


class Beat(_Item, frozen=True, tag=1):
    """I am here. Once a second, and the first word of a life to another one.

    Attributes:
        total: how many messages I have numbered for you so far.
        revision: of my workers and topics.
        known: the revision of yours that I know.
        confirmed: of mine; what you have said as Known up to that one has come.
    """

    total: int
    revision: int
    known: int
    confirmed: int


class State(_Item, frozen=True, tag=2):
    """All my workers and topics, at that revision; each topic with the revision at which it began."""

    revision: int
    name: str
    workers: list[Said]
    topics: list[tuple[str, int]]


class Change(_Item, frozen=True, tag=3):
    """What has changed between two revisions.

    Attributes:
        joined: new workers; gone: generations, with the reason.
        topics: those with one more worker that subscribes to them, each with the revision at which the topic
            began.
        dropped: topics without subscribers.
    """

    base: int
    revision: int
    joined: list[Said]
    gone: list[tuple[int, str]]
    topics: list[tuple[str, int]]
    dropped: list[str]


class Known(_Item, frozen=True, tag=4):
    """I know your workers and topics up to that revision. What I numbered for you before is for none of the
    new ones.

    Attributes:
        base: the revision that I knew before.
        broadcasts: how many so far.
        topics: of the new ones: topic, the revision at which it began, publications so far. One that is not
            here has none.
    """

    base: int
    revision: int
    broadcasts: int
    topics: list[tuple[str, int, int]]


class Resync(_Item, frozen=True, tag=5):
    """Send me your State: I have missed a Change."""


class Audit(_Item, frozen=True, tag=6):
    """Send me a Statement: I have missed something."""


class Statement(_Item, frozen=True, tag=7):
    """Everything that I have numbered for you so far.

    Attributes:
        known: the revision of your workers and topics that I know.
        topics: as in Known, all that have a publication.
        sends: generation of a worker of yours, messages so far.
        said: each Known that is not confirmed.
    """

    known: int
    total: int
    broadcasts: int
    topics: list[tuple[str, int, int]]
    sends: list[tuple[int, int]]
    said: list[Known]


class Bye(_Item, frozen=True, tag=8):
    """This node stops."""


# --- messages, numbered: `first` and `count` say which they are among those of their kind


class Broadcast(_Item, frozen=True, tag=9):
    """Messages to all workers."""

    sender: int
    first: int
    count: int
    content: bytes


class Publications(_Item, frozen=True, tag=10):
    """Publications of one topic, to the workers that subscribe to it. `start`.

    The revision at which it began.
    """

    sender: int
    topic: str
    start: int
    first: int
    count: int
    content: bytes


class Direct(_Item, frozen=True, tag=11):
    """A message to one worker."""

    sender: int
    to: int
    first: int
    content: bytes


# --- questions, which their askers count


class Ask(_Item, frozen=True, tag=12):
    """A question to one worker, or (0) to all of them."""

    sender: int
    to: int
    number: int
    content: bytes


class Heard(_Item, frozen=True, tag=13):
    """The question to all went to these workers."""

    asker: int
    number: int
    workers: list[int]


class Answer(_Item, frozen=True, tag=14):
    """An answer, as `features/answers.py` makes it."""

    sender: int
    asker: int
    content: bytes


class Withdraw(_Item, frozen=True, tag=15):
    """That question's answers are not waited for any more. `to`: as of the question."""

    sender: int
    to: int
    number: int


Item: TypeAlias = (
    Beat
    | State
    | Change
    | Known
    | Resync
    | Audit
    | Statement
    | Bye
    | Broadcast
    | Publications
    | Direct
    | Ask
    | Heard
    | Answer
    | Withdraw
)


class Hello(_Item, frozen=True):
    """The payload of a HELLO, the same in all versions.

    Attributes:
        name: of the node, for people.
        oldest, newest: the versions of items that it speaks.
    """

    name: str
    oldest: int
    newest: int


encode_item = msgspec.msgpack.Encoder().encode
_decode_items = msgspec.msgpack.Decoder(list[Item]).decode
_decode_hello = msgspec.msgpack.Decoder(Hello).decode

# MessagePack's header of a list of up to 65,535.
ITEMS_HEAD_BYTES: Final = 3
MAX_ITEMS: Final = 2**16 - 1


def join_items(encoded: list[bytes]) -> bytes:
    """Return the payload of an envelope with these items."""
    return b"".join((b"\xdc", len(encoded).to_bytes(2, "big"), *encoded))


def read_items(payload: bytes | memoryview) -> list[Item]:
    """Return the items of an envelope. Raises EnvelopeError."""
    try:
        return _decode_items(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeError(f"no items: {error}") from error


def read_hello(payload: bytes | memoryview) -> Hello:
    """Return the payload of a HELLO. Raises EnvelopeError."""
    try:
        return _decode_hello(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EnvelopeError(f"no hello: {error}") from error
