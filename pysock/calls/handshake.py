"""How a client's connection comes about: ``connect()``, a look at who listens, the connection initiation request (CIR).

This file owns the socket until the link has it. What is said in the CIR, and what is made of the answer, is in
``initiation.py``.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from pysock.access.peers import Ids, check_server, expected_server
from pysock.address import Address
from pysock.base import kinds
from pysock.base.aliases import SocketAddress
from pysock.base.deadlines import deadline_of, time_left
from pysock.base.faults import explains
from pysock.base.forking import guard, own_socket
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe
from pysock.base.vanish import notice_vanished, vanishing
from pysock.calls.initiation import Initiation, explained, within
from pysock.calls.selfcall import refuse_own_loop, server_behind
from pysock.engine.choice import choose
from pysock.engine.link import Link
from pysock.errors import ConnectionLost, ProtocolError, RequestTimeout
from pysock.files.place import reachable
from pysock.limits import VANISH_TIMEOUT
from pysock.parameters import client_proof, wanted_tls
from pysock.wire.cir import Welcome
from pysock.wire.features import CLIENT_FEATURES
from pysock.wire.format import Frame, Kind

if TYPE_CHECKING:
    from typing import Any, Final
    from weakref import ref

    from pysock.engine.contract import Backend
    from pysock.server import Server
    from pysock.tls.channel import SharedChannel
    from pysock.tls.info import TLSInfo
    from pysock.tls.wanted import Wanted
    from pysock.wire.auth import ClientProof

#: Pauses between attempts while the server's backlog is full, in seconds.
FIRST_PAUSE: Final = 0.001
LONGEST_PAUSE: Final = 0.05


class Trust(NamedTuple):
    """What this end and the server want to know of each other."""

    servers: frozenset[int] | None = None  # the users that the server may run as; None: any
    proof: ClientProof | None = None  # of the auth key
    tls: Wanted | None = None  # what is spoken below; None: no TLS
    header: bytes = b""  # of the PROXY protocol, by which this end says for whom it connects: before all else

    @classmethod
    def of(
        cls, address: Address, server_uid: Ids | None, authkey: bytes | None, tls: Any, proxy: kinds.Proxy | None
    ) -> Trust:
        """What ``connect()`` was given; raises what that does."""
        servers, header = expected_server(address, server_uid), b""
        if proxy is not None:
            from pysock.wire.proxy.writing import header_for  # noqa: PLC0415  # for proxies alone

            header = header_for(proxy)
        return cls(servers, None if authkey is None else client_proof(authkey), wanted_tls(address, tls), header)

    def engine(self, backend: str) -> Backend:
        """Whose parts a client is made of: those of the pure engine speak TLS, wherever the server's run."""
        chosen = choose(backend)
        return chosen if self.tls is None else choose("pure")


class Handshake:
    """How one client comes to its connection: connect, greet with the CIR, prove the auth key, be let in.

    :param timeout: seconds for all of it; ``None`` is no limit.
    """

    def __init__(self, address: Address, timeout: float | None, trust: Trust, features: int = CLIENT_FEATURES) -> None:
        self._address = address
        self._features = features
        self._timeout = timeout
        self._deadline = deadline_of(timeout)
        self._servers = trust.servers
        self._proof = trust.proof
        self._tls = trust.tls
        #: What came of the TLS handshake, if there was one.
        self.info: TLSInfo | None = None
        self._channel: SharedChannel | None = None
        self._header = trust.header
        #: The server of this process that it leads to, if it does.
        self.beside: ref[Server] | None = None

    def open(self, name: str, link_type: type[Link], *, linger: float | None, max_payload: int) -> tuple[Link, Welcome]:
        """Raises what :func:`pysock.connect` says; nothing is left open then."""
        link = self._greet(name, link_type, linger, max_payload)
        try:
            welcome = self._be_let_in(link)
            if self._channel is not None:
                from pysock.tls.client import remember  # noqa: PLC0415  # whoever speaks no TLS doesn't pay for it

                remember(self._channel, self._address, self._tls)  # type: ignore[arg-type]  # it is there
            return link, welcome
        except BaseException:
            link.close()
            raise

    def _greet(self, name: str, link_type: type[Link], linger: float | None, max_payload: int) -> Link:
        """Connect, see who is there, and send the CIR."""
        self._initiation = Initiation(self._address, name, max_payload, self._proof, self._features)
        cir = self._initiation.cir
        address = self._address
        with explains(address, "connect()"):  # also where the directory can't be found out
            handle = _connect(address, self._deadline, self._timeout)
        try:
            self.beside = server_behind(handle)
            if self.beside is not None:
                refuse_own_loop(self.beside)
            if self._servers is not None:
                check_server(handle, address, self._servers)
            if self._tls is None:
                _send_cir(handle, self._header + cir, self._deadline)
            else:
                if self._header:
                    _send_cir(handle, self._header, self._deadline)
                self._secure(handle, cir)
            with explains(address, "making the connection's buffers"):
                link = link_type(handle.fileno(), linger, max_payload, *self._through())
        except BaseException:
            handle.close()
            raise
        handle.detach()
        return link

    def _secure(self, handle: socket.socket, cir: bytes) -> None:
        """The TLS handshake, and the CIR."""
        from pysock.calls.securing import Securing  # noqa: PLC0415  # as above

        assert self._tls is not None
        securing = Securing(self._address, self._tls, self._deadline, self._timeout)
        self._channel = securing.shake(handle)
        self.info = self._channel.info()
        securing.send(handle, self._channel, cir)

    def _through(self) -> tuple[SharedChannel, ...]:
        """What a link is given beside, which only that of the pure engine takes."""
        return () if self._channel is None else (self._channel,)

    def _be_let_in(self, link: Link) -> Welcome:
        link.agree(self._features)  # what follows the welcome may come with it
        answer = self._initiation.take(self._answer(link))
        while not isinstance(answer, Welcome):
            self._send_proof(link, answer)
            answer = self._initiation.take(self._answer(link))
        link.agree(answer.features)
        return answer

    def _answer(self, link: Link) -> Frame:
        try:
            return link.receive(_left(self._deadline))
        except TimeoutError as error:
            raise self._initiation.failed(error, self._timeout) from None
        except (ConnectionLost, ProtocolError) as error:
            raise self._initiation.failed(error, self._timeout) from error

    def _send_proof(self, link: Link, payload: bytes) -> None:
        try:
            link.send(Kind.PROOF, 0, 0, payload, _left(self._deadline))
        except TimeoutError:  # also RequestTimeout
            raise RequestTimeout(f"{self._address}: the server didn't take the proof{within(self._timeout)}") from None


def _connect(address: Address, deadline: float | None, timeout: float | None) -> socket.socket:
    """Try each address that the host has; raise what the last one said."""
    with reachable(address) as targets:
        try:
            for target in targets[:-1]:
                with suppress(OSError):
                    return _connect_one(target, deadline)
            return _connect_one(targets[-1], deadline)
        except TimeoutError:
            raise RequestTimeout(f"{address}: no connection{within(timeout)}") from None
        except OSError as error:
            raise explained(error, address) from error


def new_socket(family: int) -> socket.socket:
    """A stream socket of a client, with its options; a forked child closes its copy."""
    with guard:
        handle = socket.socket(family, socket.SOCK_STREAM)
        own_socket(handle)
    try:
        no_sigpipe(handle)
        if family != socket.AF_UNIX:
            handle.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            notice_vanished(handle, vanishing(VANISH_TIMEOUT))
    except BaseException:
        handle.close()
        raise
    return handle


def _connect_one(target: SocketAddress, deadline: float | None) -> socket.socket:
    family, where = target
    handle = new_socket(family)
    try:
        pause = FIRST_PAUSE
        while True:
            handle.settimeout(_left(deadline))
            try:
                handle.connect(where)
                return handle
            except BlockingIOError:
                # EAGAIN: the backlog of a Unix socket is full. Unlike EINPROGRESS it means that nothing has begun, and
                # no poll() would ever tell when there is room (cpython#117208), so only trying again helps.
                left = _left(deadline)
                time.sleep(pause if left is None else min(pause, left))
                pause = min(pause * 2, LONGEST_PAUSE)
    except BaseException:
        handle.close()
        raise


def _left(deadline: float | None) -> float | None:
    left = time_left(deadline)
    if left == 0:  # a timeout of 0 would mean "don't block" to the socket module
        raise TimeoutError
    return left


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
