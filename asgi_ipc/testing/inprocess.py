"""In process: several workers in one process and loop, and the launcher's side of them.

Law: everything except the processes is the product's: pipes, arenas, socket pairs, descriptors over
SCM_RIGHTS, `Relay` for the words. So a test chooses the order of events. This file closes the descriptors
that the kernel closes when a process dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from typing import Final, Generic, TypeVar

from asgi_ipc.cluster.nodes import BRIDGE
from asgi_ipc.fleet import words
from asgi_ipc.fleet.membership import WORKER, Worker
from asgi_ipc.fleet.relay import Relay
from asgi_ipc.fleet.settings import Settings
from asgi_ipc.launcher.process import Ends
from asgi_ipc.worker import assignment
from asgi_ipc.worker.assignment import Assignment
from asgi_ipc.worker.descriptors import Descriptor
from asgi_ipc.worker.endpoint import Endpoint
from asgi_ipc.worker.ipc import IPC
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.lifespan import Lifespan
from asgi_ipc.worker.transport.pipes import unread_bytes

# The kernel's pids are below 4194304 (PID_MAX_LIMIT, proc(5)): a signal to one of these, sent by mistake,
# reaches no process.
FIRST_PID: Final = 10_000_001


# The IPC for which a member's lifespan acts in this context.
_acting: ContextVar[tuple[IPC, Lifespan] | None] = ContextVar("asgi_ipc_acting", default=None)


def let_act(like: IPC) -> None:
    """Let that IPC look for the member that acts for it."""

    def find() -> Lifespan | None:
        acting = _acting.get()
        return acting[1] if acting is not None and acting[0] is like else None

    like._stand_in = find


class Member(Ends):
    """One worker: its IPC, and both ends of its pipe and lifeline.

    It begins with the registrations of `like`, and acts for that IPC in what it runs.
    """

    def __init__(
        self, generation: int, slot: int, run: Settings, has_arena: bool = True, like: IPC | None = None
    ) -> None:
        super().__init__(None, has_arena)
        # As a helper has: the bridge of a cluster.
        kind = WORKER if slot >= 0 else BRIDGE
        self.worker = Worker(FIRST_PID + generation - 1, slot, generation, kind, run.node)
        self.ipc = IPC()
        self.lifespan = self.ipc._own = Lifespan(self.worker.pid, self.ipc._bind)
        self.like = like if slot >= 0 else None
        if self.like is not None and like is not None:
            self.lifespan.registry = like._own.registry.copy()
        lifeline, read_end, own_arena = self.theirs
        self.assignment = Assignment(
            Lifeline(lifeline), Descriptor(read_end), Descriptor(own_arena), self.worker, run
        )
        self._entered: AbstractAsyncContextManager[None] | None = None
        # This ends the member after a kill.
        self.ending: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The pid by which the others address it; no process has it."""
        return self.worker.pid

    @property
    def endpoint(self) -> Endpoint:
        """Its endpoint, while it takes part."""
        return self.lifespan.endpoint

    @property
    def is_settled(self) -> bool:
        """Return whether no message waits to be sent or handled here, and no word to be read."""
        if self.ending is not None:
            return self.ending.done()
        lines = (self.lifeline.fileno(), self.assignment.lifeline.fileno())
        return (not self.lifespan.is_entered or self.endpoint.is_settled) and not any(
            unread_bytes(line) for line in lines if line >= 0
        )

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Inside, it acts for `like`."""
        token = _acting.set(None if self.like is None else (self.like, self.lifespan))
        try:
            yield
        finally:
            _acting.reset(token)

    async def enter(self) -> None:
        """Enter its lifespan; dispatch has begun then."""
        entered = self.ipc.lifespan()
        # Handlers, tasks and threads of the endpoint inherit this context. The assignment is read before the
        # first await, so members that join at the same time, each in a task, don't mix.
        with self.acting():
            assignment.current = self.assignment
            try:
                await entered.__aenter__()
            finally:
                assignment.current = None
        self._entered = entered
        # Dispatch begins in the turn after.
        await asyncio.sleep(0)

    async def leave(self) -> None:
        """End its lifespan, if it is in it."""
        entered, self._entered = self._entered, None
        if entered is not None:
            await entered.__aexit__(None, None, None)

    def close(self) -> None:
        """Close its remaining descriptors."""
        super().close()
        self.assignment.close()


M = TypeVar("M", bound=Member)


class InProcessLauncher(Generic[M]):
    """The launcher's side: the words to the members, and their pipes.

    `start(generation, slot)` makes a member that has not joined.
    """

    def __init__(self, start: Callable[[int, int], M]) -> None:
        self.relay = Relay()
        # The members that have not ended, by generation.
        self.members: dict[int, M] = {}
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._generations = 0
        self._timer: asyncio.TimerHandle | None = None
        self.ever: list[M] = []
        # Tasks of killed leaders that have not ended, since the process is still there; and the members that
        # wait for the word of the next leader.
        self._unended: set[asyncio.Task[None]] = set()
        self._untold: set[int] = set()

    # --- events

    def new(self, slot: int = 0, restart_round: int = 0) -> M:
        """Make a worker as just started, in that restart round; it has not joined."""
        self._generations += 1
        member = self._start(self._generations, slot)
        self.members[member.worker.generation] = member
        self.ever.append(member)
        self.relay.connect(member.worker, restart_round)
        self._loop.add_reader(member.lifeline, self._read_line, member)
        member.assignment.attach(lambda: None)
        return member

    def kill(self, member: M) -> list[asyncio.Task[None]]:
        """End a member's process: close its descriptors, as the kernel would, and tell the others.

        Its lifespan can end at any time, since it has nothing to wait for. Returns the cancelled leader
        tasks: the word of the next leader comes after they have ended.
        """
        endpoint = member.endpoint
        for peer in endpoint.outgoing.peers.all():
            peer.writer.close()
        endpoint.incoming.cut()
        tasks = endpoint.leading.cancel()
        self._unended.update(tasks)
        for task in tasks:
            task.add_done_callback(self.ended)
        endpoint.outgoing.close()
        self.bury(member, "killed")
        return tasks

    def ended(self, *tasks: asyncio.Task[None]) -> None:
        """Note that these tasks have ended, or are no longer waited for."""
        if not self._unended.isdisjoint(tasks):
            self._unended.difference_update(tasks)
            while self._untold and not self._unended:
                self.relay.tell(self._untold.pop(), self.relay._leads())
            self.pump()

    def bury(self, member: M, reason: str) -> None:
        """Note that a process has been reaped: the others get the reason."""
        self._loop.remove_reader(member.lifeline)
        Ends.close(member)
        del self.members[member.worker.generation]
        self.relay.gone(member.worker.generation, reason)
        self.pump()

    def close(self) -> None:
        """Close the remaining descriptors of all members."""
        self._unended.clear()
        self._wait_for(None)
        for member in self.ever:
            if member.lifeline.fileno() >= 0:
                self._loop.remove_reader(member.lifeline)
            member.close()

    @property
    def is_settled(self) -> bool:
        """Return whether nothing is under way between the members, nor waits for a handler."""
        waits = self._unended or self.relay.pending()
        return not waits and all(member.is_settled for member in self.ever)

    # --- lifelines

    def pump(self) -> None:
        """Write every word that may be written now."""
        while pending := self.relay.pending():
            for generation in pending:
                while (item := self.relay.next_item(generation)) is not None:
                    encoded = words.encode_word(self._said_to(generation, item.word))
                    owner = None if item.write_end_of is None else self.members[item.write_end_of]
                    self.members[generation].write_word(encoded, owner)
                    self.relay.wrote(generation)
        promised = self.relay.promised()
        for generation, member in self.members.items():
            if generation not in promised:
                member.close_write_end()
        self._wait_for(self.relay.next_deadline())

    def _said_to(self, generation: int, word: words.ToWorker) -> words.ToWorker:
        """Return the relay's next word; a word of a new leader waits while old leader tasks run."""
        if not self._unended or not isinstance(word, words.Leads):
            return word
        self._untold.add(generation)
        return words.Leads(None)

    def _wait_for(self, deadline: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self.relay.tick(self._loop.time())
        self.pump()

    def _read_line(self, member: M) -> None:
        said, ended = member.read_words()
        if ended:
            self._loop.remove_reader(member.lifeline)
        for word in said:
            # Its other words are about its process: there is none.
            if isinstance(word, words.ToRelay):
                self.relay.hear(member.worker.generation, word, self._loop.time())
        self.pump()
