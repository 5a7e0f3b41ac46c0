"""The arena: blocks never overlap, stay unchanged while anybody may read them, and come back."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asgi_ipc.wire.arena import (
    BLOCK_HEADER_BYTES,
    NOTHING_COPIED,
    PLACE,
    SHARES,
    Arena,
    Block,
    block_header,
)
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)

KIB = 1024
SIZE_BYTES = 64 * KIB
QUARTER_BYTES = SIZE_BYTES // SHARES
# The window of so small an arena.
KEPT_BYTES = QUARTER_BYTES // 2


def an_arena() -> tuple[Arena, memoryview]:
    memory = bytearray(SIZE_BYTES)
    return Arena(memory), memoryview(memory).toreadonly()


def placed(arena: Arena, content: bytes) -> Block:
    block = arena.place(b"", content)
    assert block is not None
    return block


def read(memory: memoryview, place: bytes) -> bytes | None:
    serial, offset, length = PLACE.unpack(place)
    start = offset + BLOCK_HEADER_BYTES
    if memory[offset:start] != block_header(serial, length):
        return None
    return bytes(memory[start : start + length])


def test_what_is_placed_in_parts_is_read_as_one() -> None:
    arena, memory = an_arena()
    arena.open(1)
    block = arena.place(b"head", b"body")
    assert block is not None
    assert read(memory, arena.announce(block, 1)) == b"headbody"


def test_a_block_that_was_used_again_shows_so() -> None:
    arena, memory = an_arena()
    arena.open(1)
    block = placed(arena, b"first")
    place = arena.announce(block, 1)
    arena.release(block)
    assert arena.copied(1, block.serial)
    other = placed(arena, b"other")
    assert other.offset == block.offset
    assert read(memory, place) is None


def test_one_receiver_never_holds_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_ipc.wire.arena.ACKNOWLEDGED_BYTES", KIB)
    arena, _ = an_arena()
    arena.open(1)
    held = 0
    while arena.may_hold(1, KIB):
        block = placed(arena, bytes(KIB - BLOCK_HEADER_BYTES))
        arena.announce(block, 1)
        arena.release(block)
        held += block.size_bytes
    assert held <= QUARTER_BYTES


def test_the_largest_block_is_a_quarter_and_what_is_larger_does_not_fit() -> None:
    arena, _ = an_arena()
    largest = QUARTER_BYTES - BLOCK_HEADER_BYTES
    assert arena.fits(largest)
    assert not arena.fits(largest + 1)
    assert arena.place(b"", bytes(largest + 1)) is None
    blocks = [arena.place(b"", bytes(largest)) for _ in range(SHARES)]
    assert all(blocks)
    assert arena.place(b"x") is None


def test_small_blocks_that_came_back_make_large_ones_again() -> None:
    arena, _ = an_arena()
    small = [placed(arena, bytes([number])) for number in range(SIZE_BYTES // KIB)]
    assert arena.place(b"x") is None
    for block in small:
        arena.release(block)
    assert arena.place(b"", bytes(QUARTER_BYTES // 2 + 1)) is not None


def test_memory_beyond_a_window_is_given_back_when_nothing_has_used_it_for_a_while() -> None:
    arena, _ = an_arena()
    blocks = [placed(arena, bytes(3 * KIB)) for _ in range(3)]
    assert not arena.trim()
    assert not arena.trim()
    for block in blocks:
        arena.release(block)
    arena.release(placed(arena, b"x"))
    # Something was placed since the last time.
    assert not arena.trim()
    assert arena.trim() == range(KEPT_BYTES, 12 * KIB)
    assert not arena.trim()
    # What comes next is written to what was kept.
    for _ in range(KEPT_BYTES // KIB):
        assert placed(arena, b"x").offset < KEPT_BYTES
    for _ in range(3):
        assert not arena.trim()


def test_unknown_words_are_ignored() -> None:
    arena, _ = an_arena()
    arena.open(1)
    block = placed(arena, b"x")
    arena.announce(block, 1)
    assert not arena.copied(1, block.serial + 1)
    assert not arena.copied(1, NOTHING_COPIED)
    assert not arena.copied(2, block.serial)
    arena.forget(2)
    assert arena.used_bytes


def test_an_empty_arena_has_room_for_nothing() -> None:
    arena = Arena(bytearray())
    assert not arena.fits(0)
    assert arena.place(b"", b"x") is None
    assert arena.trim() == range(0)
    arena.open(2)
    assert not arena.copied(2, 1)
    arena.forget(2)


@pytest.mark.parametrize("size_bytes", [KIB, 3 * KIB, SIZE_BYTES + 1])
def test_an_arena_has_a_power_of_two_of_bytes(size_bytes: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Arena(bytearray(size_bytes))


# --- any sequence of fates, against a simple model

RECEIVERS = 4


@dataclass(eq=False)
class Known:
    """A block as its users know it. `claims`: those who placed it and have not released it."""

    block: Block
    content: bytes
    claims: int = 1
    places: list[bytes] = field(default_factory=list)


class ArenaMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.arena, self.memory = an_arena()
        self.open: dict[int, list[Known]] = {}
        self.known: list[Known] = []
        self.last_serial = 0
        self.touched = 0

    def in_use(self) -> list[Known]:
        held = {id(each) for holds in self.open.values() for each in holds}
        return [each for each in self.known if each.claims or id(each) in held]

    @rule(receiver=st.integers(0, RECEIVERS - 1))
    def opens(self, receiver: int) -> None:
        self.arena.open(receiver)
        self.open.setdefault(receiver, [])

    @rule(length=st.integers(1, QUARTER_BYTES) | st.integers(1, 3 * KIB), letter=st.integers(0, 255))
    def place(self, length: int, letter: int) -> None:
        content = bytes([letter]) * length
        half = length // 2
        block = self.arena.place(content[:half], content[half:])
        if block is None:
            # Not for want of room alone: all that is free together may be in pieces.
            assert length > QUARTER_BYTES - BLOCK_HEADER_BYTES or self.in_use()
            return
        assert block.serial > self.last_serial
        self.last_serial = block.serial
        self.touched = max(self.touched, block.offset + BLOCK_HEADER_BYTES + length)
        self.known.append(Known(block, content))

    @precondition(lambda self: self.open and any(each.claims for each in self.known))
    @rule(data=st.data())
    def announce(self, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from([each for each in self.known if each.claims]))
        receiver = data.draw(st.sampled_from(sorted(self.open)))
        if known in self.open[receiver]:
            return
        known.places.append(self.arena.announce(known.block, receiver))
        self.open[receiver].append(known)

    @precondition(lambda self: any(each.claims for each in self.known))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        known = data.draw(st.sampled_from([each for each in self.known if each.claims]))
        known.claims -= 1
        self.arena.release(known.block)

    @precondition(lambda self: any(self.open.values()))
    @rule(data=st.data())
    def copied(self, data: st.DataObject) -> None:
        receiver = data.draw(st.sampled_from([each for each, holds in self.open.items() if holds]))
        holds = self.open[receiver]
        upto = data.draw(st.integers(0, len(holds) - 1))
        assert self.arena.copied(receiver, holds[upto].block.serial)
        del holds[: upto + 1]

    @rule(receiver=st.integers(0, RECEIVERS - 1))
    def reaped(self, receiver: int) -> None:
        self.arena.forget(receiver)
        self.open.pop(receiver, None)
        assert not self.arena.is_open(receiver)

    @rule(receiver=st.integers(0, RECEIVERS), serial=st.integers(0, 50))
    def late_word(self, receiver: int, serial: int) -> None:
        """Of one who has gone, or of what it does not hold."""
        if all(each.block.serial != serial for each in self.open.get(receiver, [])):
            assert not self.arena.copied(receiver, serial)

    @rule()
    def trim(self) -> None:
        given_back = self.arena.trim()
        if given_back:
            assert not self.in_use()
            # All that was ever written to: what lies behind would never be the kernel's again.
            assert given_back.start == KEPT_BYTES
            assert given_back.stop >= self.touched
            self.touched = 0

    @invariant()
    def blocks_do_not_overlap_and_say_what_was_placed(self) -> None:
        used = sorted(self.in_use(), key=lambda each: each.block.offset)
        end = 0
        for known in used:
            assert known.block.offset >= end
            end = known.block.offset + known.block.size_bytes
            for place in known.places:
                assert read(self.memory, place) == known.content
        assert end <= SIZE_BYTES
        assert self.arena.used_bytes == sum(each.block.size_bytes for each in used)

    def teardown(self) -> None:
        for receiver in list(self.open):
            self.arena.forget(receiver)
        for known in self.known:
            for _ in range(known.claims):
                self.arena.release(known.block)
        assert self.arena.used_bytes == 0
        largest = QUARTER_BYTES - BLOCK_HEADER_BYTES
        assert all(self.arena.place(b"", bytes(largest)) for _ in range(SHARES))


test_any_sequence_of_fates_agrees_with_the_model = ArenaMachine.TestCase
