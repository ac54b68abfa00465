"""What OpenSSL says of a failure, in words, and what can be done about it."""

from __future__ import annotations

import re
import ssl

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import TLSError

if TYPE_CHECKING:
    from typing import Final

#: Results of a look at a certificate (X509_V_ERR_..., x509_vfy.h): what to do.
_ADVICE: Final = {
    2: "its CA isn't known here: name the file with that, as ca=",
    9: "is this machine's clock right?",
    10: "have it renewed; or is this machine's clock wrong?",
    18: "it is signed by itself: name it as ca=, if it is the right one",
    19: "its CA isn't known here: name the file with that, as ca=",
    20: "its CA isn't known here: name the file with that, as ca=",
    26: "it is one for the other end of a connection",
    62: "is it the right server? name= says which name its certificate has, if that isn't the host's",
    64: "is it the right server? name= says which name its certificate has, if that isn't the host's",
}
#: What it says of itself; and of the alert that came from the other end (RFC 8446, 6), "ALERT" among its words.
_SAID: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the client has no certificate, and this server wants one",
    "NO_SHARED_CIPHER": "the two ends have no cipher in common",
    "UNSUPPORTED_PROTOCOL": "the two ends have no version of TLS in common",
    "NO_PROTOCOLS_AVAILABLE": "the two ends have no version of TLS in common",
    "NO_APPLICATION_PROTOCOL": "the client offers other protocols than are spoken here (no application protocol)",
    "UNEXPECTED_EOF_WHILE_READING": "the connection ended in the middle",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of this end: give cert= and key=",
    "TLSV1_ALERT_UNKNOWN_CA": "it doesn't know the CA of this end's certificate (unknown ca)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it doesn't take this end's certificate (bad certificate)",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "this end's certificate has expired (certificate expired)",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it doesn't take this end's certificate (certificate unknown)",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "this end's certificate is one for another use (unsupported certificate)",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it doesn't speak this version of TLS (protocol version)",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "it speaks none of the protocols of alpn= (no application protocol)",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it doesn't take what this end can do (handshake failure)",
}
#: The alerts of a server that turns a client away before a handshake, which are all that it can say then.
FULL: Final = "TLSV1_ALERT_INTERNAL_ERROR"
DENIED: Final = "TLSV1_ALERT_ACCESS_DENIED"
_PREFIXES: Final = ("TLSV13_ALERT_", "TLSV1_ALERT_", "SSLV3_ALERT_")
#: What the module ssl has around the words of OpenSSL's, where it doesn't know the reason itself.
_WRAPPING: Final = re.compile(r"^\[\w+\] | \(_ssl\.c:\d+\)$")
NO_TLS: Final = "what came is no TLS"


def explained(error: ssl.SSLError, strange: bool) -> TLSError:
    """The same in words.

    :param strange: what came first was no record of TLS.
    """
    if strange:
        return TLSError(NO_TLS)
    if isinstance(error, ssl.SSLCertVerificationError):
        return TLSError(in_words("", error.verify_code, error.verify_message))
    return TLSError(in_words(error.reason or _WRAPPING.sub("", str(error))))


def in_words(reason: str, code: int = 0, verified: str = "") -> str:
    """What OpenSSL's own words mean.

    :param reason: as the module ssl has it, or as OpenSSL says it.
    :param code: what came of a look at the certificate (X509_V_ERR_...), or 0.
    :param verified: the same in its words.
    """
    if code:
        advice = _ADVICE.get(code, "")
        text = f"the certificate isn't good: {verified.rstrip('.')}"
        return f"{text}; {advice}" if advice else text
    known = reason.upper().replace(" ", "_")
    alert = next((known.removeprefix(prefix) for prefix in _PREFIXES if known.startswith(prefix)), "")
    text = _SAID.get(known) or (alert or reason).lower().replace("_", " ")
    return f"the other end says: {text}" if alert else text
