"""What is known of one TLS connection, and names out of certificates: the words that both drivers use."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from socket import AF_INET6, inet_ntop, inet_pton

from pysock.base.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any, Final


class TLSInfo(NamedTuple):
    """One TLS connection, as ``client.tls`` has it. Its certificate is that of the other end.

    Names are those of a certificate whose chain was verified, and only then anything but empty. So whoever decides by
    them needs ``verify="require"`` (or ``"optional"``), and nothing else.

    :ivar version: of the protocol, ``"TLSv1.3"``.
    :ivar cipher: the name of the cipher suite.
    :ivar alpn: the protocol that both ends speak inside (RFC 7301); ``None``: they didn't say.
    :ivar sni: the name of the server that the client asked for (RFC 6066, 3); ``""`` if none.
    :ivar subject: ``"CN=worker,O=example"``, from the most special part on; ``""`` if not verified.
    :ivar sans: the names in the certificate (RFC 5280, 4.2.1.6): of hosts, URIs, addresses of mail and IP addresses.
    :ivar fingerprint: SHA-256 of the certificate, as 64 hexadecimal digits; ``""``: it has sent none.
    :ivar driver: what does the work, ``"ssl"`` or ``"libssl"``.
    :ivar resumed: an earlier session went on, and no certificate was sent again.
    """

    version: str
    cipher: str
    alpn: str | None
    sni: str
    subject: str
    sans: tuple[str, ...]
    fingerprint: str
    driver: str
    resumed: bool


#: How parts of a subject are written (RFC 4514, 3); others by the names that they have in OpenSSL.
_SHORT: Final = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "domainComponent": "DC",
    "userId": "UID",
}
_HOST: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_*")


def subject_of(parts: Iterable[Iterable[tuple[str, str]]]) -> str:
    """A subject in one text, from its parts as :meth:`ssl.SSLSocket.getpeercert` has them, the most general first."""
    flat = [pair for part in parts for pair in part]
    return ",".join(f"{_SHORT.get(name, name)}={_escaped(value)}" for name, value in reversed(flat))


def sans_of(names: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The alternative names, from pairs as OpenSSL names them: ``("DNS", "a.example")``.

    They are told apart by their looks, so what looks like another kind than it is isn't one of them: no name of a host
    is a URI, whatever an issuer has signed.
    """
    return tuple(as_compared(value) for kind, value in names if _LOOKS.get(kind, _never)(value))


def as_compared(name: str) -> str:
    """An IPv6 address in its usual form (RFC 5952), which OpenSSL doesn't use; all other names as they are."""
    with suppress(OSError, ValueError):
        return inet_ntop(AF_INET6, inet_pton(AF_INET6, name))
    return name


def _is_host(value: str) -> bool:
    """Of digits alone it would look like an IP address."""
    return bool(value) and _HOST.issuperset(value) and not value.replace(".", "").isdigit()


def _is_uri(value: str) -> bool:
    return "://" in value and value.isprintable() and " " not in value


def _is_mail(value: str) -> bool:
    return "@" in value and "/" not in value and value.isprintable()


def _is_number(value: str) -> bool:
    return bool(value) and value.replace(":", "").replace(".", "").isalnum()


def _never(_value: str) -> bool:
    return False


_LOOKS: Final[dict[str, Any]] = {"DNS": _is_host, "URI": _is_uri, "email": _is_mail, "IP Address": _is_number}


def _escaped(value: str) -> str:
    """As RFC 4514, 2.4 wants it, and without a sign that could end a line of a log, or a text in C."""
    shown = "".join(f"\\{char}" if char in ',+"\\<>;=' else char for char in value)
    return "".join(char if char.isprintable() else "".join(f"\\{byte:02X}" for byte in char.encode()) for char in shown)


def matches(pattern: str, name: str) -> bool:
    """Whether a name of a certificate is what a rule names: the same; or, for ``*.example``, one more label before it.

    Names of hosts are the same in capitals (RFC 4343); all else isn't. A wildcard in a certificate is no host's name.
    """
    if pattern.startswith("*."):
        first, _, rest = name.partition(".")
        return bool(first) and "*" not in first and _is_host(name) and rest.lower() == pattern[2:].lower()
    return pattern == name or (_is_host(name) and pattern.lower() == name.lower())
