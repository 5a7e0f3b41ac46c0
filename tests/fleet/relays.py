"""Relays for tests, and what they write onto the lifelines."""

from __future__ import annotations

from asgi_ipc.fleet.membership import Worker
from asgi_ipc.fleet.relay import Item, Reach, Relay
from asgi_ipc.fleet.words import Join, Leads, Took, ToWorker, Welcome


def worker(generation: int) -> Worker:
    return Worker(pid=1000 + generation, slot=generation - 1, generation=generation)


def write(relay: Relay, generation: int) -> list[Item]:
    """Write all that may be written onto one lifeline now."""
    written = []
    while (item := relay.next_item(generation)) is not None:
        relay.wrote(generation)
        written.append(item)
    return written


def said(relay: Relay, generation: int) -> list[ToWorker]:
    """The words that may be written onto one lifeline now."""
    return [item.word for item in write(relay, generation)]


def heard(relay: Relay, generation: int) -> list[ToWorker]:
    """The same, without who leads."""
    return [word for word in said(relay, generation) if not isinstance(word, Leads)]


def took(relay: Relay, by: int, of: int, arrived: bool = True, now: float = 0.0) -> Reach | None:
    return relay.hear(by, Took(of, arrived), now)


def settle(relay: Relay, *generations: int) -> list[list[ToWorker]]:
    """Let everyone take everything, until nothing moves; what these have heard, but who leads."""
    told: dict[int, list[ToWorker]] = {generation: [] for generation in generations}
    while pending := relay.pending():
        for generation in pending:
            for word, write_end_of in write(relay, generation):
                if generation in told and not isinstance(word, Leads):
                    told[generation].append(word)
                if write_end_of is not None:
                    took(relay, generation, write_end_of)
    return list(told.values())


def a_fleet(count: int) -> Relay:
    """Members 1 to `count`, who all know each other."""
    relay = Relay()
    for generation in range(1, count + 1):
        relay.connect(worker(generation))
        relay.hear(generation, Join(), 0.0)
        settle(relay)
    return relay


def a_newcomer(relay: Relay, generation: int, now: float = 0.0) -> list[Worker]:
    """One that has asked, and has been welcomed; by whom."""
    relay.connect(worker(generation))
    relay.hear(generation, Join(), now)
    item = relay.next_item(generation)
    assert item is not None
    assert isinstance(item.word, Welcome)
    relay.wrote(generation)
    return item.word.members
