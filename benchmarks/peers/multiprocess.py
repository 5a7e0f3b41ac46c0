"""multiprocessing's Pipe and Queue, with blocking calls in processes that do nothing else.

A Pipe carries bytes as they are (`send_bytes`); a Queue pickles, and sends from a thread. An event loop can
use either only in a thread.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.cases import Shape
from benchmarks.conductor import Subject
from benchmarks.control import Facts, Order
from benchmarks.party import check_answer, facts_of
from benchmarks.payloads import Inbox, payloads
from benchmarks.process import spawned


class Blocking:
    """One party. `put` and `get` of a pair: what sends one payload, what waits for one."""

    def __init__(self, index: int, puts: list[Any], gets: list[Any]) -> None:
        self._index, self._puts, self._gets = index, puts, gets

    async def prepare(self, order: Order) -> None:
        """All was inherited."""

    async def perform(self, order: Order) -> Facts:
        """Send, receive, ask or answer."""
        if order.pattern == "ask":
            return self._ask(order) if self._index == 0 else self._answer(order)
        return self._send(order) if self._index == 0 else self._receive(order)

    def _send(self, order: Order) -> Facts:
        messages = payloads(0, order.count, order.size_bytes)
        puts = [self._puts[index] for index in order.receivers]
        started_ns, cpu_from_ns = time.monotonic_ns(), time.process_time_ns()
        if len(puts) == 1:
            (put,) = puts
            for data in messages:
                put(data)
        else:
            for data in messages:
                for put in puts:
                    put(data)
        return Facts(started_ns=started_ns, cpu_from_ns=cpu_from_ns)

    def _receive(self, order: Order) -> Facts:
        inbox = Inbox([0], order.count, order.size_bytes, lambda: None)
        get, take, cpu_from_ns = self._gets[self._index], inbox.take, time.process_time_ns()
        for _ in range(order.count):
            take(get())
        return facts_of(inbox, cpu_from_ns)

    def _ask(self, order: Order) -> Facts:
        put, get, now_ns = self._puts[1], self._gets[0], time.monotonic_ns
        times_ns = []
        for data in payloads(0, order.count, order.size_bytes):
            started_ns = now_ns()
            put(data)
            answer = get()
            times_ns.append(now_ns() - started_ns)
            check_answer(data, answer)
        return Facts(times_ns=times_ns)

    def _answer(self, order: Order) -> Facts:
        put, get = self._puts[0], self._gets[1]
        for _ in range(order.count):
            put(get())
        return Facts()


def _with_pipes(index: int, pipes: list[tuple[Connection, Connection]]) -> Blocking:
    return Blocking(index, [end.send_bytes for _, end in pipes], [end.recv_bytes for end, _ in pipes])


def _with_queues(index: int, queues: list[Any]) -> Blocking:
    return Blocking(index, [queue.put for queue in queues], [queue.get for queue in queues])


@asynccontextmanager
async def _start_pipes(size: int, path: str) -> AsyncIterator[None]:
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(size)]
    try:
        async with spawned(_with_pipes, size, path, "", pipes):
            yield
    finally:
        for ends in pipes:
            for end in ends:
                end.close()


@asynccontextmanager
async def _start_queues(size: int, path: str) -> AsyncIterator[None]:
    context = multiprocessing.get_context("spawn")
    async with spawned(_with_queues, size, path, "", [context.Queue() for _ in range(size)]):
        yield


def _pipe_is_missing(shape: Shape) -> str | None:
    if shape.pattern == "all":
        return "all to all takes a thread for each receiver: blocking writes lock each other up"
    return None


def _queue_is_missing(shape: Shape) -> str | None:
    if shape.pattern in ("each", "all"):
        return "a Queue gives each message to one receiver"
    return None


def subjects() -> list[Subject]:
    """Two."""
    return [
        Subject("multiprocessing.Pipe", "", _start_pipes, _pipe_is_missing),
        Subject("multiprocessing.Queue", "", _start_queues, _queue_is_missing),
    ]
