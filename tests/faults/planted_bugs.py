"""Planted bugs: mistakes that a competent engineer could make, one edit each.

Law: chosen from the design and the package alone, without a look at the tests, so that no test is arranged to
catch them. The package still imports with each, and two workers that talk in peace still get their messages.
`python -m tests.faults.planted` plants them, one at a time, in a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


class PlantError(Exception):
    """The place for an edit is not what it was when the bug was written."""


@dataclass(frozen=True, slots=True)
class Planted:
    """One bug.

    Attributes:
        name: what is wrong, in a few words.
        file: where, relative to the package's folder.
        old: what is replaced; it occurs exactly once in that file.
        new: what stands there instead.
        breaks: what a user would see, in one sentence.
    """

    name: str
    file: str
    old: str
    new: str
    breaks: str

    def plant(self, text: str) -> str:
        """The file's text with the bug. Raises PlantError unless its place is found once."""
        found = text.count(self.old)
        if found != 1:
            raise PlantError(f"{self.name}: its place occurs {found} times in asgi_ipc/{self.file}, not once")
        return text.replace(self.old, self.new)


_JOINING_AND_LEAVING: Final = (
    Planted(
        "entered-when-written",
        "fleet/relay.py",
        """            if newcomer is not None:
                newcomer.tell(WriteEnd(generation), generation)
""",
        """            if newcomer is not None:
                newcomer.tell(WriteEnd(generation), generation)
                self._await_no_more(newcomer, generation)
""",
        "A broadcast made just after a newcomer's lifespan has entered misses it, if the member that "
        "makes it was too busy to read the word.",
    ),
    Planted(
        "welcome-names-leavers",
        "fleet/relay.py",
        "if line.joined and not line.leaving]",
        "if line.joined]",
        "A worker that joins while another leaves addresses the leaver and never hears that it left, so the "
        "leaver waits for its drain timeout.",
    ),
    Planted(
        "write-end-closed-before-handed-out",
        "fleet/relay.py",
        "        return promised & self._lines.keys()\n",
        "        return {generation for generation, line in self._lines.items() if not line.leaving}\n",
        "When a worker leaves while a newcomer still waits for its write end, what the newcomer had accepted "
        "for it is lost, and the newcomer hears no further word of the launcher.",
    ),
    Planted(
        "answer-about-the-dead-not-counted",
        "fleet/relay.py",
        """        line.unacknowledged.remove(of)
        owner = self._lines.get(of)
        if owner is None:
            return None
""",
        """        owner = self._lines.get(of)
        if owner is None:
            return None
        line.unacknowledged.remove(of)
""",
        "After eight workers have died just as they joined, a worker never learns of a newcomer again.",
    ),
    Planted(
        "closed-before-flushed",
        "worker/transport/outgoing.py",
        """        peer.writer.close_when_empty()
        self.progress.set()
""",
        """        peer.writer.close()
        self.progress.set()
""",
        "Messages that were accepted for a worker and waited for room in its pipe are lost when it leaves.",
    ),
    Planted(
        "late-write-end-kept-open",
        "worker/transport/outgoing.py",
        """        if peer.leaving:
            peer.writer.close_when_empty()
        else:
            peer.writer.flush()
""",
        """        peer.writer.flush()
""",
        "A worker that leaves while another joins never sees the end of its pipe: its stop takes the whole "
        "drain timeout and is reported as not clean.",
    ),
    Planted(
        "departure-settled-before-dispatch",
        "worker/transport/incoming.py",
        """        self._packets.take(chunk, drained)
        self.settle()
        self._taken_bytes += len(chunk)
        if self._marks:
            self._pass_marks()
""",
        """        self._taken_bytes += len(chunk)
        if self._marks:
            self._pass_marks()
        self._packets.take(chunk, drained)
        self.settle()
""",
        "The last messages that a killed worker had wholly written are dropped by workers that had not "
        "read them yet.",
    ),
    Planted(
        "left-while-handlers-run",
        "worker/leave.py",
        """            await self._dispatcher.idle()
            if self._outgoing.is_empty():
                return
""",
        """            if self._outgoing.is_empty():
                return
            await self._dispatcher.idle()
""",
        "A worker that leaves cancels the handlers that are still running, and their replies are never sent.",
    ),
    Planted(
        "end-of-file-before-the-last-word",
        "worker/lifeline.py",
        """        while self._bodies:
""",
        """        if not self.is_open:
            self._ended()
        while self._bodies:
""",
        "When the launcher is killed just after it let a worker in, the others keep that worker's pipe open "
        "and it reaches its drain deadline.",
    ),
)

_FRAMING: Final = (
    Planted(
        "half-a-packet-waited-for",
        "wire/packet.py",
        """                elif not drained:
                    break
""",
        """                else:
                    break
""",
        "Half a packet in a pipe costs the good message behind it, which another worker wrote.",
    ),
    Planted(
        "checksum-of-fragments-only",
        "wire/packet.py",
        "if _crc32(payload, ",
        "if kind == BATCH or _crc32(payload, ",
        "A small message whose bytes were damaged reaches its handler as something else than was sent.",
    ),
    Planted(
        "next-number-counts-arrivals",
        "wire/reassembler.py",
        "stream.next_number = packet.number + 1",
        "stream.next_number += 1",
        "After one lost packet no large message of that sender is ever completed, and a repeat is "
        "handled twice.",
    ),
    Planted(
        "small-messages-stay-in-the-budget",
        "wire/outbox.py",
        "        budget.used_bytes -= cargo.size_bytes\n",
        "        budget.used_bytes -= sum(map(len, cargo.large))\n",
        "After 128 MiB of small messages every send of any size to a busy worker waits and times out.",
    ),
    Planted(
        "full-read-taken-for-the-last",
        "worker/transport/pipe_reader.py",
        "drained = len(chunk) < READ_BYTES or",
        "drained = len(chunk) <= READ_BYTES or",
        "Under load a message is lost wherever a full read cuts its packet in two.",
    ),
)

_FLEET: Final = (
    Planted(
        "failed-restart-never-over",
        "fleet/restart.py",
        "        self._waiting.clear()\n",
        "",
        "After a restart that was given up, because the new code can't start, SIGHUP does nothing any more.",
    ),
    Planted(
        "starting-asked-too-late",
        "fleet/processes.py",
        "        starting = process.phase is Phase.STARTING\n",
        "        starting = process.phase is Phase.STOPPING\n",
        "A stop during the start waits until every worker has finished importing the app.",
    ),
    Planted(
        "hang-without-a-deadline",
        "fleet/processes.py",
        "if self.policy.hang_timeout_s is not None and process.kill_at is None:",
        "if self.policy.hang_timeout_s is not None and not process.stalled:",
        "A worker whose event loop hangs is shown as stalled, but it is not replaced at "
        "--worker-hang-timeout.",
    ),
    Planted(
        "read-end-kept-by-the-parent",
        "launcher/process.py",
        "_close(lifeline, read_end, own_arena)",
        "_close(lifeline, own_arena)",
        "The launcher loses one descriptor for every worker ever started, and senders to a dead worker "
        "don't notice until it is reaped.",
    ),
)

PLANTED: Final[tuple[Planted, ...]] = _JOINING_AND_LEAVING + _FRAMING + _FLEET
