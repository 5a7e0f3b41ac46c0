"""Places: where `run` may be called, and the app that the calling script is itself.

Law: a wrong place is one error, before this process binds or starts anything.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from pathlib import Path
from typing import Final

from asgi_ipc.errors import LauncherError
from asgi_ipc.worker import assignment

# For a script that is imported by its own workers, too.
_GUARD: Final = "call it below: if __name__ == '__main__':"


def check(module: str) -> None:
    """Raises LauncherError unless a server can be started now; `module` is what calls `run`."""
    called = f"asgi_ipc.run() was called by the module {module!r}"
    if assignment.current is not None:
        raise LauncherError(f"{called} in a worker, which imports it; {_GUARD}")
    # multiprocessing itself asks this before a child of its own may start another one.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise LauncherError(f"{called} in a child process, which imports it; {_GUARD}")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise LauncherError(f"{called} inside a running event loop, and needs to run its own; {_GUARD}")


def importable(app: str) -> str:
    """The app of the script that runs, by the name under which a worker can import it."""
    if not isinstance(app, str) or not app.startswith("__main__:"):
        return app
    main = sys.modules["__main__"]
    if main.__spec__ is not None:  # python -m
        name = main.__spec__.name
    elif getattr(main, "__file__", None):
        name = Path(str(main.__file__)).stem
    else:
        raise LauncherError(f"no worker can import {app!r}: the program that runs is in no file")
    return app.replace("__main__", name, 1)
