"""CRC-32C, the checksum that a header may have (RFC 3720, B.4)."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final

_POLYNOMIAL: Final = 0x82F63B78


def _row(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE: Final = tuple(map(_row, range(256)))


def crc32c(data: bytes) -> int:
    """Return the checksum of ``data``."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
