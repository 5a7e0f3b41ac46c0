"""The oracle: the messages offered, accepted, written and delivered, and those that may be missing.

Law: it stands outside the workers. It believes the results of verbs, the data of handlers, and the packets in
the kernel's pipes. It never believes a worker's own state; it only compares the worker's counters with its
own.

For each sender and receiver that has ended:
- delivered is a beginning of what was accepted, in the order of the calls;
- accepted = wholly written + counted lost, if the sender was not killed;
- delivered = wholly written, if the receiver left cleanly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from tests.faults.simulation.wire import Wire

# The calls of this ordered handler may start later than those of the messages behind them.
LANE: Final = "lane"

Fate: TypeAlias = Literal["killed", "left", "drain_timeout", "never joined"]


@dataclass(frozen=True, slots=True)
class Offer:
    """One call of a verb. `number` counts the calls of its sender."""

    sender: int
    number: int
    name: str
    data: Any
    receivers: frozenset[int]


@dataclass(slots=True)
class Exit:
    """How a worker ended. `lost`: what it counted, by receiver; `dropped`: by reason."""

    fate: Fate
    lost: dict[int, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


class Ledger:
    """The books of one run. Workers are named by their generation."""

    def __init__(self, failed: Callable[[str], None]) -> None:
        self._failed = failed
        self.wire = Wire()
        self.exits: dict[int, Exit] = {}
        self.offers: dict[tuple[int, int], Offer] = {}
        self.refused = 0
        self._open: dict[tuple[int, int], Offer] = {}
        self._accepted: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._delivered: dict[tuple[int, int], list[int]] = defaultdict(list)
        self._last: dict[tuple[int, int, bool], int] = {}
        self._count: dict[int, int] = defaultdict(int)

    # --- what happens

    def offer(self, sender: int, name: str, receivers: Iterable[int], make: Callable[[int], Any]) -> Offer:
        """A verb is about to be called, with what `make` makes of the number."""
        self._count[sender] += 1
        number = self._count[sender]
        offer = Offer(sender, number, name, make(number), frozenset(receivers))
        self.offers[sender, number] = self._open[sender, number] = offer
        return offer

    def settle(self, offer: Offer, takers: Iterable[int]) -> None:
        """Note that the verb has returned: these workers accepted the message, and no others."""
        del self._open[offer.sender, offer.number]
        takers = set(takers)
        for taker in sorted(takers):
            if taker not in offer.receivers:
                self._failed(f"w{offer.sender} says that w{taker} took {offer.number}, which was not asked")
            self._accepted[offer.sender, taker].append(offer.number)
        self.refused += len(offer.receivers - takers)

    def deliver(self, receiver: int, sender: int, number: int, name: str, data: Any) -> None:
        """A handler of `receiver` has been called."""
        text = f"w{sender} to w{receiver}, number {number}"
        offer = self.offers.get((sender, number))
        if offer is None:
            self._failed(f"invented: {text}")
            return
        if offer.name != name or offer.data != data:
            self._failed(f"altered: {text}")
        if receiver not in offer.receivers:
            self._failed(f"misdelivered: {text}")
        key = (sender, receiver, name == LANE)
        last = self._last.get(key, 0)
        if number <= last:
            what = "duplicated" if number in self._delivered[sender, receiver] else "reordered"
            self._failed(f"{what}: {text}, after {last}")
        self._last[key] = number
        self._delivered[sender, receiver].append(number)

    def has_delivered(self, sender: int, receiver: int) -> int:
        """How many messages of the one have been given to handlers of the other."""
        return len(self._delivered.get((sender, receiver), ()))

    def loss(self, sender: int, receiver: int) -> tuple[int, int]:
        """How many messages never left the one for the other: at least, and at most."""
        missing = len(self._accepted.get((sender, receiver), ())) - self.wire.whole[sender, receiver]
        return missing, missing + self._unsettled(sender, receiver)

    # --- the verdict

    @property
    def accepted(self) -> int:
        """Messages accepted, one for each receiver."""
        return sum(map(len, self._accepted.values()))

    @property
    def delivered(self) -> int:
        """Messages given to handlers."""
        return sum(map(len, self._delivered.values()))

    @property
    def lost(self) -> int:
        """Messages that were accepted and counted lost."""
        return sum(sum(each.lost.values()) for each in self.exits.values())

    def judge(self) -> None:
        """All have ended: compare."""
        for sender, receiver in sorted({*self._accepted, *self._delivered, *self.wire.whole}):
            self._judge_pair(sender, receiver)
        for generation, each in self.exits.items():
            bad = {reason: n for reason, n in each.dropped.items() if reason not in ("lost", "partial")}
            if bad:
                self._failed(f"w{generation} has dropped {bad}")
            if "partial" in each.dropped and not self._someone_was_cut_short():
                self._failed(f"w{generation} has dropped parts of messages of those who left cleanly")

    def _someone_was_cut_short(self) -> bool:
        return any(each.fate in ("killed", "drain_timeout") for each in self.exits.values())

    def _judge_pair(self, sender: int, receiver: int) -> None:
        pair = f"w{sender} ({self.exits[sender].fate}) to w{receiver} ({self.exits[receiver].fate})"
        accepted = self._accepted.get((sender, receiver), [])
        delivered = self._delivered.get((sender, receiver), [])
        self._judge_refused(pair, sender, receiver, set(accepted), delivered)
        self._judge_holes(pair, sender, accepted, delivered)
        fate = self.exits[receiver].fate
        if sender == receiver:
            if fate == "left" and (missing := set(accepted) - set(delivered)):
                self._failed(f"missing: {pair}: {sorted(missing)}")
            return
        written = self.wire.whole[sender, receiver]
        if fate == "left" and len(delivered) != written:
            self._failed(f"{pair}: {written} written, {len(delivered)} delivered")
        elif len(delivered) > written:
            self._failed(f"{pair}: {written} written, but {len(delivered)} delivered")
        if self.exits[sender].fate != "killed":
            least, most = self.loss(sender, receiver)
            lost = self.exits[sender].lost.get(receiver, 0)
            if not least <= lost <= most:
                self._failed(
                    f"{pair}: {len(accepted)} accepted, {most - least} unsettled, "
                    f"{written} written, {lost} counted lost"
                )
            if lost and fate == "left" and self.exits[sender].fate == "left":
                self._failed(f"{pair}: {lost} lost")

    def _judge_refused(
        self, pair: str, sender: int, receiver: int, accepted: set[int], delivered: Sequence[int]
    ) -> None:
        for number in delivered:
            if number not in accepted and (sender, number) not in self._open:
                self._failed(f"{pair}: number {number} was refused and delivered")

    def _judge_holes(self, pair: str, sender: int, accepted: Sequence[int], delivered: Sequence[int]) -> None:
        seen = set(delivered)
        for lane in (False, True):
            last = max((n for n in delivered if (self.offers[sender, n].name == LANE) == lane), default=0)
            holes = [
                number
                for number in accepted
                if number < last and number not in seen and (self.offers[sender, number].name == LANE) == lane
            ]
            if holes:
                self._failed(f"{pair}: {holes} missing before {last}")

    def _unsettled(self, sender: int, receiver: int) -> int:
        return sum(
            1 for offer in self._open.values() if offer.sender == sender and receiver in offer.receivers
        )
