"""Words: what a worker and the bridge of its node say to each other, as messages through their pipes.

Law: data. A word travels as the data of a message of the package itself, UP to the bridge or DOWN from it.
`content` is a batch of encoded messages, and the bridge does not look into it.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias, TypeVar, get_args

import msgspec

from asgi_ipc.cluster.nodes import NodeState

# The names of these messages.
UP: Final = "\x01up"
DOWN: Final = "\x01down"


W = TypeVar("W")


class _Word(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The base of all words."""


# --- up: from a worker to the bridge


class Broadcast(_Word, frozen=True, tag=1):
    """Messages to all workers of all other nodes."""

    count: int
    content: bytes


class Publish(_Word, frozen=True, tag=2):
    """Publications of one topic."""

    topic: str
    count: int
    content: bytes


class Unsent(_Word, frozen=True, tag=3):
    """There was no room for these before: broadcasts, and publications by topic."""

    broadcasts: int
    publications: dict[str, int]


class Send(_Word, frozen=True, tag=4):
    """A message to one worker. `number`: answer it with Taken; 0: don't."""

    number: int
    node: str
    to: int
    content: bytes


class Ask(_Word, frozen=True, tag=5):
    """A question to one worker of a node, or (0) to all of them."""

    number: int
    node: str
    to: int
    content: bytes


class Answer(_Word, frozen=True, tag=6):
    """The answer to a question of a worker of another node."""

    node: str
    asker: int
    content: bytes


class Withdraw(_Word, frozen=True, tag=7):
    """That question's answers are not waited for any more. `to`: as of the question."""

    node: str
    to: int
    number: int


# --- down: from the bridge to a worker


class NodeIs(_Word, frozen=True, tag=20):
    """That node is in the view, in that state."""

    node: str
    name: str
    state: NodeState


class NodeGone(_Word, frozen=True, tag=21):
    """That node is in the view no more."""

    node: str
    reason: str


class WorkerJoined(_Word, frozen=True, tag=22):
    """A worker of another node can be addressed."""

    node: str
    pid: int
    slot: int
    generation: int


class WorkerLeft(_Word, frozen=True, tag=23):
    """A worker of another node has gone, behind its last message."""

    node: str
    generation: int
    reason: str


class Complete(_Word, frozen=True, tag=24):
    """Whoever was not named since this bridge began is not in the view."""


class Wanted(_Word, frozen=True, tag=25):
    """Topics that other nodes subscribe to from now on, and those that none does any more."""

    topics: list[str]
    unwanted: list[str]


class Lost(_Word, frozen=True, tag=26):
    """Messages of that node that will not come; None: it is not known how many.

    Attributes:
        publications: those of them that were publications, by topic.
    """

    node: str
    messages: int | None
    publications: dict[str, int]


class Messages(_Word, frozen=True, tag=27):
    """Messages of one worker of another node."""

    node: str
    sender: int
    count: int
    content: bytes


class Asked(_Word, frozen=True, tag=28):
    """A question of a worker of another node."""

    node: str
    sender: int
    number: int
    content: bytes


class Withdrawn(_Word, frozen=True, tag=29):
    """A question that nobody waits for any more."""

    node: str
    sender: int
    number: int


class Heard(_Word, frozen=True, tag=30):
    """The question to all workers of that node went to these."""

    node: str
    number: int
    workers: list[int]


class Answered(_Word, frozen=True, tag=31):
    """An answer from a worker of another node."""

    node: str
    sender: int
    content: bytes


class Taken(_Word, frozen=True, tag=32):
    """A message was taken, or a message or question refused. `refusal`.

    "", "unknown", "not connected" or "full".
    """

    number: int
    refusal: str


class Totals(_Word, frozen=True, tag=33):
    """The bridge's counters so far, for `stats().cluster`."""

    counters: dict[str, int]


Up: TypeAlias = Broadcast | Publish | Unsent | Send | Ask | Answer | Withdraw
Down: TypeAlias = (
    NodeIs
    | NodeGone
    | WorkerJoined
    | WorkerLeft
    | Complete
    | Wanted
    | Lost
    | Messages
    | Asked
    | Withdrawn
    | Heard
    | Answered
    | Taken
    | Totals
)


_UP: Final[dict[int, type[Up]]] = {kind.__struct_config__.tag: kind for kind in get_args(Up)}
_DOWN: Final[dict[int, type[Down]]] = {kind.__struct_config__.tag: kind for kind in get_args(Down)}

# Not msgspec.convert: it looks through all kinds for each word, which takes longer than everything else here.
# Both sides are this package's own code.


def read_up(data: Any) -> Up:
    """A worker's word. Raises ValueError or TypeError if it is none."""
    tag, *fields = data
    return _kind(_UP, tag)(*fields)


def read_down(data: Any) -> Down:
    """The bridge's word. Raises ValueError or TypeError if it is none."""
    tag, *fields = data
    return _kind(_DOWN, tag)(*fields)


def _kind(kinds: dict[int, type[W]], tag: object) -> type[W]:
    kind = kinds.get(tag) if isinstance(tag, int) else None
    if kind is None:
        raise ValueError(f"no word has the tag {tag!r}")
    return kind
