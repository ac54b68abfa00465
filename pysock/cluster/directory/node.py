"""Another node: what is known of it, and its list of clients, where that has to be fetched.

Its batches have running numbers. As long as none is missing the list is right, and a heartbeat's count and hash agree.
Where they don't, the whole list is fetched, page by page, as it was at the moment of one number; the batches that come
meanwhile wait, and follow.
"""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.directory.own import Batch
from pysock.cluster.directory.rows import Roster
from pysock.cluster.directory.words import WAITING_MAX

if TYPE_CHECKING:
    from typing import Final

    from pysock.cluster.directory.messages import NodeInfo
    from pysock.cluster.directory.names import Names

#: When a page was asked for that is to be asked for at once.
NOW: Final = float("-inf")


class Fetch:
    """A list on its way.

    :ivar page: the one that is asked for.
    :ivar asked_at: when.
    :ivar tries: how often.
    """

    __slots__ = ("asked_at", "number", "page", "rows", "session", "tries")

    def __init__(self, session: int) -> None:
        self.session: int = session
        self.page: int = 0
        self.number: int = 0
        self.asked_at: float = NOW
        self.tries: int = 0
        self.rows: list[bytes] = []


class Node:
    """See the head of this file.

    :ivar epoch: by what it is known: another one for each process, and each start of it.
    :ivar index: by what its rows are known to be its.
    :ivar said: what it says of itself, as it came.
    :ivar number: of the last batch that is in its roster.
    :ivar is_synced: whether the roster is what its owner had then, as far as is known.
    :ivar is_stale: the bus was down, and it hasn't been heard since.
    :ivar due: when its list is to be fetched; ``None``: it needn't be.
    """

    __slots__ = (
        "_names", "_waiting", "_waiting_bytes", "came", "due", "epoch", "fetch", "heard_at", "index", "info",
        "is_stale", "is_suspect", "is_synced", "number", "roster", "said",
    )  # fmt: skip

    def __init__(self, epoch: int, index: int, info: NodeInfo, names: Names, now: float) -> None:
        self.epoch: int = epoch
        self.index: int = index
        self.info: NodeInfo = info
        self.said: bytes = b""
        self.roster: Roster = Roster()
        self.number: int = 0
        self.heard_at: float = now
        self.is_synced: bool = False
        self.is_suspect: bool = False
        self.is_stale: bool = False
        self.due: float | None = None
        self.fetch: Fetch | None = None
        #: Rows that have come whose names others have, too.
        self.came: list[bytes] = []
        self._names = names
        self._waiting: list[Batch] = []
        self._waiting_bytes = 0

    # The roster

    def _put(self, row: bytes) -> None:
        old = self.roster.put(row)
        if old is not None:
            self._names.take(old)
        if self._names.put(row):
            self.came.append(row)

    def _take(self, client_id: int) -> None:
        row = self.roster.take(client_id)
        if row is not None:
            self._names.take(row)

    def _apply(self, batch: Batch) -> None:
        for client_id in batch.left:
            self._take(client_id)
        for row in batch.came:
            self._put(row)
        self.number = batch.number

    def clear(self) -> None:
        """Forget its clients."""
        for row in self.roster:
            self._names.take(row)
        self.roster = Roster()
        self.forget_fetch()

    # What it says

    def batch(self, batch: Batch, size: int) -> bool:
        """It has told of clients; whether none is missing."""
        if self.is_synced and batch.number == self.number + 1:
            self._apply(batch)
            return True
        if self.is_synced and batch.number <= self.number:
            return True
        self.is_synced = False
        self._waiting_bytes += size
        if self._waiting_bytes > WAITING_MAX:  # what is missing then will be noticed
            self._waiting, self._waiting_bytes = [], size
        self._waiting.append(batch)
        return False

    def agrees(self, number: int, count: int, hashed: int) -> bool:
        """A heartbeat: whether it is known what it speaks of. An older one says nothing."""
        if self.is_synced and number < self.number:
            return True
        if not count:
            if self.roster.rows:
                self.clear()
            self._follow(number)
            return self.is_synced
        if number == self.number and count == len(self.roster) and hashed == self.roster.hash:
            self._follow(number)
            return self.is_synced
        self.is_synced = False
        return False

    # Its list

    def forget_fetch(self) -> None:
        """Nothing is on its way any more."""
        self.fetch = self.due = None

    def page(self, number: int, page: int, pages: int, rows: list[bytes]) -> bool:
        """A page that was asked for has come; whether it was the last one, and the roster is new."""
        fetch = self.fetch
        assert fetch is not None
        if not pages or (page and number != fetch.number):
            fetch.page, fetch.rows = 0, []
            fetch.session = (fetch.session + 1) % 2**32
            fetch.asked_at = NOW
            return False
        if page != fetch.page:
            return False  # it was asked for twice
        fetch.number = number
        fetch.rows += rows
        fetch.page, fetch.tries, fetch.asked_at = page + 1, 0, NOW
        if fetch.page < pages:
            return False
        self._replace(fetch.rows)
        self._follow(number)
        return True

    def _replace(self, rows: list[bytes]) -> None:
        new = Roster()
        for row in rows:
            new.put(row)
        for client_id, row in list(self.roster.rows.items()):
            if new.rows.get(client_id) != row:
                self._take(client_id)
        for client_id, row in new.rows.items():
            if client_id not in self.roster.rows:
                self._put(row)

    def _follow(self, number: int) -> None:
        """The roster is that of this number: what has waited follows, as far as none is missing."""
        self.number, self.is_synced = number, True
        self.forget_fetch()
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for batch in waiting:
            if batch.number == self.number + 1:
                self._apply(batch)
            elif batch.number > self.number:
                self.is_synced = False
                self._waiting.append(batch)
