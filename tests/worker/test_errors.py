"""The error tree: who inherits from whom, and what each one says."""

from __future__ import annotations

import pickle
import re

import pytest

import asgi_ipc
from asgi_ipc import errors

ALL = {name for name, kind in vars(errors).items() if isinstance(kind, type)}

VALUES: list[tuple[errors.IPCError, type[Exception], dict[str, object], str]] = [
    (
        errors.NotRunningError(),
        RuntimeError,
        {
            "reason": "ipc.lifespan is not entered; "
            "give it to the app: FastAPI(lifespan=ipc.lifespan), or ipc.wrap(app)"
        },
        "ipc.lifespan is not entered; give it to the app: FastAPI(lifespan=ipc.lifespan), or ipc.wrap(app)",
    ),
    (
        errors.OutsideHandlerError(),
        RuntimeError,
        {},
        "reply() answers the message being handled; there is none here",
    ),
    (
        errors.InvalidNameError("a\x00", "a name has no control characters"),
        ValueError,
        {"name": "a\x00", "reason": "a name has no control characters"},
        "invalid message name 'a\\x00': a name has no control characters",
    ),
    (
        errors.InvalidNameError("", "a name has at least one character", "topic"),
        ValueError,
        {"name": "", "reason": "a name has at least one character", "what": "topic"},
        "invalid topic '': a name has at least one character",
    ),
    (
        errors.MessageTooLargeError(20971520, 16777216),
        ValueError,
        {"size_bytes": 20971520, "max_bytes": 16777216},
        "message of 20971520 bytes exceeds the limit of 16777216 bytes",
    ),
    (errors.DeliveryError(7), errors.IPCError, {"pid": 7}, "message to worker 7 was not accepted"),
    (errors.UnknownWorkerError(7), LookupError, {"pid": 7}, "no worker 7 is here now"),
    (
        errors.WorkerGoneError(7),
        ConnectionError,
        {"pid": 7},
        "worker 7 went while this was waiting",
    ),
    (
        errors.SendTimeoutError(7),
        TimeoutError,
        {"pid": 7},
        "worker 7 made no room for the message in time",
    ),
    (
        errors.WouldBlockError(7),
        BlockingIOError,
        {"pid": 7},
        "worker 7 has no room for the message now",
    ),
    (
        errors.SubscriptionOverflowError("room:42", 1000, 3),
        errors.IPCError,
        {"topic": "room:42", "max_messages": 1000, "missed": 3},
        "the subscription to 'room:42' had no room beyond 1000 messages that wait",
    ),
    (
        errors.RequestError(7, "who"),
        errors.IPCError,
        {"pid": 7, "name": "who"},
        "worker 7 did not answer 'who'",
    ),
    (
        errors.NoHandlerError(7, "who"),
        LookupError,
        {"pid": 7, "name": "who"},
        "worker 7 has no handler for 'who'",
    ),
    (
        errors.InvalidDataError(7, "who", "age", "int", "age: expected int, got str"),
        ValueError,
        {"pid": 7, "name": "who", "field": "age", "expected": "int", "reason": "age: expected int, got str"},
        "data does not fit handler 'who' of worker 7: age: expected int, got str",
    ),
    (
        errors.RequestTimeoutError(7, "who"),
        TimeoutError,
        {"pid": 7, "name": "who"},
        "worker 7 did not answer 'who' in time",
    ),
    (
        errors.RemoteError(7, "who", "app.NoSuchUser", "42", "Traceback ..."),
        errors.RequestError,
        {
            "pid": 7,
            "name": "who",
            "type_name": "app.NoSuchUser",
            "message": "42",
            "traceback": "Traceback ...",
        },
        "handler 'who' of worker 7 raised app.NoSuchUser: 42",
    ),
    (errors.LifespanError("it is ending"), RuntimeError, {}, "it is ending"),
    (errors.WrongLoopError("another loop"), errors.LifespanError, {}, "another loop"),
    (
        errors.SecondIPCError(),
        errors.LifespanError,
        {},
        "one IPC per process: another IPC() has entered its lifespan in this worker; "
        "share that one, as `from asgi_ipc import ipc` does",
    ),
    (
        errors.TooManyKeysError("job", 10_000),
        RuntimeError,
        {"key": "job", "max_keys": 10_000},
        "claim and once have 10,000 keys, which is the limit; 'job' would be one more",
    ),
    (errors.LauncherError("the port is taken"), errors.IPCError, {}, "the port is taken"),
]


@pytest.mark.parametrize(
    ("error", "base", "values", "sentence"), VALUES, ids=lambda each: type(each).__name__
)
def test_an_error_carries_its_values_and_its_sentence_to_another_process_too(
    error: errors.IPCError, base: type[Exception], values: dict[str, object], sentence: str
) -> None:
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert type(each) is type(error)
        assert isinstance(each, base)
        assert {name: getattr(each, name) for name in values} == values
        assert str(each) == sentence


def test_every_error_is_tested_here_and_exported_by_the_package() -> None:
    tested = {type(error).__name__ for error, _, _, _ in VALUES}
    assert tested | {"IPCError"} == ALL <= set(asgi_ipc.__all__)
    for name in ALL:
        assert getattr(asgi_ipc, name) is getattr(errors, name)


def test_the_tree_printed_at_the_top_of_the_module_is_the_tree() -> None:
    assert errors.__doc__ is not None
    above: dict[int, type[Exception]] = {0: errors.IPCError}
    printed = re.findall(r"^([ |]*)\+- (\w+)(?: \((\w+)\))?", errors.__doc__, re.MULTILINE)
    for indent, name, builtin in printed:
        kind = getattr(errors, name)
        depth = max(each for each in above if each < len(indent))
        assert kind.__bases__[0] is above[depth]
        assert not builtin or builtin in [each.__name__ for each in kind.__mro__]
        above = {each: error for each, error in above.items() if each < len(indent)} | {len(indent): kind}
    assert {name for _, name, _ in printed} | {"IPCError"} == ALL


def test_a_long_bad_name_is_shown_short() -> None:
    error = errors.InvalidNameError("x" * 10_000, "a name has at most 254 bytes of UTF-8")
    assert len(str(error)) < 150
    assert error.name == "x" * 10_000
