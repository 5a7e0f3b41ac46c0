"""Messages: a name and data, checked and encoded.

Law: nothing in this file asks the kernel or the clock. A message is the MessagePack array [name, data] or
[name, data, extra]. Data that a receiver could not get back unchanged is refused here, in the sender, before
anything is sent. Typed data travels as its fields, and a receiver makes the type of them again (plain.py).
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import msgspec

from asgi_ipc.errors import InvalidNameError, MessageTooLargeError
from asgi_ipc.wire.arena import Block
from asgi_ipc.wire.plain import Dataclass, Model, is_typed, made_plain, not_carried

Data: TypeAlias = (
    str
    | bytes
    | bytearray
    | memoryview
    | int
    | float
    | datetime.datetime
    | list[Any]
    | tuple[Any, ...]
    | dict[Any, Any]
    | Mapping[str, Any]
    | msgspec.Struct
    | Dataclass
    | Model
    | None
)
"""The data of a message: anything that MessagePack carries unchanged, and typed data.

The mapping is for a TypedDict, which type checkers don't take for a dict; any other mapping is refused.
"""

# 254 bytes is the original's limit; a name is a label, not a place for data.
MAX_NAME_BYTES: Final = 254

# A message of the package itself that carries one of the app may be so much larger than `max_message_bytes`:
# a few names and numbers.
OWN_BYTES: Final = 2048

# A decoder recurses; 100 levels fit any stack that the receiver may have left, so the receiver can decode all
# that the sender could encode.
MAX_DEPTH: Final = 100
_TOO_DEEP: Final = f"data is nested more than {MAX_DEPTH} levels deep, or contains itself"

_PLAIN: Final = frozenset({str, bytes, int, float, bool, type(None), bytearray, memoryview})
_KEYS: Final = frozenset({str, bytes, int, float, bool, type(None)})

encode = msgspec.msgpack.Encoder().encode


# UTF-8.
MAX_CHARACTER_BYTES: Final = 4

# Names found valid are remembered, up to this many.
MAX_KNOWN_NAMES: Final = 1024

# The third part of a message, if it has one: a map for the package itself, by keys that it gives out.
Extra: TypeAlias = dict[str, Any]

# Some features at once, with a few keys each. A trace context has up to 600 bytes.
MAX_EXTRA_KEYS: Final = 16
MAX_EXTRA_BYTES: Final = 1024

# MessagePack's array of two, and its headers for bytes and text of up to 4 GiB.
_ARRAY2: Final = b"\x92"
_BIN32: Final = 0xC6
_STR32: Final = 0xDB
_NO_BYTES: Final = b"\xc4\x00"
_large_header = struct.Struct(">BI").pack

# The package's own messages, by names that no app can register or send: a question [number, name, data], its
# answer [number, outcome, value], and the cancellation of the question [number].
ASK: Final = "\x01ask"
ANSWER: Final = "\x01answer"
WITHDRAW: Final = "\x01withdraw"

# A publication [topic, data]; the sender's changed subscriptions since its last report, and whether the
# report has all of them, [change, is_all, [added, dropped]]; and the last change that a receiver knows
# [change].
PUBLISH: Final = "\x01publish"
TOPICS: Final = "\x01topics"
KNOWN: Final = "\x01known"


class LargeMessage(msgspec.Struct, eq=False, gc=False):
    """An encoded message larger than a packet, in two parts; all outboxes that hold it share them.

    Attributes:
        size_bytes: the size of both parts.
        is_shared: it goes to several receivers, so it has a block of its own.
        holders: the number of outboxes that have it.
        block: its block in the arena, if it is there.
    """

    prefix: bytes
    body: bytes
    size_bytes: int
    holders: int = 0
    block: Block | None = None
    is_shared: bool = False

    def __len__(self) -> int:
        return self.size_bytes

    def piece(self, start: int, stop: int) -> bytes | memoryview:
        """The bytes from `start` to `stop`."""
        skip = len(self.prefix)
        if start >= skip:
            return memoryview(self.body)[start - skip : stop - skip]
        return self.prefix[start:stop] + self.body[: max(stop - skip, 0)]


Encoded: TypeAlias = bytes | LargeMessage


class Packer:
    """Encodes names and data: as bytes, or as a LargeMessage above `small_bytes`.

    Attributes:
        fronts: names found valid, each with what stands before its data.
    """

    __slots__ = ("_max_message_bytes", "_small_bytes", "fronts")

    def __init__(self, max_message_bytes: int, small_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._small_bytes = min(small_bytes, max_message_bytes)
        self.fronts: dict[str, bytes] = {}

    def pack(self, name: str, data: Any, extra: Extra | None = None) -> Encoded:
        """Encode one message. May be called from any thread.

        Raises:
            InvalidNameError: `name` can't name a message.
            TypeError, ValueError, OverflowError: MessagePack can't carry `data`
                and give it back as it was.
            MessageTooLargeError: the encoded message exceeds `max_message_bytes`.
        """
        if type(name) is not str or name not in self.fronts:
            self._learn(name)
        kind = type(data)
        if kind is bytes or kind is str:
            if len(data) > self._small_bytes and not extra:
                return self._large(name, data)
        elif kind not in _PLAIN:
            data = _carriable(data)
        return self._encode((name, data, _sealed(extra)) if extra else (name, data))

    def wrap(self, name: str, head: tuple[int | str, ...], data: Any, extra: Extra | None = None) -> Encoded:
        """Encode one of the package's own messages: `head`, then `data`. Raises as `pack`."""
        if type(data) not in _PLAIN:
            data = _carriable(data)
        content = (*head, data)
        return self._encode((name, content, _sealed(extra)) if extra else (name, content))

    def own(self, name: str, word: msgspec.Struct) -> Encoded:
        """Encode one of the package's own messages, whose data is plain. Raises MessageTooLargeError.

        The last field of the word, if it is called `content`, is bytes, and is not copied if it is large.
        """
        content = getattr(word, "content", b"")
        if len(content) <= self._small_bytes:
            return self._encode((name, word))
        front = encode((name, msgspec.structs.replace(word, content=b"")))
        prefix = front.removesuffix(_NO_BYTES) + _large_header(_BIN32, len(content))
        return self._checked(LargeMessage(prefix, content, len(prefix) + len(content)))

    def _encode(self, message: tuple[Any, ...]) -> Encoded:
        try:
            encoded = encode(message)
        except BufferError as error:
            raise ValueError(f"a message can't carry this memoryview: {error}") from error
        if len(encoded) <= self._small_bytes:
            return encoded
        # A copy of exactly its size: the encoder grows its result by half at a time and cuts it, and on the
        # heap the cuts add up. 32 MiB of messages of 5,000 bytes held 49 MiB; copied, 36.
        return self._checked(LargeMessage(b"", bytes(memoryview(encoded)), len(encoded)))

    def _large(self, name: str, data: bytes | str) -> LargeMessage:
        """Encode without a copy: MessagePack's header, and the bytes themselves."""
        if len(data) > self._max_message_bytes:
            # Refuse it before making a copy.
            raise MessageTooLargeError(len(data), self._max_message_bytes)
        kind, body = (_BIN32, data) if isinstance(data, bytes) else (_STR32, data.encode())
        try:
            # Another thread may have made the packer forget the names.
            front = self.fronts.get(name) or _ARRAY2 + encode(name)
            prefix = front + _large_header(kind, len(body))
        except struct.error:
            raise OverflowError("a message can't carry 4 GiB") from None
        return self._checked(LargeMessage(prefix, body, len(prefix) + len(body)))

    def _checked(self, message: LargeMessage) -> LargeMessage:
        if message.size_bytes > self._max_message_bytes:
            raise MessageTooLargeError(message.size_bytes, self._max_message_bytes)
        return message

    def _learn(self, name: object) -> None:
        check_name(name)
        assert isinstance(name, str)
        if len(self.fronts) >= MAX_KNOWN_NAMES:
            self.fronts.clear()
        self.fronts[name] = _ARRAY2 + encode(name)


def check_name(name: object, what: str = "message name") -> None:
    """Raise InvalidNameError unless `name` may be the name of that: of a message, a topic, a key."""
    if type(name) is not str:
        if not isinstance(name, str):
            raise InvalidNameError(name, "a name is a str", what)
        raise InvalidNameError(name, "a name is a plain str, not a subclass", what)
    if not name:
        raise InvalidNameError(name, "a name has at least one character", what)
    # isprintable() is a quick yes for nearly every name there is.
    if not name.isprintable():
        if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name):
            # Unicode's Cc. Other unprintable characters belong to some scripts; logs escape them.
            raise InvalidNameError(name, "a name has no control characters", what)
        if not _is_unicode(name):
            raise InvalidNameError(name, "a name is valid Unicode", what)
    if len(name) * MAX_CHARACTER_BYTES > MAX_NAME_BYTES and len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidNameError(name, f"a name has at most {MAX_NAME_BYTES} bytes of UTF-8", what)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _sealed(extra: Extra) -> msgspec.Raw:
    """`extra`, encoded. Raises TypeError or ValueError for what `read_extra` would not give back."""
    if any(type(key) is not str for key in extra):
        raise TypeError("the keys of a message's extra are text")
    encoded = encode(_carriable(extra))
    if len(extra) > MAX_EXTRA_KEYS or len(encoded) > MAX_EXTRA_BYTES:
        raise ValueError(f"a message's extra has {len(extra)} keys and {len(encoded)} bytes: too large")
    return msgspec.Raw(encoded)


def refuse_extension(code: int, data: memoryview) -> Any:
    """The timestamp is the only extension type that a message carries."""
    raise ValueError(f"no message carries the extension type {code}")


_read_extra = msgspec.msgpack.Decoder(Extra, ext_hook=refuse_extension).decode


def read_extra(encoded: msgspec.Raw) -> Extra:
    """The extra of a message. Raises msgspec.DecodeError or ValueError for anything else."""
    size_bytes = len(memoryview(encoded))
    if size_bytes > MAX_EXTRA_BYTES:
        raise ValueError(f"extra of {size_bytes} bytes")
    extra = _read_extra(encoded)
    if len(extra) > MAX_EXTRA_KEYS:
        raise ValueError(f"extra of {len(extra)} keys")
    return extra


class _TypedError(TypeError):
    """The data contains typed data."""


def _carriable(data: Any) -> Any:
    """Return `data` made plain. Raises TypeError or ValueError for data that would arrive changed."""
    try:
        _check_data(data, 0)
    except _TypedError:
        # Only typed data pays for a second look.
        try:
            data = made_plain(data)
        except RecursionError:
            raise ValueError(_TOO_DEEP) from None
        _check_data(data, 0)
    return data


def _check_data(data: Any, depth: int) -> None:
    """Raise TypeError or ValueError for data that would arrive changed, _TypedError for typed data."""
    kind = type(data)
    if kind in _PLAIN:
        return
    if kind is datetime.datetime:
        if data.utcoffset() is None:
            raise ValueError("a message can't carry a datetime without a time zone")
        return
    if depth == MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    if kind is dict:
        for key, value in data.items():
            if type(key) not in _KEYS:
                raise TypeError(f"a message can't carry a dict key of type {type(key).__qualname__}")
            if type(value) not in _PLAIN:
                _check_data(value, depth + 1)
    elif kind is list or kind is tuple:
        for value in data:
            if type(value) not in _PLAIN:
                _check_data(value, depth + 1)
    else:
        raise _TypedError if is_typed(kind) else not_carried(kind)
