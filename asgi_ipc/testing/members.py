"""Members: a fleet in one process, for tests of the messages between workers.

Law: the actions of a test on a fleet, in users' words. `inprocess` carries them out; it is imported only when
there are pipes to make.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from asgi_ipc.cluster.nodes import NODE_ID_BYTES
from asgi_ipc.entry import NEEDS_UNIX
from asgi_ipc.errors import LauncherError, NotRunningError
from asgi_ipc.fleet.settings import DEFAULTS, PIPE_BUF, Settings
from asgi_ipc.wire.packet import COOKIE_BYTES
from asgi_ipc.worker.ipc import IPC

if TYPE_CHECKING:
    from asgi_ipc.testing.inprocess import InProcessLauncher, Member

# Every member holds a pipe to every other one, and its arena: so many need 576 descriptors (Python 3.11), and
# the usual limit is 1,024.
MAX_MEMBERS: Final = 16

# Turns of the loop without any event before the fleet counts as settled: a task of a handler goes on in the
# next turn.
QUIET_TURNS: Final = 5

# So many turns of the loop are checked one by one; a longer wait uses a clock.
BUSY_TURNS: Final = 1_000
PAUSE_S: Final = 0.001

# The reasons of a leave that is no kill.
Reason: TypeAlias = Literal["left", "replaced", "stalled", "drain_timeout", "cancelled"]


class Members(tuple[IPC, ...]):
    """The IPCs of a fleet's members as they were at its start, and the actions on them.

    Made by `fleet`.
    """

    _launcher: InProcessLauncher[Member]

    async def add(self) -> IPC:
        """Let one more worker join, in the lowest free slot; return its IPC, a member.

        Raises LauncherError if there are 16 already.
        """
        if len(self._launcher.members) >= MAX_MEMBERS:
            raise LauncherError(f"a fleet in one process has at most {MAX_MEMBERS} members")
        taken = {member.worker.slot for member in self._launcher.members.values()}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        newcomer = self._launcher.new(slot)
        await newcomer.enter()
        return newcomer.ipc

    async def leave(self, member: IPC, reason: Reason = "left") -> None:
        """Let a worker leave: it delivers and handles its remaining messages, then the others get `reason`.

        Returns when it has left; takes at most the drain timeout.

        Raises NotRunningError if it has gone already.
        """
        leaver = self._there(member)
        await leaver.leave()
        if leaver.worker.generation in self._launcher.members:
            self._launcher.bury(leaver, reason)
        leaver.close()

    def kill(self, member: IPC) -> None:
        """Let a worker die at once, as by SIGKILL: the others get the reason `killed`.

        The messages in its pipe are lost. Its handlers and leader tasks are cancelled, since no process of
        its own ends with them. Another member leads when its leader tasks have ended, or after the drain
        timeout.

        Raises NotRunningError if it has gone already.
        """
        victim = self._there(member)
        endpoint = victim.endpoint
        victim.lifespan.messaging = None
        endpoint.messaging.close()
        endpoint.replying.close()
        tasks = self._launcher.kill(victim)

        async def end() -> None:
            try:
                await endpoint.dispatcher.close()
                await victim.leave()
            finally:
                self._launcher.ended(*tasks)
                victim.close()

        victim.ending = asyncio.create_task(end())

    async def settled(self, *, timeout: float = 5.0) -> None:
        """Wait until all messages sent so far, and all that they have led to, are handled in every member.

        The callbacks of joins, departures and deaths have been called then, too. It does not wait for tasks
        and threads that handlers have started, except for their work up to the first wait.

        Raises TimeoutError after `timeout` seconds, for instance when a handler waits for something else.
        """
        try:
            async with asyncio.timeout(timeout):
                turns = quiet_turns = 0
                while quiet_turns < QUIET_TURNS:
                    await asyncio.sleep(0 if turns < BUSY_TURNS else PAUSE_S)
                    turns += 1
                    quiet_turns = quiet_turns + 1 if self._launcher.is_settled else 0
        except TimeoutError:
            busy = [member.pid for member in self._launcher.ever if not member.is_settled]
            raise TimeoutError(
                f"not settled within {timeout:g} s: something waits, or is being handled, at {busy}"
            ) from None

    @contextmanager
    def acting(self, member: IPC) -> Iterator[IPC]:
        """Inside, the IPC given to `fleet` as `like` acts as that member, as it does in handlers.

        For code outside handlers, such as a route of the app that a test calls. Tasks and threads started
        inside inherit it. Entering the lifespan of `like` inside does nothing: the member has joined.

        Raises ValueError without `like`, or for an IPC that is no member of this fleet.
        """
        actor = self._member(member)
        if actor.like is None:
            raise ValueError("fleet(..., like=ipc) says whom a member shall act as")
        with actor.acting():
            yield member

    # --- inside

    def _member(self, ipc: IPC) -> Member:
        for member in self._launcher.ever:
            if member.ipc is ipc:
                return member
        raise ValueError("that is no member of this fleet")

    def _there(self, ipc: IPC) -> Member:
        member = self._member(ipc)
        if member.worker.generation not in self._launcher.members or ipc._own.messaging is None:
            raise NotRunningError(f"worker {member.pid} has gone")
        return member

    async def _end(self) -> None:
        """Let all members leave at the same time, as when a server stops."""
        ever = self._launcher.ever
        there = [member.ipc for member in ever if member.lifespan.messaging is not None]
        endings = [member.ending for member in ever if member.ending is not None]
        await asyncio.gather(*map(self.leave, there), *endings)


@asynccontextmanager
async def fleet(
    size: int,
    *,
    like: IPC | None = None,
    drain_timeout: float = DEFAULTS.drain_timeout,
    max_message_bytes: int = DEFAULTS.max_message_bytes,
    max_packet_bytes: int | None = None,
) -> AsyncIterator[Members]:
    """A fleet of `size` members in this process and on this loop: `async with fleet(3) as (a, b, c):`.

    Each is an IPC that has joined, with a `pid` (of no process), a slot and handlers of its own. Real pipes
    connect them, and messages take the same way as between processes. At the end all leave at the same time
    and every descriptor is closed.

    Args:
        size: 1 to 16.
        like: an IPC that is not running, such as an app's `ipc`: every member begins with a copy of its
            registrations, and inside the code of a member that IPC acts as the member.
        drain_timeout: seconds that a leave may take, as of `asgi-ipc serve`.
        max_message_bytes: as of `asgi-ipc serve`.
        max_packet_bytes: as of `asgi-ipc serve`; None: the system's PIPE_BUF.

    Raises:
        LauncherError: a size or setting is wrong, or `like` is in its lifespan.
    """
    run = checked(
        size,
        like,
        drain_timeout=drain_timeout,
        max_message_bytes=max_message_bytes,
        max_packet_bytes=PIPE_BUF if max_packet_bytes is None else max_packet_bytes,
    )
    async with running(size, run, like) as there:
        yield there


def checked(size: int, like: IPC | None, **options: Any) -> Settings:
    """Return the settings of a fleet. Raises LauncherError for what is wrong."""
    if sys.platform == "win32":
        raise LauncherError(NEEDS_UNIX)
    if not 1 <= size <= MAX_MEMBERS:
        raise LauncherError(f"a fleet in one process has 1 to {MAX_MEMBERS} members, not {size!r}")
    if like is not None and like._own.is_entered:
        raise LauncherError("`like` is in its lifespan, so it can't act as a member; leave that first")
    # Imported here: pytest loads the plugin, and with it this package, in every test run.
    from asgi_ipc.launcher.options import check_own

    run = Settings(cookie=secrets.token_bytes(COOKIE_BYTES), node=secrets.token_hex(NODE_ID_BYTES), **options)
    check_own(run)
    return run


@asynccontextmanager
async def running(size: int, run: Settings, like: IPC | None) -> AsyncIterator[Members]:
    from asgi_ipc.testing.inprocess import InProcessLauncher, Member, let_act

    if like is not None:
        let_act(like)
    launcher = InProcessLauncher(partial(Member, run=run, like=like))
    try:
        members = [launcher.new(slot) for slot in range(size)]
        there = Members(member.ipc for member in members)
        there._launcher = launcher
        try:
            await asyncio.gather(*(member.enter() for member in members))
            yield there
        finally:
            await there._end()
    finally:
        launcher.close()
