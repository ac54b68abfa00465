"""Networks by name: what somebody writes for several of them, and what the engines take."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final, TypeAlias

    #: An IPv6 address, or one of IPv4 mapped into IPv6 (RFC 4291, 2.5.5.2), and how many of its bits count.
    Network: TypeAlias = tuple[bytes, int]

_MAPPED: Final = bytes(10) + b"\xff\xff"


def networks_of(text: str) -> tuple[Network, ...]:
    """Return the networks that are written so: addresses and CIDR blocks, with commas between.

    :raises ValueError: one isn't an address or a network; the text says what is wrong.
    """
    from ipaddress import ip_network  # noqa: PLC0415  # takes a while to import, and few need it

    found = []
    for part in text.split(","):
        network = ip_network(part)
        address = network.network_address.packed
        mapped = len(address) == 4
        found.append((_MAPPED + address if mapped else address, network.prefixlen + 96 * mapped))
    return tuple(found)


def is_in(address: bytes, networks: tuple[Network, ...]) -> bool:
    """Whether an address, packed as IPv4 or IPv6, is in one of them."""
    number = int.from_bytes(_MAPPED + address if len(address) == 4 else address, "big")
    return any((number ^ int.from_bytes(base, "big")) >> (128 - bits) == 0 for base, bits in networks)
