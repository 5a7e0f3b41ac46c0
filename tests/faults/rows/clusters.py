"""A cluster over real brokers: connections that are cut, and brokers that are killed, under load.

Law: the bridges are the product's, in this process, so that each message can be accounted for: it has come,
once and in order, or it was told to be lost, before what came behind it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

from asgi_ipc.bridge.transport import Transport
from tests.bridge.bridging import Bridged, Noted, bridged, come, met
from tests.brokers import KINDS, Broker, broker, is_here
from tests.faults.trial import PURE, NotHereError, Trial, row
from tests.proxy import proxy

# Between two messages of a node.
PAUSE_S: Final = 0.001

# How long a connection stays cut, and then whole; the short form has neither the time for the longest.
CUT_S: Final = (0.01, 10.0)
SHORT_CUT_S: Final = (0.01, 0.3)
WHOLE_S: Final = (0.05, 1.0)


class Load:
    """What one node broadcasts, all the time, and what the worker of the other one and a local one hear."""

    def __init__(self, by: Bridged, to: Bridged) -> None:
        self._by = by
        self.far = Noted(to.first)
        self.near = Noted(by.members[1])
        self.sent = 0

    async def run(self) -> None:
        while True:
            await self._by.first.broadcast("note", self.sent, include_self=False)
            self.sent += 1
            await asyncio.sleep(PAUSE_S)  # the rate

    @property
    def local(self) -> list[int]:
        """What the worker beside it has heard of it; it hears the other node, too."""
        node = self._by.node
        return [data for worker, data in self.near.messages if worker is not None and worker.node == node]

    def is_settled(self) -> bool:
        return len(self.far.messages) + self.far.lost == self.sent == len(self.local)

    def check(self, trial: Trial) -> None:
        """Write down what has become of the messages."""
        came = self.far.data
        trial.sums("messages", {"said": self.sent, "came": len(came), "told to be lost": self.far.lost})
        trial.none("doubled", len(came) - len({*came}))
        trial.none("reordered", sum(a > b for a, b in itertools.pairwise(came)))
        trial.equal("came, or told to be lost", len(came) + self.far.lost, self.sent)
        trial.none("told at another place than where they were lost", _misplaced(self.far.all))
        trial.none("told as unknown", sum(lost is None for _, lost in self.far.gaps))
        trial.equal("local messages that came", len(self.local), self.sent)
        trial.none("local messages doubled or reordered", self.local != sorted({*self.local}))


def _misplaced(told: list[object]) -> int:
    next_number = misplaced = 0
    for each in told:
        match each:
            case ("lost", int(lost)):
                next_number += lost
            case int(number):
                misplaced += number != next_number
                next_number = number + 1
    return misplaced


@asynccontextmanager
async def loaded(nodes: list[Bridged]) -> AsyncIterator[list[Load]]:
    """Each of two nodes broadcasts; at the end all of it has come or is told."""
    a, b = nodes
    loads = [Load(a, b), Load(b, a)]
    tasks = [asyncio.create_task(load.run()) for load in loads]
    try:
        yield loads
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    await met(nodes)
    with suppress(AssertionError):
        # What has not come by then is a figure that does not hold.
        await come(lambda: all(load.is_settled() for load in loads))


def _need_brokers() -> None:
    for kind in KINDS:
        if not is_here(kind):
            raise NotHereError(f"there is no {kind}-server here")


@row(
    fault="connection of a node cut",
    how="two nodes that broadcast all the time, one behind a proxy, over NATS and over Redis",
    counts="cuts for each broker",
    full={PURE: 100},
    short=3,
)
async def cuts(trial: Trial) -> None:
    """Cut the connection so often, for a time by chance."""
    _need_brokers()
    chance = random.Random(0)
    for kind in KINDS:
        part = trial.part(kind, f"{kind}: ")
        async with broker(kind, part.folder) as there, proxy(there.port) as between:
            behind = partial(_behind, there, between.port)
            async with bridged(behind, there.transport, size=2) as nodes:
                async with loaded(nodes) as loads:
                    for _ in range(trial.count):
                        await asyncio.sleep(chance.uniform(*WHOLE_S))  # the load
                        between.cut()
                        await asyncio.sleep(chance.uniform(*(CUT_S if trial.full else SHORT_CUT_S)))
                        between.heal()
                        await come(lambda: nodes[0].bridge._machine.is_connected)
                for load in loads:
                    load.check(part)
                connects = nodes[0].bridge._totals()["connects"]
        part.check("connected again after each cut", connects, connects > trial.count)


def _behind(there: Broker, port: int, node: str) -> Transport:
    return there.transport(node, port=port)


@row(
    fault="broker killed and started again",
    how="two nodes that broadcast all the time, over NATS and over Redis",
    counts="kills for each broker",
    full={PURE: 50},
    short=2,
)
async def broker_kills(trial: Trial) -> None:
    """Kill the broker so often."""
    _need_brokers()
    chance = random.Random(0)
    for kind in KINDS:
        part = trial.part(kind, f"{kind}: ")
        async with (
            broker(kind, part.folder) as there,
            bridged(there.transport, there.transport, size=2) as nodes,
        ):
            async with loaded(nodes) as loads:
                for _ in range(trial.count):
                    await asyncio.sleep(chance.uniform(*WHOLE_S))  # the load
                    await there.kill()
                    await come(lambda: not any(each.bridge._machine.is_connected for each in nodes))
                    await there.start()
                    await come(lambda: all(each.bridge._machine.is_connected for each in nodes))
            for load in loads:
                load.check(part)
