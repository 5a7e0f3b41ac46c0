"""Strategies of the properties: data, names, messages, packets, and stray bytes between them.

Law: a property costs a few seconds on a slow core; HYPOTHESIS_PROFILE=thorough gives more examples.
"""

from __future__ import annotations

import os
import struct
from itertools import pairwise

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from asgi_ipc.wire.message import MAX_NAME_BYTES
from asgi_ipc.wire.packet import BATCH, COPIED, FRAGMENT_FIRST, FRAGMENT_MORE, PLACED, encode_packet

# A slow machine is no failure: neither an example nor its drawing has a deadline.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("suite", _PATIENT, max_examples=150, stateful_step_count=60)
settings.register_profile("thorough", _PATIENT, max_examples=2000, stateful_step_count=80)
# What few examples find they find every time: tests/mutants runs each property hundreds of times.
settings.register_profile(
    "mutants",
    _PATIENT,
    max_examples=30,
    stateful_step_count=40,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

# --- data and names

_KEYS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=300)
)

data = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=15,
)

names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=MAX_NAME_BYTES
).filter(lambda name: len(name.encode()) <= MAX_NAME_BYTES)


def same(left: object, right: object) -> bool:
    """Equal in value, type, order and, for floats, in every bit."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, (list, tuple)):
        assert isinstance(right, (list, tuple))
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        assert isinstance(right, dict)
        return same(list(left.items()), list(right.items()))
    return left == right


# --- the wire

cookies = st.binary(min_size=8, max_size=8)
generations = st.integers(0, 2**32 - 1)
kinds = st.sampled_from([BATCH, FRAGMENT_FIRST, FRAGMENT_MORE, PLACED, COPIED])


@st.composite
def packets(draw: st.DrawFn, cookie: bytes, max_packet_bytes: int) -> bytes:
    """A whole packet of the run."""
    payload = draw(st.binary(max_size=max_packet_bytes - 32))
    number = draw(st.integers(0, 2**64 - 1))
    return encode_packet(cookie, draw(generations), draw(generations), number, draw(kinds), payload)


@st.composite
def strays(draw: st.DrawFn, cookie: bytes, max_packet_bytes: int) -> bytes:
    """Bytes that are no packet of the run, at least one."""
    packet = draw(packets(cookie, max_packet_bytes))
    match draw(st.sampled_from(["random", "cut", "flipped", "cookie", "foreign", "kind", "long", "short"])):
        case "cut":
            return packet[: draw(st.integers(1, len(packet) - 1))]
        case "flipped":
            place = draw(st.integers(0, len(packet) - 1))
            bit = 1 << draw(st.integers(0, 7))
            return packet[:place] + bytes([packet[place] ^ bit]) + packet[place + 1 :]
        case "cookie":
            return cookie[: draw(st.integers(1, 8))]
        case "foreign":
            other = bytes(byte ^ 0x5A for byte in cookie)
            return encode_packet(other, 1, 2, 3, BATCH, draw(st.binary(max_size=50)))
        case "kind":
            return encode_packet(cookie, 1, 2, 3, draw(st.sampled_from([0, 6, 255])), b"payload")
        case "long":
            return encode_packet(cookie, 1, 2, 3, BATCH, bytes(max_packet_bytes - 31))
        case "short":
            return packet[:8] + draw(st.binary(min_size=2, max_size=2)) + packet[10:28] + b"crc?"
        case _:
            return draw(st.binary(min_size=1, max_size=200))


@st.composite
def chunked(draw: st.DrawFn, stream: bytes, max_chunks: int = 12) -> list[bytes]:
    """`stream` in pieces of any size, including empty ones."""
    cuts = draw(st.lists(st.integers(0, len(stream)), max_size=max_chunks).map(sorted))
    return [stream[start:stop] for start, stop in pairwise([0, *cuts, len(stream)])]
