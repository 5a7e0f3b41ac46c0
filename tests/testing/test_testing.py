"""The test kit: a fleet in one process, an app's own handlers in it, and a real server as a fixture."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from asgi_ipc import (
    IPC,
    LauncherError,
    NoHandlerError,
    NotRunningError,
    OutsideHandlerError,
    UnknownWorkerError,
    WorkerGoneError,
    ipc,
)
from asgi_ipc.testing import Serve, ServeError, fleet, serve
from asgi_ipc.testing.child import children, is_running
from tests.apps import chat
from tests.processes import links
from tests.serving import DEADLINE_S, ROOT

MIB = 1024 * 1024


def descriptors(pid: int | None = None) -> list[str]:
    """Return the open files of a process, without the ones that look."""
    return sorted(name for name in links(pid).values() if not name.startswith("/proc"))


@pytest.fixture(autouse=True)
def _nothing_stays() -> Iterator[None]:
    # libuv keeps a pipe for ever, from its first loop on.
    uvloop.new_event_loop().close()
    before = descriptors()
    yield
    chat.heard.clear()
    chat.gone.clear()
    assert [name for name in descriptors() if name not in before] == []


# --- a fleet


async def test_three_members_are_told_apart_and_reach_each_other() -> None:
    async with fleet(3) as (a, b, c):
        assert len({a.pid, b.pid, c.pid}) == 3
        assert [member.slot for member in (a, b, c)] == [0, 1, 2]
        assert {worker.generation for worker in a.workers} == {1, 2, 3}
        assert a.workers == b.workers == c.workers
        assert b.sender is None

        async def question(data: Any) -> Any:
            await asyncio.sleep(0)
            return [b.sender, data]

        b.receive("question", question)
        c.receive("question", lambda data: [c.sender, data])
        assert await a.request(b.pid, "question", "x") == [a.pid, "x"]
        assert await b.request(c.pid, "question", bytes(MIB)) == [b.pid, bytes(MIB)]
        gathered = await a.gather("question", 1)
        assert gathered == {b.pid: [a.pid, 1], c.pid: [a.pid, 1]}
        assert isinstance(gathered.errors[a.pid], NoHandlerError)


async def test_a_pid_is_that_of_no_process() -> None:
    async with fleet(2) as members:
        for member in members:
            with pytest.raises(ProcessLookupError):
                os.kill(member.pid, 0)
        with pytest.raises(UnknownWorkerError):
            await members[0].send(os.getpid(), "note")


async def test_all_that_was_sent_is_handled_when_it_has_settled_and_what_that_has_led_to() -> None:
    async with fleet(3) as members:
        a, b, c = members
        seen: list[tuple[int, int | None, Any]] = []

        async def note(who: IPC, data: int) -> None:
            await asyncio.sleep(0.001)
            seen.append((who.pid, who.sender, data))
            if data:
                await who.reply("note", data - 1)

        for member in members:
            member.receive("note", lambda data, member=member: note(member, data))
        await a.broadcast("note", 3)
        await members.settled()
        assert len(seen) == 3 * 4
        assert [data for who, sender, data in seen if {who, sender} == {a.pid, c.pid}] == [3, 2, 1, 0]
        # Large ones, and more of them than a pipe takes.
        b.receive("note", lambda data: seen.append((b.pid, b.sender, len(data))))
        seen.clear()
        for _ in range(20):
            a.send_nowait(b.pid, "note", bytes(MIB))
        await members.settled()
        assert seen == [(b.pid, a.pid, MIB)] * 20


async def test_who_never_settles_is_named() -> None:
    async with fleet(2, drain_timeout=0.1) as members:
        a, b = members
        members[1].receive("wait", lambda data: asyncio.Event().wait())
        await a.send(b.pid, "wait")
        with pytest.raises(TimeoutError, match=f"not settled within 0.05 s: .* at \\[{b.pid}\\]"):
            await members.settled(timeout=0.05)


async def test_a_killed_member_is_gone_at_once_and_the_others_are_told() -> None:
    async with fleet(3) as members:
        a, b, c = members
        told: list[tuple[int, str]] = []
        started, ended = asyncio.Event(), asyncio.Event()

        async def never(data: Any) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        a.on_leave(lambda worker, reason, lost: told.append((worker.pid, reason)))
        b.receive("never", never)
        asking = asyncio.create_task(a.request(b.pid, "never"))
        await started.wait()
        pid = b.pid
        members.kill(b)
        with pytest.raises(NotRunningError):
            b.broadcast_nowait("note")
        with pytest.raises(WorkerGoneError):
            await asking
        await members.settled()
        assert told == [(pid, "killed")]
        assert b.pid == pid
        assert ended.is_set()
        assert [worker.pid for worker in c.workers] == [a.pid, c.pid]
        for gone in (members.kill, members.leave):
            with pytest.raises(NotRunningError, match=f"worker {pid} has gone"):
                await gone(b)  # type: ignore[misc]


async def test_members_come_and_leave_and_slots_are_used_again() -> None:
    async with fleet(2) as members:
        a, b = members
        told: list[tuple[str, int]] = []
        a.on_join(lambda worker: told.append(("join", worker.slot)))
        a.on_leave(lambda worker, reason, lost: told.append((reason, worker.slot)))
        a.receive("bye", lambda data: told.append((data, 0)))
        b.send_nowait(a.pid, "bye", "bye")
        await members.leave(b, "replaced")
        c = await members.add()
        d = await members.add()
        assert (c.slot, d.slot) == (1, 2)
        assert len({a.pid, b.pid, c.pid, d.pid}) == 4
        assert len(a.workers) == len(d.workers) == 3
        c.receive("note", lambda data: d.pid)
        assert await d.request(c.pid, "note") == d.pid
        await members.settled()
        assert told == [("bye", 0), ("replaced", 1), ("join", 1), ("join", 2)]
        assert tuple(members) == (a, b)


async def test_handlers_that_fail_are_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with fleet(2) as members:
        a, b = members
        b.receive("fails", lambda data: {}[data])
        a.send_nowait(b.pid, "fails", "x")
        # To itself, so the context is the test's.
        b.send_nowait(b.pid, "unheard")
        await members.settled()
        assert b.stats().handler_errors == 1
        whose = b.pid
    assert f"worker [{whose}]: handler 'fails'" in caplog.text
    assert f"worker [{whose}] has no handler for messages named 'unheard'" in caplog.text
    assert f"worker [{os.getpid()}]" not in caplog.text


async def test_a_test_that_fails_leaves_nothing_behind() -> None:
    async def fails() -> None:
        async with fleet(3) as (a, b, _):
            there.append(a)
            a.send_nowait(b.pid, "note", bytes(MIB))
            raise AssertionError("on purpose")

    there: list[IPC] = []
    with pytest.raises(AssertionError, match="on purpose"):
        await fails()
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(NotRunningError):
        await there[0].broadcast("note")


async def test_a_cancelled_test_leaves_nothing_behind() -> None:
    entered = asyncio.Event()

    async def living() -> None:
        async with fleet(3) as members:
            members.kill(members[2])
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(living())
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_test_that_is_cancelled_while_its_fleet_joins_leaves_nothing_behind() -> None:
    async def joining() -> None:
        async with fleet(3):
            raise AssertionError("has joined")

    for turns in range(8):
        task = asyncio.create_task(joining())
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or isinstance(task.exception(), AssertionError)


async def test_settings_are_those_of_serve() -> None:
    async with fleet(2, max_message_bytes=2048, max_packet_bytes=512) as (a, b):
        with pytest.raises(ValueError, match="exceeds the limit of 2048 bytes"):
            await a.send(b.pid, "note", bytes(3000))
    wrong: list[dict[str, Any]] = [
        {"size": 0},
        {"size": 17},
        {"size": 2, "drain_timeout": -1.0},
        {"size": 1, "max_packet_bytes": 1},
    ]
    for arguments in wrong:
        with pytest.raises(LauncherError):
            async with fleet(**arguments):
                pass


async def test_sixteen_is_the_most() -> None:
    async with fleet(16) as members:
        assert len(await members[0].broadcast("note")) == 16
        with pytest.raises(LauncherError, match="at most 16"):
            await members.add()


async def test_a_descriptor_that_is_missing_for_a_moment_is_handed_over_later() -> None:
    low, high = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with fleet(1) as members:
        (a,) = members
        a.receive("who", lambda data: a.pid)
        adding = asyncio.create_task(members.add())
        # The newcomer's own ends are there, and there is none left for a copy.
        await asyncio.sleep(0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, high))
        try:
            for _ in range(20):
                await asyncio.sleep(0)
            assert not adding.done()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (low, high))
        b = await adding
        assert await b.request(a.pid, "who") == a.pid


def test_it_runs_on_uvloop() -> None:
    async def asked() -> None:
        async with fleet(3, like=ipc) as members:
            a, b, c = members
            members.kill(c)
            assert await a.request(b.pid, "who") == [b.pid, 1, a.pid, 2]
            await members.settled()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asked())


async def test_two_fleets_have_nothing_to_do_with_each_other() -> None:
    async with fleet(2) as (a, b), fleet(2) as (c, d):
        a.receive("who", lambda data: "a")
        c.receive("who", lambda data: "c")
        assert await b.gather("who", include_self=False) == {a.pid: "a"}
        assert await d.gather("who", include_self=False) == {c.pid: "c"}


# --- like an app's own


async def test_an_apps_own_handlers_run_in_every_member_as_they_stand() -> None:
    async with fleet(3, like=ipc) as members:
        a, b, c = members
        await a.send(b.pid, "say", "hello")
        await members.settled()
        assert chat.heard == [(b.pid, a.pid, "hello"), (a.pid, b.pid, "heard hello")]
        assert await a.request(b.pid, "who") == [b.pid, 1, a.pid, 3]
        assert await c.gather("who") == {each.pid: [each.pid, each.slot, c.pid, 3] for each in (a, b, c)}
        assert await a.request(c.pid, "everybody") == [a.pid, b.pid, c.pid]
        answers = await asyncio.gather(*(a.request(b.pid, "alone", number) for number in range(5)))
        assert answers == [0, 1, 2, 3, 4]


async def test_tasks_and_threads_of_handlers_act_as_the_member() -> None:
    async with fleet(2, like=ipc) as members:
        a, b = members
        await a.send(b.pid, "later", "x")
        await members.settled()
        assert sorted(chat.heard) == [
            (a.pid, b.pid, f"heard x in a task of {b.pid}"),
            (a.pid, b.pid, f"heard x in a thread of {b.pid}"),
        ]


async def test_watchers_act_as_the_member_and_newcomers_have_the_same_handlers() -> None:
    async with fleet(2, like=ipc) as members:
        a, b = members
        pid = b.pid
        members.kill(b)
        c = await members.add()
        assert await c.request(a.pid, "who") == [a.pid, 0, c.pid, 2]
        await members.settled()
        assert chat.gone == [(a.pid, pid, "killed")]


async def test_registrations_are_those_of_the_start_and_each_member_has_its_own() -> None:
    like = IPC()
    like.receive({"early": lambda data: "early", "deleted": lambda data: "still here"})
    async with fleet(2, like=like) as (a, b):
        like.receive({"late": lambda data: "late", "deleted": None})
        a.receive("early", None)
        assert await a.request(b.pid, "early") == "early"
        assert await a.request(b.pid, "deleted") == "still here"
        for asked, name in ((a, "early"), (b, "late")):
            with pytest.raises(NoHandlerError):
                await b.request(asked.pid, name)
    here = IPC()
    here.receive("early", lambda data: "early")
    async with here.lifespan():
        with pytest.raises(LauncherError, match="in its lifespan"):
            async with fleet(1, like=here):
                pass


async def test_what_a_handler_registers_is_the_members_alone() -> None:
    async with fleet(2, like=ipc) as members:
        a, b = members
        await a.send(b.pid, "learn", "trick")
        await members.settled()
        assert await a.request(b.pid, "trick") == f"trick at {b.pid}"
        with pytest.raises(NoHandlerError):
            await b.request(a.pid, "trick")
    assert "trick" not in ipc._own.registry.handlers


async def test_routes_of_an_app_are_called_as_a_member_with_its_lifespan_entered() -> None:
    async with fleet(3, like=ipc) as members:
        a, b, c = members
        lifespans = chat.lifespans
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=chat.app), base_url="http://test"
        ) as client:
            with members.acting(b) as acting:
                assert acting is b
                async with chat.app.router.lifespan_context(chat.app):
                    answer = (await client.get("/post/hi")).json()
            assert chat.lifespans == lifespans + 1
            assert answer == {"pid": b.pid, "told": [a.pid, b.pid, c.pid]}
            await members.settled()
            assert {(who, said) for who, said, text in chat.heard if text == "hi"} == {
                (each.pid, b.pid) for each in (a, b, c)
            }
            with members.acting(c):
                assert (await client.get("/count")).json()["pid"] == c.pid
            await members.settled()
            assert sorted(each for each in chat.heard if each[2] == "from a thread") == [
                (each.pid, c.pid, "from a thread") for each in (a, b, c)
            ]


async def test_outside_of_members_the_apps_ipc_is_not_running() -> None:
    async with fleet(2, like=ipc) as members:
        a, b = members
        assert ipc.pid == os.getpid()
        assert ipc.sender is None
        with pytest.raises(NotRunningError):
            ipc.workers  # noqa: B018
        with pytest.raises(NotRunningError):
            ipc.broadcast_nowait("say", "x")
        with pytest.raises(NotRunningError):
            await ipc.broadcast("say", "x")
        with members.acting(a):
            assert ipc.slot == 0
            assert ipc.stats().sent == a.stats().sent
            with pytest.raises(OutsideHandlerError):
                await ipc.reply("say", "x")
            with pytest.raises(OutsideHandlerError):
                ipc.reply_nowait("say", "x")
            assert await ipc.send_any("heard", "x") in (a.pid, b.pid)
            with members.acting(b):
                assert ipc.pid == b.pid
            assert ipc.pid == a.pid
        await members.leave(b)
        with members.acting(b), pytest.raises(NotRunningError):
            ipc.send_nowait(a.pid, "say", "x")
        with pytest.raises(ValueError, match="no member of this fleet"), members.acting(ipc):
            pass
        with pytest.raises(ValueError, match="no member of this fleet"):
            members.kill(ipc)
    async with fleet(1) as plain:
        with pytest.raises(ValueError, match="says whom a member shall act as"), plain.acting(plain[0]):
            pass


async def test_an_app_that_runs_by_itself_is_not_played() -> None:
    like = IPC()
    like.receive("pid", lambda data: like.pid)
    async with fleet(2, like=like) as (a, b):
        async with like.lifespan():
            assert await a.request(b.pid, "pid") == like.pid == os.getpid()
        assert await a.request(b.pid, "pid") == b.pid


# --- a real server


def test_a_real_server_answers_restarts_replaces_and_stops(asgi_ipc_serve: Serve, tmp_path: Path) -> None:
    server = asgi_ipc_serve("tests.apps.chat:app", workers=2, env={"CHAT_SAYS": "moo"}, cwd=tmp_path)
    assert server.url == f"http://127.0.0.1:{server.port}"
    assert is_running(server.pid)
    place = httpx.get(f"{server.url}/place").json()
    assert place == {"cwd": str(tmp_path.resolve()), "said": "moo"}
    before = server.workers
    assert set(before) == set(children(server.pid))
    answer = httpx.get(f"{server.url}/post/hello").json()
    assert set(answer["told"]) == set(before)
    after = server.restart()
    assert len(after) == 2
    assert not set(before) & set(after)
    assert httpx.get(f"{server.url}/post/hello").json()["pid"] in after
    os.kill(after[0], signal.SIGKILL)
    server.wait_for(rf"Worker \[{after[0]}\] died")
    server.wait_for("Application startup complete", 5)
    assert after[0] not in server.workers
    assert server.stop() == server.stop() == server.status == 0
    assert server.workers == ()
    assert "All workers have been restarted" in server.output


async def test_the_fixture_serves_async_tests_and_several_servers(asgi_ipc_serve: Serve) -> None:
    one = asgi_ipc_serve("tests.apps.chat:app", workers=1)
    two = asgi_ipc_serve("tests.apps.chat:app", "--drain-timeout", "1", workers=1)
    async with httpx.AsyncClient() as client:
        answers = [(await client.get(f"{server.url}/post/x")).json() for server in (one, two)]
    assert [answer["told"] for answer in answers] == [list(one.workers), list(two.workers)]


def test_an_app_that_cannot_start_is_told_with_what_the_server_said() -> None:
    with (
        pytest.raises(ServeError, match="has ended with 3 without saying") as failed,
        serve("tests.apps.broken_start:app", workers=2),
    ):
        pass
    assert "stopping the server" in failed.value.output
    assert failed.value.output in str(failed.value)


def test_who_is_not_ready_in_time_is_killed_with_all_it_has_started(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import threading\nthreading.Event().wait()\n")
    with (
        pytest.raises(ServeError, match=r"has not said .* within 1\.5 s") as failed,
        serve("slow:app", cwd=tmp_path, timeout=1.5),
    ):
        pass
    assert "Started parent process" in failed.value.output


def test_a_restart_that_is_given_up_is_told(asgi_ipc_serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "flaky.py").write_text("from tests.apps.chat import app\n")
    server = asgi_ipc_serve("flaky:app", workers=1, cwd=tmp_path)
    (tmp_path / "flaky.py").write_text("import no_such_module\n")
    with pytest.raises(ServeError, match="given the restart up"):
        server.restart()
    assert httpx.get(f"{server.url}/place").status_code == 200


def test_a_test_that_fails_stops_its_server_and_a_killed_one_is_no_error() -> None:
    with pytest.raises(AssertionError, match="on purpose"), serve("tests.apps.chat:app", workers=1) as server:
        raise AssertionError("on purpose")
    assert server.status == 0
    with serve("tests.apps.chat:app", workers=2) as server:
        workers = server.workers
        os.kill(server.pid, signal.SIGKILL)
    assert server.status == -signal.SIGKILL
    assert not any(map(is_running, workers))


def test_what_does_not_stop_in_time_is_killed(asgi_ipc_serve: Serve) -> None:
    server = asgi_ipc_serve("tests.apps.chat:app", workers=1)
    (worker,) = server.workers
    os.kill(worker, signal.SIGSTOP)
    with pytest.raises(ServeError, match=r"has not stopped within 0.2 s"):
        server.stop(timeout=0.2)
    assert not is_running(worker)
    assert server.stop() == -signal.SIGKILL


_SERVES = """
from asgi_ipc.testing import serve
with serve("tests.apps.chat:app", "--loop", "uvloop", workers=2) as server:
    print(server.pid, *server.workers, flush=True)
    input()
"""

_STARTS = """
import asyncio
from tests.serving import serving
async def main():
    async with serving("tests.apps.chat:app", "--loop", "asyncio", workers=2) as server:
        print(server.pid, *await server.started(2), flush=True)
        await asyncio.to_thread(input)
asyncio.run(main())
"""

_HAS_A_TEST = """
def test_a_server(asgi_ipc_serve, capfd):
    server = asgi_ipc_serve("tests.apps.chat:app", workers=2)
    with capfd.disabled():
        print("", server.pid, *server.workers, flush=True)
        with open(0) as stdin:
            stdin.readline()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells of the end of any process")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("starter", [_SERVES, _STARTS, _HAS_A_TEST])
def test_a_server_does_not_outlive_who_has_started_it(starter: str, number: int, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(starter)
    command = [sys.executable, "-c", starter]
    if starter == _HAS_A_TEST:
        options = ["-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "tests.conftest"]
        command = [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_it.py")]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
    ) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 3
        ends = [os.pidfd_open(pid) for pid in pids]
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == -number
    try:
        deadline = time.monotonic() + DEADLINE_S
        for end in ends:
            assert select.select([end], [], [], max(deadline - time.monotonic(), 0.0))[0]
    finally:
        for end in ends:
            os.close(end)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="what is open is read off /proc")
# From 3.12 on Python warns of a fork beside threads; this child does nothing but look.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_ties_a_server_to_its_test_is_in_no_worker_and_no_child_of_the_test() -> None:
    with serve("tests.apps.chat:app", workers=2) as server:
        assert server._child._tie is not None
        tie = links()[server._child._tie.fd]
        assert descriptors(server.pid).count(tie) == 1
        for worker in server.workers:
            assert tie not in descriptors(worker)
        child = os.fork()
        if not child:
            os._exit(tie in descriptors())
        assert os.waitpid(child, 0)[1] == 0


async def test_topics_of_the_module_level_ipc_are_those_of_the_member_that_acts() -> None:
    async with fleet(2, like=ipc) as members:
        a, b = members
        with members.acting(a):
            subscribed = ipc.subscribe("room")
            await subscribed.__aenter__()
        with members.acting(b):
            assert await ipc.publish("room", "hello") == (a.pid,)
            assert ipc.publish_nowait("room", "again") == (a.pid,)
        await members.settled()
        got = [await anext(subscribed) for _ in range(2)]
        assert [(each.data, each.sender) for each in got] == [("hello", b.pid), ("again", b.pid)]


async def test_a_killed_leaders_task_ends_in_its_own_time_before_another_one_begins() -> None:
    like = IPC()
    running: list[int] = []
    most: list[int] = []
    cleaning, gate = asyncio.Event(), asyncio.Event()

    @like.leader_task
    async def lead() -> None:
        assert like.is_leader
        running.append(like.pid)
        most.append(len(running))
        try:
            await asyncio.Event().wait()
        finally:
            cleaning.set()
            await gate.wait()
            running.remove(like.pid)

    async with fleet(3, like=like) as members:
        await members.settled()
        (leader,) = [member for member in members if member.is_leader]
        a, b = [member for member in members if member is not leader]
        members.kill(leader)
        await cleaning.wait()
        # The death is reported, and a newcomer takes the slot.
        assert [worker.pid for worker in a.workers] == [a.pid, b.pid]
        c = await members.add()
        assert c.slot == 0
        c.receive("who", lambda data: c.pid)
        assert await a.request(c.pid, "who") == c.pid
        assert a.leader is b.leader is c.leader is None
        with pytest.raises(TimeoutError, match=rf"at \[{leader.pid}\]"):
            await members.settled(timeout=0.05)
        gate.set()
        await members.settled()
        assert len(running) == 1
        assert running == [a.leader] != [leader.pid]
        assert a.leader == b.leader == c.leader
        assert [member.pid for member in (a, b, c) if member.is_leader] == running
        with members.acting(a):
            assert await like.claim("job")
        with members.acting(b):
            assert not await like.claim("job")
    assert running == []
    assert set(most) == {1}


async def test_a_killed_leader_that_does_not_end_is_waited_for_no_longer_than_a_leave() -> None:
    like = IPC()
    led: list[int] = []
    gate = asyncio.Event()

    @like.leader_task
    async def lead() -> None:
        led.append(like.pid)
        try:
            await asyncio.Event().wait()
        finally:
            if led == [like.pid]:
                await gate.wait()

    async with fleet(2, like=like, drain_timeout=0.05) as members:
        await members.settled()
        a, b = members
        members.kill(a)
        await members.settled()
        assert b.is_leader
        assert led == [a.pid, b.pid]
    gate.set()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_who_has_gone_holds_no_descriptor_while_the_fleet_lives() -> None:
    async with fleet(2) as members:
        await members.settled()
        before = len(descriptors())
        for number in range(10):
            newcomer = await members.add()
            await members.settled()
            if number % 2:
                members.kill(newcomer)
            else:
                await members.leave(newcomer)
            await members.settled()
            assert newcomer.stats().sent == 0
        assert len(descriptors()) == before
