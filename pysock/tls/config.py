"""``pysock.TLS``: how a server or a client speaks TLS, and the contexts of the module ssl that do so.

This file owns what is on and off by default: version 1.3 alone, no renegotiation, one ticket of resumption, names
verified. What is wrong is told when the object is made, not when the first client comes.
"""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterable

from pysock.address import VERIFY
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ParameterError
from pysock.tls.files import checked_path, load_authorities, load_pair

if TYPE_CHECKING:
    from typing import Any, Final, Literal

    from pysock.tls.files import Password

#: What both ends say that they speak inside (RFC 7301).
ALPN: Final = "pysock/1"
_MINIMUM: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_MODE: Final = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "require": ssl.CERT_REQUIRED}
#: Servers for which a client remembers a session.
_SESSIONS_MAX: Final = 64
#: Held where a context that is used is loaded again, and where one is used for a new connection: the module ssl lets
#: other threads run while it reads files, and OpenSSL frees the old certificate though one of them copies it just then.
#: A signal's handler may load them in the middle of the other, so it can be taken twice.
LOADING: Final = threading.RLock()
os.register_at_fork(before=LOADING.acquire, after_in_parent=LOADING.release, after_in_child=LOADING.release)


class TLS:
    """How to speak TLS, at either end: give it to ``Server(tls=)`` or ``connect(tls=)``. It can't be changed.

    :param cert: the file with this end's certificate in PEM form, and with those between it and its CA behind it. A
        server needs one; a client only where the server asks for it.
    :param key: the file with its key, by default the certificate's.
    :param ca: a file with the certificates of the authorities that the other end's must come from; by default a client
        takes those of the system.
    :param verify: whether the other end's certificate is looked at. A server: ``"none"``, ``"optional"`` or
        ``"require"`` (mutual TLS), by default ``"require"`` with a ``ca`` and ``"none"`` without. A client:
        ``"require"``; only ``"none"`` switches that off, and then anybody can be the server.
    :param alpn: what is spoken inside, one name or several (RFC 7301); ``()`` says nothing.
    :param minimum: the oldest version of TLS that is spoken, ``"1.3"`` or ``"1.2"``.
    :param password: the passphrase of the key, or a function that returns it.
    :param name: which name the server's certificate must have, for a client; by default the address's host.
    :raises ValueError: a file isn't there, or can't be read, or holds something else; the key isn't the certificate's;
        the certificate has expired; a passphrase is needed. The message says which, and what to do.
    """

    __slots__ = (
        "__weakref__", "_client", "_password", "_server", "_sessions", "alpn", "ca", "cert", "key", "minimum", "name",
        "verify",
    )  # fmt: skip

    cert: str | None
    key: str | None
    ca: str | None
    verify: str | None
    alpn: tuple[str, ...]
    minimum: str
    name: str | None
    _password: Password | None
    _server: ssl.SSLContext | None
    _client: ssl.SSLContext | None
    _sessions: dict[str, ssl.SSLSession]

    def __init__(
        self,
        cert: str | os.PathLike[str] | None = None,
        key: str | os.PathLike[str] | None = None,
        ca: str | os.PathLike[str] | None = None,
        verify: Literal["none", "optional", "require"] | None = None,
        alpn: str | Iterable[str] = ALPN,
        minimum: Literal["1.2", "1.3"] = "1.3",
        *,
        password: Password | None = None,
        name: str | None = None,
    ) -> None:
        self._put("cert", checked_path("cert", cert))
        self._put("key", checked_path("key", key))
        self._put("ca", checked_path("ca", ca))
        self._put("verify", _checked("verify", verify, (None, *VERIFY)))
        self._put("alpn", _checked_alpn(alpn))
        self._put("minimum", _checked("minimum", minimum, tuple(_MINIMUM)))
        self._put("name", _checked_name(name))
        self._put("_password", password)
        self._put("_server", None)
        self._put("_client", None)
        self._put("_sessions", {})
        if self.key is not None and self.cert is None:
            raise ParameterError("cert", f"is missing: {self.key!r} is the key of one", name="cert=")
        self.check()

    def _put(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"a TLS can't be changed: make another one, to set its {name!r}")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ("cert", "key", "ca", "verify", "minimum", "name")
        return f"TLS({', '.join(f'{name}={getattr(self, name)!r}' for name in shown if getattr(self, name))})"

    @property
    def asks(self) -> str:
        """How a server looks at its clients' certificates: ``verify``, or what it is by default."""
        return self.verify or ("none" if self.ca is None else "require")

    @property
    def password(self) -> Password | None:
        """The passphrase of the key, or a function that returns it."""
        return self._password

    def check(self) -> None:
        """Look at the files, as they are now.

        :raises ValueError: as when it was made.
        """
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def reload(self) -> None:
        """Take the certificate and its key from their files once more, for connections to come, if they are good; and
        more authorities. Sessions that may go on are as they were.

        :raises ValueError: they aren't; all is as it was.
        """
        self.check()
        with LOADING:
            for context in (self._server, self._client):
                if context is not None:
                    self._load(context)

    def server_context(self) -> ssl.SSLContext:
        """The context of a server; the same one each time.

        :raises ValueError: there is no certificate, or one of its files has changed for the worse.
        """
        if self._server is None:
            if self.cert is None:
                raise ParameterError("cert", "is missing: a server needs a certificate, and its key", name="cert=")
            if self.asks != "none" and self.ca is None:
                problem = f"is missing: verify={self.asks!r} asks clients for certificates of authorities that it names"
                raise ParameterError("ca", problem, name="ca=")
            context = self._made(ssl.PROTOCOL_TLS_SERVER, self.asks)
            if self.asks == "none":
                context.num_tickets = 1
            else:
                # Who goes on shows no certificate: it might have expired since, or its CA be gone. Of version 1.2 the
                # module ssl has sessions all the same, for two hours: session.py looks whether it has expired.
                context.num_tickets = 0
                context.options |= ssl.OP_NO_TICKET
            self._put("_server", context)
            return context
        return self._server

    def client_context(self) -> ssl.SSLContext:
        """The context of a client; the same one each time.

        :raises ValueError: ``verify`` is one for servers, or one of its files has changed for the worse.
        """
        if self._client is None:
            if self.verify == "optional":
                raise ParameterError("verify", "'optional' is for servers: a client's is 'require', or 'none'", name="")
            context = self._made(ssl.PROTOCOL_TLS_CLIENT, self.verify or "require")
            self._put("_client", context)
            return context
        return self._client

    def _made(self, side: int, verify: str) -> ssl.SSLContext:
        context = ssl.SSLContext(side)
        context.minimum_version = _MINIMUM[self.minimum]
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.check_hostname = side == ssl.PROTOCOL_TLS_CLIENT and verify != "none"
        context.verify_mode = _MODE[verify]
        if self.alpn:
            context.set_alpn_protocols(list(self.alpn))
        self._load(context)
        if self.ca is None and verify != "none":
            context.load_default_certs()
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        if self.cert is not None:
            load_pair(context, self.cert, self.key, self._password)
        if self.ca is not None:
            load_authorities(context, self.ca)

    # Sessions that may go on, of a client

    def session_of(self, server: str) -> ssl.SSLSession | None:
        """The last session with this server."""
        return self._sessions.get(server)

    def remember(self, server: str, session: ssl.SSLSession) -> None:
        """Keep it for the next connection there."""
        sessions = self._sessions
        sessions.pop(server, None)
        sessions[server] = session
        while len(sessions) > _SESSIONS_MAX:
            sessions.pop(next(iter(sessions)), None)


def _checked(parameter: str, value: Any, known: tuple[str | None, ...]) -> Any:
    if value not in known:
        words = ", ".join(repr(one) for one in known if one is not None)
        raise ParameterError(parameter, f"must be one of {words}, not {value!r}")
    return value


def _checked_alpn(alpn: Any) -> tuple[str, ...]:
    names = (alpn,) if isinstance(alpn, str) else tuple(alpn or ())
    for name in names:
        if not isinstance(name, str) or not name.isascii() or not 0 < len(name) <= 255:
            problem = f"{name!r} is no name of a protocol: 1 to 255 signs of ASCII, as in {ALPN!r}"
            raise ParameterError("alpn", problem, name="")
    return names


def _checked_name(name: Any) -> str | None:
    if name is not None and (not isinstance(name, str) or not name or any(map(str.isspace, name)) or "\0" in name):
        raise ParameterError("name", f"must be the name of a host, not {name!r}")
    return name
