"""How clients choose among several servers of one service: the words for it, and numbers."""

from __future__ import annotations

import random

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ConnectionLost, ConnectionRefused, ParameterError, ProtocolError, RequestTimeout
from pysock.healing.policy import PASSING_REFUSALS

if TYPE_CHECKING:
    from typing import Final

#: ``balance=`` of a client: in their order; of two at random the one with fewer clients; by turns.
BALANCES: Final = ("first", "p2c", "round")

#: So many attempts to connect that fail in a row put a node aside, or so many connections that are lost in a row.
FAILURES: Final = 3
LOSSES: Final = 5

#: Seconds for which it is put aside. They double each time, up to the second number; a connection that has lived as
#: long as the first has everything forgotten.
ASIDE: Final = 30.0
LONGEST_ASIDE: Final = 960.0

#: A pool's connections lead to so many nodes. With fewer, one that fails takes too many of them with it; with more,
#: each of n clients is a client of each of m servers.
SUBSET: Final = 3

#: Seconds for the second of two that are compared: the first has let the client in already, and waits.
COMPARED_WITHIN: Final = 1.0

#: Seconds for a cluster's bus, where nodes are known that may be tried.
ASKED_WITHIN: Final = 2.0

#: In the place of chance, which tests replace. It has no state that a forked child would share.
CHANCE: Final[random.Random] = random.SystemRandom()


def checked_balance(balance: str | None) -> str | None:
    """Return it.

    :raises ValueError: it is no such word.
    """
    if balance is not None and balance not in BALANCES:
        raise ParameterError("balance", f"must be one of {', '.join(map(repr, BALANCES))}, not {balance!r}")
    return balance


def tries_the_next(error: BaseException) -> bool:
    """Whether what one node failed with says nothing of the next. A refusal for good, because of the key say, is the
    service's; all else is that node's.
    """
    if isinstance(error, ConnectionRefused):
        return error.code in PASSING_REFUSALS
    return isinstance(error, (OSError, ConnectionLost, RequestTimeout, ProtocolError))
