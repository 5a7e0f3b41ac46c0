"""The judge: it feeds a script to the real parser and reassembler, and names their mistakes.

Law: every promise is checked after every read, and none against the code's own counters alone.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from asgi_ipc.wire.packet import HEADER_BYTES, PacketParser
from asgi_ipc.wire.reassembler import Reassembler
from tests.encoding import accept
from tests.faults.fuzzing.reference import Delivery, Scan, completed_by_chance, expect, scan
from tests.faults.fuzzing.script import Script
from tests.faults.fuzzing.wire import MAX_MESSAGE_BYTES, PEERS, RECEIVER, canonical

MAX_PARTIAL_BYTES: Final = len(PEERS) * MAX_MESSAGE_BYTES


class Outcome(NamedTuple):
    """The outcome of one execution."""

    # Packets that the reassembler was given, packets that made it deliver messages.
    reached: int
    delivered: int
    # Senders that were not harmed, and were given every message.
    unharmed: int
    # Senders that lost a message to a cut packet which their own first bytes happened to complete.
    chances: int


class BrokenPromiseError(AssertionError):
    """Something that was promised is not so."""


def execute(script: Script) -> Outcome:
    """Run one execution. Raises BrokenPromiseError, and whatever the protocol raises."""
    receiver = _Receiver(script)
    receiver.read_all()
    unharmed = receiver.settle()
    return Outcome(receiver.reached, len(receiver.deliveries), unharmed, receiver.chances)


class _Receiver:
    """The reading side of an endpoint, with its accounts open."""

    __slots__ = ("chances", "deliveries", "parser", "reached", "reassembler", "scan", "script", "stream")

    def __init__(self, script: Script) -> None:
        self.script = script
        self.stream = b"".join(script.writes)
        self.scan: Scan = scan(script.run, self.stream, script.reads)
        self.parser = PacketParser(script.run.cookie, script.run.max_packet_bytes)
        self.reassembler = Reassembler(MAX_MESSAGE_BYTES)
        self.deliveries: list[Delivery] = []
        self.reached = 0
        self.chances = 0

    def read_all(self) -> None:
        parser, reassembler = self.parser, self.reassembler
        expected = self.scan.packets
        largest = self.script.run.max_packet_bytes
        due = iter(self.scan.due)
        start = taken_bytes = taken = 0
        for stop, drained in self.script.reads:
            parser.feed(self.stream[start:stop])
            while parser.find(drained):
                payload = parser.data[parser.start : parser.stop]
                found = (parser.sender, parser.receiver, parser.number, parser.kind, payload)
                if [found] != expected[taken : taken + 1]:
                    raise BrokenPromiseError(
                        "a packet was accepted that was not written, or not in this place"
                    )
                taken += 1
                taken_bytes += HEADER_BYTES + len(payload)
                if parser.sender not in PEERS or parser.receiver != RECEIVER:
                    continue
                self.reached += 1
                messages = accept(reassembler, parser)
                if messages:
                    self.deliveries.append(Delivery(parser.sender, parser.number, canonical(messages)))
                if not 0 <= reassembler.partial_bytes <= MAX_PARTIAL_BYTES:
                    raise BrokenPromiseError(f"{reassembler.partial_bytes} bytes of partial messages")
            if taken_bytes + parser.skipped_bytes + parser.buffered_bytes != stop:
                raise BrokenPromiseError(
                    f"of {stop} bytes, {taken_bytes} were packets, {parser.skipped_bytes} skipped, "
                    f"{parser.buffered_bytes} kept"
                )
            if parser.buffered_bytes >= largest:
                raise BrokenPromiseError(f"{parser.buffered_bytes} bytes are kept, a packet has {largest}")
            if drained and taken != next(due):
                raise BrokenPromiseError("a whole packet was not found in the read that emptied the pipe")
            start = stop

    def settle(self) -> int:
        """Compare what was delivered with what was sent; the number of unharmed senders."""
        parser, reassembler, wanted = self.parser, self.reassembler, self.scan
        if (parser.skips, parser.skipped_bytes) != (wanted.skips, wanted.skipped_bytes):
            raise BrokenPromiseError(
                f"{parser.skips} skips of {parser.skipped_bytes} bytes were counted, "
                f"not {wanted.skips} of {wanted.skipped_bytes}"
            )
        arrived = [
            packet for packet in wanted.packets if packet.sender in PEERS and packet.receiver == RECEIVER
        ]
        expected = expect(self.script.run, arrived)
        if self.deliveries != expected.deliveries:
            raise BrokenPromiseError(_difference(self.deliveries, expected.deliveries))
        if reassembler.partial_bytes != expected.partial_bytes:
            raise BrokenPromiseError(
                f"{reassembler.partial_bytes} bytes are kept, not {expected.partial_bytes}"
            )
        if reassembler.drops != expected.drops:
            raise BrokenPromiseError(f"drops {reassembler.drops}, not {dict(expected.drops)}")
        unharmed = self._check_senders()
        self._check_departures()
        return unharmed

    def _check_senders(self) -> int:
        """Check without the reference: an unharmed sender is owed every message, in order and once."""
        script = self.script
        last = dict.fromkeys(PEERS, -1)
        by_sender: dict[int, list[bytes]] = {sender: [] for sender in PEERS}
        for sender, number, messages in self.deliveries:
            if number <= last[sender]:
                raise BrokenPromiseError(f"packet {number} of {sender} was delivered behind {last[sender]}")
            last[sender] = number
            by_sender[sender].append(messages)
        unharmed = 0
        for sender, delivered in by_sender.items():
            if sender in script.forged:
                continue
            sent = script.sent.get(sender, ())
            if tuple(delivered) == sent:
                unharmed += bool(sent) and not script.drains_lie and sender not in script.touched
                continue
            rest = iter(sent)
            if not all(messages in rest for messages in delivered):
                raise BrokenPromiseError(f"{sender} did not send what was delivered, or not in this order")
            if sender in script.touched or script.drains_lie:
                continue
            if sender not in completed_by_chance(self.scan, script.writes, script.owners):
                raise BrokenPromiseError(
                    f"strays cost {sender} a message: {len(delivered)} of {len(sent)} packets"
                )
            self.chances += 1
        return unharmed

    def _check_departures(self) -> None:
        for sender in PEERS:
            self.reassembler.forget(sender)
        if self.reassembler.partial_bytes:
            raise BrokenPromiseError(f"{self.reassembler.partial_bytes} bytes of the departed are kept")


def _difference(got: list[Delivery], wanted: list[Delivery]) -> str:
    for index, (left, right) in enumerate(zip(got, wanted, strict=False)):
        if left != right:
            return f"delivery {index} is {_brief(left)}, not {_brief(right)}"
    return f"{len(got)} deliveries, not {len(wanted)}"


def _brief(delivery: Delivery) -> str:
    said = delivery.messages[:48].hex() + "..." * (len(delivery.messages) > 48)
    return f"{said} by packet {delivery.number} of {delivery.sender}"
