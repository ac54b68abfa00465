"""Which Redis is the primary now: Sentinels know, and one after the other is asked before each attempt to connect."""

from __future__ import annotations

import hiredis

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.cluster.bus.over_redis.link import Link, Server

if TYPE_CHECKING:
    from typing import Any, Final

#: Seconds for one of them, at least.
_LEAST: Final = 0.5


class Sentinels(NamedTuple):
    """Where they are, and what is asked for. See :class:`Server`, in whose place it stands.

    :ivar hosts: with their ports.
    :ivar master: its name in their configuration.
    :ivar user: of the primary, as the other fields are.
    """

    hosts: tuple[tuple[str, int], ...]
    master: str
    user: str
    password: str
    is_tls: bool

    @property
    def where(self) -> str:
        """Without secrets."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"redis{'s' * self.is_tls}+sentinel://{hosts}/{self.master}"

    @property
    def moves(self) -> bool:
        """Another one may be the primary soon."""
        return True

    def primary(self, patience: float) -> Server:
        """The one that they name; this waits for them.

        :raises OSError: none of them does.
        :raises hiredis.ProtocolError: likewise, and the last one is no Redis.
        """
        last: Exception = OSError("there are none")
        for host, port in self.hosts:
            try:
                found = self._asked(Server(host, port, "", "", self.is_tls), max(_LEAST, patience / len(self.hosts)))
            except (OSError, hiredis.ProtocolError) as error:
                last = error
                continue
            if found is not None:
                return found
            last = OSError(f"the Sentinel at {host}:{port} knows no master {self.master!r}: see its configuration")
        raise last

    def _asked(self, sentinel: Server, patience: float) -> Server | None:
        question = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.master.encode())
        link, who = Link(sentinel, patience), f"the Sentinel at {sentinel.host}:{sentinel.port}"
        with link.sock:
            link.sock.settimeout(patience)
            try:
                reply = _reply(link, *question)
                if isinstance(reply, hiredis.ReplyError) and "NOAUTH" in str(reply) and self.password:
                    _reply(link, b"AUTH", *([self.user.encode()] if self.user else []), self.password.encode())
                    reply = _reply(link, *question)
            except EOFError:
                raise OSError(f"{who} has closed the connection") from None
        if isinstance(reply, hiredis.ReplyError):
            raise OSError(f"{who} says: {reply}")
        if reply is None:
            return None
        try:
            host, port = reply
            return Server(host.decode(), int(port), self.user, self.password, self.is_tls)
        except (TypeError, ValueError, AttributeError):
            raise hiredis.ProtocolError("protocol error: no address of a primary") from None


def _reply(link: Link, *words: bytes) -> Any:
    link.command(*words)
    link.flush()
    while True:
        for reply in link.receive():
            return reply
