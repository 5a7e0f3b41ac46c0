"""The error tree: who inherits from whom, and what each one says."""

from __future__ import annotations

import pickle
import re

import pytest

import asgi_ipc
from asgi_ipc import errors

ALL = {name for name, kind in vars(errors).items() if isinstance(kind, type)}

CASES: list[tuple[type[errors.IPCError], dict[str, object], str]] = [
    (
        errors.NotRunningError,
        {},
        "ipc.lifespan is not entered; give it to the app: FastAPI(lifespan=ipc.lifespan), or ipc.wrap(app)",
    ),
    (errors.OutsideHandlerError, {}, "reply() answers the message being handled; there is none here"),
    (
        errors.InvalidNameError,
        {"name": "a\x00", "reason": "a name has no control characters"},
        "invalid message name 'a\\x00': a name has no control characters",
    ),
    (
        errors.InvalidNameError,
        {"name": "", "reason": "a name has at least one character", "what": "topic"},
        "invalid topic '': a name has at least one character",
    ),
    (
        errors.MessageTooLargeError,
        {"size_bytes": 20971520, "max_bytes": 16777216},
        "message of 20971520 bytes exceeds the limit of 16777216 bytes",
    ),
    (errors.DeliveryError, {"pid": 7}, "message to worker 7 was not accepted"),
    (errors.UnknownWorkerError, {"pid": 7}, "no worker 7 is here now"),
    (
        errors.UnknownWorkerError,
        {"pid": 7, "node": "0123456789abcdef"},
        "worker 7 belongs to the node 0123456789abcdef: ipc.cluster sends to it and asks it",
    ),
    (
        errors.NotConnectedError,
        {"pid": 7},
        "worker 7 can't be reached: this server is not connected to the others of its cluster",
    ),
    (errors.WorkerGoneError, {"pid": 7}, "worker 7 went while this was waiting"),
    (errors.SendTimeoutError, {"pid": 7}, "worker 7 made no room for the message in time"),
    (errors.WouldBlockError, {"pid": 7}, "worker 7 has no room for the message now"),
    (
        errors.SubscriptionOverflowError,
        {"topic": "room:42", "max_messages": 1000, "missed": 3},
        "the subscription to 'room:42' had no room beyond 1000 messages that wait",
    ),
    (errors.RequestError, {"pid": 7, "name": "who"}, "worker 7 did not answer 'who'"),
    (errors.NoHandlerError, {"pid": 7, "name": "who"}, "worker 7 has no handler for 'who'"),
    (
        errors.InvalidDataError,
        {"pid": 7, "name": "who", "field": "age", "expected": "int", "reason": "age: expected int, got str"},
        "data does not fit handler 'who' of worker 7: age: expected int, got str",
    ),
    (
        errors.RequestTimeoutError,
        {"pid": 7, "name": "who"},
        "worker 7 did not answer 'who' in time; it is not known whether its handler has run",
    ),
    (
        errors.RemoteError,
        {
            "pid": 7,
            "name": "who",
            "type_name": "app.NoSuchUser",
            "message": "42",
            "traceback": "Traceback ...",
        },
        "handler 'who' of worker 7 raised app.NoSuchUser: 42",
    ),
    (
        errors.SecondIPCError,
        {},
        "one IPC per process: another IPC() has entered its lifespan in this worker; "
        "share that one, as `from asgi_ipc import ipc` does",
    ),
    (
        errors.TooManyKeysError,
        {"key": "job", "max_keys": 10000},
        "claim and once have 10,000 keys, which is the limit; 'job' would be one more",
    ),
]

# Their sentences are made where they are raised.
SAID: list[type[errors.IPCError]] = [errors.LifespanError, errors.WrongLoopError, errors.LauncherError]


@pytest.mark.parametrize(("kind", "values", "sentence"), CASES)
def test_an_error_carries_its_values_and_its_sentence_to_another_process_too(
    kind: type[errors.IPCError], values: dict[str, object], sentence: str
) -> None:
    error = kind(**values)
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert type(each) is kind
        assert {name: getattr(each, name) for name in values} == values
        assert str(each) == sentence


def test_every_error_is_tested_here_and_exported_by_the_package() -> None:
    tested = {kind.__name__ for kind in (*(kind for kind, _, _ in CASES), *SAID)}
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
