"""Clients of one name, where only one may have it: which of them stays. Each owner finds the same one, without a word.

What decides is when they came, by Lamport's clock, and then the epochs of their nodes: never the time of day.
"""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.directory.rows import INDEX, NAME, connected_at, id_of, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Final

    from pysock.cluster.directory.names import Names
    from pysock.cluster.directory.node import Node

#: The index of this node's own rows.
OWN: Final = 0
_OWN_ROWS: Final = INDEX.pack(OWN)


class Rivals:
    """See the head of this file.

    :param epoch: of this node.
    :param unique: which one stays: ``"newest"``, ``"oldest"``; ``None``: all of them.
    :param node_of: the other node of an index, as far as there is one.
    """

    def __init__(self, epoch: int, unique: str | None, names: Names, node_of: Callable[[int], Node | None]) -> None:
        self._epoch = epoch
        self._best = {"newest": max, "oldest": min}.get(unique or "")
        self._names = names
        self._node_of = node_of
        self._moved: set[int] = set()  # the clients of this node that have come from another one

    def moved(self, client_id: int, _now: float) -> None:
        """A client of this node has come from another one, which may not have told yet that it went."""
        self._moved.add(client_id)

    def losers(self, came: Iterable[bytes]) -> Iterator[int]:
        """The clients of this node that have to go, now that these rows have come."""
        if self._best is not None:
            for name in {row[NAME] for row in came}:
                yield from self._losers(self._names.of(name))

    def all_losers(self) -> Iterator[int]:
        """The same of all names: nodes that were in doubt are back."""
        if self._best is not None:
            for holders in self._names.shared():
                yield from self._losers(holders)

    def _losers(self, holders: list[bytes]) -> Iterator[int]:
        assert self._best is not None
        sure = [row for row in holders if not self._is_doubtful(row)]
        if self._moved:
            sure = self._each_once(sure)
        stays = self._best(sure, key=self.rank, default=None)
        return (id_of(row) for row in sure if row is not stays and row[:2] == _OWN_ROWS)

    def _each_once(self, holders: list[bytes]) -> list[bytes]:
        """Without the rows that other nodes still have of clients that are here by now."""
        own = [row for row in holders if row[:2] == _OWN_ROWS]
        here = {(id_of(row), connected_at(row)) for row in own if id_of(row) in self._moved}
        return own + [row for row in holders if row[:2] != _OWN_ROWS and (id_of(row), connected_at(row)) not in here]

    def _is_doubtful(self, row: bytes) -> bool:
        """Whether it may be that its node isn't there any more: then its clients have to be somewhere else."""
        node = self._node_of(INDEX.unpack_from(row)[0])
        return node is not None and (node.is_stale or node.is_suspect)

    def rank(self, row: bytes) -> tuple[int, int, int]:
        """Who has come later is more."""
        node = self._node_of(INDEX.unpack_from(row)[0])
        return stamp_of(row), self._epoch if node is None else node.epoch, id_of(row)
