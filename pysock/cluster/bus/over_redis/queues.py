"""Who is in which queue, as far as one end knows: all who were there when it came, and who has told of itself since.

Who has died without a word is found when a message to it reaches nobody.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

#: So many members are known at most: whoever may use the bus can make up any.
MEMBERS_MAX: Final = 65_536
_CHANNEL: Final = re.compile(rb"[a-zA-Z0-9._-]{1,255}@[0-9a-f]{16}")


class Queues:
    """The members' channels, by subject. One thread's own."""

    def __init__(self) -> None:
        self._members: dict[bytes, list[bytes]] = {}
        self._count = 0

    def __contains__(self, subject: bytes) -> bool:
        return subject in self._members

    def learn(self, channels: Iterable[object]) -> None:
        """These are all; what was known before is forgotten."""
        self._members.clear()
        self._count = 0
        for channel in channels:
            if isinstance(channel, bytes):
                self.join(channel)

    def join(self, channel: bytes) -> None:
        """A member has come."""
        if self._count >= MEMBERS_MAX or not _CHANNEL.fullmatch(channel):
            return
        members = self._members.setdefault(channel.partition(b"@")[0], [])
        if channel not in members:
            members.append(channel)
            self._count += 1

    def leave(self, channel: bytes) -> None:
        """A member has gone."""
        subject = channel.partition(b"@")[0]
        members = self._members.get(subject, [])
        if channel in members:
            members.remove(channel)
            self._count -= 1
            if not members:
                del self._members[subject]

    def pick(self, subject: bytes) -> bytes | None:
        """One of all; ``None``: there is none."""
        members = self._members.get(subject)
        return random.choice(members) if members else None  # noqa: S311  # no secret
