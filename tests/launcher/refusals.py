"""Refusals: what a start that must not be says, in a process of its own.

Law: it is one line that names the option, and nothing has been started.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from asgi_ipc.cli import main
from tests.serving import DEADLINE_S

APP = "tests.apps.plain:app"


def forked(call: Callable[[], Any]) -> tuple[int, str]:
    """Return what a process makes of that call, and all that it says. In a fork: the modules are loaded."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        _child(call, write_end)
    os.close(write_end)
    with open(read_end, "rb") as output:
        said = output.read().decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def _child(call: Callable[[], Any], output: int) -> NoReturn:
    # One that starts to serve all the same.
    signal.alarm(int(DEADLINE_S))
    for number in (1, 2):
        os.dup2(output, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    # Open, and no socket.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 3)
    status = 70
    try:
        call()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def check_line(option: str, status: int, said: str) -> None:
    """It has said one line, which names the option."""
    assert status in (1, 2, 3), said
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith(("Error: ", "ERROR:"))]
    assert len(lines) == 1, said
    assert option in lines[0], said
    rest = {*said.splitlines()} - {*lines}
    assert all(line.startswith(("Usage: ", "Try ", "INFO: ")) or not line for line in rest), said
    assert "Started parent process" not in said
    assert "running on" not in said


def run_command(arguments: list[str], env: Mapping[str, str]) -> Callable[[], Any]:
    """Return the call that serves with these options."""

    def call() -> None:
        os.environ.update(env)
        main(["serve", APP, *arguments], prog_name="asgi-ipc")

    return call
