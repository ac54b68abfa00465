"""TLS in the native engine by Python's module ssl: for contexts that the program has made, and where the system has no
OpenSSL 3. The bytes of the network are C's, ``csrc/transport/hosted.c``, which calls the steps here.

This file owns what is known of these connections, by client. A step raises nothing but ``MemoryError``: what is wrong
with the other end's bytes is part of what it says.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import TLSError
from pysock.tls.session import Session, server_side
from pysock.tls.words import NO_TLS

if TYPE_CHECKING:
    import ssl
    from typing import Any, Final, TypeAlias

    from pysock.tls.info import TLSInfo

    #: What a step says, as bits; what it has opened, for the engine; what it has sealed, for the other end.
    Made: TypeAlias = tuple[int, bytes, bytes]

#: The bits: ``enum ps_tls_said`` in ``csrc/base/host.h``.
DONE: Final = 1
MORE: Final = 2
ENDED: Final = 4
FAILED: Final = 8
STRANGE: Final = 16


class HostedSessions(Unique):
    """Those of one engine.

    :ivar why: why the last handshake failed.
    """

    def __init__(self) -> None:
        self.why: str = ""
        self._spoken: dict[int, tuple[ssl.SSLContext, tuple[str, ...]]] = {}  # by master
        self._by_client: WeakValueDictionary[int, HostedSession] = WeakValueDictionary()  # C has them

    def add_master(self, master: int, tls: Any) -> None:
        """Its clients speak this :class:`pysock.TLS`, or what the context says."""
        self._spoken[master] = server_side(tls)

    def begin(self, client_id: int, master: int) -> HostedSession:
        """One more: its client has sent something."""
        context, alpn = self._spoken[master]
        session = HostedSession(self, Session(context, server=True, alpn=alpn))
        self._by_client[client_id] = session
        return session

    def info(self, client_id: int) -> TLSInfo | None:
        """What came of a client's handshake; from any thread."""
        session = self._by_client.get(client_id)
        return None if session is None else session.known


class HostedSession(Unique):
    """One, of which C calls the steps."""

    __slots__ = ("__weakref__", "_session", "_sessions", "known")

    def __init__(self, sessions: HostedSessions, session: Session) -> None:
        self._sessions, self._session = sessions, session
        self.known: TLSInfo | None = None  # once the handshake is done

    def shake(self, data: bytes, _most: int) -> Made:
        """Go on with the handshake, with what has come."""
        session = self._session
        session.feed(data)
        try:
            if not session.handshake():
                return 0, b"", session.take()
        except TLSError as error:
            self._sessions.why = str(error)
            return FAILED | STRANGE * (str(error) == NO_TLS), b"", session.take()
        self.known = session.info()
        return DONE | MORE * session.has_input, b"", session.take()

    def unseal(self, data: bytes, most: int) -> Made:
        """Open what has come, or what is there still; at most so many bytes."""
        session = self._session
        if data:
            session.feed(data)
        try:
            opened = session.read(most)
        except TLSError:
            return FAILED, b"", session.take()
        return MORE * session.pending | ENDED * session.ended, opened, session.take() if session.has_output else b""

    def seal(self, data: bytes, _most: int) -> Made:
        """Have this sent."""
        try:
            self._session.write(data)
        except TLSError:
            return FAILED, b"", self._session.take()
        return 0, b"", self._session.take()

    def close(self, _data: bytes, _most: int) -> Made:
        """Say that nothing follows."""
        self._session.close()
        return 0, b"", self._session.take()
