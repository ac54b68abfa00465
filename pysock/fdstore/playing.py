"""The old side of a hand-over whose server has ended: it says what that one said, and gives what it left in the
store.

Descriptors that the store has lost, for it was too small, are missed here: their clients' connections were closed by
the manager, and their rows are left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.errors import HandoverFailed
from pysock.fdstore.bundle import Bundle, Entry, mark_of
from pysock.fdstore.recording import flattened
from pysock.handover import tags
from pysock.handover.channel import Channel, close_all
from pysock.handover.messages import Kind
from pysock.handover.rows import split_rows

if TYPE_CHECKING:
    from pysock.handover.options import Options


class Playing(Unique):
    """One.

    :param descriptors: what the store gave back, in any order: they are this object's from now on.
    """

    def __init__(
        self, channel: Channel, bundles: Iterable[Bundle], descriptors: Iterable[int], options: Options
    ) -> None:
        self._channel = channel
        self._options = options
        self._entries = list(chain.from_iterable(one.entries for one in sorted(bundles, key=lambda one: one.number)))
        self._by_mark: dict[bytes, int] = {}
        for fd in descriptors:
            mark = mark_of(fd)
            if mark in self._by_mark:
                os.close(fd)
            else:
                self._by_mark[mark] = fd
        self.missed: int = 0

    def run(self) -> bool:
        """To the end, in a thread beside the server that starts. Whether that one has all of it."""
        try:
            self._hear(Kind.HELLO)
            self._offer()
            self._hear(Kind.PREPARED, self._options.prepare)
            self._give()
            return True
        except (HandoverFailed, ValueError, OSError) as error:
            log.error("what the process before has left in the service manager's keeping is lost: %s", error)
            return False
        finally:
            close_all(self._by_mark.values())
            self._channel.close()
            if self.missed:
                log.warning("%d clients were not in the service manager's store any more: raise"
                            " FileDescriptorStoreMax=", self.missed)  # fmt: skip

    def _offer(self) -> None:
        for entry in self._of(Kind.OFFER):
            fields = [(tag, value) for tag, value in flattened(entry.message) if tag != tags.PID]
            self._say(entry, [*fields, (tags.PID, os.getpid().to_bytes(4, "little"))])
        for entry in self._of(Kind.LISTENERS):
            found = [self._by_mark.pop(mark, -1) for mark in entry.marks]
            try:
                if -1 in found:
                    raise HandoverFailed("a listener isn't in the service manager's store any more")
                self._say(entry, flattened(entry.message), found)
            finally:
                close_all(fd for fd in found if fd >= 0)

    def _give(self) -> None:
        number = 0
        for entry in self._of(Kind.FREEZE, Kind.EXTRA):
            self._say(entry, flattened(entry.message))
        for entry in self._of(Kind.ROWS):
            rows, theirs = self._found(entry)
            if not theirs:
                continue
            number += 1
            try:
                told = number.to_bytes(4, "little")
                self._say(entry, [(tags.NUMBER, told), (tags.ROWS, rows)], theirs)
            finally:
                close_all(theirs)
            self._hear(Kind.TAKEN)
        self._channel.send(Kind.COMMIT, [(tags.ROUND, (1).to_bytes(4, "little"))], patience=self._options.step)
        self._hear(Kind.ACTIVE)
        for entry in self._of(Kind.TOTALS):
            self._say(entry, flattened(entry.message))
        self._channel.send(Kind.BYE, patience=self._options.step)

    def _found(self, entry: Entry) -> tuple[bytes, list[int]]:
        """The rows of those whose descriptor is there, and those."""
        rows: list[memoryview] = []
        theirs: list[int] = []
        for row, mark in zip(split_rows(memoryview(entry.message.one(tags.ROWS))), entry.marks, strict=True):
            fd = self._by_mark.pop(mark, -1)
            if fd < 0:
                self.missed += 1
                continue
            rows.append(row)
            theirs.append(fd)
        return b"".join(rows), theirs

    def _of(self, *kinds: Kind) -> Iterator[Entry]:
        return (entry for entry in self._entries if entry.message.kind in kinds)

    def _say(self, entry: Entry, fields: Sequence[tuple[int, bytes]], descriptors: Sequence[int] = ()) -> None:
        self._channel.send(Kind(entry.message.kind), fields, descriptors, patience=self._options.step)

    def _hear(self, kind: Kind, patience: float | None = None) -> None:
        message, descriptors = self._channel.receive(self._options.step if patience is None else patience)
        close_all(descriptors)
        if message.kind != kind:
            why = message.fields.get(tags.WHY, [b""])[0].decode(errors="replace")
            raise HandoverFailed(f"the server that follows says {message.name}, and not {kind.name}: {why}")
