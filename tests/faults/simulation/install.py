"""Installing: the simulated kernel and small bounds in the product's modules, for as long as one seed runs.

Law: only globals that stand for the system, and constants, are replaced; no code of the product is. A wrapper
of a method calls the method, and looks (see probes.py).
"""

from __future__ import annotations

import functools
import logging
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from asgi_ipc.fleet import relay
from asgi_ipc.launcher import launcher, process
from asgi_ipc.wire import arena, outbox, packetizer, reassembler
from asgi_ipc.worker import descriptors, lifeline, lifespan
from asgi_ipc.worker.dispatch import backpressure, dispatcher
from asgi_ipc.worker.transport import arenas, outgoing, peer, pipe_reader, pipes, sender
from tests.faults.simulation.kernel import Kernel
from tests.faults.simulation.kernel import Process as Simulated
from tests.faults.simulation.memory import arena_maker, arena_mapper
from tests.faults.simulation.plan import Plan
from tests.faults.simulation.syscalls import NoTracker, Os, SocketModule, spawner, unread_bytes


def swap(stack: ExitStack, where: object, **values: Any) -> None:
    """Set attributes until `stack` ends."""
    for name, value in values.items():
        stack.callback(setattr, where, name, getattr(where, name))
        setattr(where, name, value)


@contextmanager
def installed(
    kernel: Kernel,
    plan: Plan,
    started: Callable[[Simulated, list[int]], None],
    log: Callable[[logging.LogRecord], None],
) -> Iterator[ExitStack]:
    """The product on `kernel`, with the bounds of `plan`. The stack ends everything that is put on it."""
    bounds = plan.bounds
    system = Os(kernel)
    sockets = SocketModule(kernel)
    with ExitStack() as stack:
        # A generator of a dead process never goes on.
        stack.callback(sys.set_asyncgen_hooks, *sys.get_asyncgen_hooks())
        sys.set_asyncgen_hooks(finalizer=lambda generator: None)
        for module in (descriptors, pipe_reader, pipes, lifeline, lifespan, launcher, process):
            swap(stack, module, os=system)
        # Simulated numbers; a fork of this process must not close its own.
        swap(stack, descriptors, _open=set())
        swap(stack, lifeline, socket=sockets, READ_BYTES=bounds.word_read_bytes)
        swap(stack, process, socket=sockets, READ_BYTES=bounds.word_read_bytes)
        swap(stack, process, _spawn=spawner(kernel, started), _size_pipe=lambda fd, wanted: wanted)
        swap(stack, launcher, Tracker=NoTracker)
        swap(stack, process, make_arena=arena_maker(kernel, bounds.arena_bytes))
        swap(stack, arenas, map_arena=arena_mapper(kernel))
        swap(stack, packetizer, BLOCK_BYTES=bounds.block_bytes, PLACED_BYTES=bounds.block_bytes)
        swap(stack, arena, WINDOW_BYTES=bounds.window_bytes, ACKNOWLEDGED_BYTES=bounds.acknowledged_bytes)
        swap(stack, reassembler, ACKNOWLEDGED_BYTES=bounds.acknowledged_bytes)
        swap(stack, pipes, unread_bytes=unread_bytes(kernel), random=random.Random(plan.seed))
        swap(stack, pipe_reader, unread_bytes=unread_bytes(kernel), READ_BYTES=bounds.read_bytes)
        swap(stack, pipes, BURST_PACKETS=bounds.burst, BURST_AFTER_WAIT_PACKETS=min(bounds.burst, 4))
        swap(stack, backpressure, MAX_IN_FLIGHT=bounds.in_flight)
        swap(stack, dispatcher, MESSAGES_PER_TURN=bounds.messages_per_turn)
        swap(stack, sender, _eager_bytes=bounds.eager_bytes)
        swap(stack, outgoing, Outbox=functools.partial(outbox.Outbox, limit_bytes=bounds.outbox_bytes))
        swap(stack, outgoing, Budget=functools.partial(outbox.Budget, bounds.budget_bytes))
        swap(stack, outbox, _reserved_bytes=min(outbox.RESERVED_BYTES, bounds.outbox_bytes // 2))
        swap(
            stack,
            relay,
            MAX_UNACKNOWLEDGED=bounds.unacknowledged,
            MAX_DESCRIPTORS_IN_FLIGHT=bounds.descriptors,
        )
        # Sets of peers are walked in the order of their hashes, which are places in memory.
        swap(stack, peer.Peer, __hash__=lambda self: self.worker.generation)
        for name in ("asgi_ipc", "uvicorn.error"):
            _listen(stack, logging.getLogger(name), log)
        yield stack


class _Ear(logging.Handler):
    def __init__(self, log: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log(record)


def _listen(stack: ExitStack, logger: logging.Logger, log: Callable[[logging.LogRecord], None]) -> None:
    """Have the records of `logger` come here, and nowhere else."""
    swap(stack, logger, propagate=False, handlers=[_Ear(log)], disabled=False)
    stack.callback(logger.setLevel, logger.level)
    logger.setLevel(logging.INFO)
