"""The auth key: how both ends show that they have it, without sending it.

This file owns the arithmetic of the wire protocol's challenge: which bytes go into which MAC, on the server's side and
on the client's. The client's CIR carries a nonce, the server's CHALLENGE another one and a MAC over both, the client's
PROOF a MAC over both and its name. Each end uses a fresh nonce, so nothing that was recorded is worth anything later;
the two MACs differ in their first bytes, so that neither can be sent back in place of the other. HMAC-SHA256 (RFC 2104)
and the random bytes are the standard library's; no algorithm is negotiated.
"""

from __future__ import annotations

import hmac
import secrets

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ConnectionRefused, ParameterError, ProtocolError
from pysock.wire.challenge import decode_challenge, encode_challenge, encode_proof
from pysock.wire.format import NONCE_SIZE, Malformed, Refusal

if TYPE_CHECKING:
    from typing import Any, Final

_SERVER: Final = b"pysock1 server"
_CLIENT: Final = b"pysock1 client"
_SAME: Final = b"pysock1 same key"


class ServerProof:
    """The server's half, for all its connections: what ``Callbacks.challenge`` and ``prove`` of the engines are.

    :raises TypeError: the key isn't ``bytes``.
    :raises ValueError: it is empty.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = _checked(key)

    def challenge(self, nonce: bytes, name: bytes) -> tuple[bytes, bytes]:
        """The fields of the CHALLENGE to a CIR with this nonce and name, and the MAC that its PROOF must have."""
        key, own = self._key, secrets.token_bytes(NONCE_SIZE)
        return encode_challenge(own, _mac(key, _SERVER, nonce, own)), _mac(key, _CLIENT, nonce, own, name)

    def fingerprint(self) -> bytes:
        """What tells two keys apart, for processes of one user that trust each other."""
        return _mac(self._key, _SAME)

    @staticmethod
    def prove(expected: bytes, got: bytes) -> bool:
        """Whether two MACs are the same, in constant time."""
        return hmac.compare_digest(expected, got)


class ClientProof:
    """The client's half, for one connection.

    :ivar nonce: for the CIR.
    :raises TypeError: the key isn't ``bytes``.
    :raises ValueError: it is empty.
    """

    __slots__ = ("_key", "nonce")

    def __init__(self, key: bytes) -> None:
        self._key = _checked(key)
        self.nonce: bytes = secrets.token_bytes(NONCE_SIZE)

    def answer(self, challenge: bytes, name: str) -> bytes:
        """Return the payload of the PROOF that answers a CHALLENGE with this payload.

        :param name: as in the CIR.
        :raises ProtocolError: the CHALLENGE is broken.
        :raises ConnectionRefused: the server hasn't shown that it has the same key; nothing is proved to it then.
        """
        try:
            servers, mac = decode_challenge(challenge)
        except Malformed as error:
            raise ProtocolError(f"the server's CHALLENGE is broken: {error}") from None
        if not hmac.compare_digest(_mac(self._key, _SERVER, self.nonce, servers), mac):
            raise ConnectionRefused("the server has another auth key", Refusal.WRONG_PROOF)
        return encode_proof(_mac(self._key, _CLIENT, self.nonce, servers, name.encode("utf-8")))


def _mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"".join(parts), "sha256")


def _checked(key: Any) -> bytes:
    if not isinstance(key, bytes):
        raise TypeError(f"an authkey is bytes, not {type(key).__name__}; for example secrets.token_bytes(32)")
    if not key:
        raise ParameterError("authkey", "is empty; make one with secrets.token_bytes(32)", name="the authkey")
    return key
