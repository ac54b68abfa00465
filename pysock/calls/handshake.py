"""How a client's connection comes about: ``connect()``, a look at who listens, the connection initiation request (CIR).

This file owns the socket until the link has it, and the words of everything that can go wrong on the way. Where an auth
key is given, the CIR carries a nonce, and the client is let in after a CHALLENGE and its PROOF (see ``auth.py``).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from contextlib import suppress

from pysock._version import __version__
from pysock.access.peers import check_server
from pysock.address import Address
from pysock.base.aliases import SocketAddress
from pysock.base.deadlines import deadline_of, time_left
from pysock.base.faults import explained_fault, explains
from pysock.base.forking import guard, own_socket
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe
from pysock.base.vanish import notice_vanished, vanishing
from pysock.calls.selfcall import refuse_own_loop, server_behind
from pysock.engine.contract import Link
from pysock.errors import (
    GIVE_KEY,
    KEY_AT_BOTH_ENDS,
    ConnectionLost,
    ConnectionRefused,
    ProtocolError,
    RequestTimeout,
    ServerFull,
    advised,
)
from pysock.files.own_directory import choices
from pysock.files.place import kind, reachable
from pysock.limits import VANISH_TIMEOUT
from pysock.wire.format import Frame, Kind, Malformed, Refusal, Welcome, decode_welcome, encode_cir

if TYPE_CHECKING:
    from typing import Any, Final
    from weakref import ref

    from pysock.server import Server
    from pysock.wire.auth import ClientProof

#: Pauses between attempts while the server's backlog is full, in seconds.
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05


class Trust(NamedTuple):
    """What this end and the server want to know of each other."""

    servers: frozenset[int] | None = None  # the users that the server may run as; None: any
    proof: ClientProof | None = None  # of the auth key


class Handshake:
    """How one client comes to its connection: connect, greet with the CIR, prove the auth key, be let in.

    :param timeout: seconds for all of it; ``None`` is no limit.
    """

    def __init__(self, address: Address, timeout: float | None, trust: Trust) -> None:
        self._address = address
        self._timeout = timeout
        self._deadline = deadline_of(timeout)
        self._servers = trust.servers
        self._proof = trust.proof
        #: The server of this process that it leads to, if it does.
        self.beside: ref[Server] | None = None

    def open(self, name: str, link_type: type[Link], *, linger: float | None, max_payload: int) -> tuple[Link, Welcome]:
        """Raises what :func:`pysock.connect` says; nothing is left open then."""
        link = self._greet(name, link_type, linger, max_payload)
        try:
            return link, self._be_let_in(link, name)
        except BaseException:
            link.close()
            raise

    def _greet(self, name: str, link_type: type[Link], linger: float | None, max_payload: int) -> Link:
        """Connect, see who is there, and send the CIR."""
        nonce = None if self._proof is None else self._proof.nonce
        cir = encode_cir(name, f"pysock/{__version__}", max_payload, nonce)
        address = self._address
        with explains(address, "connect()"):  # also where the directory can't be found out
            handle = _connect(address, self._deadline, self._timeout)
        try:
            self.beside = server_behind(handle)
            if self.beside is not None:
                refuse_own_loop(self.beside)
            if self._servers is not None:
                check_server(handle, address, self._servers)
            _send_cir(handle, cir, self._deadline)
            with explains(address, "making the connection's buffers"):
                link = link_type(handle.fileno(), linger, max_payload)
        except BaseException:
            handle.close()
            raise
        handle.detach()
        return link

    def _be_let_in(self, link: Link, name: str) -> Welcome:
        frame = self._answer(link)
        if self._proof is not None:
            payload = self._proof.answer(_challenge(frame, self._address), name)
            self._send_proof(link, payload)
            frame = self._answer(link)
        return _welcome(frame, self._address, has_key=self._proof is not None)

    def _answer(self, link: Link) -> Frame:
        address = self._address
        try:
            return link.receive(_left(self._deadline))
        except TimeoutError:  # also RequestTimeout
            raise RequestTimeout(
                f"{address}: the server didn't answer{_within(self._timeout)}; is it busy, or is it a pysock server?"
            ) from None
        except ConnectionLost as error:
            raise ConnectionLost(
                f"{address}: the connection ended before the server let this client in; it is just stopping, or is it a"
                " pysock server?"
            ) from error
        except ProtocolError as error:
            raise ProtocolError(
                f"{address}: the answer isn't pysock's protocol ({error}); is it a pysock server?"
            ) from error

    def _send_proof(self, link: Link, payload: bytes) -> None:
        try:
            link.send(Kind.PROOF, 0, 0, payload, _left(self._deadline))
        except TimeoutError:  # also RequestTimeout
            raise RequestTimeout(f"{self._address}: the server didn't take the proof{_within(self._timeout)}") from None


def _connect(address: Address, deadline: float | None, timeout: float | None) -> socket.socket:
    """Try each address that the host has; raise what the last one said."""
    with reachable(address) as targets:
        try:
            for target in targets[:-1]:
                with suppress(OSError):
                    return _connect_one(target, deadline)
            return _connect_one(targets[-1], deadline)
        except TimeoutError:
            raise RequestTimeout(f"{address}: no connection{_within(timeout)}") from None
        except OSError as error:
            raise explained(error, address) from error


def _connect_one(target: SocketAddress, deadline: float | None) -> socket.socket:
    family, where = target
    with guard:
        handle = socket.socket(family, socket.SOCK_STREAM)
        own_socket(handle)
    try:
        if family != socket.AF_UNIX:
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            notice_vanished(handle, vanishing(VANISH_TIMEOUT))
        pause = _FIRST_PAUSE
        while True:
            handle.settimeout(_left(deadline))
            try:
                handle.connect(where)
                no_sigpipe(handle)
                return handle
            except BlockingIOError:
                # EAGAIN: the backlog of a Unix socket is full. Unlike EINPROGRESS it means that nothing has begun, and
                # no poll() would ever tell when there is room (cpython#117208), so only trying again helps.
                left = _left(deadline)
                time.sleep(pause if left is None else min(pause, left))
                pause = min(pause * 2, _LONGEST_PAUSE)
    except BaseException:
        handle.close()
        raise


def _left(deadline: float | None) -> float | None:
    left = time_left(deadline)
    if left == 0:  # a timeout of 0 would mean "don't block" to the socket module
        raise TimeoutError
    return left


def _within(timeout: float | None) -> str:
    # Without a limit of ours it is the kernel that gave up (ETIMEDOUT).
    return " in the time that the system allows" if timeout is None else f" within {timeout:g} seconds"


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


def _send_cir(handle: socket.socket, cir: bytes, deadline: float | None) -> None:
    try:
        handle.settimeout(_left(deadline))
        handle.sendall(cir, NO_SIGNAL)
    except TimeoutError:
        raise RequestTimeout("the server didn't take the connection initiation request in time") from None
    except (BrokenPipeError, ConnectionResetError):
        # A server that is full refuses and closes without reading anything. Its reason may be waiting to be read,
        # and the link reports the loss if it isn't. That is why the link doesn't send this frame.
        pass


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
