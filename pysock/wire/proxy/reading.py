"""A header of the PROXY protocol, read from bytes that came: what ``csrc/base/proxy.c`` does, by the same rules.

Nothing of a header is believed before all of it is there and found good. One that breaks a rule is refused, never
guessed at. What it says of a connection of the proxy's own (LOCAL), and of addresses of unknown kinds (UNSPEC), counts
for nothing: anybody can write that.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from pysock.address import join_host_port
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.wire import texts
from pysock.wire.proxy.checksum import crc32c

if TYPE_CHECKING:
    from typing import Final

#: Versions; bits of what a server takes.
V1: Final = 1
V2: Final = 2
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
BEGIN_V1: Final = b"PROXY "
#: Bytes of a line of version 1, at most: so many tell how long a header is, or that it is none.
LINE: Final = 107
#: Of version 2, in front of its addresses: signature, version and command, family and protocol, length.
HEAD: Final = struct.Struct("!12sBBH")
LOCAL: Final = 0x20
PROXY: Final = 0x21
#: Bytes of the addresses, by family and protocol.
ADDRESSES: Final = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
#: Bytes of TLVs that are kept, at most.
TLVS_MAX: Final = 4096
_TLV: Final = struct.Struct("!BH")
_LONGEST_UNIQUE_ID: Final = 128
CRC32C: Final = 0x03
UNIQUE_ID: Final = 0x05
SSL: Final = 0x20
#: Bits of the client, and what its verification came to: in front of the TLVs of an SSL.
SSL_HEAD: Final = struct.Struct("!BI")


class HeaderError(Exception):
    """It is none, or broken; the text says it to who sent it."""


class Found(NamedTuple):
    """What a header says."""

    size: int  # bytes that it has in all; 0: that isn't known yet
    whole: bool = False  # all of it is there; else nothing is said of the rest
    kept: int = 0  # bytes of it that are kept: all but the TLVs beyond ``TLVS_MAX``
    version: int = 0
    is_local: bool = False  # the proxy itself connects
    source: tuple[int, bytes, int] | None = None  # family, IP address or path, port; None: it isn't known
    destination: tuple[int, bytes, int] | None = None
    tlvs: tuple[tuple[int, bytes], ...] = ()  # those that are kept

    @property
    def origin(self) -> str:
        """The source as a text; "": it isn't known."""
        return "" if self.source is None else written(*self.source)


def read(data: bytes, versions: int) -> Found:
    """Return what a connection that begins with these bytes says.

    :raises HeaderError: it isn't a header of one of these versions, or it is broken.
    """
    found = _begun(data, versions)
    if not found.size or len(data) < found.size:
        return found
    return _read_v1(data[: found.size]) if found.version == 1 else _read_v2(data[: found.size])


def taken_apart(kept: bytes) -> Found:
    """The same of a header that was found good, of which so much was kept."""
    if kept.startswith(BEGIN_V1):
        return _read_v1(kept)
    kind = kept[13]
    begin = HEAD.size + ADDRESSES[kind]
    source, destination = _pair(kind >> 4, kept[HEAD.size : begin]) if kind else (None, None)
    return Found(len(kept), True, len(kept), 2, False, source, destination, tuple(tlvs_of(kept[begin:])))


def written(family: int, address: bytes, port: int) -> str:
    """An address as a text: ``host:port``, or ``unix:PATH``, in which what can't be shown is a question mark."""
    if family != socket.AF_UNIX:
        return join_host_port(socket.inet_ntop(family, address), port)
    abstract = address[:1] == b"\0" and address[1:2] != b"\0"
    path = address[abstract:].partition(b"\0")[0]
    return "unix:" + "@" * abstract + "".join(chr(byte) if 0x20 < byte < 0x7F else "?" for byte in path)


def _begun(data: bytes, versions: int) -> Found:
    if versions & V2 and data[:12] == SIGNATURE[: len(data)]:
        return Found(HEAD.size + HEAD.unpack_from(data)[3] if len(data) >= HEAD.size else 0, version=2)
    if not versions & V1 or data[:6] != BEGIN_V1[: len(data)]:
        raise HeaderError(texts.NO_PROXY_HEADER)
    newline = data.find(b"\n", 0, LINE)
    if newline < 0 and len(data) >= LINE:
        raise HeaderError(texts.BROKEN_PROXY_HEADER)
    return Found(newline + 1, version=1)


# Version 2


def _read_v2(data: bytes) -> Found:
    _, command, kind, _ = HEAD.unpack_from(data)
    found = Found(len(data), True, HEAD.size, 2, is_local=command == LOCAL)
    if found.is_local:
        return found
    addresses = ADDRESSES.get(kind, -1)
    begin = HEAD.size + addresses
    if command != PROXY or addresses < 0 or len(data) < begin:
        raise HeaderError(texts.BROKEN_PROXY_HEADER)
    try:
        kept, checksum = _kept_of(data, begin)
    except HeaderError:
        if not addresses:
            return found  # an address of an unknown kind
        raise
    _check(data, checksum)
    return taken_apart(data[:kept])._replace(size=len(data))


def tlvs_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The types and values of TLVs, which must be whole."""
    at = 0
    while at < len(data):
        if len(data) - at < _TLV.size:
            raise HeaderError(texts.BROKEN_PROXY_HEADER)
        kind, size = _TLV.unpack_from(data, at)
        at += _TLV.size
        if len(data) - at < size:
            raise HeaderError(texts.BROKEN_PROXY_HEADER)
        yield kind, data[at : at + size]
        at += size


def _kept_of(data: bytes, begin: int) -> tuple[int, int]:
    """Look at the TLVs, which begin there; where those end that are kept, and where the checksum is, or 0."""
    at, kept, fits = begin, begin, True
    sums: list[int] = []
    ssl = 0
    for kind, value in list(tlvs_of(data[begin:])):
        if kind == CRC32C:
            sums.append(at + _TLV.size)
        ssl += kind == SSL
        if not _is_good(kind, value) or len(sums) > 1 or ssl > 1:
            raise HeaderError(texts.BROKEN_PROXY_HEADER)
        at += _TLV.size + len(value)
        fits = fits and at - begin <= TLVS_MAX
        kept = at if fits else kept
    return kept, sums[0] if sums else 0


def _check(data: bytes, at: int) -> None:
    """Of all of the header, with zeros for the checksum itself."""
    if at and crc32c(data[:at] + bytes(4) + data[at + 4 :]) != int.from_bytes(data[at : at + 4], "big"):
        raise HeaderError(texts.PROXY_CHECKSUM)


def _is_good(kind: int, value: bytes) -> bool:
    if kind == CRC32C:
        return len(value) == 4
    if kind == SSL:
        if len(value) >= SSL_HEAD.size:
            for _ in tlvs_of(value[SSL_HEAD.size :]):
                pass
        return len(value) >= SSL_HEAD.size
    return kind != UNIQUE_ID or len(value) <= _LONGEST_UNIQUE_ID


def _pair(family: int, data: bytes) -> tuple[tuple[int, bytes, int], tuple[int, bytes, int]]:
    if family == 3:
        return (int(socket.AF_UNIX), data[:108], 0), (int(socket.AF_UNIX), data[108:], 0)
    size, number = (4, socket.AF_INET) if family == 1 else (16, socket.AF_INET6)
    ports = struct.unpack_from("!HH", data, 2 * size)
    return (int(number), data[:size], ports[0]), (int(number), data[size : 2 * size], ports[1])


# Version 1


def _read_v1(line: bytes) -> Found:
    found = Found(len(line), True, len(line), 1)
    family, _, rest = line[len(BEGIN_V1) : -2].partition(b" ")
    if line[-2:] != b"\r\n" or len(line) < len(BEGIN_V1) + 2:
        raise HeaderError(texts.BROKEN_PROXY_HEADER)
    if family == b"UNKNOWN":
        return found  # whatever follows
    numbers = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}
    words = rest.split(b" ")
    if family not in numbers or len(words) != 4:
        raise HeaderError(texts.BROKEN_PROXY_HEADER)
    try:
        hosts = [socket.inet_pton(numbers[family], word.decode("ascii")) for word in words[:2]]
    except (OSError, ValueError):
        raise HeaderError(texts.BROKEN_PROXY_HEADER) from None
    ports = [_port(word) for word in words[2:]]
    source, destination = ((int(numbers[family]), host, port) for host, port in zip(hosts, ports, strict=True))
    return found._replace(source=source, destination=destination)


def _port(word: bytes) -> int:
    good = word.isdigit() and (word == b"0" or not word.startswith(b"0")) and len(word) <= 5 and int(word) <= 0xFFFF
    if not good:
        raise HeaderError(texts.BROKEN_PROXY_HEADER)
    return int(word)
