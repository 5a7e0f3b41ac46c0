"""Mappings: what is shared, who may write it, and what a forked child has of it."""

from __future__ import annotations

import mmap
import os
import sys

import pytest

from asgi_ipc.launcher.process import make_arena
from asgi_ipc.wire.arena import ARENA_BYTES
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.transport.mapping import Mapping, map_arena

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memfd is Linux's")


def both() -> tuple[Mapping, Mapping]:
    own_fd, others_fd = make_arena()
    own = map_arena(Descriptor(own_fd), writable=True, whose=1)
    return own, map_arena(Descriptor(others_fd), writable=False, whose=1)


def test_what_the_owner_writes_the_others_read_and_can_not_change() -> None:
    own, others = both()
    own.memory[10:14] = b"text"
    assert bytes(others.memory[10:14]) == b"text"
    with pytest.raises(TypeError, match="read-only"):
        others.memory[10:14] = b"else"
    own.close()
    # As of a sender that has gone: it is there for as long as anybody has it mapped.
    assert bytes(others.memory[10:14]) == b"text"
    others.close()


def test_the_others_descriptor_can_not_be_mapped_for_writing_and_nobody_can_cut_the_memory() -> None:
    own_fd, others_fd = make_arena()
    with pytest.raises(PermissionError):
        os.ftruncate(own_fd, 0)
    mapping = map_arena(Descriptor(others_fd), writable=True, whose=1)
    assert not mapping.memory
    mapping.close()
    os.close(own_fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(others_fd)


def test_without_an_arena_there_is_nothing_to_map() -> None:
    mapping = map_arena(Descriptor(), writable=False, whose=1)
    assert not mapping.memory
    mapping.give_back(range(10, 20))
    mapping.close()


def test_memory_is_given_back_and_reads_as_zeros() -> None:
    own, others = both()
    own.memory[:ARENA_BYTES] = b"\xff" * ARENA_BYTES
    kept_bytes = 2 * mmap.PAGESIZE
    own.give_back(range(kept_bytes, 1_000_000))
    assert bytes(others.memory[:kept_bytes]) == b"\xff" * kept_bytes
    assert bytes(others.memory[kept_bytes:1_000_000]) == bytes(1_000_000 - kept_bytes)
    own.close()
    others.close()


def test_what_is_abandoned_while_it_is_read_is_no_error() -> None:
    own, others = both()
    held = own.memory[:10]
    own.abandon()
    held.release()
    own.close()
    others.abandon()
