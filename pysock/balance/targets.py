"""What a client is given as its server's address, or addresses; and the nodes that a host's name stands for."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pysock.address import INHERITED, NETWORK, Address, AddressLike, as_address
from pysock.base.forms import separated
from pysock.base.lean import TYPE_CHECKING, NamedTuple, replace
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import TypeAlias

_ONE = (str, Address, os.PathLike)
#: One address, or several: in a list, or in one text with commas between them.
Targets: TypeAlias = "AddressLike | Iterable[AddressLike]"


class Target(NamedTuple):
    """A node that an address leads to, or what was wrong with that address."""

    address: Address
    given: str  # the key of the address
    error: OSError | None = None

    @property
    def key(self) -> str:
        """By what it is known."""
        return key_of(self.address)


def key_of(address: Address) -> str:
    """By what a node at this address is known: its address without the options, but for a name that is all it has."""
    return address.bare() if address.path or address.transport != "unix" else str(address)


def checked_targets(address: Targets) -> tuple[Address, ...]:
    """Return the addresses, each once.

    :raises ValueError: there is none, or one isn't an address.
    :raises TypeError: one can't be an address, as the port of a pair of host and port.
    """
    several = (address,) if isinstance(address, _ONE) else tuple(address)
    if not several:
        raise ParameterError("address", "connect() needs at least one address", name="")
    strangers = [one for one in several if not isinstance(one, _ONE)]
    # They come first: of a pair of host and port, the host is a bad address as well, but not what is wrong.
    found = [one for given in strangers or several for one in _read(given)]
    return tuple(dict.fromkeys(found))


def _read(given: AddressLike) -> list[Address]:
    return [as_address(one) for one in (separated(given) if isinstance(given, str) else [given])]


def nodes_of(addresses: Iterable[Address]) -> list[Target]:
    """The nodes that they lead to: of a host's name each of its A and AAAA records, as the system resolves it now.

    It may block. A name that can't be resolved is in the list, with the reason.
    """
    found: list[Target] = []
    for address in addresses:
        given = key_of(address)
        if not _is_name(address):
            found.append(Target(address, given))
            continue
        try:
            found += [Target(_pinned(address, where), given) for _, where in address.resolve(listening=False)]
        except OSError as error:
            found.append(Target(address, given, error))
    first: dict[str, Target] = {}
    for target in found:
        first.setdefault(target.key, target)
    return list(first.values())


def refuse_unreachable(address: Address) -> None:
    """Raise where nobody can connect, whatever the system says: one such node in a server's list would end the round of
    all others, as a wrong parameter of the program's own does.

    :raises ValueError: nobody can.
    """
    if address.transport in INHERITED or (address.transport in NETWORK and not address.port):
        raise ParameterError("address", f"{address} is only something to listen at", name="")
    try:
        address.host.encode("idna")
    except UnicodeError as error:
        raise ParameterError(
            "host", f"{address}: {address.host!r} isn't the name of a host: {error}", name=""
        ) from None


def any_names(addresses: Iterable[Address]) -> bool:
    """Whether one has to be resolved, which may block."""
    return any(map(_is_name, addresses))


def _is_name(address: Address) -> bool:
    """A number isn't; nor are ports that can't be connected to, which is said of them as they were given."""
    host = address.host
    return bool(host) and ":" not in host and not host.replace(".", "").isdigit() and address.port > 0


def _pinned(address: Address, where: object) -> Address:
    """The same address, of one of the host's numbers; certificates are of the name."""
    assert isinstance(where, tuple)
    named = {"name": address.name or address.host} if address.transport == "tls" else {}
    return replace(address, host=str(where[0]), **named)


def rounded(left: float | None) -> float | None:
    """The seconds that are left, as people like to read them."""
    return None if left is None else max(0.001, round(left, 3))
