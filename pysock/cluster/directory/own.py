"""The clients of this node: what is told of them to the others, and pages of them for who asks.

What was told last has a number, and after :meth:`Own.flush` the roster is what whoever has heard all up to that number
has, too. So pages are always made then.
"""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.cluster.directory.rows import Roster, id_of, pages_of
from pysock.cluster.directory.words import BATCH_BYTES, KEPT, LEAVES_MAX, NODES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator


class Batch(NamedTuple):
    """What is told at once."""

    number: int
    left: list[int]
    came: list[bytes]


class Kept(NamedTuple):
    """What one of the others fetches: as it was at one moment, for else its pages wouldn't fit together."""

    session: int
    number: int
    pages: list[list[bytes]]
    until: float


class Own:
    """See the head of this file.

    :ivar number: of what was told last.
    :ivar since: when the first thing came that isn't told yet; ``None``: all is told.
    """

    def __init__(self) -> None:
        self.roster: Roster = Roster()
        self.number: int = 0
        self.since: float | None = None
        self._came: dict[int, bytes] = {}
        self._left: list[int] = []
        self._size = 0
        self._kept: dict[int, Kept] = {}  # by the epoch of who asks

    def joined(self, row: bytes, now: float) -> None:
        """A client has come."""
        self.roster.put(row)
        self._came[id_of(row)] = row
        self._size += len(row)
        self.since = now if self.since is None else self.since

    def left(self, client_id: int, now: float) -> bytes | None:
        """It has gone; its row, if it was known."""
        row = self.roster.take(client_id)
        if row is None:
            return None
        if self._came.pop(client_id, None) is not None:
            self._size -= len(row)  # nobody has been told of it
        else:
            self._left.append(client_id)
            self._size += 8
        self.since = now if self.since is None else self.since
        return row

    @property
    def is_full(self) -> bool:
        """Whether what there is to tell shouldn't wait for more."""
        return self._size >= BATCH_BYTES

    def flush(self) -> Iterator[Batch]:
        """What wasn't told yet; nothing is left then."""
        came, left = list(self._came.values()), self._left
        self._came, self._left, self._size, self.since = {}, [], 0, None
        for at in range(0, len(left), LEAVES_MAX):
            self.number += 1
            yield Batch(self.number, left[at : at + LEAVES_MAX], [])
        if came:
            for page in pages_of(came, BATCH_BYTES):
                self.number += 1
                yield Batch(self.number, [], page)

    def page(self, asker: int, session: int, page: int, now: float) -> Kept | None:
        """What this page is of, after a ``flush``; ``None``: it is kept no more, or has no such page."""
        kept = self._kept.get(asker)
        if kept is None or kept.session != session:
            if page:
                return None
            kept = Kept(session, self.number, pages_of(list(self.roster), BATCH_BYTES), now)
        kept = self._kept[asker] = kept._replace(until=now + KEPT)
        if len(self._kept) > NODES_MAX:
            self.drop(float("inf"), 1)
        return kept if page < len(kept.pages) else None

    def drop(self, now: float, most: int = NODES_MAX) -> None:
        """Forget what nobody has asked for since long; so many at most."""
        over = [asker for asker, kept in self._kept.items() if kept.until <= now]
        for asker in over[:most]:
            del self._kept[asker]
