"""Workers as children of `multiprocessing`, which has not started them: they get what its children get.

Law: every private name of the standard library stands in this file, tried with Python 3.11.7, 3.12.1 and
3.13.0. Workers are prepared as spawn.py prepares its children (`get_preparation_data`, `prepare`,
`spawn_main`): if a later Python lacks a name, no worker starts, with an AttributeError. Both ends of the
tracker's pipe belong to its own module, so its protocol may change. `argument_of_child` and
`is_importing_main` only look: without their names one warning and one error are missing.
"""

from __future__ import annotations

import os
import subprocess
from multiprocessing import current_process, get_start_method, process, resource_tracker, spawn, util
from typing import Any, Final

# A program that PyInstaller has frozen, and that calls freeze_support(), knows a tracker by these words.
_TRACKER: Final = "from multiprocessing.resource_tracker import main;main({})"


def for_children() -> dict[str, Any]:
    """In the parent: what its children are given, as plain data. One of it, `authkey`, is a secret."""
    data = {
        "authkey": bytes(current_process().authkey),
        "log_to_stderr": util._log_to_stderr,  # type: ignore[attr-defined]
        "parent_name": current_process().name,
    }
    logger = util._logger  # type: ignore[attr-defined]
    if logger is not None:
        data["log_level"] = logger.getEffectiveLevel()
    method = get_start_method(allow_none=True)
    if method is not None:  # chosen by the program; otherwise an app may choose
        data["start_method"] = method
    return data


def be_child(data: dict[str, Any], name: str, tracker_fd: int, sentinel_fd: int) -> None:
    """In a child: take what `for_children` has given.

    `sentinel_fd` can be read as soon as the parent has ended.
    """
    parent = process._ParentProcess(  # type: ignore[attr-defined]
        data.pop("parent_name"), os.getppid(), sentinel_fd
    )
    process._parent_process = parent  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._fd = tracker_fd  # type: ignore[attr-defined]
    spawn.prepare({**data, "name": name})


def argument_of_child(name: str) -> Any:
    """Return the keyword argument with which `multiprocessing` started this process; None without one."""
    return getattr(current_process(), "_kwargs", {}).get(name) if process.parent_process() else None


def program_tracker() -> int | None:
    """Return the write end of this process's tracker, its own or its parent's; None if it has none now.

    A tracker that has died is started again.
    """
    if resource_tracker._resource_tracker._fd is None:  # type: ignore[attr-defined]
        return None
    return resource_tracker.getfd()


def is_importing_main() -> bool:
    """Return whether this is a child of `multiprocessing` that imports the program's main module just now.

    `multiprocessing` asks the same before a child may start a child.
    """
    return getattr(current_process(), "_inheriting", False)


def interpreter_flags() -> list[str]:
    """The options of this interpreter, for another one: `-X dev`, `-W error`..."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as spawn.py
    return flags


def tracker_command(fd: int) -> list[str]:
    """How a tracker that reads from `fd` is started."""
    return [os.fsdecode(spawn.get_executable()), *interpreter_flags(), "-c", _TRACKER.format(fd)]
