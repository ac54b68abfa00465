"""``pysock.connect``, with its default settings; on the engine that ``PYSOCK_BACKEND`` says."""

from __future__ import annotations

import pysock


def connect(address: str) -> pysock.Client:
    return pysock.connect(address)
