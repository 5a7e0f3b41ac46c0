"""Texts: any str of Python's, over a lifeline and back.

Law: nothing in this file asks the kernel or the clock. MessagePack's text is UTF-8. A path or an argument
that is no UTF-8 has lone surrogates in Python (PEP 383), which UTF-8 can't carry; so such a text travels
as an extension, and everything else as it is.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec.msgpack import Ext

# The only extension on a lifeline. Messages have none.
TEXT: Final = 1


def carried(value: Any) -> Any:
    """Plain data as a word can carry it: every text in it that is no UTF-8 becomes an extension."""
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                return Ext(TEXT, value.encode(errors="surrogatepass"))
            return value
        case dict():
            return {key: carried(each) for key, each in value.items()}
        case list() | tuple():
            return [carried(each) for each in value]
        case _:
            return value


def restored(value: Any) -> Any:
    """The values that `carried` was given; tuples come back as lists."""
    match value:
        case Ext(code=code, data=data) if code == TEXT:
            return bytes(data).decode(errors="surrogatepass")
        case dict():
            return {key: restored(each) for key, each in value.items()}
        case list():
            return [restored(each) for each in value]
        case _:
            return value
