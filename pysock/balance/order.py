"""In which order a client tries the nodes of a service. No I/O: what is known of them goes in, and chance."""

from __future__ import annotations

from collections.abc import Callable

from pysock.balance.policy import SUBSET
from pysock.balance.rendezvous import ranked
from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random
    from typing import Final

    from pysock.balance.nodes import Nodes


class Orderly:
    """What an order depends on, beside the nodes.

    :param chance: in tests one that is no chance.
    """

    __slots__ = ("chance", "key", "turn")

    def __init__(self, chance: Random) -> None:
        self.chance: Random = chance
        self.turn: int = chance.randrange(2**32)  # else all clients would begin at the first
        self.key: bytes = chance.getrandbits(128).to_bytes(16, "big")


def as_given(keys: list[str], nodes: Nodes, orderly: Orderly) -> list[str]:
    """In their order."""
    del nodes, orderly
    return keys


def by_turns(keys: list[str], nodes: Nodes, orderly: Orderly) -> list[str]:
    """The next one, and so on."""
    del nodes
    orderly.turn += 1
    first = orderly.turn % max(1, len(keys))
    return keys[first:] + keys[:first]


def at_random(keys: list[str], nodes: Nodes, orderly: Orderly) -> list[str]:
    """Of the first two the better one is taken."""
    del nodes
    return orderly.chance.sample(keys, len(keys))


def of_a_few(keys: list[str], nodes: Nodes, orderly: Orderly) -> list[str]:
    """For the connections of a pool: of the few nodes that are its own, the one that has the fewest of them."""
    mine = ranked(orderly.key, keys)
    few = sorted(mine[:SUBSET], key=lambda key: nodes[key].connections)
    return few + mine[SUBSET:]


#: By what it is called.
ORDERS: Final[dict[str, Callable[[list[str], Nodes, Orderly], list[str]]]] = {
    "first": as_given,
    "round": by_turns,
    "p2c": at_random,
    "pool": of_a_few,
}
