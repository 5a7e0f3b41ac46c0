"""Two real servers over each real broker: what spans, who is there, and what a death costs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.brokers import KINDS, PASSWORD, USER, Broker, Kind, broker
from tests.processes import of_session
from tests.serving import DEADLINE_S, RESTARTED, Server, serving

APP = "tests.apps.clustered:app"

NAMES = ("one", "two")


@pytest.fixture(params=KINDS)
async def locked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker with a password."""
    kind: Kind = request.param
    async with broker(kind, tmp_path, is_locked=True) as there:
        yield there


@asynccontextmanager
async def two(there: Broker, **more: Any) -> AsyncIterator[list[Server]]:
    """Two servers of two workers each, which know each other."""
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                serving(
                    APP, "--no-access-log", "--node-name", name, env={"ASGI_IPC_CLUSTER": there.url()}, **more
                )
            )
            for name in NAMES
        ]
        for server in servers:
            await server.said("All 2 workers are ready")
        await both(servers, _knows_all)
        yield servers


async def here(server: Server) -> list[dict[str, Any]]:
    """What each worker of a server has noted."""
    states: list[dict[str, Any]] = (await server.get("/here")).json()
    return states


async def comes(server: Server, holds: Any) -> list[dict[str, Any]]:
    """Wait until it holds for each of the two workers of a server."""
    states: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(DEADLINE_S):
            while len(states) != 2 or not all(map(holds, states)):
                states = await here(server)
    except TimeoutError:
        raise AssertionError(f"{states}\n{server.text}") from None
    return states


async def both(servers: list[Server], holds: Any) -> None:
    for server in servers:
        await comes(server, holds)


def _knows_all(state: dict[str, Any]) -> bool:
    nodes = state["nodes"]
    return {*nodes} == {*NAMES} and all(workers == 2 and s != "suspect" for _, s, workers in nodes.values())


async def hears(servers: list[Server], by: Server, text: str) -> list[int]:
    """Broadcast a text, again until all workers have it: some may not be known yet. Who got it here."""
    pids: list[int] = []
    async with asyncio.timeout(DEADLINE_S):
        waiting = [*servers]
        while waiting:
            pids = (await by.get(f"/say?text={text}")).json()[0]
            waiting = [
                server
                for server in servers
                if not all(text in {note[0] for note in state["notes"]} for state in await here(server))
            ]
    return pids


async def test_what_is_said_and_asked_spans_two_servers_and_what_is_returned_is_from_here(
    locked: Broker,
) -> None:
    async with two(locked) as (one, two_):
        states = await comes(one, _knows_all)
        node_one = states[0]["node"]
        pids_one = {state["pid"] for state in states}
        pids_two = {state["pid"] for state in await here(two_)}
        told, published = (await one.get("/say?text=hello")).json()
        assert {*told} <= pids_one
        assert {*published} <= pids_one
        states = await comes(two_, lambda state: state["notes"] and state["publications"])
        for state in states:
            ((text, sender, (node, pid)),) = state["notes"]
            assert (text, sender, node) == ("hello", None, node_one)
            assert pid in pids_one
            assert state["publications"] == [["hello", 0]]
            assert not state["gaps"]
        answer = (await one.get("/ask")).json()
        assert {row[2] for row in answer["one"]} == {row[2] for row in answer["all"]} == pids_one | pids_two
        assert answer["complete"]
        # To those of the other server the asker is a worker of another node.
        assert all([*row[3:]] == answer["me"] for row in answer["all"] if row[1] != node_one)
        for server, other in ((one, "two"), (two_, "one")):
            assert server.count(rf"Node [0-9a-f]{{16}} \({other}\) is connected") == 1
            assert server.count("Connected to the broker at .*127.0.0.1") == 1


async def test_a_stop_is_told_at_once_as_left_and_a_restart_of_one_server_loses_nobody(
    locked: Broker,
) -> None:
    async with two(locked) as (one, two_):
        # The bridge stays.
        one.signal(signal.SIGHUP)
        await one.said(RESTARTED)
        await both([one, two_], _knows_all)
        await hears([one, two_], one, "after")
        await hears([one, two_], two_, "back")
        assert all(not state["leaves"] and not state["gaps"] for state in await here(two_))
        assert await one.stop() == 0
        states = await comes(two_, lambda state: state["leaves"])
        assert all(state["leaves"] == [["one", "left"]] for state in states)
        await two_.said(r"Node [0-9a-f]{16} \(one\) has stopped")
        assert not two_.found("was not heard")


async def test_a_bridge_that_is_killed_comes_back_and_says_that_something_may_be_lost(
    locked: Broker,
) -> None:
    async with two(locked) as (one, two_):
        (line,) = await one.said(r"Bridge \[\d+\] is ready")
        bridge = int(line.split("[")[1].split("]")[0])
        os.kill(bridge, signal.SIGKILL)
        await one.said(rf"Bridge \[{bridge}\] died: it was killed by SIGKILL; starting another")
        await one.said(r"Bridge \[\d+\] is ready", 2)
        # Each side says it once: what was in that bridge is not known.
        await comes(one, lambda state: state["gaps"] == [["two", None]])
        await comes(two_, lambda state: state["gaps"] == [["one", None]])
        await both([one, two_], _knows_all)
        await hears([one, two_], one, "after")
        await hears([one, two_], two_, "back")
        for server in (one, two_):
            assert all(len(state["gaps"]) == 1 and not state["leaves"] for state in await here(server))


async def test_a_node_that_is_killed_is_gone_after_some_seconds(locked: Broker) -> None:
    async with AsyncExitStack() as stack:
        one, two_ = await stack.enter_async_context(two(locked))
        # All at once: a bridge whose launcher has gone says good-bye.
        os.killpg(one.pid, signal.SIGKILL)
        await two_.said(r"Node [0-9a-f]{16} \(one\) is suspect")
        await two_.said(r"Node [0-9a-f]{16} \(one\) was not heard for 5 s; going on without it")
        states = await comes(two_, lambda state: state["leaves"])
        assert all(state["leaves"] == [["one", "lost"]] for state in states)


async def test_a_broker_that_dies_costs_no_local_message_and_no_unknown_loss(locked: Broker) -> None:
    async with two(locked) as (one, two_):
        await locked.kill()
        for server in (one, two_):
            await server.said("The connection to the broker has broken")
            await server.said("No connection to the broker at")
        for number in range(20):
            await one.get(f"/say?text={number}")
        for state in await here(one):
            # A worker is told of its own broadcasts, too.
            assert [note[0] for note in state["notes"]] == [str(number) for number in range(20)]
        await locked.start()
        for server in (one, two_):
            await server.said("Connected to the broker at", 2)
        await both([one, two_], _knows_all)
        await comes(two_, lambda state: sum(lost for _, lost in state["gaps"]) >= 40)
        await hears([one, two_], one, "after")
        for state in await here(two_):
            # 20 broadcasts and 20 publications.
            assert sum(lost for _, lost in state["gaps"]) == 40
            assert sum(missed for _, missed in state["publications"]) == 20
        assert all(not state["gaps"] for state in await here(one))
        for server in (one, two_):
            assert not server.found("Bridge .* died")


async def test_the_password_is_in_no_arguments_of_another_process_and_in_no_line(locked: Broker) -> None:
    url = locked.url()
    env = {"ASGI_IPC_CLUSTER": ""}
    async with serving(APP, "--no-access-log", "--cluster", url, "--node-name", "one", env=env) as server:
        await server.said("Connected to the broker at")
        await server.said("All 2 workers are ready")
        (encoded,) = [url.split("@")[0].rpartition(":")[2]]
        others = [pid for pid in of_session(server.pid) if pid != server.pid]
        assert len(others) >= 3
        for pid in others:
            for secret in (PASSWORD, encoded, USER + ":"):
                assert secret not in " ".join(psutil.Process(pid).cmdline())
        await locked.kill()
        await server.said("No connection to the broker at")
        assert await server.stop() == 0
        for secret in (PASSWORD, encoded):
            assert secret not in server.text


async def test_a_wrong_password_is_said_and_the_server_serves(locked: Broker) -> None:
    url = locked.url(password="n0t-it")
    async with serving(APP, "--no-access-log", env={"ASGI_IPC_CLUSTER": url}) as server:
        await server.said("No connection to the broker at .* \\(.*(password|[Aa]uthorization)")
        await server.said("All 2 workers are ready")
        assert len(await here(server)) == 2
        assert await server.stop() == 0
        assert "n0t-it" not in server.text


async def test_without_a_broker_a_server_serves_and_joins_later(tmp_path: Path) -> None:
    async with broker("nats", tmp_path, is_started=False) as later, AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                serving(APP, "--no-access-log", "--cluster", later.url(), "--node-name", name)
            )
            for name in NAMES
        ]
        for server in servers:
            await server.said("No connection to the broker at")
            await server.said("All 2 workers are ready")
        await hears(servers[:1], servers[0], "alone")
        await later.start()
        await both(servers, _knows_all)
        await hears(servers, servers[0], "together")
