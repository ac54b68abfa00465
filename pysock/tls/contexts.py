"""Contexts of the module ssl that a program made itself: they are taken as they are, if they can be."""

from __future__ import annotations

import ssl

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Final

#: What OpenSSL says, of one version or another, where a server has no certificate.
_NO_CERTIFICATE: Final = frozenset(("NO_SHARED_CIPHER", "NO_SUITABLE_SIGNATURE_ALGORITHM", "NO_CERTIFICATE_SET"))
_STEPS_MAX: Final = 8


def checked_server(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return it.

    :raises ValueError: it is a client's, or has no certificate.
    """
    if context.protocol == ssl.PROTOCOL_TLS_CLIENT:
        problem = "is the context of a client: a server's is ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)"
        raise ParameterError("tls", problem, name="tls=")
    if _lacks_certificate(context):
        problem = "is a context without a certificate: call its load_cert_chain() first"
        raise ParameterError("tls", problem, name="tls=")
    return context


def checked_client(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return it.

    :raises ValueError: it is a server's.
    """
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        problem = "is the context of a server: a client's is ssl.create_default_context()"
        raise ParameterError("tls", problem, name="tls=")
    return context


def asks(context: ssl.SSLContext) -> str:
    """How a server looks at its clients' certificates: ``"none"``, ``"optional"`` or ``"require"``."""
    words = {ssl.CERT_NONE: "none", ssl.CERT_OPTIONAL: "optional", ssl.CERT_REQUIRED: "require"}
    return words[context.verify_mode]


def _lacks_certificate(context: ssl.SSLContext) -> bool:
    """The module ssl doesn't tell, so it is tried, with a client that takes whatever there is."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = anybody.wrap_bio(down, up, server_hostname="localhost")
    server = context.wrap_bio(up, down, server_side=True)
    for step in range(_STEPS_MAX):
        try:
            (server if step % 2 else client).do_handshake()
        except ssl.SSLWantReadError:  # noqa: PERF203  # it is what is looped for
            continue
        except ssl.SSLError as error:
            return step % 2 == 1 and error.reason in _NO_CERTIFICATE
    return False
