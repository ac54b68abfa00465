"""The listening sockets change hands: what is said of each, and who has its file and its lock.

Until the new side has committed itself, it only borrows them: they, their files and their locks are the old side's,
which may serve on. The lock of a file is held by both as long, so that there is no moment without an owner.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from pysock.address import INHERITED, Address
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.unique import Unique
from pysock.files.socketfile import SocketFile
from pysock.handover.channel import MOST_DESCRIPTORS
from pysock.listening import Lent

if TYPE_CHECKING:
    from typing import Final

    from pysock.handover.door import Door
    from pysock.limits import Limits
    from pysock.listening import Listening
    from pysock.master import MasterSocket

_HEAD: Final = struct.Struct("<HBB")  # which of the program's addresses it is for, prepared, has a lock
#: With its lock each has two descriptors, and one message has all.
MOST: Final = MOST_DESCRIPTORS // 2 - 1


class Passed(NamedTuple):
    """One of them, on the new side."""

    group: int  # which of the program's addresses it is for
    lent: Lent
    lock: int  # the descriptor of its lock; -1: it has none


def told(listening: Listening) -> tuple[list[bytes], list[int]]:
    """What is said of them, each, and their descriptors, each with that of its lock behind it."""
    values: list[bytes] = []
    descriptors: list[int] = []
    groups = [number for number, count in enumerate(listening.groups) for _ in range(count)]
    for group, master in zip(groups, listening.masters, strict=True):
        lock = master.lock_fd
        values.append(_HEAD.pack(group, master.prepared, lock >= 0) + str(master.address).encode())
        descriptors += [master.fd] if lock < 0 else [master.fd, lock]
    return values, descriptors


def heard(values: Sequence[bytes], descriptors: list[int]) -> list[Passed]:
    """The same, on the other side. It takes the descriptors that it understands out of the list.

    :raises ValueError: it isn't as it may be.
    """
    passed: list[Passed] = []
    for value in values:
        if len(value) < _HEAD.size:
            raise ValueError("a listener isn't whole")
        group, prepared, has_lock = _HEAD.unpack_from(value)
        at = Address.parse(value[_HEAD.size :].decode())
        if len(descriptors) < 1 + bool(has_lock):
            raise ValueError(f"the descriptors of {at} aren't there")
        fd = descriptors.pop(0)
        passed.append(Passed(group, Lent(fd, at, bool(prepared)), descriptors.pop(0) if has_lock else -1))
    return passed


class Borrowed(Unique):
    """What the new side has of them, until it owns them."""

    def __init__(self, passed: Sequence[Passed]) -> None:
        self._passed = list(passed)
        self._are_open = True  # nobody has them yet

    def lend(self, wanted: Sequence[Address], _limits: Limits) -> list[list[Lent]]:
        """For ``Listening.lender``."""
        self._are_open = False
        return [[one.lent for one in self._passed if one.group == number] for number in range(len(wanted))]

    def own(self, masters: Sequence[MasterSocket], limits: Limits) -> None:
        """From now on they are this process's, with their files; clients are told so, for it listens anew."""
        passed, self._passed = self._passed, []
        if not passed:  # somebody else lends them
            return
        for master, one in zip(masters, passed, strict=True):
            file = SocketFile.taken_over(one.lent.at, one.lock) if one.lock >= 0 else None
            if one.lent.at.transport not in INHERITED:
                master.own(file, one.lent.at.backlog or limits.backlog)

    def close(self) -> None:
        """They stay the old side's. Called again it does nothing."""
        passed, self._passed = self._passed, []
        for one in passed:
            if one.lock >= 0:
                os.close(one.lock)
            if self._are_open:
                os.close(one.lent.fd)


def leave(listening: Listening, door: Door | None) -> None:
    """They are the other side's: what we close of them is only closed, and their files stay."""
    for master in listening.masters:
        master.leave()
    if door is not None:
        door.leave()
