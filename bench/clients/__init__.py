"""Clients in Python, for what the load generator in C can't speak, and pysock's own beside them.

Each file has ``connect(address)``, which returns a :class:`Client`. Their figures are those of a Python program, so
they are compared with each other only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Client(Protocol):
    """One connection."""

    def request(self, payload: bytes) -> Any:
        """Return the reply."""

    def request_many(self, payloads: Sequence[bytes]) -> Sequence[Any]:
        """Return the replies, with as many requests in flight as this kind of client can have."""

    def close(self) -> None:
        """Hang up."""


class Concurrent(Client, Protocol):
    """One whose requests are those of tasks that don't wait for each other."""

    def converse(self, payloads: Sequence[bytes], seconds: float) -> list[int]:
        """Ask for each payload again and again; return the latency of each request in ns."""
