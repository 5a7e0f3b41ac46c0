"""Peers: libraries that a user would pick instead, each by its own documentation and at its best.

Law: one file for each, all of one shape: a party, and `subjects()` with the servers that it needs. Nothing of
this package's wire is in here. All but one carry the bare payload, without a name: their best case, not ours.
All receive with the same handler and send the same payloads; those with an event loop run on uvloop. A peer
that can't do something says why, and has no figure for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from typing import Final

from benchmarks.conductor import Subject

# The file of each, and what it needs: packages of the dependency group `peers`, and programs.
PEERS: Final = {
    "hand_written": ((), ()),
    "zeromq": (("zmq",), ()),
    "multiprocess": ((), ()),
    "nats_client": (("nats",), ("nats-server",)),
    "redis_pubsub": (("redis", "hiredis"), ("redis-server",)),
    "broadcaster_redis": (("broadcaster", "redis"), ("redis-server",)),
}

# Their names in the tables, where a figure is against one of them.
ZEROMQ: Final = ("ZeroMQ PUSH", "ZeroMQ PUB")
ONE_BY_ONE: Final = "Protocol, one by one"
JOINED: Final = "Protocol, joined"

# Debian has servers where only root's PATH looks.
PROGRAM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# The report names the versions of these.
PACKAGES: Final = ("pyzmq", "nats-py", "redis", "hiredis", "broadcaster")


def program(name: str) -> str | None:
    """Return the path of a program, or None."""
    return shutil.which(name) or shutil.which(name, path=PROGRAM_PATH)


def subjects() -> tuple[list[Subject], dict[str, str]]:
    """All that can be started here; and for each other peer what is missing."""
    found: list[Subject] = []
    absent: dict[str, str] = {}
    for name, (packages, programs) in PEERS.items():
        lacks = [package for package in packages if importlib.util.find_spec(package) is None]
        lacks += [one for one in programs if program(one) is None]
        if lacks:
            absent[name] = ", ".join(lacks)
        else:
            found += importlib.import_module(f"benchmarks.peers.{name}").subjects()
    return found, absent
