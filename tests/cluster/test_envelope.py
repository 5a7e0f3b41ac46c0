"""Envelopes: what is sealed opens again, and nothing else does."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ipc.cluster.envelope import (
    ENVELOPE_BYTES,
    EPOCH_BYTES,
    FIRST,
    HEAD_BYTES,
    HELLO,
    LAST,
    MORE,
    NEWEST_VERSION,
    NOBODY,
    OLDEST_VERSION,
    WHOLE,
    Envelope,
    EnvelopeError,
    Sealer,
)
from asgi_ipc.cluster.items import Hello, encode_item, read_hello
from tests import strategies as _profile  # noqa: F401  (its import sets hypothesis up)

epochs = st.binary(min_size=EPOCH_BYTES, max_size=EPOCH_BYTES)
secrets = st.none() | st.binary(min_size=1, max_size=100)
clusters = st.text(max_size=20)
envelopes = st.builds(
    Envelope,
    version=st.integers(0, 255),
    kind=st.sampled_from((HELLO, WHOLE, FIRST, MORE, LAST)),
    node=st.binary(min_size=8, max_size=8).map(bytes.hex),
    source=epochs,
    destination=epochs,
    number=st.integers(0, 2**64 - 1),
    payload=st.binary(max_size=300),
)
ENVELOPE = Envelope(1, WHOLE, "ab" * 8, b"s" * EPOCH_BYTES, b"d" * EPOCH_BYTES, 7, b"a payload")


def is_refused(sealer: Sealer, data: bytes) -> bool:
    try:
        sealer.open(data)
    except EnvelopeError:
        return True
    return False


@given(envelopes, secrets, clusters)
def test_what_is_sealed_opens_again(envelope: Envelope, secret: bytes | None, cluster: str) -> None:
    sealer = Sealer(cluster, secret)
    data = sealer.seal(envelope)
    assert sealer.open(data) == envelope
    assert len(data) == len(envelope.payload) + sealer.overhead_bytes


def test_an_envelope_adds_the_head_and_with_a_secret_the_seal() -> None:
    assert Sealer("c", None).overhead_bytes == HEAD_BYTES
    assert Sealer("c", b"s").overhead_bytes == ENVELOPE_BYTES == HEAD_BYTES + 32


def test_with_a_secret_an_envelope_with_any_altered_bit_is_refused() -> None:
    sealer = Sealer("c", b"s")
    data = sealer.seal(ENVELOPE)
    for place in range(len(data)):
        for bit in range(8):
            altered = bytearray(data)
            altered[place] ^= 1 << bit
            assert is_refused(sealer, bytes(altered)), (place, bit)


def test_with_a_secret_an_envelope_that_is_shorter_or_longer_is_refused() -> None:
    sealer = Sealer("c", b"s")
    data = sealer.seal(ENVELOPE)
    assert all(is_refused(sealer, data[:stop]) for stop in range(len(data)))
    assert all(is_refused(sealer, data[start:]) for start in range(1, len(data)))
    assert is_refused(sealer, data + b"\0")


@given(envelopes, clusters, st.binary(min_size=1), clusters, secrets)
def test_an_envelope_of_another_cluster_or_secret_is_refused(
    envelope: Envelope, cluster: str, secret: bytes, other_cluster: str, other_secret: bytes | None
) -> None:
    sealer, other = Sealer(cluster, secret), Sealer(other_cluster, other_secret)
    # A key of HMAC that is shorter than its block is filled up with zeros.
    is_same = (cluster, secret.rstrip(b"\0")) == (other_cluster, (other_secret or b"").rstrip(b"\0"))
    if other_secret is None or not is_same:
        assert is_refused(sealer, other.seal(envelope))


@pytest.mark.parametrize(
    ("cluster", "secret"), [("c", None), ("c", b"t"), ("c", b"s\n"), ("d", b"s"), ("", b"s"), ("cc", b"s")]
)
def test_an_envelope_of_a_neighbour_is_refused(cluster: str, secret: bytes | None) -> None:
    assert is_refused(Sealer("c", b"s"), Sealer(cluster, secret).seal(ENVELOPE))


def test_no_part_of_the_name_can_pass_for_a_part_of_the_envelope() -> None:
    sealed = Sealer("ca", b"s").seal(ENVELOPE)
    assert is_refused(Sealer("c", b"s"), b"a" + sealed)


@given(st.binary(max_size=200))
def test_without_a_secret_what_has_no_head_is_refused(data: bytes) -> None:
    assert is_refused(Sealer("c", None), data) == (data[:4] != b"aipc" or len(data) < HEAD_BYTES)


@pytest.mark.parametrize("kind", [0, 6, 255])
@pytest.mark.parametrize("secret", [None, b"s"])
def test_an_unknown_kind_is_refused(kind: int, secret: bytes | None) -> None:
    sealer = Sealer("c", secret)
    assert is_refused(sealer, sealer.seal(ENVELOPE._replace(kind=kind)))


def test_a_hello_stands_where_every_version_looks_for_it() -> None:
    """Head, seal and hello never change: this is the layout of version 1, byte by byte."""
    payload = encode_item(Hello("host", OLDEST_VERSION, NEWEST_VERSION))
    data = Sealer("c", None).seal(Envelope(0, HELLO, "ab" * 8, b"s" * 16, NOBODY, 0, payload))
    head = b"aipc" + bytes((0, 1)) + b"\xab" * 8 + b"s" * 16 + bytes(16) + struct.pack(">Q", 0)
    assert data == head + b"\x93\xa4host\x01\x01"


def test_a_hello_of_a_later_version_is_read_and_one_that_is_none_refused() -> None:
    assert read_hello(b"\x93\xa4host\x02\x03") == Hello("host", 2, 3)
    # A later version may say more.
    assert read_hello(b"\x94\xa4host\x02\x03\xc0") == Hello("host", 2, 3)
    for payload in (b"", b"\xc0", b"\x92\xa4host\x02", b"\x93\xa4host\x02\xa1x", b"\x93\xa2\xff\xff\x02\x03"):
        with pytest.raises(EnvelopeError):
            read_hello(payload)
