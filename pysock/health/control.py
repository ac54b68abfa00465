"""What a server can be told from outside: ``pysock drain`` and ``pysock resume``.

They are two services of the server's own, for this user and root, by a Unix socket: there the kernel tells the server
who asks. A signal would need the number of the process, and a socket doesn't tell it: of one that systemd made it is
systemd's, to which the same signals mean a halt.
"""

from __future__ import annotations

import os

from pysock.address import INHERITED
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.errors import PysockError, RemoteError
from pysock.wire.format import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from pysock.data import DataSocket
    from pysock.server import Server

DRAIN: Final = "_drain"
RESUME: Final = "_resume"

#: Where the kernel may know who asks; an inherited socket may be of either kind.
_KNOWN: Final = frozenset(("unix", "abstract", *INHERITED))
_NOT_ALLOWED: Final = "only the server's own user and root may ask for this, by a Unix socket of this machine"


def control(server: Server) -> None:
    """Let this user and root command a server over its Unix sockets: ``pysock drain``, ``pysock resume``.

    Before its start; ``pysock serve`` does it by itself. Each command is a service: ``_drain`` calls ``server.lame()``,
    ``_resume`` calls ``server.resume()``, and the reply is ``draining`` or ``serving``. Others are refused, also over
    TCP, where nobody tells who asks. Called again it does nothing.

    :raises ValueError: its framing has no names for services.
    :raises PysockError: the server has been started.
    """
    for name, command in ((DRAIN, server.lame), (RESUME, server.resume)):
        if not server._services.has(name):
            server._check_new("services")
            server._services.add_own(name, _handler(server, name, command))


def may_control(server: Server) -> bool:
    """Whether somebody could ask: it has names for services, and may have a Unix socket."""
    return server._services.has_names and any(address.transport in _KNOWN for address in server.addresses)


def _handler(server: Server, name: str, command: Callable[[], None]) -> Callable[[DataSocket, bytes], bytes]:
    def carry_out(client: DataSocket, _request: bytes) -> bytes:
        peer = client.peer
        if peer is None or peer.uid not in {0, os.geteuid()}:
            raise RemoteError(_NOT_ALLOWED, ErrorCode.NOT_ALLOWED)
        log.info("%s: asked for by process %d of user %d", name, peer.pid, peer.uid)
        try:
            command()
        except PysockError as error:
            raise RemoteError(str(error)) from error
        return b"draining" if server.is_lame else b"serving"

    return carry_out
