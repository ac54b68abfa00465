"""What the header of a proxy says, as a program gets to see it, and as a client that is a proxy has it sent."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING, dataclass
from pysock.wire.proxy.reading import SSL, SSL_HEAD, UNIQUE_ID, taken_apart, tlvs_of, written

if TYPE_CHECKING:
    from typing import Final

ALPN: Final = 0x01
AUTHORITY: Final = 0x02
NETNS: Final = 0x30
VERSION, CN, CIPHER, SIGNATURE, KEY, GROUP, SCHEME, CERTIFICATE = range(0x21, 0x29)
#: Bits of ``ProxyTLS.client``: the client came over TLS; and had a certificate, on this connection or in its session.
OVER_TLS: Final = 0x01
CERTIFIED: Final = 0x02 | 0x04


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyTLS:
    """What a proxy says of its client's TLS.

    :ivar client: bits: 1, it came over TLS; 2, it had a certificate on this connection; 4, or in its session.
    :ivar verify: what the verification of that came to: 0 is good, and says nothing where there was none.
    :ivar version: ``"TLSv1.3"``.
    :ivar cn: the common name of its certificate.
    :ivar cipher: ``"TLS_AES_256_GCM_SHA384"``.
    :ivar signature: by what its certificate is signed, ``"SHA256"``.
    :ivar key: the key of its certificate, ``"RSA2048"``.
    :ivar group: of the key exchange, ``"x25519"``.
    :ivar scheme: of the signature in the handshake.
    :ivar certificate: itself, in DER.
    """

    client: int = OVER_TLS
    verify: int = 1
    version: str | None = None
    cn: str | None = None
    cipher: str | None = None
    signature: str | None = None
    key: str | None = None
    group: str | None = None
    scheme: str | None = None
    certificate: bytes | None = None

    @property
    def verified(self) -> bool:
        """Whether the client had a certificate, and the proxy has found it good."""
        return bool(self.client & OVER_TLS and self.client & CERTIFIED) and self.verify == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyHeader:
    """What a proxy says of whom it connects for: a header of the PROXY protocol.

    A server has it as ``client.proxy``; ``connect(proxy=...)`` sends one, in version 2.

    :ivar source: the client's address as the proxy sees it, ``"192.0.2.7:4711"``, ``"[2001:db8::7]:4711"`` or
        ``"unix:/run/x"``; ``""``: the proxy doesn't say; ``None``: there is no client, the proxy itself connects, to
        see whether the server is well.
    :ivar destination: where the client has connected to, likewise; ``""``: the proxy doesn't say.
    :ivar alpn: the protocol that was agreed on in TLS.
    :ivar authority: the host that the client has asked for; in TLS its SNI.
    :ivar unique_id: what the proxy calls this connection, 128 bytes at most.
    :ivar ssl: what there is of its TLS.
    :ivar netns: the name of the network namespace that it came from.
    :ivar items: all of these and what else there is, as pairs of type and bytes, in their order; of a header that is to
        be sent those that have no name here. Of a header that came, whole ones up to 4096 bytes.
    """

    source: str | None = ""
    destination: str = ""
    alpn: str | None = None
    authority: str | None = None
    unique_id: bytes | None = None
    ssl: ProxyTLS | None = None
    netns: str | None = None
    items: tuple[tuple[int, bytes], ...] = ()


#: The fields, by the types of the TLVs that they are: texts, and others.
TEXTS: Final = {ALPN: "alpn", AUTHORITY: "authority", NETNS: "netns"}
SSL_TEXTS: Final = {
    VERSION: "version", CN: "cn", CIPHER: "cipher", SIGNATURE: "signature", KEY: "key", GROUP: "group",
    SCHEME: "scheme",
}  # fmt: skip


def header_of(kept: bytes) -> ProxyHeader:
    """What a good header says, of which an engine has kept so much."""
    found = taken_apart(kept)
    values = dict(reversed(found.tlvs))  # the first of a type
    return ProxyHeader(
        source=found.origin,
        destination="" if found.destination is None else written(*found.destination),
        unique_id=values.get(UNIQUE_ID),
        ssl=_ssl_of(values[SSL]) if SSL in values else None,
        items=found.tlvs,
        **{name: _text(values[kind]) for kind, name in TEXTS.items() if kind in values},
    )


def _ssl_of(value: bytes) -> ProxyTLS:
    client, verify = SSL_HEAD.unpack_from(value)
    values = dict(reversed(list(tlvs_of(value[SSL_HEAD.size :]))))
    return ProxyTLS(
        client=client,
        verify=verify,
        certificate=values.get(CERTIFICATE),
        **{name: _text(values[kind]) for kind, name in SSL_TEXTS.items() if kind in values},
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
