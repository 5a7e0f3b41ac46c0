"""Serve: from options to a running launcher.

Law: every option that is not our own is uvicorn's, by its name, and passes
through untouched. What is wrong with an option is one clear message, before
anything has been started.
"""

from __future__ import annotations

import asyncio
import copy
import difflib
import errno
import inspect
import logging
import os
import secrets
import select
import signal
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import uvicorn
from uvicorn.config import LOGGING_CONFIG, STARTUP_FAILURE

from asgi_ipc.errors import LauncherError
from asgi_ipc.launcher import starter
from asgi_ipc.launcher.launcher import Launcher, Run
from asgi_ipc.launcher.limits import check_descriptors
from asgi_ipc.protocol.lifeline import Handover
from asgi_ipc.protocol.outbox import MAX_OUTBOX_BYTES
from asgi_ipc.protocol.packet import COOKIE_BYTES, MIN_PACKET_BYTES
from asgi_ipc.protocol.slots import Policy

logger = logging.getLogger("uvicorn.error")

# 64 workers and their pipes fit an unprivileged user's 1,024 descriptors;
# beyond some hundreds, every worker holding a pipe to every other is the
# wrong tool.
MAX_WORKERS: Final = 512

# A worker that was told to stop has its requests' grace, its drain timeout,
# its exit timeout, and this for the app's own shutdown.
SHUTDOWN_MARGIN_S: Final = 10.0

# What only the parent needs; workers don't watch files and don't have workers.
_PARENT_ONLY: Final = frozenset(
    {"reload", "reload_dirs", "reload_includes", "reload_excludes", "reload_delay", "workers", "app_dir"}
)


@dataclass(frozen=True, slots=True)
class OwnOptions:
    """The options that uvicorn does not have.

    Attributes:
        drain_timeout: seconds that a leaving worker may take to deliver and handle its messages.
        exit_timeout: seconds that its process may take after that to end by itself.
        worker_hang_timeout: replace a worker whose event loop has stood still so long; None: never.
        max_message_bytes: the largest encoded message.
        max_packet_bytes: the largest packet, at most the system's PIPE_BUF.
        pipe_bytes: the capacity to ask for each pipe; None: the system's default.
        wrap: put `ipc.wrap` around the app.
        stop_at_eof: the descriptor of a pipe or socket whose end of file is one stop; None: only signals are.
    """

    drain_timeout: float = 10.0
    exit_timeout: float = 2.0
    worker_hang_timeout: float | None = None
    max_message_bytes: int = 16 * 1024 * 1024
    max_packet_bytes: int = getattr(select, "PIPE_BUF", 512)
    pipe_bytes: int | None = None
    wrap: bool = False
    stop_at_eof: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.wrap, bool):
            raise LauncherError(f"wrap is True or False, not {self.wrap!r}")
        _check_range("drain_timeout", self.drain_timeout, 0.0, 86_400.0)
        _check_range("exit_timeout", self.exit_timeout, 0.0, 86_400.0)
        if self.worker_hang_timeout is not None:
            _check_range("worker_hang_timeout", self.worker_hang_timeout, 4.0, 86_400.0)
        # An outbox must take the largest message when it is empty.
        _check_range("max_message_bytes", self.max_message_bytes, 1024, MAX_OUTBOX_BYTES)
        _check_range("max_packet_bytes", self.max_packet_bytes, MIN_PACKET_BYTES, select.PIPE_BUF)
        if self.pipe_bytes is not None:
            _check_range("pipe_bytes", self.pipe_bytes, 4096, 1024 * 1024)


def serve(app: str, *, workers: int | None, options: Mapping[str, Any]) -> int:
    """Serve until stopped; the exit status. Raises LauncherError for what is wrong from the start."""
    if threading.current_thread() is not threading.main_thread():
        raise LauncherError("serve on the main thread: only it gets signals")
    if not isinstance(app, str):
        raise LauncherError('pass the app as an import string, "module:attribute"')
    own, theirs = _split(options)
    if own.stop_at_eof is not None:
        starter.take(own.stop_at_eof)
    config, count = _configure(app, workers, theirs)
    check_descriptors(count)
    where = _Where(config)
    logger.addFilter(where)
    try:
        sock = config.bind_socket()
    except SystemExit:
        # uvicorn has logged the reason.
        return STARTUP_FAILURE
    except OSError as error:
        raise LauncherError(f"can't listen on {where.place}: {error}") from error
    finally:
        logger.removeFilter(where)
    sock.set_inheritable(False)
    try:
        return _run(config, count, own, theirs | {"app": app}, sock)
    finally:
        sock.close()
        if config.uds and os.path.exists(config.uds):
            os.remove(config.uds)


class _Where(logging.Filter):
    """Says where, when uvicorn says that it can't listen."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__()
        self._has_port = config.uds is None and config.fd is None
        descriptor = None if config.fd is None else f"descriptor {config.fd}"
        self.place = config.uds or descriptor or f"{config.host}:{config.port}"

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            # uvicorn logs the error itself.
            is_in_use = self._has_port and getattr(record.msg, "errno", None) == errno.EADDRINUSE
            hint = "; --port chooses another one" if is_in_use else ""
            record.msg = f"can't listen on {self.place}: {record.msg}{hint}"
        return True


def _split(options: Mapping[str, Any]) -> tuple[OwnOptions, dict[str, Any]]:
    names = {field.name for field in fields(OwnOptions)}
    known = inspect.signature(uvicorn.Config.__init__).parameters
    theirs = {name: value for name, value in options.items() if name not in names}
    for name, value in theirs.items():
        if name not in known and name != "app_dir":
            near = difflib.get_close_matches(name, [*names, *known.keys() - {"self", "app"}], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise LauncherError(f"there is no option {name!r}{hint}")
        if isinstance(value, os.PathLike):
            theirs[name] = os.fspath(value)
    return OwnOptions(**{name: options[name] for name in names & options.keys()}), theirs


def _configure(app: str, workers: int | None, theirs: dict[str, Any]) -> tuple[uvicorn.Config, int]:
    """uvicorn's Config for the parent, and the number of workers."""
    if theirs.get("app_dir") is not None:
        sys.path.insert(0, theirs["app_dir"])
    theirs["log_config"] = _with_our_logger(theirs.get("log_config", LOGGING_CONFIG), theirs.get("log_level"))
    passed = {name: value for name, value in theirs.items() if name not in ("app_dir", "workers")}
    # uvicorn would warn that it ignores workers when it reloads; we don't.
    config = uvicorn.Config(app, workers=1 if theirs.get("reload") else workers, **passed)
    if workers is None:
        # After Config, which reads --env-file.
        workers = config.workers if not theirs.get("reload") else int(os.environ.get("WEB_CONCURRENCY", "1"))
    _check_range("workers", workers, 1, MAX_WORKERS)
    return config, workers


def _with_our_logger(log_config: Any, log_level: str | int | None) -> Any:
    """uvicorn's own logging configuration, with a logger for the messages' side beside uvicorn's."""
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


def _run(config: uvicorn.Config, workers: int, own: OwnOptions, theirs: dict[str, Any], sock: Any) -> int:
    for_workers = {name: value for name, value in theirs.items() if name not in _PARENT_ONLY}
    for_workers["workers"] = workers
    for name, value in for_workers.items():
        try:
            msgspec.msgpack.encode(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise LauncherError(f"option {name!r} can't be handed to a worker process: {error}") from error
    graceful_s = config.timeout_graceful_shutdown
    leave_s = own.drain_timeout + own.exit_timeout
    policy = Policy(
        workers=workers,
        hang_timeout_s=own.worker_hang_timeout,
        stop_timeout_s=None if graceful_s is None else graceful_s + leave_s + SHUTDOWN_MARGIN_S,
        outlive_failed_start=config.should_reload,
        # A response that is sent for as long as it may; its connection idle as long as that may be; one
        # more request on it.
        linger_s=config.timeout_keep_alive + 2 * (graceful_s or 0),
    )
    handover = partial(
        Handover,
        cookie=secrets.token_bytes(COOKIE_BYTES),
        sys_path=list(sys.path),
        max_packet_bytes=own.max_packet_bytes,
        max_message_bytes=own.max_message_bytes,
        drain_timeout_s=own.drain_timeout,
        exit_timeout_s=own.exit_timeout,
        signal_mask=sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        uvicorn=for_workers,
        wrap=own.wrap,
    )
    changes = partial(_changes, config) if config.should_reload else None
    if changes is not None:
        _need_watchfiles()
    logger.info("Started parent process [%d]", os.getpid())
    status = asyncio.run(_launch(Run(policy, [sock], handover, own.pipe_bytes, changes, own.stop_at_eof)))
    logger.info("Stopping parent process [%d]", os.getpid())
    return status


async def _launch(run: Run) -> int:
    return await Launcher(run).run()


def _need_watchfiles() -> None:
    try:
        import watchfiles  # noqa: F401
    except ImportError as error:
        raise LauncherError(
            "--reload needs watchfiles: pip install 'asgi-worker-ipc[reload]', or uvicorn[standard]"
        ) from error


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


def _check_range(name: str, value: Any, low: float, high: float) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise LauncherError(f"{name} is a number from {low} to {high}, not {value!r}")
