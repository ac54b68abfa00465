"""The header of the PROXY protocol by hand, as its document has it (proxy-protocol.txt of HAProxy)."""

from __future__ import annotations

import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6, UNIX = 0x11, 0x21, 0x31
ALPN, AUTHORITY, CRC32C, NOOP, UNIQUE_ID, SSL, NETNS = 0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x30
#: Who comes, and by which header, where nothing else is said.
ORIGIN = "192.0.2.7:4711"


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def tcp4(source: str = "192.0.2.7", port: int = 4711) -> bytes:
    """The addresses of a connection over IPv4."""
    return socket.inet_aton(source) + socket.inet_aton("10.0.0.1") + struct.pack("!HH", port, 9000)


def tcp6(source: str = "2001:db8::7", port: int = 4711) -> bytes:
    both = [socket.inet_pton(socket.AF_INET6, host) for host in (source, "2001:db8::1")]
    return b"".join(both) + struct.pack("!HH", port, 9000)


def paths(source: bytes, destination: bytes = b"/run/front") -> bytes:
    return source.ljust(108, b"\0") + destination.ljust(108, b"\0")


def v2(
    block: bytes | None = None, *tlvs: bytes, command: int = PROXY, kind: int = TCP4, length: int | None = None
) -> bytes:
    """A header; ``length`` may tell a lie."""
    block = (tcp4() if block is None else block) + b"".join(tlvs)
    return SIGNATURE + struct.pack("!BBH", command, kind, len(block) if length is None else length) + block


def crc32c(data: bytes) -> int:
    """Bit by bit, as RFC 3720 says."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def summed(header: bytes) -> bytes:
    """With the checksum in its TLV, which is there and is zero."""
    empty = tlv(CRC32C, bytes(4))
    assert header.count(empty) == 1
    return header.replace(empty, tlv(CRC32C, struct.pack("!I", crc32c(header))))


def ssl(client: int, verify: int, **texts: bytes) -> bytes:
    """What a proxy says of its client's TLS."""
    kinds = {"version": 0x21, "cn": 0x22, "cipher": 0x23, "signature": 0x24, "key": 0x25}
    return tlv(
        SSL, struct.pack("!BI", client, verify) + b"".join(tlv(kinds[name], text) for name, text in texts.items())
    )
