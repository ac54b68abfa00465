"""Certificates, made once for a process by trustme; and a socket that speaks TLS, for who speaks the rest by hand."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.util
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from programs import missing
from support import short_directory

from pysock import TLS, Address


class Certificates:
    """Paths of PEM files; a certificate and its key are in one."""

    def __init__(self) -> None:
        if importlib.util.find_spec("trustme") is None:
            missing("trustme isn't installed: nothing has been tested with TLS")
        import trustme  # noqa: PLC0415  # see above

        self.directory: Path = short_directory()
        self.authority = trustme.CA()
        self.stranger = trustme.CA()
        self.ca = self._written("ca", self.authority.cert_pem)
        self.other_ca = self._written("other_ca", self.stranger.cert_pem)
        self.server = self.issue("server", "localhost", "127.0.0.1", "::1")
        self.client = self.crafted("client", "one.workers.example", "spiffe://example/worker", subject="worker")

    def issue(self, name: str, *names: str, by: Any = None, days: float = 365, **options: Any) -> str:
        """A certificate for these names, and its key; with ``days`` below 0 one that has expired."""
        now = datetime.datetime.now(datetime.timezone.utc)
        times = {"not_before": now - datetime.timedelta(days=800), "not_after": now + datetime.timedelta(days=days)}
        made = (by or self.authority).issue_cert(*names, **times, **options)
        return self._written(name, made.private_key_and_cert_chain_pem)

    def crafted(self, name: str, *names: str, subject: str = "", use: str = "both", by: Any = None) -> str:
        """A certificate that trustme wouldn't make: with URIs, with a NUL in a name, for one end of a connection only.

        :param use: ``"both"``, ``"server"`` or ``"client"``.
        :param by: ``None``: the authority; ``"itself"``.
        """
        from cryptography import x509  # noqa: PLC0415  # it comes with trustme
        from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
        from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

        key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.load_pem_x509_certificate(self.authority.cert_pem.bytes())
        signing: Any = serialization.load_pem_private_key(self.authority.private_key_pem.bytes(), None)
        who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject or names[0])])
        uses = {"server": x509.ExtendedKeyUsageOID.SERVER_AUTH, "client": x509.ExtendedKeyUsageOID.CLIENT_AUTH}
        kinds = [x509.UniformResourceIdentifier if ":" in one else x509.DNSName for one in names]
        now = datetime.datetime.now(datetime.timezone.utc)
        made = (
            x509.CertificateBuilder()
            .subject_name(who)
            .issuer_name(who if by == "itself" else authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(
                x509.SubjectAlternativeName([kind(one) for kind, one in zip(kinds, names, strict=True)]), False
            )
            .add_extension(x509.ExtendedKeyUsage([*uses.values()] if use == "both" else [uses[use]]), False)
            .sign(key if by == "itself" else signing, hashes.SHA256())
        )
        path = self.directory / f"{name}.pem"
        plain = serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
        return str(path)

    def _written(self, name: str, blob: Any) -> str:
        path = self.directory / f"{name}.pem"
        blob.write_to_path(str(path))
        return str(path)

    def at(self, address: Address | str) -> str:
        """The address, with what both a server and its clients need to speak TLS there, each with a certificate."""
        return f"{Address.parse(str(address)).bare()}?cert={self.server}&ca={self.ca}"

    @functools.cached_property
    def served(self) -> TLS:
        """A server's, which asks nobody for a certificate."""
        return TLS(self.server)

    @functools.cached_property
    def trusting(self) -> TLS:
        """A client's, which has no certificate."""
        return TLS(ca=self.ca)

    @functools.cached_property
    def worker(self) -> TLS:
        """A client's, which has one."""
        return TLS(self.client, ca=self.ca)


@functools.cache
def certificates() -> Certificates:
    """Those of this process."""
    return Certificates()


class TLSSocket:
    """A blocking one, by ``ssl.SSLObject``: of ``ssl.SSLSocket`` no half can be closed."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self.plain = sock
        self._kept = b""  # what was received before this end was closed
        self.ended = False  # the other end has said that it sends nothing more
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname="localhost", session=session)
        self._lock, self._sending = threading.Lock(), threading.Lock()  # one thread reads and another writes
        self._until(self.tls.do_handshake)

    def _until(self, call: Any, *arguments: Any) -> Any:
        data = b""
        while True:
            try:
                with self._lock:  # nothing lies there unread for others, as shutdown() would throw it away
                    self._in.write(data)
                    result = call(*arguments)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):  # noqa: PERF203  # both have said so
                self.ended = True
                return b""
            except ssl.SSLWantReadError:
                self._flush()
                data = self.plain.recv(1 << 18)
                if not data:
                    return b""  # without close_notify
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        with self._sending:
            if data := self.taken():
                self.plain.sendall(data)

    def taken(self) -> bytes:
        """What is to be sent."""
        with self._lock:
            return self._out.read()

    def recv(self, size: int, _flags: int = 0) -> bytes:
        return self._until(self._read, size)

    def _read(self, size: int) -> bytes:
        """All that is there, up to this, as of a plain socket; by records it would take far longer than the server."""
        if self._kept:
            found, self._kept = self._kept[:size], self._kept[size:]
            return found
        pieces = [self.tls.read(size)]
        left = size - len(pieces[0])
        while left and pieces[-1]:
            try:
                pieces.append(self.tls.read(left))
            except ssl.SSLError:  # nothing more, for now or at all: the next call is told
                break
            left -= len(pieces[-1])
        return b"".join(pieces)

    def send(self, data: bytes) -> int:
        self.sendall(data)
        return len(data)

    def sendall(self, data: bytes) -> None:
        for at in range(0, len(data), 65536):
            self._until(self.tls.write, data[at : at + 65536])

    def shutdown(self, how: int) -> None:
        if how == socket.SHUT_RDWR:
            self.plain.shutdown(how)
            return
        self._say_that_nothing_follows()
        self._flush()

    def _say_that_nothing_follows(self) -> None:
        """Keep what came before: SSL_shutdown() reads, for the other end's word, and throws away what else it finds."""
        with self._lock:
            with contextlib.suppress(ssl.SSLError):
                while piece := self.tls.read(1 << 16):
                    self._kept += piece
            with contextlib.suppress(ssl.SSLError):  # close_notify is there, and the other end's isn't waited for
                self.tls.unwrap()

    def close(self) -> None:
        """As a client does that leaves in order: it says so, if there is room."""
        if self.plain.fileno() >= 0:
            with contextlib.suppress(OSError, ValueError):
                self._say_that_nothing_follows()
                self.plain.send(self.taken(), socket.MSG_DONTWAIT)
        self.plain.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def __enter__(self) -> TLSSocket:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def secure(sock: socket.socket, certificate: str | None = "", session: Any = None) -> TLSSocket:
    """Speak TLS on it, with the certificate of a worker, or another one, or none.

    :param session: of another one of these, to go on with.
    """
    made = certificates()
    context = ssl.create_default_context(cafile=made.ca) if session is None else session.tls.context
    if certificate is not None:
        context.load_cert_chain(certificate or made.client)
    return TLSSocket(sock, context, None if session is None else session.tls.session)
