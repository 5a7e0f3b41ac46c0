"""Handlers: one registration each.

Law: data, which nothing changes. It is read for every message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Function: TypeAlias = Callable[..., Any]


class Handler:
    """One registration.

    For data that does not fit, `function` raises ConversionError and does not call the app's function.
    """

    __slots__ = ("function", "is_async", "name", "ordered")

    def __init__(self, name: str, function: Function, is_async: bool, ordered: bool = False) -> None:
        self.name = name
        self.function = function
        self.is_async = is_async
        self.ordered = ordered
