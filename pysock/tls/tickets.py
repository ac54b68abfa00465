"""By what several processes seal the sessions that clients go on with: the workers of one service have the same keys.

A client comes back to any of them, and its ticket is to open there. This file owns the keys of those who give them to
others, and their order: after each hour the next ones, made from those before by a hash that nobody can turn back, as
``csrc/transport/tickets.c`` does it for itself. Who gives them keeps those of the hour before, for one more hour: so a
worker that starts late opens what was sealed before it was there, and nothing older.
"""

from __future__ import annotations

import hashlib
import os
import time

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

#: Nanoseconds for which sessions are sealed by the same keys; those before are good for as long again.
PERIOD: Final = 3600 * 10**9
#: Their bytes, as OpenSSL has them: a name, a key of the checksum, and one of the cipher.
SIZE: Final = 80


def next_keys(keys: bytes | bytearray) -> bytes:
    """Those of the hour after that of these."""
    blocks = [hashlib.sha256(bytes(keys) + bytes((number,))).digest() for number in range(SIZE // 32 + 1)]
    return b"".join(blocks)[:SIZE]


class SharedKeys:
    """Those of a service, with whoever starts its processes.

    :param clock: nanoseconds, by a clock that all processes of the machine have; it tells which hour it is.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._keys = bytearray(os.urandom(SIZE))
        self._period = clock() // PERIOD - 1

    @classmethod
    def taken_up(cls, told: dict[str, Any]) -> SharedKeys:
        """Those of one that was there before, as its :meth:`told` has them."""
        found = cls()
        found._keys[:], found._period = bytes.fromhex(told["keys"]), told["period"]
        return found

    def go_on(self) -> None:
        """Forget what is older than an hour, if there is such a thing."""
        while self._period < self._clock() // PERIOD - 1:
            self._keys[:] = next_keys(self._keys)
            self._period += 1

    def told(self) -> dict[str, Any]:
        """For a process that starts: what :meth:`GivenKeys.take` makes of it; JSON."""
        self.go_on()
        return {"keys": self._keys.hex(), "period": self._period}


class GivenKeys:
    """Those that this process was given, until an engine has them; ``None`` where it was given none."""

    def __init__(self) -> None:
        self._given: tuple[bytes, int] | None = None

    def take(self, told: dict[str, Any]) -> None:
        """As :meth:`SharedKeys.told` has it."""
        self._given = bytes.fromhex(told["keys"]), told["period"]

    def hand_over(self) -> tuple[bytes, int] | None:
        """The keys, and of which hour they are; only once."""
        given, self._given = self._given, None
        return given


#: This process's.
given: Final = GivenKeys()
