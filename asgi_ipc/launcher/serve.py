"""Serve: from options to a running launcher.

Law: every option that is not our own is uvicorn's, by its name, and passes
through untouched. A wrong option is one clear error, before anything has been
started.
"""

from __future__ import annotations

import asyncio
import copy
import difflib
import inspect
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import uvicorn
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE

from asgi_ipc import frozen
from asgi_ipc.cluster.nodes import NODE_ID_BYTES
from asgi_ipc.errors import LauncherError
from asgi_ipc.fleet.settings import OPTIONS, Settings
from asgi_ipc.fleet.slots import Policy
from asgi_ipc.fleet.words import Helper, Interpreter, encodable
from asgi_ipc.launcher import clustering
from asgi_ipc.launcher.launcher import Launch, Launcher
from asgi_ipc.launcher.limits import check_descriptors
from asgi_ipc.launcher.listening import Listener, parse_mode, parse_owner
from asgi_ipc.launcher.options import (
    check,
    check_descriptor,
    check_hang_timeout,
    check_own,
    check_workers,
    configured,
)
from asgi_ipc.logs import server_logger as logger
from asgi_ipc.wire.packet import COOKIE_BYTES

# 64 workers and their pipes fit an unprivileged user's 1,024 descriptors;
# beyond some hundreds, every worker holding a pipe to every other is the
# wrong tool.
MAX_WORKERS: Final = 512

# A worker that was told to stop has its requests' grace, its drain timeout,
# its exit timeout, and this for the app's own shutdown.
SHUTDOWN_MARGIN_S: Final = 10.0

# Only the parent needs these: workers watch no files.
_PARENT_ONLY: Final = frozenset(
    {"reload", "reload_dirs", "reload_includes", "reload_excludes", "reload_delay", "app_dir"}
)


def serve(
    app: str,
    *,
    workers: int | None,
    options: Mapping[str, Any],
    argv: Sequence[str] | None = None,
    helpers: tuple[Helper, ...] = (),
) -> int:
    """Serve until stopped; the exit status. Raises LauncherError for what is wrong from the start.

    Args:
        argv: what workers find in `sys.argv`; None: this process's own.
        helpers: processes of other kinds that run beside the workers.
    """
    if threading.current_thread() is not threading.main_thread():
        raise LauncherError("serve on the main thread: only it gets signals")
    if not isinstance(app, str):
        raise LauncherError('pass the app as an import string, "module:attribute"')
    helpers = (*helpers, *clustering.bridge_of(options, app))
    own, theirs = _split({name: options[name] for name in options.keys() - clustering.OPTIONS})
    if own.stop_at_eof is not None:
        # epoll takes no files (epoll_ctl(2), EPERM), and they have no end that could come.
        check_descriptor("stop_at_eof", own.stop_at_eof, may_be_pipe=True)
        # No process that is started here may hold it.
        os.set_inheritable(own.stop_at_eof, False)
    mode = None if own.uds_mode is None else parse_mode(own.uds_mode)
    owner = (-1, -1) if own.uds_owner is None else parse_owner(own.uds_owner)
    config, count = _configure(app, workers, theirs)
    if config.uds is None and (mode is not None or own.uds_owner is not None):
        raise LauncherError(f"{'uds_owner' if mode is None else 'uds_mode'} needs --uds, too")
    check_descriptors(count)
    for_workers = _for_workers(theirs | {"app": app, "workers": count})
    try:
        listener = Listener(config, mode, owner)
    except LauncherError as error:
        # As uvicorn does, among the server's own lines.
        logger.error("%s", error)
        return STARTUP_FAILURE
    try:
        interpreter = Interpreter(
            sys_path=encodable(sys.path),
            argv=encodable(list(sys.argv if argv is None else argv)),
            signal_mask=sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        )
        changes = partial(_changes, config) if config.should_reload else None
        policy = _policy(config, own, count)
        run = Launch(policy, [listener.socket], own, interpreter, for_workers, changes, helpers)
        logger.info("Started parent process [%d]", os.getpid())
        status = asyncio.run(Launcher(run).run())
        logger.info("Stopping parent process [%d]", os.getpid())
        return status
    finally:
        listener.close()


def _split(options: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
    known = inspect.signature(uvicorn.Config.__init__).parameters
    theirs = {name: value for name, value in options.items() if name not in OPTIONS}
    for name, value in theirs.items():
        if name not in known and name != "app_dir":
            every = [*OPTIONS, *clustering.OPTIONS, *known.keys() - {"self", "app"}]
            near = difflib.get_close_matches(name, every, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise LauncherError(f"there is no option {name!r}{hint}")
        if isinstance(value, os.PathLike):
            theirs[name] = os.fspath(value)
    # Under uvicorn this ends a worker that does not answer; so it does here.
    if theirs.get("timeout_worker_healthcheck") is not None:
        check_hang_timeout("timeout_worker_healthcheck", theirs["timeout_worker_healthcheck"])
        if options.get("worker_hang_timeout") is None:
            options = {**options, "worker_hang_timeout": theirs["timeout_worker_healthcheck"]}
    given = {name: options[name] for name in OPTIONS & options.keys()}
    given["node_name"] = given.get("node_name") or socket.gethostname()
    own = Settings(cookie=secrets.token_bytes(COOKIE_BYTES), node=secrets.token_hex(NODE_ID_BYTES), **given)
    check_own(own)
    return own, theirs


def _configure(app: str, workers: int | None, theirs: dict[str, Any]) -> tuple[uvicorn.Config, int]:
    """uvicorn's Config for the parent, and the number of workers."""
    check(theirs)
    if workers is not None:
        check_workers(workers, MAX_WORKERS)
    if theirs.get("reload"):
        try:
            import watchfiles  # noqa: F401
        except ImportError as error:
            raise LauncherError(
                "--reload needs watchfiles: pip install 'asgi-worker-ipc[reload]', or uvicorn[standard]"
            ) from error
    if theirs.get("app_dir") is not None:
        sys.path.insert(0, theirs["app_dir"])
    theirs["log_config"] = _with_our_logger(theirs.get("log_config", LOGGING_CONFIG), theirs.get("log_level"))
    config = configured(app, {name: theirs[name] for name in theirs.keys() - {"app_dir", "workers"}})
    # After Config, which reads --env-file.
    return config, check_workers(workers, MAX_WORKERS)


def _with_our_logger(log_config: Any, log_level: str | int | None) -> Any:
    """uvicorn's own logging configuration, with the package's logger beside uvicorn's."""
    if log_config is not LOGGING_CONFIG:
        return log_config
    log_config = copy.deepcopy(LOGGING_CONFIG)
    level = log_level.upper() if isinstance(log_level, str) else log_level
    ours = {
        "handlers": ["default"],
        "level": level or "INFO",
        "propagate": False,
    }
    log_config["loggers"]["asgi_ipc"] = ours
    return log_config


def _for_workers(theirs: dict[str, Any]) -> dict[str, Any]:
    """The options as the handover carries them."""
    for_workers = {}
    for name in theirs.keys() - _PARENT_ONLY:
        try:
            for_workers[name] = encodable(theirs[name])
            msgspec.msgpack.encode(for_workers[name])
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise LauncherError(f"option {name!r} can't be handed to a worker process: {error}") from error
    return for_workers


def _policy(config: uvicorn.Config, own: Settings, count: int) -> Policy:
    graceful_s = config.timeout_graceful_shutdown
    leave_s = own.drain_timeout + own.exit_timeout
    return Policy(
        workers=count,
        hang_timeout_s=own.worker_hang_timeout,
        stop_timeout_s=None if graceful_s is None else graceful_s + leave_s + SHUTDOWN_MARGIN_S,
        outlive_failed_start=config.should_reload,
        # The longest response, then its connection idle for as long as it may be, then one more request.
        linger_s=config.timeout_keep_alive + 2 * (graceful_s or 0),
        # A program in one file has a parent that unpacks it, waits, and hands on each signal.
        signals_come_twice=frozen.IS_FROZEN,
    )


async def _changes(config: uvicorn.Config) -> AsyncIterator[str]:
    """A line for every change of a watched file, as uvicorn's own reloader filters them."""
    import watchfiles
    from uvicorn.supervisors.watchfilesreload import FileFilter

    wanted = FileFilter(config)
    async for changes in watchfiles.awatch(
        *config.reload_dirs, watch_filter=None, ignore_permission_denied=True
    ):
        paths = sorted({Path(path) for _, path in changes if wanted(Path(path))})
        if paths:
            yield f"WatchFiles detected changes in {', '.join(map(_shown, paths))}"


def _shown(path: Path) -> str:
    try:
        return repr(str(path.relative_to(Path.cwd())))
    except ValueError:
        return repr(str(path))
