"""Which nodes are a client's own, so that the clients of a service spread, and few of them move where a node comes or
goes: rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998).
"""

from __future__ import annotations

from collections.abc import Iterable


def ranked(key: bytes, nodes: Iterable[str]) -> list[str]:
    """The nodes, those first that belong to this key most."""
    from hashlib import blake2b  # noqa: PLC0415  # the hashes take a while to import, and few need them

    def weight(node: str) -> bytes:
        return blake2b(node.encode("utf-8", "surrogateescape"), key=key, digest_size=8).digest()

    return sorted(nodes, key=lambda node: (weight(node), node), reverse=True)
