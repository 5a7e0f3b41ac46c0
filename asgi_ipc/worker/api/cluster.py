"""Cluster: `ipc.cluster`, the servers of a cluster and any worker of theirs.

Law: as ipc.py, of which this is a part: a verb checks and hands over. A worker of this server is sent to and
asked as `ipc` does it. Without a cluster this server is the only node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from asgi_ipc.cluster.nodes import Node
from asgi_ipc.fleet.membership import Worker
from asgi_ipc.wire.message import Data
from asgi_ipc.worker.features.afar import ClusterGathered
from asgi_ipc.worker.lifespan import Lifespan

R = TypeVar("R")
N = TypeVar("N", bound=Callable[[Node], Any])
M = TypeVar("M", bound=Callable[[Node, str], Any])
W = TypeVar("W", bound=Callable[[Worker], Any])
V = TypeVar("V", bound=Callable[[Worker, str], Any])
G = TypeVar("G", bound=Callable[[Node, int | None], Any])


class Cluster:
    """The servers of a cluster: `asgi-ipc serve --cluster nats://...`.

    `ipc.broadcast` and `ipc.publish` reach all of them by themselves. Here is what addresses single workers,
    and what says who is there. A worker is named by a Worker, never by a pid, which other hosts use, too.

    Between servers a message comes at most once, in the order in which one worker has sent to another one.
    What does not come is counted, and told to `on_gap`.
    """

    def __init__(self, here: Callable[[], Lifespan]) -> None:
        self._here = here

    # --- who

    @property
    def node(self) -> Node:
        """This worker's own node. Raises NotRunningError outside the lifespan."""
        return self._here().endpoint.clustering.here

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that are in the view now, this one first. Raises NotRunningError outside the lifespan."""
        return self._here().endpoint.clustering.view

    @property
    def workers(self) -> tuple[Worker, ...]:
        """The workers of all nodes in the view. Raises NotRunningError outside the lifespan."""
        return self._here().endpoint.clustering.workers

    # --- what the app registers

    def on_node_join(self, callback: N) -> N:
        """Call `callback(node)` for every node that comes into the view; usable as a decorator.

        A node that was not heard for 5 seconds has left the view; if it is heard again, it joins again.
        Callbacks are plain or async functions, and their exceptions are logged and counted. They are called
        behind the messages that have arrived before, as those of `ipc.on_join` are.
        """
        registry = self._here().registry
        registry.watch(registry.on_node_join, "on_node_join", callback, "node")
        return callback

    def on_node_leave(self, callback: M) -> M:
        """Call `callback(node, reason)` for every node that is in the view no more; usable as a decorator.

        Args of `callback`:
            reason: `left` (it has stopped), or `lost` (nothing was heard of it for 5 seconds).
        """
        registry = self._here().registry
        registry.watch(registry.on_node_leave, "on_node_leave", callback, "node", "reason")
        return callback

    def on_worker_join(self, callback: W) -> W:
        """Call `callback(worker)` for every worker of any node that can be addressed from now on."""
        registry = self._here().registry
        registry.watch(registry.on_worker_join, "on_worker_join", callback, "worker")
        return callback

    def on_worker_leave(self, callback: V) -> V:
        """Call `callback(worker, reason)` for every worker of any node that has gone.

        It is called behind the worker's last message. `reason`: as of `ipc.on_leave`, or that of its node.
        """
        registry = self._here().registry
        registry.watch(registry.on_worker_leave, "on_worker_leave", callback, "worker", "reason")
        return callback

    def on_gap(self, callback: G) -> G:
        """Call `callback(node, lost)` when messages of another node for this worker will not come.

        It is called before the messages of that node that do come later; and within some seconds if none
        comes. Subscriptions count their own losses, too (`Publication.missed`).

        Args of `callback`:
            lost: how many: broadcasts, publications to which this worker subscribes, and messages to it;
                no questions and answers. None: it is not known, since a bridge has died with what was in it.
        """
        registry = self._here().registry
        registry.watch(registry.on_gap, "on_gap", callback, "node", "lost")
        return callback

    # --- messages and questions

    async def send(self, worker: Worker, name: str, data: Data = b"", *, timeout: float | None = 5.0) -> None:
        """Send one message to one worker of any node, to that very incarnation.

        Returns when the bridge of this server has taken the message, or, for a worker of this server, as
        `ipc.send`. What is lost behind the bridge is told there (`on_gap`).

        Args:
            worker: one of `workers`, or the sender of a message.
            timeout: seconds to wait for room; None: without limit.
            name, data: as of `ipc.send`.

        Raises:
            UnknownWorkerError: it is not in the view now.
            NotConnectedError: this server has no connection to the broker; at once, whatever the timeout.
            SendTimeoutError: the bridge had no room in time; nothing was sent.
            Others: as `ipc.send`.
        """
        endpoint = self._here().endpoint_here
        if not endpoint.clustering.is_here(worker):
            await endpoint.afar.send(worker, name, data, timeout)
            return
        waits = endpoint.messaging.send(worker, name, data, timeout)
        if waits is not None:
            await waits

    @overload
    async def request(
        self,
        worker: Worker,
        name: str,
        data: Data = b"",
        *,
        reply_type: type[R],
        timeout: float | None = 5.0,
    ) -> R: ...
    @overload
    async def request(
        self,
        worker: Worker,
        name: str,
        data: Data = b"",
        *,
        reply_type: Any = None,
        timeout: float | None = 5.0,
    ) -> Any: ...

    async def request(
        self,
        worker: Worker,
        name: str,
        data: Data = b"",
        *,
        reply_type: Any = None,
        timeout: float | None = 5.0,
    ) -> Any:
        """Ask one worker of any node; return the result of its handler of that name.

        Everything is as with `ipc.request`. When the timeout is over it is not known whether the handler has
        run: the question, or its answer, may be lost.

        Raises:
            UnknownWorkerError: it is not in the view now.
            NotConnectedError: this server has no connection to the broker; at once, whatever the timeout.
            WorkerGoneError: it, or its node, left the view while this waited; the handler may have run.
            Others: as `ipc.request`.
        """
        endpoint = self._here().endpoint_here
        if endpoint.clustering.is_here(worker):
            return await endpoint.questions.ask(worker, name, data, timeout, reply_type)
        return await endpoint.afar.ask(worker, name, data, timeout, reply_type)

    async def gather(
        self,
        name: str,
        data: Data = b"",
        *,
        reply_type: Any = None,
        include_self: bool = True,
        timeout: float | None = 5.0,
    ) -> ClusterGathered[Any]:
        """Ask all workers of all nodes in the view; return the answers of those that answer in time.

        The result is a dict, Worker -> answer. `.errors` has the reason for each missing answer, by Worker,
        or by Node if nothing was heard of that node; `.complete` says whether there is none. A node that is
        not in the view, because the network is cut, can't be missing.

        Args, Raises: as of `ipc.gather`.
        """
        endpoint = self._here().endpoint_here
        return await endpoint.afar.ask_all(name, data, timeout, reply_type, include_self=include_self)
