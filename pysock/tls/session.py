"""One TLS session of either end, over memory: bytes of the network go in and out, and so do those of the program.

It does no I/O. What OpenSSL says is put into words here, once: :class:`pysock.errors.TLSError`.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable
from contextlib import suppress
from time import time as wall_clock

from pysock.base.aliases import Buffer
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import TLSError
from pysock.tls.asked import Asked
from pysock.tls.config import LOADING
from pysock.tls.info import TLSInfo, sans_of, subject_of
from pysock.tls.records import Records
from pysock.tls.words import explained, in_words

if TYPE_CHECKING:
    from typing import Any, Final

#: What one call of ``SSL_read`` is asked for: it never returns more than a record has (RFC 8446, 5.1).
_RECORD: Final = 16 * 1024
#: A fatal alert: no_application_protocol (RFC 8446, 6).
_NO_PROTOCOL: Final = bytes((21, 3, 3, 0, 2, 2, 120))
#: What comes of a look at a certificate that was good once (X509_V_ERR_CERT_HAS_EXPIRED, x509_vfy.h).
_EXPIRED: Final = (10, "certificate has expired")


class Session(Unique):
    """See the head of this file.

    :param server: whether it is the server's end.
    :param name: for a client: the name that it asks for, and expects in the certificate where the context says so.
    :param session: of a client, one that may go on.
    :param alpn: of a server: a client that offers protocols must offer one of these, if there are any.
    :ivar pending: there may be more to read, though nothing more was fed.
    :ivar ended: the other end has said that it sends nothing more (close_notify).
    :ivar secured: the handshake is done.
    :raises ValueError: the name can't be one of a host.
    """

    __slots__ = ("_alpn", "_asked", "_in", "_name", "_out", "_records", "_ssl", "ended", "pending", "secured", "take")

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server: bool,
        name: str = "",
        session: ssl.SSLSession | None = None,
        alpn: tuple[str, ...] = (),
    ) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._name = name
        with LOADING:
            self._ssl: Any = context.wrap_bio(
                self._in, self._out, server_side=server, server_hostname=name or None, session=session
            )
        self._records = Records()
        self._asked = Asked() if server else None
        self._alpn = alpn
        self.pending: bool = False
        self.ended: bool = False
        self.secured: bool = False
        #: What is to be sent, once.
        self.take: Callable[[], bytes] = self._out.read

    def feed(self, data: bytes) -> None:
        """Take what came from the network."""
        self._records.feed(data)
        if self._asked is not None and not self.secured:
            self._asked.feed(data)
        self._in.write(data)

    @property
    def has_input(self) -> bool:
        """Something was fed at which nobody has looked yet."""
        return self._in.pending > 0

    @property
    def has_output(self) -> bool:
        """Something is to be sent."""
        return self._out.pending > 0

    @property
    def isnt_tls(self) -> bool:
        """What came first is no record of a handshake."""
        return self._records.strange

    def handshake(self) -> bool:
        """Go on as far as it can; whether it is done.

        :raises TLSError: it failed. What is to be sent says so to the other end.
        """
        if not self.secured:
            self._check_alpn()
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                return False
            except ssl.SSLError as error:
                raise explained(error, self._records.strange) from error
            self._check_since()
            self.secured = self.pending = True  # more may have come behind it
            self._records.secured()
        return True

    def _check_alpn(self) -> None:
        """OpenSSL would go on: the alert is ours (RFC 7301, 3.2), and comes before anything of OpenSSL's."""
        offered = None if self._asked is None else self._asked.protocols
        if self._alpn and offered is not None and not any(name.encode("ascii") in offered for name in self._alpn):
            self._out.write(_NO_PROTOCOL)
            raise TLSError(in_words("NO_APPLICATION_PROTOCOL"))

    def _check_since(self) -> None:
        """Of a client that goes on, OpenSSL looks at nothing again: its certificate was good once. The module ssl can't
        keep sessions of version 1.2 from going on (there is no call for the cache's mode). Freed without close_notify,
        OpenSSL's cache forgets this one (SSL_free(3)): next time the client shows its certificate.
        """
        if self._asked is None or not self._ssl.session_reused:
            return
        until = (self._ssl.getpeercert() or {}).get("notAfter")
        if until is not None and ssl.cert_time_to_seconds(until) < wall_clock():
            raise TLSError(in_words("", *_EXPIRED))

    def read(self, most: int) -> bytes:
        """What has come, at most so many bytes; ``b""``: no whole record has, or nothing more will.

        :raises TLSError: it can't be made sense of, or the other end has failed.
        """
        self.pending = False
        pieces: list[bytes] = []
        left = most
        read = self._ssl.read
        try:
            while left > 0:
                piece = read(left if left < _RECORD else _RECORD)
                if not piece:
                    self.ended = True
                    break
                pieces.append(piece)
                left -= len(piece)
                if not self._in.pending and not self._ssl.pending():
                    break  # else it would be told by an exception, which costs as much as all before
            else:
                self.pending = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # what this end has said is that, too
            self.ended = True
        except ssl.SSLError as error:
            if not pieces:
                raise explained(error, self._records.strange) from error
            self.pending = True  # it says so again
        self._records.brought(len(pieces))
        if not self.pending:
            self._records.all_read()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, data: Buffer) -> None:
        """Have it sent.

        :raises TLSError: the session has failed.
        """
        try:
            self._ssl.write(data)
        except ssl.SSLError as error:
            raise explained(error, False) from error

    def close(self) -> None:
        """Say that nothing more is sent (close_notify); once."""
        with suppress(OSError):  # it waits for the other end's, or has failed: what can be said is there
            self._ssl.unwrap()

    def to_go_on(self) -> ssl.SSLSession | None:
        """Of a client: what the next connection may go on with."""
        session: ssl.SSLSession | None = self._ssl.session
        return session if session is not None and session.has_ticket else None

    def info(self) -> TLSInfo:
        """What came of the handshake."""
        connection = self._ssl
        der = connection.getpeercert(True)
        known = connection.getpeercert() if der else None
        cipher = connection.cipher()
        return TLSInfo(
            version=connection.version() or "",
            cipher=cipher[0] if cipher else "",
            alpn=connection.selected_alpn_protocol(),
            sni=self._name if self._asked is None else self._asked.name,
            subject=subject_of(known.get("subject", ())) if known else "",
            sans=sans_of(known.get("subjectAltName", ())) if known else (),
            fingerprint=hashlib.sha256(der).hexdigest() if der else "",
            driver="ssl",
            resumed=bool(connection.session_reused),
        )


def server_side(tls: Any) -> tuple[ssl.SSLContext, tuple[str, ...]]:
    """What sessions of a server are made with: the context, and the protocols inside, which nobody can ask a context of
    the program's for.

    :param tls: a :class:`pysock.TLS` or an ``ssl.SSLContext``.
    """
    return (tls, ()) if hasattr(tls, "wrap_bio") else (tls.server_context(), tls.alpn)
