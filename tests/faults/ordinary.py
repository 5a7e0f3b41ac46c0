"""An ordinary user: a server runs as this user when the kernel's limits must count.

Law: root may have descriptors in flight and pages for pipes without end (CAP_SYS_RESOURCE, CAP_SYS_ADMIN), so
a test that runs as root runs its server as a user without other processes, with accounts of its own in the
kernel. A test of an ordinary user keeps that user.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.processes import hard_limit

# Above the ids that a system gives away by itself (login.defs(5)), below those of container users.
FIRST_UID: Final = 61_000
UIDS: Final = 3_000

# The coverage of child processes writes where only root may.
_NOT_HIS: Final = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")


@dataclass(frozen=True, slots=True)
class User:
    """An ordinary user, and how many descriptors each of his processes may have; None: as many as ours."""

    uid: int
    descriptors: int | None = None

    @property
    def under(self) -> tuple[str, ...]:
        """The command that executes what follows it as him; the limit is one that he may raise himself."""
        limit = () if self.descriptors is None else ("prlimit", f"--nofile={self.descriptors}:")
        if self.uid == os.getuid():
            return limit
        # He may read any file: the interpreter may lie in root's home. That gives no page and no descriptor.
        reading = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search")
        become = ("setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", *reading)
        return (*limit, "env", *(f"--unset={name}" for name in _NOT_HIS), *become)

    async def limit(self, pid: int, descriptors: int | None) -> None:
        """Set how many descriptors a running process of his may have; None: as many as he may give it."""
        soft = hard_limit(pid) if descriptors is None else descriptors
        # As himself: without CAP_SYS_RESOURCE root may not do it for him (prlimit(2)).
        command = (*self.under, "prlimit", "--pid", str(pid), f"--nofile={soft}:")
        process = await asyncio.create_subprocess_exec(*command)
        assert await process.wait() == 0, command

    def own(self, folder: Path) -> None:
        """Make a folder his, with what is in it."""
        for path in (folder, *folder.iterdir()):
            os.chown(path, self.uid, -1)


def ordinary(descriptors: int | None = None) -> User:
    """An ordinary user: us, unless we are root."""
    uid = os.getuid() or FIRST_UID + os.getpid() % UIDS
    return User(uid, descriptors)
