"""Who has which name, on all nodes: for a look-up without a message, and without going through all clients.

Any thread may look, while one changes it. A name that one client has costs one entry of a dict; those that many have
are in a dict of their own.
"""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.directory.rows import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator


class Names:
    """See the head of this file."""

    __slots__ = ("_holders",)

    def __init__(self) -> None:
        #: By name: the row of the one that has it, or those of all.
        self._holders: dict[bytes, bytes | dict[bytes, None]] = {}

    def put(self, row: bytes) -> bool:
        """Note it; whether others have this name, too."""
        name = row[NAME]
        if not name:
            return False
        found = self._holders.get(name)
        if found is None:
            self._holders[name] = row
            return False
        if isinstance(found, dict):
            found[row] = None
        elif found == row:
            return False
        else:
            self._holders[name] = {found: None, row: None}
        return True

    def take(self, row: bytes) -> None:
        """It is gone."""
        name = row[NAME]
        found = self._holders.get(name)
        if isinstance(found, dict):
            found.pop(row, None)
            if len(found) == 1:
                self._holders[name] = next(iter(found))
        elif found == row:
            del self._holders[name]

    def of(self, name: bytes) -> list[bytes]:
        """The rows of those who have it."""
        found = self._holders.get(name)
        return [] if found is None else list(found) if isinstance(found, dict) else [found]

    def shared(self) -> Iterator[list[bytes]]:
        """Of each name that several have: their rows."""
        return (list(found) for found in list(self._holders.values()) if isinstance(found, dict))
