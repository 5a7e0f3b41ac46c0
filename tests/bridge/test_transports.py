"""Transports over real brokers: what arrives, in which order, and what is an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from asgi_ipc.bridge.transport import Transport, TransportError
from tests.brokers import CERTIFICATE, PASSWORD, Broker, Kind, broker
from tests.proxy import proxy
from tests.serving import DEADLINE_S

HERE, THERE = "0" * 16, "1" * 16
WRONG = "n0t/it@at:all"


@asynccontextmanager
async def connected(*transports: Transport) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for transport in transports:
            stack.push_async_callback(transport.close)
            await transport.connect()
        yield


async def take(transport: Transport, count: int) -> list[bytes]:
    """Wait for so many envelopes."""
    taken: list[bytes] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(taken) < count:
            taken += await transport.receive()
    return taken


async def breaks(transport: Transport) -> str:
    """Wait until the transport says that its connection has broken; how it says it."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await transport.receive()
            except TransportError as error:
                return str(error)


async def takes_no_more(transport: Transport) -> None:
    """Publish until that is an error: the kernel may take what nobody reads any more."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await transport.publish([(THERE, bytes(100_000))])
            except TransportError:
                return


async def refusal(transport: Transport) -> str:
    """What is said when it can't connect."""
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(TransportError) as caught:
            await transport.connect()
    return str(caught.value)


async def reach(transport: Transport) -> None:
    """Connect, as soon as there is somebody."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await transport.connect()
            except TransportError:
                await asyncio.sleep(0)
                continue
            return


async def test_what_one_node_publishes_for_another_arrives_complete_and_in_order(running: Broker) -> None:
    here, there = running.transport(HERE), running.transport(THERE)
    sent = [b"%d " % number + bytes(number % 7 * 5000) for number in range(3000)]
    async with connected(here, there):
        taking = asyncio.create_task(take(there, len(sent)))
        for start in range(0, len(sent), 97):
            await here.publish([(THERE, each) for each in sent[start : start + 97]])
        assert await taking == sent


async def test_what_is_for_all_reaches_each_other_node_once(running: Broker) -> None:
    here, there, third = (running.transport(node) for node in (HERE, THERE, "2" * 16))
    async with connected(here, there, third):
        await here.publish([(None, b"hello")])
        # Behind it, so that a second one would have been seen.
        await here.publish([(THERE, b"one"), (third.node, b"two")])
        assert sorted(await take(there, 2)) == [b"hello", b"one"]
        assert sorted(await take(third, 2)) == [b"hello", b"two"]


async def test_what_is_for_another_node_or_another_cluster_does_not_come(running: Broker) -> None:
    here, there = running.transport(HERE), running.transport(THERE)
    foreign = running.transport(THERE, name="another")
    async with connected(here, there, foreign):
        await here.publish([("3" * 16, b"to a third one"), (THERE, b"first"), (None, b"to all")])
        await foreign.publish([(THERE, b"foreign"), (None, b"foreign"), (HERE, b"foreign")])
        await here.publish([(THERE, b"last")])
        assert sorted(await take(there, 3)) == [b"first", b"last", b"to all"]


async def test_names_that_are_alike_are_two_clusters(running: Broker) -> None:
    here, there = running.transport(HERE, name="a.b"), running.transport(THERE, name="a.b")
    foreign = running.transport(THERE, name="a_b")
    async with connected(here, there, foreign):
        await foreign.publish([(THERE, b"foreign")])
        await here.publish([(THERE, b"ours")])
        assert await take(there, 1) == [b"ours"]


async def test_the_largest_envelope_passes(running: Broker) -> None:
    here, there = running.transport(HERE), running.transport(THERE)
    async with connected(here, there):
        assert here.envelope_bytes >= 1024 * 1024
        sent = [bytes([number]) * here.envelope_bytes for number in range(8)]
        taking = asyncio.create_task(take(there, len(sent)))
        await here.publish([(THERE, each) for each in sent])
        assert await taking == sent


async def test_a_broker_is_reached_over_tls_by_the_certificates_that_are_named(
    kind: Kind, tmp_path: Path
) -> None:
    async with broker(kind, tmp_path, is_tls=True) as tls:
        here, there = (tls.transport(node, ca_file=CERTIFICATE) for node in (HERE, THERE))
        async with connected(here, there):
            await here.publish([(THERE, b"sealed")])
            assert await take(there, 1) == [b"sealed"]


async def test_a_broker_whose_certificate_nobody_has_signed_is_not_spoken_to(
    kind: Kind, tmp_path: Path
) -> None:
    async with broker(kind, tmp_path, is_tls=True) as tls:
        assert "certificate" in (await refusal(tls.transport(HERE))).lower()


async def test_a_broker_of_another_name_is_not_spoken_to(kind: Kind, tmp_path: Path) -> None:
    async with broker(kind, tmp_path, is_tls=True) as tls:
        url = tls.url().replace("localhost", "127.0.0.2")
        async with proxy(tls.port, host="127.0.0.2") as between:
            stranger = tls.transport(
                HERE, url=url.replace(str(tls.port), str(between.port)), ca_file=CERTIFICATE
            )
            said = await refusal(stranger)
            assert between.connections
        assert "certificate" in said.lower()


async def test_user_and_password_are_those_of_the_url(kind: Kind, tmp_path: Path) -> None:
    async with broker(kind, tmp_path, is_locked=True) as locked:
        here, there = locked.transport(HERE), locked.transport(THERE)
        async with connected(here, there):
            await here.publish([(THERE, b"known")])
            assert await take(there, 1) == [b"known"]


async def test_a_wrong_password_is_an_error_without_the_password(kind: Kind, tmp_path: Path) -> None:
    async with broker(kind, tmp_path, is_locked=True) as locked:
        said = await refusal(locked.transport(HERE, url=locked.url(password=WRONG)))
        assert "password" in said.lower() or "authorization" in said.lower()
        for secret in (WRONG, quote(WRONG, safe=""), PASSWORD, quote(PASSWORD, safe="")):
            assert secret not in said


async def test_without_a_broker_there_is_an_error_and_later_a_connection(kind: Kind, tmp_path: Path) -> None:
    async with broker(kind, tmp_path, is_started=False) as later:
        here, there = later.transport(HERE), later.transport(THERE)
        assert await refusal(here)
        await later.start()
        async with connected(here, there):
            await here.publish([(THERE, b"now")])
            assert await take(there, 1) == [b"now"]


async def test_the_death_of_a_broker_is_an_error_and_its_successor_is_used(running: Broker) -> None:
    here, there = running.transport(HERE), running.transport(THERE)
    async with connected(here, there):
        await here.publish([(THERE, b"before")])
        assert await take(there, 1) == [b"before"]
        await running.kill()
        assert await breaks(there)
        await takes_no_more(here)
        for transport in (here, there):
            await transport.close()
        await running.start()
        for transport in (here, there):
            await reach(transport)
        await here.publish([(THERE, b"after")])
        assert await take(there, 1) == [b"after"]


async def test_a_connection_that_is_cut_is_an_error_for_both_directions(running: Broker) -> None:
    async with proxy(running.port) as between:
        here = running.transport(HERE, port=between.port)
        async with connected(here):
            between.cut()
            assert await breaks(here)
            await takes_no_more(here)
            await here.close()
            assert await refusal(here)
            between.heal()
            await reach(here)
        await here.close()


async def test_a_transport_may_be_closed_at_any_time_and_twice(running: Broker) -> None:
    here = running.transport(HERE)
    await here.close()
    await here.connect()
    await here.close()
    await here.close()
    for use in (here.receive, lambda: here.publish([(THERE, b"x")])):
        with pytest.raises(TransportError):
            await use()


async def test_redis_streams_go_on_where_they_were_read(tmp_path: Path) -> None:
    async with broker("redis", tmp_path) as redis, proxy(redis.port) as between:
        here, there = redis.transport(HERE), redis.transport(THERE, port=between.port)
        async with connected(here, there):
            await here.publish([(THERE, b"before")])
            assert await take(there, 1) == [b"before"]
            between.cut()
            assert await breaks(there)
            await there.close()
            sent = [b"%d" % number for number in range(1000)]
            await here.publish([(THERE, each) for each in sent])
            between.heal()
            await reach(there)
            await here.publish([(THERE, b"after")])
            assert await take(there, 1001) == [*sent, b"after"]


async def test_a_new_life_reads_nothing_that_was_there_before(tmp_path: Path) -> None:
    async with broker("redis", tmp_path) as redis:
        here, there = redis.transport(HERE), redis.transport(THERE)
        async with connected(here):
            await here.publish([(THERE, b"old"), (None, b"old")])
            async with connected(there):
                await here.publish([(THERE, b"new")])
                assert await take(there, 1) == [b"new"]
