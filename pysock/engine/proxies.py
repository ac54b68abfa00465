"""What an engine is to know of the proxies through which clients come to a master socket."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pysock.access.networks import Network


class Proxies(NamedTuple):
    """Through this master socket come proxies alone: each connection begins with a header of the PROXY protocol."""

    versions: int  # of it, bits: 1 and 2
    networks: tuple[Network, ...] = ()  # over TCP they come from these; over a Unix socket the rule of access says who


#: What a row has for the address of a proxy that comes through a Unix socket.
VIA_UNIX = "unix:"
