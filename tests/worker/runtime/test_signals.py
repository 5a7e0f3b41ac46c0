"""Signals: who ends of which, what children inherit, and what the starter may have done to them."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from asgi_ipc.testing.child import is_running
from tests.processes import masks
from tests.serving import free_port, serving, serving_by, started

APP = "tests.apps.signalled:app"
SERVERS = ["asgi-ipc", "uvicorn"]

# signal(7): nothing happens unless the process has asked for it.
HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
BEYOND_HANDLING = {signal.SIGKILL, signal.SIGSTOP}

# What all of a server's work hangs on.
RELIED_ON = {
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD),
    *(signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1),
}


def _bits(signals: set[signal.Signals]) -> int:
    return sum(1 << (number - 1) for number in signals)


def _survives(pid: int) -> set[int]:
    """The signals that don't end that process, nor stop it, by the kernel's word."""
    seen = masks(pid)
    kept = seen["SigIgn"] | seen["SigCgt"]
    return {n for n in signal.valid_signals() - BEYOND_HANDLING if n in HARMLESS or kept >> (n - 1) & 1}


def _under(blocked: set[signal.Signals], ignored: set[signal.Signals]) -> tuple[str, ...]:
    """A starter that leaves these blocked and those ignored."""
    code = (
        f"import os, signal, sys\nsignal.pthread_sigmask(signal.SIG_BLOCK, {sorted(map(int, blocked))})\n"
        f"for number in {sorted(map(int, ignored))}: signal.signal(number, signal.SIG_IGN)\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    return (sys.executable, "-c", code)


async def test_what_does_not_end_uvicorn_ends_neither_the_launcher_nor_a_worker() -> None:
    async with serving_by("uvicorn", APP) as uvicorn, serving_by("asgi-ipc", APP) as ours:
        assert _survives(uvicorn.pid) <= _survives(ours.pid)
        for theirs, own in zip(uvicorn.ever_started(), ours.ever_started(), strict=True):
            assert _survives(theirs) <= _survives(own)
            # And the other way round, what is meant to end a process does.
            assert _survives(own) - _survives(theirs) == {
                *(signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU),  # a terminal's, to the whole group
            }


@pytest.mark.parametrize("by", SERVERS)
async def test_a_server_goes_on_after_every_signal_that_means_nothing_to_it(by: str) -> None:
    async with serving_by(by, APP) as server:
        workers = server.ever_started()
        for number in sorted(_survives(server.pid) - {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}):
            if number not in (signal.SIGTTIN, signal.SIGTTOU):
                server.signal(number)
        server.signal(signal.SIGTTIN)
        await server.said("Application startup complete", 3)
        assert all(map(is_running, workers))
        assert (await server.get("/")).status_code == 200


@pytest.mark.parametrize("by", SERVERS)
async def test_a_worker_goes_on_after_every_signal_that_means_nothing_to_it(by: str) -> None:
    async with serving_by(by, APP, "--loop", "asyncio") as server:
        (a, b) = server.ever_started()
        for number in sorted(_survives(a) - {signal.SIGTERM, *([signal.SIGINT] if by == "uvicorn" else [])}):
            os.kill(a, number)
        answers = {(await server.get("/")).json() for _ in range(20)}
        assert answers <= {a, b}
        assert is_running(a)


@pytest.mark.parametrize("by", SERVERS)
@pytest.mark.parametrize("how", ["popen", "posix_spawn"])
async def test_a_program_that_a_worker_starts_has_every_signal_as_it_would_have_it_elsewhere(
    how: str, by: str
) -> None:
    async with serving_by(by, APP) as server:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
            for query in ("", "?thread"):
                answer = (await server.get(f"/child/{how}/{int(number)}{query}")).json()
                assert answer["SigBlk"] == answer["SigCgt"] == 0
                # Python ignores these two, and only subprocess undoes it.
                assert answer["SigIgn"] & ~_bits({signal.SIGPIPE, signal.SIGXFSZ}) == 0
                assert answer["status"] == -number


@pytest.mark.parametrize("how", ["fork", "multiprocessing"])
async def test_a_forked_child_has_pythons_own_handlers(how: str) -> None:
    async with serving_by("asgi-ipc", APP) as server:
        for number in (signal.SIGHUP, signal.SIGTERM, *([signal.SIGINT] if how == "fork" else [])):
            for query in ("", "?thread"):
                answer = (await server.get(f"/child/{how}/{int(number)}{query}")).json()
                assert answer["SigBlk"] == 0
                assert answer["status"] == -number


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_signals_that_the_starter_has_blocked_reach_the_launcher_and_the_workers(loop: str) -> None:
    under = _under(RELIED_ON, {signal.SIGCHLD, signal.SIGALRM, signal.SIGHUP})
    async with serving_by("asgi-ipc", APP, "--loop", loop, under=under) as server:
        (a, b) = server.ever_started()
        os.kill(a, signal.SIGKILL)
        await server.said(rf"Worker \[{a}\] died: it was killed by SIGKILL; starting another")
        await server.said("Application startup complete", 3)
        assert not is_running(a)
        os.kill(b, signal.SIGTERM)
        await server.said(rf"Finished server process \[{b}\]")
        await server.said("Application startup complete", 4)
        server.signal(signal.SIGTTIN)
        await server.said("Application startup complete", 5)
        await server.restart()
        # The event loop's own way of waiting for children relies on SIGCHLD under uvloop.
        assert (await server.get("/program")).json() == 7


async def test_children_have_the_mask_that_the_starter_had_and_ignore_nothing() -> None:
    blocked = {*RELIED_ON, signal.SIGUSR2}
    under = _under(blocked, {signal.SIGCHLD, signal.SIGALRM, signal.SIGHUP})
    async with serving_by("asgi-ipc", APP, under=under) as server:
        for how in ("popen", "fork"):
            for query in ("", "?thread"):
                answer = (await server.get(f"/child/{how}/{int(signal.SIGALRM)}{query}")).json()
                assert answer["SigBlk"] == _bits(blocked)
                assert answer["SigIgn"] & ~_bits({signal.SIGPIPE, signal.SIGXFSZ}) == 0
                assert answer["status"] == -signal.SIGALRM


@pytest.mark.parametrize("blocked", [set(), RELIED_ON], ids=["nothing blocked", "blocked"])
async def test_a_stop_while_the_app_is_imported_is_heard(blocked: set[signal.Signals]) -> None:
    env = {"SIGNALLED_IMPORT": "1"}
    async with serving(APP, env=env, under=_under(blocked, set())) as server:
        await server.said("the app is being imported", 2)


async def test_run_gives_back_mask_and_handlers() -> None:
    code = (
        "import signal, threading, os\n"
        "import asgi_ipc\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})\n"
        "signal.signal(signal.SIGUSR1, signal.SIG_IGN)\n"
        f"asgi_ipc.run({APP!r}, port={free_port()}, workers=1)\n"
        "print('back', signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGHUP},"
        " signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN,"
        " signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
    )
    async with started("-c", code) as server:
        await server.said("Application startup complete")
        assert await server.stop() == 0
        assert server.count("back True True True") == 1
