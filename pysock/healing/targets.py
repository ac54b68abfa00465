"""Several addresses of one service, in order: the first that lets the client in has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from pysock.address import Address, AddressLike, as_address
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError
from pysock.healing.policy import is_passing

if TYPE_CHECKING:
    from typing import TypeAlias, TypeVar

    Result = TypeVar("Result")

_ONE = (str, Address, os.PathLike)
#: One address, or several in the order in which they are tried.
Targets: TypeAlias = "AddressLike | Iterable[AddressLike]"


def checked_targets(address: Targets) -> tuple[Address, ...]:
    """Return the addresses.

    :raises ValueError: there is none, or one isn't an address.
    :raises TypeError: one can't be an address, as the port of a pair of host and port.
    """
    if isinstance(address, _ONE):
        return (as_address(address),)
    several = tuple(address)
    if not several:
        raise ParameterError("address", "connect() needs at least one address", name="")
    strangers = [one for one in several if not isinstance(one, _ONE)]
    # They come first: of a pair of host and port, the host is a bad address as well, but not what is wrong.
    return tuple(map(as_address, strangers or several))


def in_order(addresses: tuple[Address, ...]) -> Iterator[tuple[Address, Callable[[Exception], bool]]]:
    """Each address, and the question whether what it failed with lets the next one be tried."""
    last = len(addresses) - 1
    for at, address in enumerate(addresses):
        yield address, is_passing if at < last else _never


def rounded(left: float | None) -> float | None:
    """The seconds that are left, as people like to read them."""
    return None if left is None else max(0.001, round(left, 3))


def _never(_error: Exception) -> bool:
    return False
