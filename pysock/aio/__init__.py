"""The client for asyncio and uvloop: ``client = await pysock.aio.connect(...)``, or ``async with`` it.

Imported only where it is used: ``import pysock.aio``.
"""

from __future__ import annotations

from pysock.aio.client import AsyncClient
from pysock.aio.connecting import connect
from pysock.aio.pool import Pool

__all__ = ["AsyncClient", "Pool", "connect"]
