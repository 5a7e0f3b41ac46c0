"""Outside: asks the demo in the image what it should know."""

import ast
import configparser
import json
import os
import socket
import sys
import time
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

DEADLINE_S = 30.0


def ask(address, method, path):
    """The JSON of a 200; anything else is a ValueError."""
    connection = HTTPConnection(address, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"{path} answers {answer.status}: {body[:300]}")
    return json.loads(body)


def until(attempt):
    """The first result of `attempt` that is true; until then it may fail."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            if result := attempt():
                return result
            reason = "it was not so"
        except (OSError, HTTPException, ValueError) as error:
            reason = repr(error)
        if time.monotonic() > deadline:
            sys.exit(f"after {DEADLINE_S:.0f} s: {reason}")
        time.sleep(0.05)


def workers(address, count, without="0"):
    """Print the pids once there are `count` workers, each slot taken, and `without` is gone."""

    def attempt():
        found = ask(address, "GET", "/workers")
        pids = [worker["pid"] for worker in found["workers"]]
        slots = sorted(worker["slot"] for worker in found["workers"])
        if slots != list(range(int(count))) or found["pid"] not in pids or int(without) in pids:
            raise ValueError(found)
        return pids

    print(*until(attempt))


def exchange(address):
    """Send from one worker to another, and find it in the receiver's log."""
    receiver = ask(address, "GET", "/workers")["workers"][-1]["pid"]
    word = f"image-check-{os.getpid()}"

    def sent():
        answer = ask(address, "POST", f"/send/{receiver}/{word}")
        return answer if answer["from"] != answer["to"] else None

    def arrived():
        log = ask(address, "GET", "/log")
        return log["pid"] == receiver and word in json.dumps(log)

    sender = until(sent)["from"]
    until(arrived)
    print(f"ok    what worker {sender} sends to worker {receiver} is in its log")


# Settings of pip that say where packages come from, and which. Others are this machine's own: where its
# pip logs, caches or installs.
TRAVEL = {
    *("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "proxy"),
    *("cert", "client-cert", "constraint", "pre", "only-binary", "no-binary", "prefer-binary"),
    *("default-timeout", "timeout", "retries", "disable-pip-version-check"),
}


def pip_conf(path):
    """Write what of `pip config list` may travel as one pip.conf; print a mount for every path in it."""
    merged, mounts = configparser.RawConfigParser(), set()
    # The environment counts more than the files.
    for line in sorted(sys.stdin.read().splitlines(), key=lambda line: line.startswith(":env:")):
        name, _, value = line.partition("=")
        section, _, key = name.replace(":env:", "global").rpartition(".")
        value = ast.literal_eval(value)
        words = [os.path.expanduser(word) for word in ([value] if "cert" in key else value.split())]
        paths = [urlsplit(word).path.rstrip("/") for word in words if word.startswith(("/", "file://"))]
        if key not in TRAVEL or not all(map(os.path.exists, paths)):
            print(f"--    pip's {section}.{key} = {value} stays here", file=sys.stderr)
            continue
        merged.read_dict({section: {key: " ".join(words)}})
        # The pages of an index link to files beside it.
        mounts.update(map(os.path.dirname, paths) if key.endswith("index-url") else paths)
    with open(path, "w") as file:
        merged.write(file)
    print(*(f"{each}:{each}:ro" for each in sorted(mounts - {"", "/"})), sep="\n")


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        print(server.getsockname()[1])


{"workers": workers, "exchange": exchange, "pip-conf": pip_conf, "free-port": free_port}[sys.argv[1]](
    *sys.argv[2:]
)
