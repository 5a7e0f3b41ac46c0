"""Lifeline words: what the launcher and one worker say to each other.

Law: nothing in this file asks the kernel or the clock. Words are typed and
framed by their length; a descriptor travels beside the word that names it.
Words reach a worker in one order, which is the same for all workers.
"""

from __future__ import annotations

import struct
from typing import Any, Final, TypeAlias

import msgspec

from asgi_ipc.fleet.claims import Scope
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.printable import printable

_LENGTH: Final = struct.Struct("<I")

# The longest word is a handover or the traceback of a failed start. This is
# far above both, and keeps a broken peer from growing the buffer.
MAX_WORD_BYTES: Final = 16 * 1024 * 1024


class _Word(msgspec.Struct, frozen=True, tag=True, tag_field="word"):
    pass


# --- from the launcher to a worker


class Kin(msgspec.Struct, frozen=True):
    """The worker as a child of the launcher, in the eyes of `multiprocessing`.

    Attributes:
        given: what a child is given: `authkey`, a secret, and settings.
        name: of the process.
        tracker_fd: the write end of the resource tracker's pipe, inherited.
        sentinel_fd: can be read as soon as the launcher has ended; inherited.
    """

    given: dict[str, Any]
    name: str
    tracker_fd: int
    sentinel_fd: int


class Interpreter(msgspec.Struct, frozen=True):
    """The launcher's interpreter state that a worker takes over. The texts are as `encodable` makes them.

    Attributes:
        sys_path: where modules are looked for.
        argv: what the app finds in `sys.argv`.
        signal_mask: the signals that were blocked before the server started; children of a worker get it.
    """

    sys_path: list[Any]
    argv: list[Any] = []
    signal_mask: list[int] = []


class Helper(msgspec.Struct, frozen=True):
    """A process of another kind than "worker", and the module that it runs (`worker/helper.py`).

    Attributes:
        config: what that module is given; it may have a password, and is not for logs.
    """

    kind: str
    module: str
    config: Any = None

    def __repr__(self) -> str:
        return f"<Helper {self.kind!r}>"


class Handover(_Word, frozen=True, omit_defaults=True):
    """First of all: what a newborn process is given before it imports anything of the app.

    Attributes:
        uvicorn: the arguments of its Config, as `encodable` makes them.
        helper: set in a process that is no worker.
    """

    slot: int
    generation: int
    settings: Settings
    interpreter: Interpreter
    uvicorn: dict[str, Any]
    kin: Kin | None = None
    helper: Helper | None = None


class Welcome(_Word, frozen=True):
    """The answer to Join: the members at this point of the common order. Their descriptors follow."""

    members: list[Worker]


class Joined(_Word, frozen=True):
    """`worker` is a member from here on. Carries its write end."""

    worker: Worker


class WriteEnd(_Word, frozen=True):
    """The write end of a member that is known already."""

    generation: int


class Entered(_Word, frozen=True):
    """All members know you, except the missing ones, which have not answered.

    Attributes:
        missing: the pids of those.
        telling: the generations of the members that will say to what they subscribe, and of the missing,
            which may.
    """

    missing: list[int]
    telling: list[int] = []


class Left(_Word, frozen=True):
    """That member is leaving: stop addressing it, flush, close."""

    generation: int


class Gone(_Word, frozen=True):
    """The process of that generation has ended and was reaped."""

    generation: int
    reason: str


class Leads(_Word, frozen=True):
    """That member leads from here on; None: no member does."""

    leader: Worker | None


class Decided(_Word, frozen=True):
    """The answer to that claim: you are the first (True), it is done (False), or no room for a key (None)."""

    number: int
    first: bool | None


class Stop(_Word, frozen=True):
    """Finish your requests, leave, and exit.

    Attributes:
        relieved: other workers serve on, so clients may get the time to go there. A second Stop without
            it takes that time back.
    """

    relieved: bool = False


# --- from a worker to the launcher


class Join(_Word, frozen=True):
    """Make me a member."""


class Took(_Word, frozen=True):
    """The descriptor of that generation has arrived, or has been cut off by the descriptor limit.

    Attributes:
        subscribes: I have subscriptions, and will tell it of them.
    """

    generation: int
    arrived: bool
    subscribes: bool = False


class Leaving(_Word, frozen=True):
    """I stop sending new messages; tell the others to do so towards me."""


class Resigned(_Word, frozen=True):
    """None of the leader's tasks runs here, and none will."""


class Claim(_Word, frozen=True):
    """Am I the first at that key? `number` names the claim; none of mine has had it before."""

    number: int
    scope: Scope
    key: str


class Release(_Word, frozen=True):
    """That claim is over: its work is done, or it is given up."""

    number: int
    done: bool


class Drained(_Word, frozen=True):
    """My leave is over: cleanly, or with this many messages not sent and not handled.

    Attributes:
        cancelled: it was, if it was not clean, before its deadline.
    """

    clean: bool
    unsent: int
    unhandled: int
    cancelled: bool = False


class Ready(_Word, frozen=True):
    """The app has started and requests are served."""


class Failed(_Word, frozen=True):
    """The app can't be started; the reason, with its traceback if it has one."""

    reason: str


class Retiring(_Word, frozen=True):
    """I have served all the requests that I may; replace me, and then stop me."""


class Beat(_Word, frozen=True):
    """My event loop turns."""


class Stuck(_Word, frozen=True):
    """My event loop has not turned for a while; this is where it stands, a line for each frame."""

    stack: str


ToWorker: TypeAlias = Handover | Welcome | Joined | WriteEnd | Entered | Left | Gone | Leads | Decided | Stop
# The words of a worker about its membership, and those about its process.
ToRelay: TypeAlias = Join | Took | Leaving | Resigned | Claim | Release
ToFleet: TypeAlias = Drained | Ready | Failed | Retiring | Beat | Stuck
ToLauncher: TypeAlias = ToRelay | ToFleet

# The only extension on a lifeline: a text that is no UTF-8. Messages have none.
_TEXT: Final = 1


def encodable(value: Any) -> Any:
    """Plain data as a word can carry it. The other side decodes it to the same, but tuples to lists.

    A path or an argument that is no UTF-8 has lone surrogates in Python (PEP 383), and MessagePack's text
    is UTF-8.
    """
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                return msgspec.msgpack.Ext(_TEXT, value.encode(errors="surrogatepass"))
            return value
        case dict():
            return {key: encodable(each) for key, each in value.items()}
        case list() | tuple():
            return [encodable(each) for each in value]
        case _:
            return value


def _decode_text(code: int, data: memoryview) -> str:
    if code != _TEXT:
        raise msgspec.DecodeError(f"extension {code}")
    return bytes(data).decode(errors="surrogatepass")


_encode = msgspec.msgpack.Encoder().encode
_TO_WORKER: Final[msgspec.msgpack.Decoder[ToWorker]] = msgspec.msgpack.Decoder(
    ToWorker, ext_hook=_decode_text
)
_TO_LAUNCHER: Final[msgspec.msgpack.Decoder[ToLauncher]] = msgspec.msgpack.Decoder(ToLauncher)


def encode_word(word: ToWorker | ToLauncher) -> bytes:
    """The word with its length in front."""
    body = _encode(word)
    return _LENGTH.pack(len(body)) + body


class WordError(Exception):
    """The other side of the lifeline sent bytes that are no word. It is our own code: a bug, not bad input.

    Its text quotes those bytes and may stand in a log, so it is made printable.
    """

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class WordParser:
    """Finds the words in the bytes of a lifeline that arrive in pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The bodies of the words that `chunk` completes, in order."""
        data = self._rest + chunk
        position = 0
        bodies = []
        while len(data) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, position)
            if length > MAX_WORD_BYTES:
                raise WordError(f"word of {length} bytes")
            stop = position + _LENGTH.size + length
            if stop > len(data):
                break
            bodies.append(data[position + _LENGTH.size : stop])
            position = stop
        self._rest = data[position:]
        return bodies


def decode_for_worker(body: bytes) -> ToWorker:
    """A word from the launcher."""
    try:
        return _TO_WORKER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WordError(str(error)) from error


def decode_for_launcher(body: bytes) -> ToLauncher:
    """A word from a worker."""
    try:
        return _TO_LAUNCHER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WordError(str(error)) from error
