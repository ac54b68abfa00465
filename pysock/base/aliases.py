"""The kinds of values that modules hand to one another, where a name says more than the types."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, TypeAlias

#: Bytes as the engines take them: what users hand over is looked at first, see :mod:`pysock.base.payload`.
Buffer: TypeAlias = bytes | bytearray | memoryview

#: Client ids that cross the seam as one block of memory: unsigned numbers of 64 bits, ``array("Q")``.
Ids: TypeAlias = bytes

#: An address as the socket module takes it, with its family first.
SocketAddress: TypeAlias = "tuple[int, Any]"
