"""Every error that asgi-ipc raises, as one tree.

IPCError
 +- NotRunningError (RuntimeError)         outside the lifespan
 +- OutsideHandlerError (RuntimeError)     reply() outside a handler
 +- InvalidNameError (ValueError)          empty, too long, or with control characters
 +- MessageTooLargeError (ValueError)      size_bytes, max_bytes
 +- DeliveryError                          pid
 |   +- UnknownWorkerError (LookupError)   no such member now
 |   +- WorkerGoneError (ConnectionError)  it went while the call waited, for room or for an answer
 |   +- SendTimeoutError (TimeoutError)    it reads too slowly; nothing was sent
 |   +- WouldBlockError (BlockingIOError)  the _nowait form of the same
 |   +- NotConnectedError (ConnectionError) this server has no connection to the broker of its cluster
 +- RequestError                           pid, name
 |   +- NoHandlerError (LookupError)       that worker has no handler of this name
 |   +- InvalidDataError (ValueError)      the handler there takes other data: field, expected
 |   +- RemoteError                        the handler there raised, or its answer is no message
 |   +- RequestTimeoutError (TimeoutError) no answer in time
 +- SubscriptionOverflowError               topic, max_messages, missed
 +- LifespanError (RuntimeError)           ipc.lifespan can't be entered now
 |   +- WrongLoopError                     nor on this event loop
 |   +- SecondIPCError                     nor by this IPC: another one was entered in this worker
 +- TooManyKeysError (RuntimeError)        claim() and once() have as many keys as they may: key, max_keys
 +- LauncherError                          start-up and control failures

Law: an error carries its values as attributes, and builds its sentence from them last. Data that MessagePack
can't carry raises the built-in TypeError, ValueError or OverflowError, as any encoder does.
"""

from __future__ import annotations


class IPCError(Exception):
    """The base of all errors that asgi-ipc raises by itself."""


def _who(pid: int) -> str:
    """Return who did not take a message, or answer it. 0: all workers of another server."""
    return f"worker {pid}" if pid else "that node"


_NOT_ENTERED = (
    "ipc.lifespan is not entered; give it to the app: FastAPI(lifespan=ipc.lifespan), or ipc.wrap(app)"
)


class NotRunningError(IPCError, RuntimeError):
    """The verb was used before `ipc.lifespan` was entered, or while or after it ended."""

    def __init__(self, reason: str = _NOT_ENTERED) -> None:
        super().__init__(reason)
        self.reason = reason


class OutsideHandlerError(IPCError, RuntimeError):
    """`reply` was called outside a handler, so there is no sender to answer."""

    def __str__(self) -> str:
        return "reply() answers the message being handled; there is none here"


class InvalidNameError(IPCError, ValueError):
    """A name of a message, a topic or a key: empty, above 254 bytes of UTF-8, or with control characters.

    Attributes:
        name: the invalid name.
        reason: the rule that it breaks.
        what: the kind of name: `message name`, `topic` or `key`.
    """

    def __init__(self, name: object, reason: str, what: str = "message name") -> None:
        super().__init__(name, reason, what)
        self.name = name
        self.reason = reason
        self.what = what

    def __str__(self) -> str:
        shown = repr(self.name)
        if len(shown) > 80:
            shown = shown[:77] + "..."
        return f"invalid {self.what} {shown}: {self.reason}"


class MessageTooLargeError(IPCError, ValueError):
    """An encoded message above `max_message_bytes`; nothing was sent."""

    def __init__(self, size_bytes: int, max_bytes: int) -> None:
        super().__init__(size_bytes, max_bytes)
        self.size_bytes = size_bytes
        self.max_bytes = max_bytes

    def __str__(self) -> str:
        return f"message of {self.size_bytes} bytes exceeds the limit of {self.max_bytes} bytes"


class DeliveryError(IPCError):
    """The message was not accepted for the worker `pid`; nothing was sent to it."""

    _sentence = "message to {who} was not accepted"

    def __init__(self, pid: int) -> None:
        super().__init__(pid)
        self.pid = pid

    def __str__(self) -> str:
        return self._sentence.format(who=_who(self.pid))


class UnknownWorkerError(DeliveryError, LookupError):
    """No such member now: it never existed, left, or died; or it belongs to another server of a cluster.

    Attributes:
        node: the other server, if a verb was used that stays on this one; "" otherwise.
    """

    def __init__(self, pid: int, node: str = "") -> None:
        super().__init__(pid)
        self.args = (pid, node) if node else (pid,)
        self.node = node

    def __str__(self) -> str:
        if self.node:
            return f"worker {self.pid} belongs to the node {self.node}: ipc.cluster sends to it and asks it"
        return f"no worker {self.pid} is here now"


class WorkerGoneError(DeliveryError, ConnectionError):
    """The worker left or died while the call waited for room in its outbox or for its answer.

    A message was not sent. A question may have been handled, but its answer will not come.
    """

    _sentence = "{who} went while this was waiting"


class SendTimeoutError(DeliveryError, TimeoutError):
    """The worker reads too slowly: its outbox had no room within the timeout. Nothing was sent."""

    _sentence = "{who} made no room for the message in time"


class WouldBlockError(DeliveryError, BlockingIOError):
    """The worker's outbox has no room now (`*_nowait`). Nothing was sent."""

    _sentence = "{who} has no room for the message now"


class NotConnectedError(DeliveryError, ConnectionError):
    """This server has no connection to the broker now, or is no member of a cluster. Nothing was sent.

    A question may have been sent if it was lost while this waited for its answer.
    """

    _sentence = "{who} can't be reached: this server is not connected to the others of its cluster"


class RequestError(IPCError):
    """The question `name` to the worker `pid` has no answer."""

    _sentence = "{who} did not answer {name!r}"

    def __init__(self, pid: int, name: str) -> None:
        super().__init__(pid, name)
        self.pid = pid
        self.name = name

    def __str__(self) -> str:
        return self._sentence.format(who=_who(self.pid), name=self.name)


class NoHandlerError(RequestError, LookupError):
    """The worker has no handler of that name."""

    _sentence = "{who} has no handler for {name!r}"


class InvalidDataError(RequestError, ValueError):
    """The data does not fit the handler's annotation, so it was not called; or its answer is no `reply_type`.

    Attributes:
        field: the place that does not fit, as "age" or "items[0].age"; "" for all of the data.
        expected: the type in the annotation, or in `reply_type`, at that place; "" if it can't be named.
        reason: place and type in words, and the type that came instead.
        of_answer: whether the answer does not fit.
    """

    def __init__(
        self, pid: int, name: str, field: str, expected: str, reason: str, of_answer: bool = False
    ) -> None:
        super().__init__(pid, name)
        self.args = (pid, name, field, expected, reason, of_answer)
        self.of_answer = of_answer
        self.field = field
        self.expected = expected
        self.reason = reason

    def __str__(self) -> str:
        if self.of_answer:
            return f"the answer of handler {self.name!r} of worker {self.pid} does not fit: {self.reason}"
        return f"data does not fit handler {self.name!r} of worker {self.pid}: {self.reason}"


class RequestTimeoutError(RequestError, TimeoutError):
    """No answer came in time. An async handler that still runs is cancelled; its answer is discarded.

    Whether the handler has run is not known.
    """

    _sentence = "{who} did not answer {name!r} in time; it is not known whether its handler has run"


class RemoteError(RequestError):
    """The handler raised, was cancelled, or returned data that a message can't carry.

    Attributes:
        type_name: the class of the exception there, as `module.Class`, or `Class` for a built-in one.
        message: its text.
        traceback: as Python prints it there; only the last part if it is long.
    """

    def __init__(self, pid: int, name: str, type_name: str, message: str, traceback: str) -> None:
        super().__init__(pid, name)
        self.args = (pid, name, type_name, message, traceback)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        what = f"{self.type_name}: {self.message}" if self.message else self.type_name
        return f"handler {self.name!r} of worker {self.pid} raised {what}"


class SubscriptionOverflowError(IPCError):
    """A subscription with `overflow="close"` had no room for a publication, and has ended.

    Attributes:
        topic: its topic.
        max_messages: the number of messages that may wait in it.
        missed: the number of publications that it has lost so far.
    """

    def __init__(self, topic: str, max_messages: int, missed: int) -> None:
        super().__init__(topic, max_messages, missed)
        self.topic = topic
        self.max_messages = max_messages
        self.missed = missed

    def __str__(self) -> str:
        return f"the subscription to {self.topic!r} had no room beyond {self.max_messages} messages that wait"


class LifespanError(IPCError, RuntimeError):
    """`ipc.lifespan` can't be entered: it is ending, or this worker process has left the fleet."""


class WrongLoopError(LifespanError):
    """`ipc.lifespan` can't be entered on this event loop: it belongs to another one."""


class SecondIPCError(LifespanError):
    """Another IPC() was entered in this worker: there is one in each process."""

    def __str__(self) -> str:
        return (
            "one IPC per process: another IPC() has entered its lifespan in this worker; "
            "share that one, as `from asgi_ipc import ipc` does"
        )


class TooManyKeysError(IPCError, RuntimeError):
    """`claim` and `once` have as many keys as the launcher remembers; older keys are still decided."""

    def __init__(self, key: str, max_keys: int) -> None:
        super().__init__(key, max_keys)
        self.key = key
        self.max_keys = max_keys

    def __str__(self) -> str:
        return (
            f"claim and once have {self.max_keys:,} keys, which is the limit; {self.key!r} would be one more"
        )


class LauncherError(IPCError):
    """Starting or controlling the workers failed."""
