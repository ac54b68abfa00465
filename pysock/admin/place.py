"""Where the admin socket of a server is: beside its first Unix socket, with ``.admin`` behind the name.

This file owns that rule, for the server and for the commands that look for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from pysock.address import Address, AddressLike, as_address
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Final

_SUFFIX: Final = ".admin"


def beside(address: Address) -> Address | None:
    """The admin socket of a server that listens at this address; ``None``: it isn't a Unix one."""
    if address.transport == "unix":
        return Address("unix", address.socket_file + _SUFFIX)
    if address.transport == "abstract":
        return Address("abstract", address.path + _SUFFIX)
    return None


def beside_first(addresses: Iterable[Address]) -> Address:
    """Beside the first that it can be beside of.

    :raises ValueError: there is none.
    """
    for address in addresses:
        if (found := beside(address)) is not None:
            return found
    problem = "is needed: the server has no Unix address of its own that it could be beside of; write for example"
    raise ParameterError("address", f"{problem} unix:/run/app.admin", name="the address of an admin socket")


def checked_place(address: AddressLike) -> Address:
    """The address, as it is served: for its owner alone.

    :raises ValueError: it is wrong, or none of a Unix socket, or says who else may come.
    """
    where = as_address(address)
    if where.transport not in {"unix", "abstract"}:
        problem = f"must be a Unix socket, where the kernel tells who asks, not {where}; write for example"
        raise ParameterError("admin", f"{problem} unix:/run/app.admin", name="an admin socket")
    if where.mode not in (None, 0o600) or where.user or where.group or where.proxy:
        problem = f"is for the server's own user and root alone: write {where.bare()}, without options"
        raise ParameterError("admin", problem, name="an admin socket")
    return where
