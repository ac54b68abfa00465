"""The new side of a hand-over that is no server yet: what is given to it goes into a store, and waits there.

This file owns the order of that: a round is said to be ACTIVE only when the manager has all of it, so that clients are
either served on here, or in the store with everything that is to be known of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import HandoverFailed
from pysock.fdstore.bundle import encode_bundle, mark_of
from pysock.fdstore.store import Store, names_of
from pysock.handover import tags
from pysock.handover.channel import Channel, close_all
from pysock.handover.messages import Kind
from pysock.handover.sealed import sealed

if TYPE_CHECKING:
    from pysock.handover.messages import Message
    from pysock.handover.options import Options

    Fields = Sequence[tuple[int, bytes]]


class Recording(Unique):
    """One.

    :param hello: the fields of the message HELLO, as of a server like the one that gives.
    """

    def __init__(self, channel: Channel, store: Store, hello: Fields, options: Options) -> None:
        self._channel = channel
        self._store = store
        self._hello = hello
        self._options = options
        self._kept: list[tuple[int, Fields, Sequence[bytes]]] = []
        self._descriptors: list[int] = []
        self._round = 0
        #: Why it came to an end before its time.
        self.failed: str = ""

    def run(self) -> None:
        """To the end. In a thread beside that of the giving side."""
        try:
            self._say(Kind.HELLO, self._hello)
            self._keep(Kind.HELLO, self._hello)
            while self._hear():
                pass
        except (HandoverFailed, ValueError, OSError) as error:
            self.failed = str(error)
            self._give_up()
        finally:
            close_all(self._descriptors)
            self._channel.close()

    def _hear(self) -> bool:
        message, descriptors = self._channel.receive(self._options.grace + 2 * self._options.step)
        self._descriptors += descriptors
        if message.kind in {Kind.REFUSE, Kind.ABORT}:
            raise HandoverFailed(message.fields.get(tags.WHY, [b"it doesn't say why"])[0].decode(errors="replace"))
        if message.kind == Kind.COMMIT:
            self._put_away()
            self._say(Kind.ACTIVE, [(tags.ROUND, message.one(tags.ROUND))])
            self._round += 1
            return True
        if message.kind == Kind.BYE:
            self._put_away()
            return False
        self._keep(message.kind, flattened(message), [mark_of(fd) for fd in descriptors])
        if message.kind == Kind.LISTENERS:
            self._say(Kind.PREPARED)
        elif message.kind == Kind.ROWS:
            self._say(Kind.TAKEN, [(tags.NUMBER, message.one(tags.NUMBER))])
        return True

    def _put_away(self) -> None:
        """All that has come since the last time."""
        entries, self._kept = self._kept, []
        if not entries:
            return
        kept, state = names_of(self._round)
        self._store.keep(kept, self._descriptors)
        close_all(self._descriptors)
        self._descriptors.clear()
        file = sealed(encode_bundle(self._round, entries))
        try:
            self._store.keep(state, [file])
        finally:
            os.close(file)
        self._store.settle()

    def _give_up(self) -> None:
        """Whoever this round was about is served on here; those of earlier ones are in the store, and nowhere else."""
        with suppress(HandoverFailed):  # it may have hung up, for this took too long
            self._say(Kind.GAVE_UP, [(tags.WHY, self.failed.encode()[:1000])])
        try:
            self._store.forget(names_of(self._round))
        except HandoverFailed as error:
            self.failed += f"; {error}"

    def _keep(self, kind: int, fields: Fields, marks: Sequence[bytes] = ()) -> None:
        self._kept.append((kind, fields, marks))

    def _say(self, kind: Kind, fields: Fields = ()) -> None:
        self._channel.send(kind, fields, patience=self._options.step)


def flattened(message: Message) -> list[tuple[int, bytes]]:
    """The fields of a message, in an order in which it has the same meaning."""
    return [(tag, value) for tag, values in message.fields.items() for value in values]
