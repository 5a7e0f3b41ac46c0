"""The registry: what can't be called with what it would be given is refused when it is registered."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from asgi_ipc import IPC, InvalidNameError


class Shop:
    def takes_one(self, data: object) -> None: ...

    def takes_none(self) -> None: ...

    def __call__(self, data: object) -> None: ...


def uptime() -> None: ...


def move(x: int, y: int) -> None: ...


def paint(data: object, *, colour: str) -> None: ...


def with_defaults(data: object, times: int = 1, *more: int, colour: str = "", **rest: int) -> None: ...


def given_another(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(data: object) -> Any:
        return function(data, 2)

    return inner


REFUSED: list[tuple[Any, str]] = [
    (uptime, "takes no argument; a handler takes one, the data: def uptime(data)"),
    (move, "needs 2 arguments; a handler takes one, the data: def move(data)"),
    (paint, "needs 'colour' as a keyword; a handler takes one, the data: def paint(data)"),
    (lambda: None, "takes no argument; a handler takes one, the data: def function(data)"),
    (lambda **named: None, "takes no argument; a handler takes one, the data: def function(data)"),
    (Shop().takes_none, "takes no argument; a handler takes one, the data: def takes_none(data)"),
    (functools.partial(move, 1, 2), "takes no argument; a handler takes one, the data: def function(data)"),
]


@pytest.mark.parametrize(("function", "why"), REFUSED)
def test_a_handler_that_does_not_take_the_data_alone_is_refused_at_once(function: Any, why: str) -> None:
    with pytest.raises(TypeError) as caught:
        IPC().receive("name", function)
    assert str(caught.value) == f"handler 'name' {why}"


def test_names_are_checked_and_handlers_must_be_callable() -> None:
    here: Any = IPC()
    with pytest.raises(InvalidNameError):
        here.receive("", print)
    with pytest.raises(TypeError, match="a handler is a function, not str"):
        here.receive("name", "print")
    here.receive("never there", None)


@pytest.mark.parametrize(
    "function",
    [
        with_defaults,
        given_another(move),
        functools.partial(move, 1),
        functools.partial(paint, colour="red"),
        Shop().takes_one,
        Shop(),
        lambda *data: None,
        print,
        [].append,
        dict,
    ],
)
def test_whatever_can_be_called_with_the_data_is_a_handler(function: Any) -> None:
    IPC().receive("name", function)


def test_callbacks_and_leader_tasks_are_looked_at_in_the_same_way() -> None:
    here: Any = IPC()

    async def sweep(data: object) -> None: ...

    def left(worker: object) -> None: ...

    right = "on_leave callback takes 1 argument; it is given 3: def left(worker, reason, lost)"
    for register, function, why in [
        (here.on_join, uptime, "on_join callback takes no argument; it is given one: def uptime(worker)"),
        (here.on_leave, left, right),
        (
            here.leader_task,
            sweep,
            "leader task 'sweep' needs 1 argument; a leader task takes none: async def sweep()",
        ),
    ]:
        with pytest.raises(TypeError) as caught:
            register(function)
        assert str(caught.value) == why


def test_a_decorator_without_its_name_says_what_to_write() -> None:
    here: Any = IPC()
    for arguments in [(uptime,), (uptime, "uptime")]:
        with pytest.raises(TypeError) as caught:
            here.receive(*arguments)
        assert str(caught.value) == (
            'receive() takes a name first: @ipc.receive("uptime"), or receive("uptime", uptime)'
        )
