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
from pysock.selfcall import refuse_own_loop, server_behind
from pysock.wire.format import Frame, Kind, Malformed, Refusal, Welcome, decode, decode_welcome, encode_cir

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
    key: bytes | None = None


def open_link(
    address: Address,
    name: str,
    link_type: type[Link],
    timeout: float | None,
    *,
    linger: float | None,
    max_payload: int,
    trust: Trust,
) -> tuple[Link, Welcome, ref[Server] | None]:
    """Connect and be let in, within ``timeout`` seconds in all; raises what :func:`pysock.connect` says."""
    deadline = deadline_of(timeout)
    proof = None if trust.key is None else _proof(trust.key)
    cir = encode_cir(name, f"pysock/{__version__}", max_payload, None if proof is None else proof.nonce)
    with explains(address, "connect()"):  # also where the directory can't be found out
        handle = _connect(address, deadline, timeout)
    try:
        beside = server_behind(handle)
        if beside is not None:
            refuse_own_loop(beside)
        if trust.servers is not None:
            check_server(handle, address, trust.servers)
        _send_cir(handle, cir, deadline)
        with explains(address, "making the connection's buffers"):
            link = link_type(handle.fileno(), linger, max_payload)
    except BaseException:
        handle.close()
        raise
    handle.detach()
    try:
        frame = _answer(link, address, deadline, timeout)
        if proof is not None:
            answer = proof.answer(_challenge(frame, address), name)
            _send_proof(link, decode(answer), address, deadline, timeout)
            frame = _answer(link, address, deadline, timeout)
        return link, _welcome(frame, address, has_key=proof is not None), beside
    except BaseException:
        link.close()
        raise


def _proof(key: bytes) -> ClientProof:
    from pysock.wire.auth import ClientProof  # noqa: PLC0415  # the hashes take a while to import

    return ClientProof(key)


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


def _answer(link: Link, address: Address, deadline: float | None, timeout: float | None) -> Frame:
    try:
        return link.receive(_left(deadline))
    except TimeoutError:  # also RequestTimeout
        raise RequestTimeout(
            f"{address}: the server didn't answer{_within(timeout)}; is it busy, or is it a pysock server?"
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


def _challenge(frame: Frame, address: Address) -> bytes:
    """What the server challenges this client with."""
    if frame.kind == Kind.CHALLENGE:
        return frame.payload
    if frame.kind == Kind.CIR_ACCEPTED:
        problem = f"{address}: the server has no auth key"
        refused = ConnectionRefused(f"{problem}: {KEY_AT_BOTH_ENDS}", Refusal.WRONG_PROOF)
        raise advised(refused, problem, KEY_AT_BOTH_ENDS)
    raise _unwelcome(frame, address, has_key=True)


def _send_proof(link: Link, proof: Frame, address: Address, deadline: float | None, timeout: float | None) -> None:
    try:
        link.send(proof.kind, proof.code, proof.request_id, proof.payload, _left(deadline))
    except TimeoutError:  # also RequestTimeout
        raise RequestTimeout(f"{address}: the server didn't take the proof{_within(timeout)}") from None


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
