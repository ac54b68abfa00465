"""The connection initiation request (CIR) and what is answered, without any I/O: both kinds of clients use it.

This file owns the words of everything that can go wrong until a client is let in. Where an auth key is given, the CIR
carries a nonce, and the client is let in after a CHALLENGE and its PROOF (see ``auth.py``).
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from pysock._version import __version__
from pysock.address import Address
from pysock.base.faults import explained_fault
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import (
    GIVE_KEY,
    KEY_AT_BOTH_ENDS,
    ConnectionLost,
    ConnectionRefused,
    ProtocolError,
    RequestTimeout,
    ServerFull,
    TLSError,
    advised,
)
from pysock.files.own_directory import choices
from pysock.files.place import kind
from pysock.limits import STREAM_WINDOW
from pysock.wire.cir import Welcome, decode_welcome, encode_cir
from pysock.wire.features import Feature
from pysock.wire.format import Frame, Kind, Malformed, Refusal

if TYPE_CHECKING:
    from typing import Any

    from pysock.wire.auth import ClientProof


class Initiation:
    """How one client is let in.

    :param proof: of the auth key, if there is one.
    :ivar cir: the frame to begin with.
    """

    def __init__(
        self, address: Address, name: str, max_payload: int, proof: ClientProof | None, features: int = 0
    ) -> None:
        nonce = None if proof is None else proof.nonce
        window = STREAM_WINDOW if features & Feature.STREAM else None
        self.cir: bytes = encode_cir(name, f"pysock/{__version__}", max_payload, nonce, features, window)
        self._address = address
        self._name = name
        self._proof = proof
        self._proved = False

    def take(self, frame: Frame) -> bytes | Welcome:
        """What the next frame of the server leads to: the payload of the PROOF to send, or the welcome.

        :raises ConnectionRefused: the client isn't let in.
        :raises ProtocolError: it is no answer to what was sent.
        """
        if self._proof is not None and not self._proved:
            self._proved = True
            return self._proof.answer(_challenge(frame, self._address), self._name)
        return _welcome(frame, self._address, has_key=self._proof is not None)

    def failed(self, error: Exception, timeout: float | None) -> Exception:
        """In words, what kept the answer from coming.

        :param timeout: what was given for all of it.
        """
        address = self._address
        if isinstance(error.__cause__, TLSError):  # of a client's certificate a server tells when the handshake is over
            return TLSError(f"{address}: TLS failed: {error.__cause__}")
        if isinstance(error, ConnectionLost):
            return ConnectionLost(
                f"{address}: the connection ended before the server let this client in; it is just stopping, or is it a"
                " pysock server?"
            )
        if isinstance(error, ProtocolError):
            return ProtocolError(f"{address}: the answer isn't pysock's protocol ({error}); is it a pysock server?")
        if isinstance(error, TimeoutError):  # also RequestTimeout
            return RequestTimeout(
                f"{address}: the server didn't answer{within(timeout)}; is it busy, or is it a pysock server?"
            )
        return error


def explained(error: OSError, address: Address) -> OSError:
    """The same error with words that name the address and say what to do."""
    number = error.errno or 0
    if isinstance(error, socket.gaierror) or not number:
        return error
    if address.transport == "unix" and (what := _no_socket(address.socket_file)):
        return OSError(number, f"{address}: that is {what}, not a socket; is the path right?")
    advice = {
        errno.ENOENT: "there is no such socket file; is the server running, and is the path right?",
        errno.ECONNREFUSED: "nobody listens there; is the server running?",
        errno.EACCES: "this process may not connect; look at the permissions of the socket file",
        errno.ENOTSOCK: "that isn't a socket",
        errno.EPROTOTYPE: "that isn't a stream socket",
    }.get(number)
    if not advice:
        return explained_fault(error, address, "connect()")
    hint = f" {choices(address.name)}" if address.transport == "unix" and not address.path else ""
    return OSError(number, f"{address}: {advice}{hint}")


def _no_socket(path: str) -> str:
    """What is there in place of a socket file: Linux says of all of it that nobody listens there."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    return "" if stat.S_ISSOCK(mode) else kind(mode)


def within(timeout: float | None) -> str:
    """How long was waited, for the end of a text."""
    # Without a limit of ours it is the kernel that gave up (ETIMEDOUT).
    return " in the time that the system allows" if timeout is None else f" within {timeout:g} seconds"


def _challenge(frame: Frame, address: Address) -> bytes:
    """What the server challenges this client with."""
    if frame.kind == Kind.CHALLENGE:
        return frame.payload
    if frame.kind == Kind.CIR_ACCEPTED:
        problem = f"{address}: the server has no auth key"
        refused = ConnectionRefused(f"{problem}: {KEY_AT_BOTH_ENDS}", Refusal.WRONG_PROOF)
        raise advised(refused, problem, KEY_AT_BOTH_ENDS)
    raise _unwelcome(frame, address, has_key=True)


def _welcome(frame: Frame, address: Address, *, has_key: bool) -> Welcome:
    if frame.kind != Kind.CIR_ACCEPTED:
        raise _unwelcome(frame, address, has_key)
    try:
        return decode_welcome(frame.payload)
    except Malformed as error:
        raise ProtocolError(f"{address}: the server's CIR_ACCEPTED is broken: {error}") from None


def _unwelcome(frame: Frame, address: Address, has_key: bool) -> ConnectionRefused | ProtocolError:
    """What to raise for an answer that doesn't let this client in."""
    if frame.kind == Kind.CIR_REFUSED:
        return _refusal(frame, has_key)
    if frame.kind == Kind.CHALLENGE:
        return ProtocolError(f"{address}: the server sent a CHALLENGE that nothing had asked for")
    return ProtocolError(f"{address}: the server answered the CIR with a frame of kind {frame.kind:#04x}")


def _refusal(frame: Frame, has_key: bool) -> ConnectionRefused:
    reason = frame.payload.decode("utf-8", "replace")
    if frame.code == Refusal.WRONG_PROOF and not has_key:
        return advised(ConnectionRefused(f"{reason}: {GIVE_KEY}", frame.code), reason, GIVE_KEY)
    options: dict[str, Any] = {"reason": reason} if reason else {}
    if frame.code == Refusal.SERVER_FULL:
        return ServerFull(**options)
    return ConnectionRefused(**options, code=frame.code)
