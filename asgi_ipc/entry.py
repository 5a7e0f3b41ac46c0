"""Entry: `asgi_ipc.run`, its options, and where it may be called.

Law: a wrong place is one error, before this process binds or starts anything. The launcher is imported only
when a server is to start: workers import this package, too.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from asgi_ipc import frozen, multiprocess
from asgi_ipc.errors import LauncherError
from asgi_ipc.worker import assignment

NEEDS_UNIX: Final = "serving with several workers needs Unix pipes; on Windows an app runs as a fleet of one"

# For a script that is imported by its own workers, too.
_GUARD: Final = "call it below: if __name__ == '__main__':"


class Options(TypedDict, total=False):
    """The options of `run`: ours, and uvicorn's as far as they are plain data.

    An option of a newer uvicorn that is not here is passed on all the same.
    """

    # Ours; see fleet/settings.py.
    drain_timeout: float
    exit_timeout: float
    worker_hang_timeout: float | None
    max_message_bytes: int
    max_packet_bytes: int
    pipe_bytes: int | None
    uds_mode: str | int | None
    uds_owner: str | None
    wrap: bool
    stop_at_eof: int | None
    # Of a cluster; see launcher/clustering.py.
    cluster: str | None
    cluster_name: str | None
    cluster_ca_file: str | PathLike[str] | None
    cluster_secret_file: str | PathLike[str] | None
    cluster_outbox_bytes: int
    node_name: str
    # Those of `uvicorn.run`.
    app_dir: str | PathLike[str] | None
    host: str
    port: int
    uds: str | None
    fd: int | None
    loop: str
    http: str
    http2: bool
    ws: str
    ws_max_size: int
    ws_max_queue: int
    ws_ping_interval: float | None
    ws_ping_timeout: float | None
    ws_per_message_deflate: bool
    lifespan: str
    env_file: str | PathLike[str] | None
    log_config: dict[str, Any] | str | PathLike[str] | None
    log_level: str | int | None
    access_log: bool
    use_colors: bool | None
    interface: str
    reload: bool
    reload_dirs: list[str] | str | None
    reload_delay: float
    reload_includes: list[str] | str | None
    reload_excludes: list[str] | str | None
    proxy_headers: bool
    server_header: bool
    date_header: bool
    forwarded_allow_ips: list[str] | str | None
    root_path: str
    limit_concurrency: int | None
    limit_max_requests: int | None
    limit_max_requests_jitter: int
    backlog: int
    timeout_keep_alive: float
    timeout_notify: float
    timeout_graceful_shutdown: float | None
    timeout_worker_healthcheck: float
    ssl_keyfile: str | PathLike[str] | None
    ssl_certfile: str | PathLike[str] | None
    ssl_keyfile_password: str | None
    ssl_version: int
    ssl_cert_reqs: int
    ssl_ca_certs: str | PathLike[str] | None
    ssl_ciphers: str | None
    headers: list[tuple[str, str]] | None
    factory: bool
    h11_max_incomplete_event_size: int | None
    reset_contextvars: bool


def run(app: str, *, workers: int | None = None, **options: Unpack[Options]) -> None:
    """Serve `app` ("module:attribute") with that many workers, until it is stopped.

    The same as `asgi-ipc serve`, from Python; the calling script's folder is
    where the app is looked for, too, and workers have its `sys.argv`. Blocks;
    must be called on the main thread, with no event loop running, and below
    `if __name__ == "__main__":` where workers import the calling module.

    Args:
        app: where the app is, as "module:attribute". Workers import that module.
        workers: how many; None: $WEB_CONCURRENCY, or 1.
        **options: those of `uvicorn.run`, as far as they are plain data, and
            `drain_timeout`, `exit_timeout`, `worker_hang_timeout` (seconds),
            `max_message_bytes`, `max_packet_bytes`, `pipe_bytes`,
            `uds_mode`, `uds_owner`, `wrap`, and those of a cluster: `cluster`,
            `cluster_name`, `node_name`, `cluster_ca_file`,
            `cluster_secret_file`, `cluster_outbox_bytes`.

    Raises:
        LauncherError: an option or the place of the call is wrong.
        SystemExit: the server could not start, or was forced to stop; the
            reason has been logged.
    """
    if sys.platform == "win32":
        raise LauncherError(NEEDS_UNIX)
    become_worker()
    check(sys._getframe(1).f_globals.get("__name__", "?"))
    from asgi_ipc.launcher.serve import serve

    status = serve(importable(app), workers=workers, options=options)
    if status:
        raise SystemExit(status)


def become_worker() -> None:
    """Run the worker that a frozen program is, and never return; or the child of `multiprocessing`."""
    if not frozen.IS_FROZEN:
        return
    if frozen.WORKER_ARGUMENTS is not None:
        from asgi_ipc.worker.main import main

        main(frozen.WORKER_ARGUMENTS)
        raise SystemExit(0)
    # Only this keeps a pool's process, or a resource tracker, from being one more server.
    multiprocessing.freeze_support()


def check(module: str) -> None:
    """Raises LauncherError unless a server can be started now; `module` is what calls `run`."""
    called = f"asgi_ipc.run() was called by the module {module!r}"
    if assignment.current is not None:
        raise LauncherError(f"{called} in a worker, which imports it; {_GUARD}")
    if multiprocess.is_importing_main():
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
