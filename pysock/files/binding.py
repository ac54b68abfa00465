"""What ``bind()`` and ``listen()`` say when they fail, in words that say what to do."""

from __future__ import annotations

import errno

from pysock.address import NETWORK, Address
from pysock.base.faults import explained_fault
from pysock.base.registry import HINT, listens_at
from pysock.errors import AddressInUse
from pysock.files.place import Place


def explained_binding(error: OSError, address: Address, place: Place | None = None) -> OSError:
    """The same error with words that name the address and say what to do."""
    number = error.errno or 0
    if number == errno.EADDRINUSE:
        return AddressInUse(f"{address}: {_in_use(address)}")
    if place is not None:
        return place.explained(error)
    advice = _tcp_advice(number, address) if address.transport in NETWORK else ""
    # OSError chooses its subclass by the number: FileNotFoundError, PermissionError ...
    return OSError(number, f"{address}: {advice}") if advice else explained_fault(error, address, "bind() or listen()")


def _in_use(address: Address) -> str:
    if address.transport != "unix" and listens_at(address):
        return f"a server of this process listens there, {HINT}: stop it or choose another address"
    if address.transport in NETWORK:
        return "another socket has that port; stop its program or choose another port (0 lets the kernel choose)"
    if address.transport == "abstract":
        return "a live server listens there; stop it or choose another name"
    return "a file is at that path; if it is a dead server's socket, remove_stale() removes it"


def _tcp_advice(number: int, address: Address) -> str:
    return {
        errno.EACCES: f"port {address.port} is privileged; run as root, or choose a port from 1024 on",
        errno.EADDRNOTAVAIL: f"this machine has no interface with the address {address.host!r}",
    }.get(number, "")
