"""Probes: observers of the protocol while the product runs.

Law: a probe calls the function that it wraps, with the same arguments, and only looks. Its observations go to
the program of the running worker, and nasty events are counted by name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from asgi_ipc.fleet import words
from asgi_ipc.fleet.relay import Reach, Relay
from asgi_ipc.worker.endpoint import Endpoint
from asgi_ipc.worker.lifeline import Lifeline
from asgi_ipc.worker.transport.outgoing import Outgoing
from asgi_ipc.worker.transport.peer import Peer
from tests.faults.simulation.files import ReadEnd, SocketEnd
from tests.faults.simulation.install import swap

if TYPE_CHECKING:
    from tests.faults.simulation.program import Program
    from tests.faults.simulation.world import World

PACKET_BEFORE_DESCRIPTOR: Final = "a packet before its sender's descriptor"
LEAVE_CROSSING_JOIN: Final = "a leave crossing a join"
DEATH_BEHIND_PAUSED_READER: Final = "a death behind a paused reader"
LATE_ACKNOWLEDGEMENT: Final = "a late acknowledgement"


class Probes:
    """Stands around the methods through which the protocol's words go."""

    def __init__(self, world: World, stack: ExitStack) -> None:
        self._world = world
        swap(stack, Lifeline, send=self._around_send(Lifeline.send))
        swap(stack, Endpoint, on_word=self._around_on_word(Endpoint.on_word))
        swap(stack, Relay, hear=self._around_hear(Relay.hear))
        swap(stack, Outgoing, lose=self._around_lose(Outgoing.lose))
        swap(stack, Outgoing, close=self._around_close(Outgoing.close))

    # --- the worker speaks

    def _around_send(
        self, send: Callable[[Lifeline, words.ToLauncher], None]
    ) -> Callable[[Lifeline, words.ToLauncher], None]:
        def say(lifeline: Lifeline, word: words.ToLauncher) -> None:
            program = self._world.running()
            if not isinstance(word, words.Beat):
                self._world.note("says %s", word)
            if isinstance(word, words.Drained):
                program.has_drained = True
                program.is_clean = word.clean
                if not word.clean:
                    self._world.checks.drain_timeout(program, word.unsent)
            send(lifeline, word)
            match word:
                case words.Join():
                    program.has_asked = True
                case words.Leaving():
                    program.has_left = True
                case words.Took(generation, arrived):
                    program.tooks_sent += 1
                    if arrived:
                        program.arrived.add(generation)
                        program.owed.discard(generation)
                case words.Drained():
                    program.was_heard_out = (
                        self._lifeline(program).peer.unread().endswith(words.encode_word(word))
                    )

        return say

    @staticmethod
    def _lifeline(program: Program) -> SocketEnd:
        end = program.process.fds[program.lifeline_fd]
        assert isinstance(end, SocketEnd)
        return end

    # --- the worker hears

    def _around_on_word(
        self, on_word: Callable[[Endpoint, words.ToWorker], None]
    ) -> Callable[[Endpoint, words.ToWorker], None]:
        def hear(endpoint: Endpoint, word: words.ToWorker) -> None:
            program = self._world.running()
            self._world.note("hears %s", word)
            match word:
                case words.Welcome(members):
                    program.is_welcome = True
                    program.heard_of.update({each.generation: each for each in members})
                    program.owed.update(each.generation for each in members)
                case words.Joined(worker):
                    program.heard_of[worker.generation] = worker
                    program.joined.add(worker.generation)
                    if program.has_left:
                        # The launcher, which tells no leaver of a join, had not heard yet that it leaves.
                        self._world.count(LEAVE_CROSSING_JOIN)
                case words.Entered(missing):
                    program.missing = {g for g, each in program.heard_of.items() if each.pid in missing}
                    program.has_entered = True
                case words.Gone(generation, reason):
                    program.gone[generation] = reason
                    program.owed.discard(generation)
                    self._look_for_death(program, generation)
            on_word(endpoint, word)

        return hear

    def _look_for_death(self, program: Program, generation: int) -> None:
        """Note a death whose last bytes no reader reads at present."""
        end = program.process.fds.get(program.pipe_fd)
        if (
            isinstance(end, ReadEnd)
            and generation in end.pipe.writers()
            and not program.loop.is_reading(end)
            and program.is_ready
        ):
            self._world.count(DEATH_BEHIND_PAUSED_READER)

    def read(self, program: Program, writers: set[int]) -> None:
        """It has read what these have written."""
        if any(writer not in program.heard_of for writer in writers):
            self._world.count(PACKET_BEFORE_DESCRIPTOR)

    # --- the launcher hears

    def _around_hear(self, of_relay: Callable[..., Reach | None]) -> Callable[..., Reach | None]:
        def hear(relay: Relay, by: int, word: words.ToRelay, now: float) -> Reach | None:
            if isinstance(word, words.Took):
                self._world.programs[by].tooks_heard += 1
                if by in self._world.programs[word.generation].missing:
                    self._world.count(LATE_ACKNOWLEDGEMENT)
            return of_relay(relay, by, word, now)

        return hear

    # --- what is lost

    def _around_lose(self, lose: Callable[[Outgoing, Peer], None]) -> Callable[[Outgoing, Peer], None]:
        def count(outgoing: Outgoing, peer: Peer) -> None:
            lose(outgoing, peer)
            self._world.running().lost[peer.worker.generation] = peer.lost

        return count

    def _around_close(self, close: Callable[[Outgoing], int]) -> Callable[[Outgoing], int]:
        def count(outgoing: Outgoing) -> int:
            program = self._world.running()
            before = dict(program.lost)
            unsent = close(outgoing)
            program.unsent = {to: lost - before.get(to, 0) for to, lost in program.lost.items()}
            return unsent

        return count
