"""A header of the PROXY protocol, made by a client that is a proxy: version 2, with its checksum."""

from __future__ import annotations

import socket
import struct

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError
from pysock.wire.proxy.checksum import crc32c
from pysock.wire.proxy.facts import CERTIFICATE, SSL_TEXTS, TEXTS, ProxyHeader, ProxyTLS
from pysock.wire.proxy.reading import CRC32C, HEAD, LOCAL, PROXY, SIGNATURE, SSL, SSL_HEAD, UNIQUE_ID

if TYPE_CHECKING:
    from typing import Any, Final

_NOOP: Final = 0x04
_KINDS: Final = {socket.AF_INET: 0x11, socket.AF_INET6: 0x21, socket.AF_UNIX: 0x31}
#: What has a field, or is made here.
_NAMED: Final = frozenset((*TEXTS, UNIQUE_ID, SSL, CRC32C, _NOOP))
_NONE: Final = {socket.AF_INET: "0.0.0.0:0", socket.AF_INET6: "[::]:0", socket.AF_UNIX: "unix:"}
_EXAMPLE: Final = 'write for example proxy=("192.0.2.7:4711", "10.0.0.1:9000")'
#: What each field may hold.
_TEXT: Final[tuple[type, ...]] = (str, type(None))
_BYTES: Final[tuple[type, ...]] = (bytes, type(None))
_HEADER: Final[dict[str, tuple[type, ...]]] = {
    "source": _TEXT, "destination": (str,), **dict.fromkeys(TEXTS.values(), _TEXT), "unique_id": _BYTES,
    "ssl": (ProxyTLS, type(None)), "items": (tuple, list),
}  # fmt: skip
_SSL: Final[dict[str, tuple[type, ...]]] = {
    "client": (int,),
    "verify": (int,),
    **dict.fromkeys(SSL_TEXTS.values(), _TEXT),
    "certificate": _BYTES,
}


def header_for(proxy: Any) -> bytes:
    """Return the header that says this: a :class:`ProxyHeader`, or a pair of source and destination.

    :raises TypeError: it is neither, or a field is of another type than it has.
    :raises ValueError: an address can't be one, or there is more than a header takes.
    """
    if isinstance(proxy, tuple) and len(proxy) == 2:
        source, destination = (one if isinstance(one, str) else _endpoint(one) for one in proxy)
        proxy = ProxyHeader(source=source, destination=destination)
    if not isinstance(proxy, ProxyHeader):
        raise TypeError(f"proxy= takes a ProxyHeader, or a pair of source and destination, not {proxy!r}; {_EXAMPLE}")
    _check_types(proxy)
    if proxy.source is None:
        return HEAD.pack(SIGNATURE, LOCAL, 0, 0)
    kind, addresses = _addresses(proxy.source, proxy.destination)
    tlvs = _tlvs_of(proxy)
    size = len(addresses) + len(tlvs) + 7
    if size > 0xFFFF:
        raise ParameterError("proxy", f"has {size} bytes, and a header of the PROXY protocol takes 65535 at most")
    before = HEAD.pack(SIGNATURE, PROXY, kind, size) + addresses + tlvs + struct.pack("!BH", CRC32C, 4)
    return before + struct.pack("!I", crc32c(before + bytes(4)))


def _check_types(proxy: ProxyHeader) -> None:
    fields = [(name, getattr(proxy, name), types) for name, types in _HEADER.items()]
    if isinstance(proxy.ssl, ProxyTLS):
        fields += [(f"ssl.{name}", getattr(proxy.ssl, name), types) for name, types in _SSL.items()]
    for name, value, types in fields:
        if not isinstance(value, types):
            kinds = " or ".join("None" if one is type(None) else one.__name__ for one in types)
            raise TypeError(f"proxy= has a field {name} of type {type(value).__name__}; it must be {kinds}")
    for item in proxy.items:
        match item:
            case (int(), bytes()):
                continue
        raise TypeError(f"proxy= has among its items {item!r}; each is a pair of type and value, int and bytes")


# Addresses


def _endpoint(where: Any) -> str:
    if isinstance(where, tuple) and len(where) >= 2:
        host, port = where[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    raise TypeError(f"an address in proxy= is a text or a pair of host and port, not {where!r}; {_EXAMPLE}")


def _addresses(source: str, destination: str) -> tuple[int, bytes]:
    """Family and protocol, and both addresses; an IPv4 address beside an IPv6 one is mapped into that."""
    if not source:
        return 0, b""
    family, address, port = _parsed(source)
    other, target, target_port = _parsed(destination or _NONE[family])
    if family != other and socket.AF_UNIX in (family, other):
        raise ParameterError("proxy", f"has a source and a destination of two kinds: {source!r} and {destination!r}")
    if family != other:
        address, target, family = _mapped(address), _mapped(target), socket.AF_INET6
    if family == socket.AF_UNIX:
        return _KINDS[family], address + target
    return _KINDS[family], address + target + struct.pack("!HH", port, target_port)


def _mapped(address: bytes) -> bytes:
    return address if len(address) == 16 else bytes(10) + b"\xff\xff" + address


def _parsed(text: str) -> tuple[socket.AddressFamily, bytes, int]:
    if text.startswith("unix:"):
        path = text[5:].encode()
        path = b"\0" + path[1:] if path.startswith(b"@") else path
        if len(path) <= 108:
            return socket.AF_UNIX, path.ljust(108, b"\0"), 0
    host, colon, port = text.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        address = socket.inet_pton(family, host[1:-1] if host.endswith("]") else host)
    except (OSError, ValueError):
        address = b""
    if not (address and colon and port.isascii() and port.isdigit() and int(port) <= 0xFFFF):
        raise ParameterError("proxy", f"has {text!r} for an address; {_EXAMPLE}, with numbers")
    return family, address, int(port)


# TLVs


def _tlvs_of(proxy: ProxyHeader) -> bytes:
    named = [(kind, _bytes(getattr(proxy, name))) for kind, name in TEXTS.items()]
    if proxy.unique_id is not None and len(proxy.unique_id) > 128:
        raise ParameterError("proxy", f"has a unique_id of {len(proxy.unique_id)} bytes; 128 is the most")
    named.append((UNIQUE_ID, proxy.unique_id))
    named.append((SSL, None if proxy.ssl is None else _ssl(proxy.ssl)))
    others = [(kind, value) for kind, value in proxy.items if kind not in _NAMED]
    return b"".join(_tlv(kind, value) for kind, value in named + others if value is not None)


def _ssl(tls: ProxyTLS) -> bytes:
    texts = [(kind, _bytes(getattr(tls, name))) for kind, name in SSL_TEXTS.items()]
    inner = b"".join(_tlv(kind, value) for kind, value in [*texts, (CERTIFICATE, tls.certificate)] if value is not None)
    try:
        return SSL_HEAD.pack(tls.client, tls.verify) + inner
    except struct.error:
        problem = f"has an ssl with client={tls.client!r} and verify={tls.verify!r}: numbers of 8 bits and of 32"
        raise ParameterError("proxy", problem) from None


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogateescape")


def _tlv(kind: int, value: bytes) -> bytes:
    if not 0 <= kind <= 0xFF or len(value) > 0xFFFF:
        raise ParameterError("proxy", f"has a TLV of type {kind!r} and {len(value)} bytes; 255 and 65535 are the most")
    return struct.pack("!BH", kind, len(value)) + value
