"""Both engines side by side: whatever one sender and its receivers do, each step has the same outcome.

Law: nothing here knows what is right; test_outbox.py, test_late_batch.py and the fuzzer do. Both engines get
the same calls with the same values, and everything that they show is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asgi_ipc.wire.arena import NOTHING_COPIED, PLACE
from asgi_ipc.wire.packet import BATCH, HEADER_BYTES, PLACED
from tests import strategies
from tests.engines import Engine, variant
from tests.strategies import same

COOKIE: Final = b"engines!"
KIND_AT: Final = 10
SENDER: Final = 1
RECEIVERS: Final = 2

# Small, so that a few messages fill them; the reserve of each outbox is 256 KiB.
MAX_MESSAGE_BYTES: Final = 200_000
BUDGET_BYTES: Final = 400_000
ARENA_BYTES: Final = 1024 * 1024

_which = st.integers(0, RECEIVERS - 1)
_several = st.lists(_which, min_size=1, unique=True)
_names = st.sampled_from(["a", "b", "a" * 254]) | strategies.names
_sizes = (
    st.integers(0, 40)
    | st.integers(0, 5000)
    | st.sampled_from([31, 32, 255, 256, 32_000, 32_768, 65_535, 65_536, 128_000, MAX_MESSAGE_BYTES])
)
_extras = st.none() | st.none() | st.dictionaries(st.text(max_size=5), strategies.data, max_size=3)


@st.composite
def _data(draw: st.DrawFn) -> Any:
    """What a message carries: mostly bytes and text of the sizes at which something changes."""
    if draw(st.integers(0, 2)) == 0:
        return draw(strategies.data)
    content = draw(st.binary(min_size=1, max_size=4)) * 65_536
    size = draw(_sizes)
    return content[:size] if draw(st.booleans()) else content[:size].decode("latin-1")


def _whole(message: Any) -> bytes:
    return message if isinstance(message, bytes) else message.prefix + message.body


class Fleet:
    """One sender, its receivers and their pipes, by one engine. What a method returns is compared."""

    def __init__(self, which: Engine, max_packet_bytes: int) -> None:
        packet, payload, batch, message, arena, outbox, packetizer, reassembler = (
            variant(f"asgi_ipc.wire.{name}", which)
            for name in (
                "packet",
                "payload",
                "batch",
                "message",
                "arena",
                "outbox",
                "packetizer",
                "reassembler",
            )
        )
        self.make_batch = batch.Batch
        self.make_ticket = outbox.Ticket
        self.packer = message.Packer(MAX_MESSAGE_BYTES, payload.batch_capacity_bytes(max_packet_bytes))
        self.memory = bytearray(ARENA_BYTES)
        self.budget = outbox.Budget(BUDGET_BYTES, arena.Arena(self.memory))
        self.outboxes: list[Any] = []
        self.parsers: list[Any] = []
        self.reassemblers: list[Any] = []
        for receiver in range(RECEIVERS):
            route = packetizer.Route(COOKIE, SENDER, receiver, max_packet_bytes)
            self.outboxes.append(outbox.Outbox(route, self.budget, MAX_MESSAGE_BYTES * 2))
            self.parsers.append(packet.PacketParser(COOKIE, max_packet_bytes))
            self.reassemblers.append(reassembler.Reassembler(MAX_MESSAGE_BYTES))
        self.batches: list[list[Any]] = [[] for _ in range(RECEIVERS)]
        self.messages: list[Any] = []
        self.tickets: list[tuple[int, Any]] = []

    # --- the sender

    def pack(self, name: str, data: Any, extra: dict[str, Any] | None, is_shared: bool) -> Any:
        message = self.packer.pack(name, data, extra)
        if not isinstance(message, bytes):
            message.is_shared = is_shared
        self.messages.append(message)
        return _whole(message)

    def offer(self, which: int, index: int) -> Any:
        outbox, message = self.outboxes[which], self.messages[index]
        return outbox.has_room(message), outbox.has_room(message, 1000), outbox.offer(message)

    def wait(self, which: int, index: int) -> Any:
        ticket = self.make_ticket(self.messages[index])
        self.tickets.append((which, ticket))
        return self.outboxes[which].wait(ticket)

    def withdraw(self, index: int) -> Any:
        which, ticket = self.tickets[index]
        return self.outboxes[which].withdraw(ticket), ticket.accepted

    def promote(self, which: int) -> Any:
        return [_whole(ticket.message) for ticket in self.outboxes[which].promote()]

    def refuse(self, which: int) -> Any:
        return [_whole(ticket.message) for ticket in self.outboxes[which].refuse()]

    def peek(self, which: int) -> Any:
        return self.outboxes[which].next_packet()

    def write(self, which: int) -> Any:
        packet = self.outboxes[which].next_packet()
        if packet is not None:
            self.outboxes[which].written()
        return packet

    def close_outbox(self, which: int) -> Any:
        return self.outboxes[which].close()

    def set_patience(self, which: int, is_patient: bool) -> None:
        self.outboxes[which].packets.is_patient = is_patient

    # --- the receivers

    def map_arena(self, which: int) -> Any:
        self.reassemblers[which].attach(SENDER, memoryview(self.memory).toreadonly())
        return self.outboxes[which].receiver_copied(NOTHING_COPIED)

    def acknowledge(self, which: int, pays: bool) -> Any:
        reassembler = self.reassemblers[which]
        reassembler.note_read()
        if pays:
            reassembler.pay()
        serial = reassembler.fetched.pop(SENDER, None)
        if serial is not None:
            self.outboxes[which].receiver_copied(serial)
        return serial

    def feed(self, which: int, chunk: bytes, drained: bool, short: bool) -> Any:
        parser, reassembler = self.parsers[which], self.reassemblers[which]
        seen: list[Any] = []
        parser.feed(chunk)
        while parser.find(drained):
            payload = bytes(parser.data[parser.start : parser.stop])
            seen.append((parser.sender, parser.receiver, parser.number, parser.kind, payload))
            if (
                short
                and parser.kind == BATCH
                and reassembler.stream_of(parser.sender).take_batch(parser.number)
            ):
                # The way of a reader that has no need of the reassembler.
                batch = self.make_batch()
                seen.append(batch.open(parser.data, parser.start, parser.stop))
                batches = [batch] if batch.left else []
            else:
                batches = reassembler.accept(parser)
                reassembler.note_read()
            seen += [self.look_at(batch) for batch in batches]
            self.batches[which] += batches
        return seen

    def next(self, which: int) -> Any:
        batch = self.batches[which][0]
        found = batch.next()
        if not batch.left:
            self.batches[which].pop(0)
        return found, self.look_at(batch)

    def copy_rest(self, which: int) -> Any:
        for batch in self.batches[which]:
            batch.copy_rest()
        return [self.look_at(batch) for batch in self.batches[which]]

    def drop_rest(self, which: int) -> Any:
        batch = self.batches[which].pop(0)
        batch.drop_rest()
        return self.look_at(batch)

    def forget(self, which: int) -> Any:
        # What is left in the arena is read before its memory is unmapped.
        return self.reassemblers[which].forget(SENDER)

    def scribble(self, place: int, content: bytes) -> None:
        self.memory[place : place + len(content)] = content

    def look_at(self, batch: Any) -> Any:
        name = batch.name if batch.data is not None or batch.extra is not None else None
        return (
            name,
            batch.data,
            batch.extra,
            batch.left,
            batch.each_bytes,
            batch.spoilt,
            batch.is_overwritten,
            batch.is_in_block,
        )

    def all_that_shows(self) -> Any:
        return [
            self.budget.used_bytes,
            self.budget.arena.used_bytes,
            [
                (
                    bool(each),
                    each.messages,
                    each.backlog_bytes,
                    each.waiting,
                    each.accepted,
                    each.packets.must_wait,
                    each.handed,
                    each.handed_bytes,
                    each.packets.run.piece_bytes,
                    tuple(each.packets.cargo)[:2],
                )
                for each in self.outboxes
            ],
            [(each.skips, each.skipped_bytes, each.buffered_bytes) for each in self.parsers],
            [
                (each.drops, each.partial_bytes, each.fetched, each.copied, sorted(each.reading))
                for each in self.reassemblers
            ],
            [(each.holders, each.block is None) for each in self.messages if not isinstance(each, bytes)],
            [ticket.accepted for _, ticket in self.tickets],
            [[self.look_at(batch) for batch in row] for row in self.batches],
        ]


def _outcome(call: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    try:
        return "returned", call(*arguments)
    except Exception as error:  # noqa: BLE001  (any error is an outcome)
        return type(error).__name__, str(error)


class BothEngines(RuleBasedStateMachine):
    engines: tuple[Engine, Engine] = ("pure", "native")

    @initialize(max_packet_bytes=st.sampled_from([128, 512, 4096]), is_mapped=st.booleans())
    def begin(self, max_packet_bytes: int, is_mapped: bool) -> None:
        self.fleets = [Fleet(which, max_packet_bytes) for which in self.engines]
        # What lies in each pipe; and all that was written, for a writer that repeats it.
        self.pipes = [bytearray() for _ in range(RECEIVERS)]
        self.written: list[bytes] = []
        # Where the blocks begin that were announced.
        self.blocks: list[int] = []
        if is_mapped:
            for which in range(RECEIVERS):
                self.both(Fleet.map_arena, which)

    def both(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Have both do it; what both said. Raises what both raise."""
        reference, other = (_outcome(call, each, *arguments) for each in self.fleets)
        assert same(reference, other), (call.__name__, reference, other)
        return reference[1] if reference[0] == "returned" else None

    # --- the sender

    @rule(
        name=_names, data=_data(), extra=_extras, to=_several, times=st.integers(1, 20), at_once=st.booleans()
    )
    def send(
        self, name: str, data: Any, extra: dict[str, Any] | None, to: list[int], times: int, at_once: bool
    ) -> None:
        if self.both(Fleet.pack, name, data, extra, len(to) > 1) is None:
            return
        for which in to:
            for _ in range(times if isinstance(self.fleets[0].messages[-1], bytes) else 1):
                self.both(Fleet.offer, which, -1)
            if at_once:
                self.write_and_read(which)

    @precondition(lambda self: self.fleets[0].messages)
    @rule(data=st.data(), which=_which)
    def send_again(self, data: st.DataObject, which: int) -> None:
        self.both(Fleet.offer, which, self.draw_message(data))

    @precondition(lambda self: self.fleets[0].messages)
    @rule(data=st.data(), which=_which)
    def wait(self, data: st.DataObject, which: int) -> None:
        self.both(Fleet.wait, which, self.draw_message(data))

    def draw_message(self, data: st.DataObject) -> int:
        # The last one is the simplest choice.
        return -1 - data.draw(st.integers(0, len(self.fleets[0].messages) - 1))

    @precondition(lambda self: self.fleets[0].tickets)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        self.both(Fleet.withdraw, data.draw(st.integers(0, len(self.fleets[0].tickets) - 1)))

    @rule(which=_which, call=st.sampled_from([Fleet.promote, Fleet.peek, Fleet.map_arena]))
    def turn(self, which: int, call: Callable[..., Any]) -> None:
        self.both(call, which)

    @rule(
        which=_which, call=st.sampled_from([Fleet.refuse, Fleet.close_outbox, Fleet.forget, Fleet.copy_rest])
    )
    def end(self, which: int, call: Callable[..., Any]) -> None:
        self.both(call, which)

    @rule(which=_which, count=st.integers(1, 40))
    def write(self, which: int, count: int) -> None:
        for _ in range(count):
            packet = self.both(Fleet.write, which)
            if packet is None:
                break
            self.pipes[which] += packet
            self.written.append(packet)
            if packet[KIND_AT] == PLACED:
                places = PLACE.iter_unpack(packet[HEADER_BYTES:])
                self.blocks += [offset for _, offset, _ in places]

    @rule(which=_which, is_patient=st.booleans())
    def set_patience(self, which: int, is_patient: bool) -> None:
        self.both(Fleet.set_patience, which, is_patient)

    # --- what happens on the way

    @precondition(lambda self: any(self.pipes))
    @rule(data=st.data(), content=st.binary(max_size=12))
    def damage(self, data: st.DataObject, content: bytes) -> None:
        pipe = max(self.pipes, key=len)
        place = data.draw(st.integers(0, len(pipe) - 1))
        pipe[place : place + data.draw(st.integers(0, 40))] = content

    @precondition(lambda self: self.written)
    @rule(data=st.data(), which=_which)
    def repeat(self, data: st.DataObject, which: int) -> None:
        self.pipes[which] += data.draw(st.sampled_from(self.written[-5:]))

    @precondition(lambda self: self.blocks)
    @rule(data=st.data(), near=st.integers(0, 40), content=st.binary(min_size=1, max_size=20))
    def scribble(self, data: st.DataObject, near: int, content: bytes) -> None:
        """Have the sender use a block again that was announced."""
        place = data.draw(st.sampled_from(self.blocks[:-4:-1])) + near
        self.both(Fleet.scribble, place, content[: ARENA_BYTES - place])

    # --- the receivers

    @rule(data=st.data(), which=_which, drained=st.booleans(), short=st.booleans())
    def read(self, data: st.DataObject, which: int, drained: bool, short: bool) -> None:
        pipe = self.pipes[which]
        size = len(pipe) - data.draw(st.integers(0, len(pipe)))
        chunk = bytes(pipe[:size])
        del pipe[:size]
        self.both(Fleet.feed, which, chunk, drained, short)

    def write_and_read(self, which: int) -> None:
        self.write(which, 100)
        self.both(Fleet.feed, which, bytes(self.pipes[which]), True, True)
        self.pipes[which].clear()

    @rule(which=_which, count=st.integers(1, 30))
    def next(self, which: int, count: int) -> None:
        for _ in range(count):
            if not self.fleets[0].batches[which]:
                break
            self.both(Fleet.next, which)

    @rule(which=_which, pays=st.booleans())
    def acknowledge(self, which: int, pays: bool) -> None:
        self.both(Fleet.acknowledge, which, pays)

    @precondition(lambda self: any(self.fleets[0].batches))
    @rule()
    def drop_rest(self) -> None:
        self.both(Fleet.drop_rest, next(at for at, row in enumerate(self.fleets[0].batches) if row))

    # --- always

    @invariant()
    def both_show_the_same(self) -> None:
        if hasattr(self, "fleets"):
            self.both(Fleet.all_that_shows)
            reference, other = self.fleets
            assert reference.memory == other.memory

    def teardown(self) -> None:
        if hasattr(self, "fleets"):
            for which in range(RECEIVERS):
                self.write_and_read(which)
                self.next(which, 100_000)
                self.both(Fleet.acknowledge, which, True)
            self.both_show_the_same()


@pytest.fixture(autouse=True)
def _both_are_here() -> None:
    variant("asgi_ipc.wire.packet", "pure")
    variant("asgi_ipc.wire.packet", "native")


def run(examples: int, **options: Any) -> None:
    chosen = settings(max_examples=examples, **options)
    run_state_machine_as_test(BothEngines, settings=chosen)


def test_any_sequence_of_calls_has_the_same_outcome_with_both_engines() -> None:
    # An example is a long one.
    run(settings().max_examples // 3)


# --- a difference is found


def _skips_one_more(self: Any, before: Any, result: Any) -> Any:
    self.skips += before["skips"] < self.skips
    return result


def _hides_what_was_overwritten(self: Any, before: Any, result: Any) -> Any:
    self.is_overwritten = False
    return result


def _rounds_up(self: Any, before: Any, result: Any) -> Any:
    self.each_bytes += bool(self.each_bytes)
    return result


def _counts_a_byte_more(self: Any, before: Any, result: Any) -> Any:
    self.backlog_bytes += self.backlog_bytes - before["backlog_bytes"] > 255
    return result


def _takes_text_for_bytes(self: Any, before: Any, result: Any) -> Any:
    if type(self.data) is str and len(self.data) > 255:
        self.data = self.data.encode()
    return result


# What is changed in the reference: a method, and what it does at its end.
PLANTED: Final[dict[str, tuple[str, Callable[[Any, Any, Any], Any]]]] = {
    "a run of strays counts twice": ("packet.PacketParser.find", _skips_one_more),
    "a block that was overwritten is believed": ("batch.Batch.next", _hides_what_was_overwritten),
    "a size is rounded up": ("batch.Batch.open_block", _rounds_up),
    "a byte too much is counted": ("outbox.Outbox.append", _counts_a_byte_more),
    "long text is bytes": ("batch.Batch.next", _takes_text_for_bytes),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_difference_is_found(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    where, end = PLANTED[what]
    module, cls, name = where.split(".")
    owner = getattr(variant(f"asgi_ipc.wire.{module}", "pure"), cls)
    original = getattr(owner, name)

    def changed(self: Any, *arguments: Any, **named: Any) -> Any:
        before = {slot: getattr(self, slot) for slot in ("skips", "backlog_bytes") if hasattr(self, slot)}
        return end(self, before, original(self, *arguments, **named))

    monkeypatch.setattr(owner, name, changed)
    with pytest.raises(AssertionError):
        run(300, derandomize=True, phases=[Phase.generate])
