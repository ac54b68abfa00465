"""Where a server waits for the process that follows it: which addresses that may be."""

from __future__ import annotations

from pysock.address import Address, AddressLike, as_address
from pysock.errors import ParameterError


def checked_handover(address: AddressLike) -> Address:
    """The address, as it is waited at: for the server's own user alone.

    :raises ValueError: it is wrong, or none of a Unix socket with a path, or says who else may come.
    """
    where = as_address(address)
    if where.transport != "unix" or not where.path:
        problem = f"must be the path of a Unix socket, such as unix:/run/app.next, not {where}"
        raise ParameterError("handover", problem, name="handover=")
    if where.mode not in (None, 0o600) or where.user or where.group or where.proxy:
        problem = f"is for the server's own user alone: write {where.bare()}, without options"
        raise ParameterError("handover", problem, name="handover=")
    return where
