"""Inside the image: orphans end, and PID 1 must reap them. The argument is how many."""

import os
import signal
import sys
import time
from pathlib import Path


def state_and_parent(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return ["gone", "0"]


orphans = []
for _ in range(int(sys.argv[1])):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        if grandchild == 0:
            signal.pause()
        os.write(write_end, str(grandchild).encode())
        os._exit(0)
    os.waitpid(child, 0)
    orphans.append(int(os.read(read_end, 20)))
parents = {state_and_parent(pid)[1] for pid in orphans}
if parents != {"1"}:
    sys.exit(f"the orphans' parents are {parents}, so nothing would be shown")
started = time.monotonic()
for pid in orphans:
    os.kill(pid, signal.SIGKILL)
while True:
    left = [pid for pid in orphans if state_and_parent(pid)[0] != "gone"]
    left += [each.name for each in Path("/proc").glob("[0-9]*") if state_and_parent(each.name)[0] == "Z"]
    passed_s = time.monotonic() - started
    if not left:
        sys.exit(
            print(f"ok    as PID 1: {len(orphans)} orphans end; no zombie after {passed_s * 1000:.0f} ms")
        )
    if passed_s > 2:
        sys.exit(f"2 s after {len(orphans)} orphans were killed, these are left: {left}")
    time.sleep(0.005)
