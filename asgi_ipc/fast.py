"""Fast: what the compiled engine takes from C where this file stands in Python.

Law: each function means the same here and in fast.pxd, and the compiled modules call that one. The caller
checks every bound: in C nothing here does.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Coroutine
from contextvars import Context
from types import EllipsisType
from typing import Any, Final, TypeAlias

# Bytes in memory: in C, a pointer.
Bytes: TypeAlias = bytes | memoryview

# The result of `step_in` for a coroutine that has ended. No coroutine waits for it.
ENDED: Final = ...

thread_id = threading.get_ident
references = sys.getrefcount

_BYTE: Final = tuple(bytes((value,)) for value in range(256))


def copied(context: Context) -> Context:
    """Return a copy of that context."""
    return context.copy()


def call_in(context: Context, function: Callable[[Any], Any], data: Any) -> Any:
    """Call a function in that context."""
    return context.run(function, data)


def step_in(context: Context, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its next wait in that context; what it waits for, or ENDED."""
    return context.run(_step, coroutine)


def _step(coroutine: Coroutine[Any, Any, Any]) -> Any | EllipsisType:
    try:
        return coroutine.send(None)
    except StopIteration:
        return ENDED


def address(content: Bytes) -> Bytes:
    """Return where content lies. It must be kept meanwhile."""
    return content


def is_at(memory: Bytes, at: int, stop: int, what: bytes) -> bool:
    """Return whether these bytes stand there, before `stop`."""
    end = at + len(what)
    return end <= stop and memory[at:end] == what


def bytes_at(memory: Bytes, start: int, stop: int) -> bytes:
    """Return a copy of the bytes there."""
    return bytes(memory[start:stop])


def text_at(memory: Bytes, start: int, stop: int) -> str:
    """Return the text there. Raises UnicodeDecodeError."""
    return str(memory[start:stop], "utf-8")


def is_text(memory: Bytes, start: int, stop: int) -> bool:
    """Return whether the bytes there are UTF-8."""
    try:
        str(memory[start:stop], "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def join(head: bytes, parts: list[bytes], size_bytes: int) -> bytes:
    """Return these one behind the other. `size_bytes`: of the parts."""
    return b"".join((head, *parts))


def fill(memory: Any, start: int, head: bytes, parts: list[bytes], size_bytes: int) -> None:
    """Write these one behind the other. `size_bytes`: of the parts."""
    memory[start : start + len(head) + size_bytes] = b"".join((head, *parts))


def bytes_prefix(front: bytes, size_bytes: int) -> bytes:
    """Return the front, and MessagePack's header of so many bytes."""
    return front + _header(0xC4, size_bytes)


def text_prefix(front: bytes, size_bytes: int) -> bytes:
    """Return the front, and MessagePack's header of text of so many bytes."""
    return front + (_BYTE[0xA0 + size_bytes] if size_bytes < 32 else _header(0xD9, size_bytes))


def _header(tag: int, size_bytes: int) -> bytes:
    """Return the header with a size of one, two or four bytes; the tag is that of one."""
    if size_bytes < 1 << 8:
        return _BYTE[tag] + _BYTE[size_bytes]
    if size_bytes < 1 << 16:
        return _BYTE[tag + 1] + size_bytes.to_bytes(2, "big")
    return _BYTE[tag + 2] + size_bytes.to_bytes(4, "big")
