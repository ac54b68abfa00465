"""What an access log is to tell of: the words of ``access_log=`` and ``--access-log``."""

from __future__ import annotations

import re

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Final

CONNECTIONS: Final = "connections"
#: The largest N of ``requests:1/N``.
LARGEST: Final = 1_000_000

_REQUESTS: Final = re.compile(r"requests(?::1/([1-9][0-9]{0,6}))?")


class Wanted(NamedTuple):
    """What it is to tell of.

    :ivar connections: each that has ended.
    :ivar every: each so manieth request; 0: none.
    """

    connections: bool
    every: int


def checked_wanted(text: str) -> Wanted:
    """Return what is asked for: ``connections``, ``requests``, ``requests:1/N``, or two of them with a comma between.

    :raises ValueError: it is nothing of that kind.
    """
    connections, every = False, 0
    for word in text.split(",") if isinstance(text, str) else [""]:
        found = _REQUESTS.fullmatch(word)
        number = int(found[1] or 1) if found else 0
        if not (found or word == CONNECTIONS) or number > LARGEST or (connections if not found else every):
            raise ParameterError(
                "access_log",
                f"must be 'connections', 'requests', 'requests:1/N' with an N up to {LARGEST}, or"
                f" 'connections,requests:1/N', not {text!r}",
            )
        connections, every = connections or not found, every or number
    return Wanted(connections, every)
