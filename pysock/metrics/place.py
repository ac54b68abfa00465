"""Where metrics may be read: at a plain socket, for they are read by HTTP."""

from __future__ import annotations

from pysock.address import Address, AddressLike, as_address
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Final

_PLACES: Final = frozenset(("unix", "abstract", "tcp"))


def checked_exporter(address: AddressLike) -> Address:
    """The address.

    :raises ValueError: it is wrong, or of another kind.
    """
    where = as_address(address)
    if where.transport not in _PLACES or where.proxy:
        problem = f"must be a plain one, HOST:PORT or unix:PATH, for they are read by HTTP, not {where}"
        raise ParameterError("address", problem, name="the address for metrics")
    return where
