"""``pysock.connect``, with its default settings; on the engine that ``PYSOCK_BACKEND`` says."""

from __future__ import annotations

import pysock


def connect(address: str) -> pysock.Client:
    return pysock.connect(address)


def connect_lingering(address: str) -> pysock.Client:
    """For who can spare a core for latency."""
    return pysock.connect(address, linger=100e-6)
