"""Messages between the worker processes of one ASGI server, without a broker.

Law: the public names, nothing else.
"""

from __future__ import annotations

# First: it decides how the modules behind it are found.
from asgi_ipc import engine as _engine  # noqa: F401
from asgi_ipc.cluster.nodes import Node
from asgi_ipc.entry import run
from asgi_ipc.errors import (
    DeliveryError,
    InvalidDataError,
    InvalidNameError,
    IPCError,
    LauncherError,
    LifespanError,
    MessageTooLargeError,
    NoHandlerError,
    NotConnectedError,
    NotRunningError,
    OutsideHandlerError,
    RemoteError,
    RequestError,
    RequestTimeoutError,
    SecondIPCError,
    SendTimeoutError,
    SubscriptionOverflowError,
    TooManyKeysError,
    UnknownWorkerError,
    WorkerGoneError,
    WouldBlockError,
    WrongLoopError,
)
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.worker.api.cluster import Cluster
from asgi_ipc.worker.features.afar import ClusterGathered
from asgi_ipc.worker.features.publication import Publication
from asgi_ipc.worker.features.requests import Gathered
from asgi_ipc.worker.features.subscription import Subscription
from asgi_ipc.worker.ipc import IPC, ipc
from asgi_ipc.worker.stats import Stats

__all__ = [
    "IPC",
    "Cluster",
    "ClusterGathered",
    "DeliveryError",
    "Gathered",
    "IPCError",
    "InvalidDataError",
    "InvalidNameError",
    "LauncherError",
    "LifespanError",
    "MessageTooLargeError",
    "NoHandlerError",
    "Node",
    "NotConnectedError",
    "NotRunningError",
    "OutsideHandlerError",
    "Publication",
    "RemoteError",
    "RequestError",
    "RequestTimeoutError",
    "SecondIPCError",
    "SendTimeoutError",
    "Stats",
    "Subscription",
    "SubscriptionOverflowError",
    "TooManyKeysError",
    "UnknownWorkerError",
    "Worker",
    "WorkerGoneError",
    "WouldBlockError",
    "WrongLoopError",
    "ipc",
    "run",
]

__version__ = "0.1.0"
