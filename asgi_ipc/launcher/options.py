"""Options: an option without a meaning is one error in one line, before anything has been started.

Law: an option keeps uvicorn's name and meaning, and is only looked at. An error begins with the option's
name, which the command turns into `--name`. Files and modules that each worker will load are loaded here
once, but none of the app's own code: workers load that, and report its errors.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import uvicorn
from uvicorn.config import HTTP_PROTOCOLS, INTERFACES, LIFESPAN, LOG_LEVELS, LOOP_FACTORIES, WS_PROTOCOLS
from uvicorn.importer import ImportFromStringError, import_from_string

from asgi_ipc.errors import LauncherError
from asgi_ipc.fleet.settings import PIPE_BUF, Settings
from asgi_ipc.wire.outbox import MAX_OUTBOX_BYTES
from asgi_ipc.wire.packet import MIN_PACKET_BYTES

# The largest C int and C long long: the kernel and an event loop take no larger number.
_INT: Final = 2**31 - 1
_LONG: Final = 2**63 - 1

# Less than this could not tell a hang from a busy moment: workers beat at most twice a second.
MIN_HANG_TIMEOUT_S: Final = 2.0
MAX_TIMEOUT_S: Final = 86_400.0

MAX_NODE_NAME: Final = 253  # as a host's

# The range in which each has a meaning. With 0 `limit_concurrency` refuses every request, and
# `limit_max_requests` ends a worker before its first.
_WHOLE: Final = {
    "port": (0, 65_535),
    "fd": (0, _INT),
    "backlog": (0, _INT),
    "limit_concurrency": (1, _LONG),
    "limit_max_requests": (1, _LONG),
    "limit_max_requests_jitter": (0, _LONG),
    "ws_max_size": (1, _LONG),
    "ws_max_queue": (0, _INT),
    "h11_max_incomplete_event_size": (1, _LONG),
}
# uvicorn's command takes whole numbers as timeouts, and its run() takes any number; this does the same.
_SECONDS: Final = (
    "timeout_keep_alive",
    "timeout_graceful_shutdown",
    "ws_ping_interval",
    "ws_ping_timeout",
    "reload_delay",
)

_NAMED: Final[dict[str, Mapping[str, str | None]]] = {
    "loop": LOOP_FACTORIES,
    "http": HTTP_PROTOCOLS,
    "ws": WS_PROTOCOLS,
}

# A field name of HTTP (RFC 9110, 5.1), and the characters that no field value has (5.5).
_FIELD_NAME: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_NOT_IN_A_VALUE: Final = re.compile(r"[\0\r\n]")


def check(theirs: Mapping[str, Any]) -> None:
    """Raises LauncherError for the first option without a meaning. `sys.path` must be that of the workers."""
    given = {name: value for name, value in theirs.items() if value is not None}
    for name in _WHOLE.keys() & given.keys():
        check_range(name, given[name], *_WHOLE[name], whole=True)
    for name in given.keys() & {*_SECONDS}:
        check_range(name, given[name], 0, _INT)
    for name in _NAMED.keys() & given.keys():
        _check_named(name, given[name])
    for name, choices in (("lifespan", LIFESPAN), ("interface", INTERFACES)):
        if name in given and given[name] not in choices:
            raise LauncherError(f"{name} is one of {', '.join(choices)}, not {given[name]!r}")
    level = given.get("log_level")
    if isinstance(level, str) and level.lower() not in LOG_LEVELS:
        raise LauncherError(f"log_level is one of {', '.join(LOG_LEVELS)}, not {level!r}")
    if given.get("http2") and given.get("http") != "zttp":
        raise LauncherError("http2 needs the protocol of --http zttp")
    for header in given.get("headers", ()):
        _check_header(header)
    _check_texts(given)
    if "fd" in given and given.get("uds") is None:
        check_descriptor("fd", given["fd"])
    _check_tls(given)


def check_own(own: Settings) -> None:
    """Raise LauncherError for the first impossible one of our own options."""
    if not isinstance(own.wrap, bool):
        raise LauncherError(f"wrap is True or False, not {own.wrap!r}")
    if not isinstance(own.node_name, str) or not _is_printable(own.node_name):
        raise LauncherError(f"node_name is a text of up to {MAX_NODE_NAME} printable characters")
    check_range("drain_timeout", own.drain_timeout, 0.0, MAX_TIMEOUT_S)
    check_range("exit_timeout", own.exit_timeout, 0.0, MAX_TIMEOUT_S)
    if own.worker_hang_timeout is not None:
        check_hang_timeout("worker_hang_timeout", own.worker_hang_timeout)
    # An outbox must take the largest message when it is empty.
    check_range("max_message_bytes", own.max_message_bytes, 1024, MAX_OUTBOX_BYTES, whole=True)
    check_range("max_packet_bytes", own.max_packet_bytes, MIN_PACKET_BYTES, PIPE_BUF, whole=True)
    if own.pipe_bytes is not None:
        check_range("pipe_bytes", own.pipe_bytes, 4096, 1024 * 1024, whole=True)
    if own.stop_at_eof is not None:
        check_range("stop_at_eof", own.stop_at_eof, 0, _INT, whole=True)


def _is_printable(name: str) -> bool:
    return len(name) <= MAX_NODE_NAME and name.isprintable()


def check_hang_timeout(name: str, seconds: float) -> None:
    """Raise LauncherError unless the option is a time in which a hang can be recognized."""
    check_range(name, seconds, MIN_HANG_TIMEOUT_S, MAX_TIMEOUT_S)


def check_range(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    """Raise LauncherError unless it is a number in that range."""
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        raise LauncherError(f"{name} is a number from {low} to {high}, not {value!r}")


def check_workers(workers: int | None, high: int) -> int:
    """Return the number of workers, given or from the environment; 1 without either."""
    if workers is not None:
        check_range("workers", workers, 1, high, whole=True)
        return workers
    said = os.environ.get("WEB_CONCURRENCY", "1")
    try:
        check_range("$WEB_CONCURRENCY", int(said), 1, high)
    except ValueError:
        raise LauncherError(f"$WEB_CONCURRENCY is a number from 1 to {high}, not {said!r}") from None
    return int(said)


def configured(app: str, given: Mapping[str, Any]) -> uvicorn.Config:
    """uvicorn's Config, which configures logging and reads files. LauncherError names the option at fault."""
    # With the real number of workers it would warn that workers and `--reload` don't go together.
    make = partial(uvicorn.Config, app, workers=1)
    try:
        return make(**given)
    except Exception as error:  # logging's configuration may run anything
        reason = _in_one_line(error)
        logging.disable()
        try:
            # `reload` last: without it the options that go with it are not looked at.
            for name in sorted(given, key="reload".__eq__):
                try:
                    make(**{each: given[each] for each in given if each != name})
                except Exception:  # noqa: BLE001
                    continue
                # Without this option the others are fine.
                raise LauncherError(f"{name} can't be used: {reason}") from error
        finally:
            logging.disable(logging.NOTSET)
        raise LauncherError(f"an option can't be used: {reason}") from error


def _in_one_line(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    if error.__cause__ is not None:
        text += f" ({type(error.__cause__).__name__}: {error.__cause__})"
    return " ".join(text.split())


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, TypeError, OverflowError, ImportError) as error:
        raise LauncherError(f"{name} can't be used: {_in_one_line(error)}") from error


def _check_named(name: str, value: Any) -> None:
    known = _NAMED[name]
    if not isinstance(value, str):
        return
    if value not in known and ":" not in value:
        raise LauncherError(f"{name} is one of {', '.join(known)}, or 'module:attribute', not {value!r}")
    module = known.get(value)
    if value != "auto" and module is not None:
        try:
            with _blaming(f"{name} {value!r}"):
                import_from_string(module)
        except ImportFromStringError as error:
            raise LauncherError(f"{name} {value!r} can't be used: {error}") from error


def _check_header(header: Any) -> None:
    try:
        name, value = header
        name.encode("latin-1"), value.encode("latin-1")
        is_one = _FIELD_NAME.fullmatch(name) and not _NOT_IN_A_VALUE.search(value)
    except (TypeError, ValueError, AttributeError):
        is_one = False
    if not is_one:
        shown = ":".join(header) if isinstance(header, list) else header
        raise LauncherError(f"headers are a name and a value each, 'Name:value' in Latin-1, not {shown!r}")


def _check_texts(given: Mapping[str, Any]) -> None:
    if given.get("uds") == "":
        raise LauncherError("uds is the path of a socket, not ''")
    root_path = given.get("root_path", "")
    if not isinstance(root_path, str) or not root_path.isascii() or not root_path.isprintable():
        # uvicorn puts it before each path, which is ASCII (percent-encoded).
        raise LauncherError(f"root_path is a path in ASCII, percent-encoded, not {root_path!r}")
    app_dir = given.get("app_dir")
    # Python imports from archives, too.
    if app_dir and not os.path.isdir(app_dir) and not zipfile.is_zipfile(app_dir):
        raise LauncherError(f"app_dir is a folder, or a zip archive; {app_dir!r} is none")


def check_descriptor(name: str, fd: int, *, may_be_pipe: bool = False) -> None:
    """Raise LauncherError unless it is that of a socket, or of a pipe."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError as error:
        raise LauncherError(f"{name} is an open descriptor, not {fd}: {error.strerror}") from error
    if not (stat.S_ISSOCK(mode) or (may_be_pipe and stat.S_ISFIFO(mode))):
        kind = "pipe or a socket" if may_be_pipe else "socket"
        raise LauncherError(f"{name} is the descriptor of a {kind}; {fd} is none")


def _check_tls(given: Mapping[str, Any]) -> None:
    """Load the files that every worker will load, as `uvicorn.config.create_ssl_context` does."""
    certificate, key = given.get("ssl_certfile"), given.get("ssl_keyfile")
    if not certificate:
        if key:
            raise LauncherError("ssl_keyfile needs --ssl-certfile, too")
        # uvicorn serves plain HTTP then, and looks at no other option of TLS.
        return
    for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"):
        if given.get(name):
            with _blaming(name), open(given[name], "rb") as file:
                file.read(1)
    with _blaming("ssl_version"):
        context = ssl.SSLContext(given.get("ssl_version", ssl.PROTOCOL_TLS_SERVER))
    is_encrypted = False

    def password() -> str:
        # Without this OpenSSL asks at the terminal: each worker would, at each restart.
        nonlocal is_encrypted
        is_encrypted = True
        return given.get("ssl_keyfile_password") or ""

    try:
        context.load_cert_chain(certificate, key, password)
    except (OSError, ValueError, TypeError) as error:
        name = "ssl_keyfile_password" if is_encrypted else "ssl_keyfile" if key else "ssl_certfile"
        raise LauncherError(f"{name} can't be used: {_in_one_line(error)}") from error
    with _blaming("ssl_cert_reqs"):
        context.verify_mode = ssl.VerifyMode(given.get("ssl_cert_reqs", ssl.CERT_NONE))
    if given.get("ssl_ca_certs"):
        with _blaming("ssl_ca_certs"):
            context.load_verify_locations(given["ssl_ca_certs"])
    if given.get("ssl_ciphers"):
        with _blaming("ssl_ciphers"):
            context.set_ciphers(given["ssl_ciphers"])
