"""The guard, in processes of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from asgi_ipc.fleet.words import (
    Beat,
    Stuck,
    ToLauncher,
    WordParser,
    decode_for_launcher,
)
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.runtime.guard import EXIT_STATUS, Guard


def test_the_guard_ends_a_process_whose_loop_does_not_turn() -> None:
    code = (
        "import socket, sys, time\n"
        "from asgi_ipc.worker.lifeline import Lifeline\n"
        "from asgi_ipc.worker.runtime import guard\n"
        "guard.GRACE_S = 0.1\n"
        "guard.Guard(Lifeline(int(sys.argv[1])), 1.0).start()\n"
        "print('guarded', flush=True)\n"
        "time.sleep(60)\n"
    )
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", code, str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE) as child:
        theirs.close()
        assert child.stdout is not None
        assert child.stdout.readline() == b"guarded\n"
        assert child.poll() is None
        ours.close()
        assert child.wait(30) == EXIT_STATUS


def test_the_guard_says_once_where_a_loop_stands_that_does_not_turn_and_never_into_another_word() -> None:
    code = (
        "import sys\n"
        "from asgi_ipc.fleet.words import Beat, encode_word\n"
        "from asgi_ipc.worker.lifeline import Lifeline\n"
        "from asgi_ipc.worker.runtime.guard import Guard\n"
        "line = Lifeline(int(sys.argv[1]))\n"
        "guard = Guard(line, 0.02)\n"
        "guard.start()\n"
        "def stands_here():\n"
        "    sys.stdin.readline()\n"
        "guard.beat()\n"
        "stands_here()\n"
        # As a send that the kernel has cut off.
        "line._outgoing += encode_word(Beat())\n"
        "guard.beat()\n"
        "stands_here()\n"
        "line.send(Beat())\n"
        "guard.beat()\n"
        "stands_here()\n"
    )
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    command = [sys.executable, "-c", code, str(theirs.fileno())]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=pipe) as child:
        theirs.close()
        parser = WordParser()
        said: list[ToLauncher] = []

        def hear(count: int) -> None:
            while len(said) < count:
                said.extend(map(decode_for_launcher, parser.feed(ours.recv(65536))))

        def go_on() -> None:
            assert child.stdin is not None
            child.stdin.write(b"\n")
            child.stdin.flush()

        hear(1)
        go_on()
        # It can't speak now, and is not asked again before the next turn.
        ours.settimeout(0.5)
        with pytest.raises(TimeoutError):
            hear(2)
        ours.settimeout(30)
        go_on()
        hear(4)
        go_on()
    ours.close()
    first, *beats, last = said
    assert beats == [Beat(), Beat()]
    for each in (first, last):
        assert isinstance(each, Stuck)
        assert "in stands_here" in each.stack


def test_the_guard_leaves_a_process_alone_whose_launcher_lives() -> None:
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        lifeline = Lifeline(theirs.detach())
        Guard(lifeline, 1.0).start()
        lifeline.send(Beat())
        signal.pause()
    theirs.close()
    assert ours.recv(100)
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    ours.close()
