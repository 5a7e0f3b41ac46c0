"""Clustering: from the options about a cluster to the bridge that serves it.

Law: what is wrong with an option is one line that names it, before anything has been started. A password goes
to the bridge, over its lifeline, and nowhere else.
"""

from __future__ import annotations

import importlib.util
import os
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import msgspec

from asgi_ipc.cluster.nodes import BRIDGE
from asgi_ipc.cluster.settings import NATS_SCHEMES, OUTBOX_BYTES, ClusterSettings, check_url
from asgi_ipc.errors import LauncherError
from asgi_ipc.fleet.words import Helper
from asgi_ipc.launcher.options import check_range

# The broker's URL may have a password, which has no business on a command line.
VARIABLE: Final = "ASGI_IPC_CLUSTER"

OPTIONS: Final = frozenset(
    {"cluster", "cluster_name", "cluster_ca_file", "cluster_secret_file", "cluster_outbox_bytes"}
)

MODULE: Final = "asgi_ipc.bridge.main"

MAX_NAME: Final = 254
MAX_SECRET_BYTES: Final = 64 * 1024
MIN_OUTBOX_BYTES: Final = 1024 * 1024
MAX_OUTBOX_BYTES: Final = 16 * 1024 * 1024 * 1024


def bridge_of(options: Mapping[str, Any], app: str) -> tuple[Helper, ...]:
    """Return the bridge that the options ask for, if they do. Raises LauncherError."""
    given = {name: options[name] for name in OPTIONS & options.keys() if options[name] is not None}
    cluster = given.pop("cluster", None) or os.environ.get(VARIABLE)
    if not cluster:
        for name in given:
            if name != "cluster_outbox_bytes":
                raise LauncherError(f"{name} needs --cluster, too")
        return ()
    return (
        Helper(BRIDGE, MODULE, msgspec.to_builtins(_settings(cluster, given, app), builtin_types=(bytes,))),
    )


def _settings(cluster: Any, given: Mapping[str, Any], app: str) -> ClusterSettings:
    if not isinstance(cluster, str):
        raise LauncherError("cluster is the URL of a broker, or several with commas between them")
    urls, credentials = [], None
    schemes = set()
    for each in filter(None, (part.strip() for part in cluster.split(","))):
        try:
            schemes.add(check_url(each))
            url, named = _without_query(each)
        except ValueError as error:
            raise LauncherError(f"cluster is no URL of a broker: {error}") from None
        urls.append(url)
        credentials = named or credentials
    if not urls:
        raise LauncherError("cluster is the URL of a broker, or several with commas between them")
    is_nats = schemes <= {*NATS_SCHEMES}
    if not is_nats and len(urls) > 1:
        raise LauncherError("cluster has several URLs, as the servers of one NATS cluster; Redis has one")
    _check_library("nats", "nats") if is_nats else _check_library("redis", "redis")
    outbox_bytes = given.get("cluster_outbox_bytes", OUTBOX_BYTES)
    check_range("cluster_outbox_bytes", outbox_bytes, MIN_OUTBOX_BYTES, MAX_OUTBOX_BYTES, whole=True)
    return ClusterSettings(
        urls=tuple(urls),
        name=_name(given.get("cluster_name", app)),
        ca_file=_ca_file(given.get("cluster_ca_file")),
        credentials_file=_readable("cluster", credentials),
        secret=_secret(given.get("cluster_secret_file")),
        outbox_bytes=outbox_bytes,
    )


def _without_query(url: str) -> tuple[str, str | None]:
    """Return a URL without its query, and the credentials file that is named there. Raises ValueError."""
    parts = urlsplit(url)
    credentials = None
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name != "credentials" or parts.scheme not in NATS_SCHEMES:
            raise ValueError(f"there is no setting {name!r} in the URL of a broker of that kind")
        if not value:
            raise ValueError("credentials= names no file")
        credentials = value
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")), credentials


def _check_library(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise LauncherError(f"cluster needs a library: pip install 'asgi-worker-ipc[{extra}]'")


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name or len(name.encode(errors="replace")) > MAX_NAME:
        raise LauncherError(f"cluster_name is a text of 1 to {MAX_NAME} bytes, not {name!r}")
    return name


def _readable(option: str, path: Any) -> str | None:
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            file.read(1)
    except (OSError, TypeError, ValueError) as error:
        raise LauncherError(f"{option} names a file that can't be read: {error}") from None
    return str(os.fspath(path))


def _ca_file(path: Any) -> str | None:
    found = _readable("cluster_ca_file", path)
    if found is not None:
        try:
            ssl.create_default_context(cafile=found)
        except (ssl.SSLError, OSError) as error:
            raise LauncherError(f"cluster_ca_file has no certificates: {error}") from None
    return found


def _secret(path: Any) -> bytes | None:
    """Return the content of the secret's file, without the white space around it."""
    found = _readable("cluster_secret_file", path)
    if found is None:
        return None
    with open(found, "rb") as file:
        secret = file.read(MAX_SECRET_BYTES + 1).strip()
    if not secret:
        raise LauncherError(f"cluster_secret_file {found!r} is empty")
    if len(secret) > MAX_SECRET_BYTES:
        raise LauncherError(f"cluster_secret_file {found!r} has more than {MAX_SECRET_BYTES} bytes")
    return secret
