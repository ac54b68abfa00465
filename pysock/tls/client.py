"""A client's TLS session: which server it asks for, what it goes on with, and the words of what fails."""

from __future__ import annotations

import socket

from pysock.address import Address
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ConnectionLost, ConnectionRefused, ParameterError, ServerFull, TLSError
from pysock.tls.config import TLS
from pysock.tls.session import Session
from pysock.tls.wanted import name_wanted
from pysock.tls.words import DENIED, FULL, NO_TLS, in_words

if TYPE_CHECKING:
    from typing import Final, TypeVar

    from pysock.tls.channel import Channel
    from pysock.tls.wanted import Wanted

    AnyChannel = TypeVar("AnyChannel", bound=Channel)

_AWAY: Final = "the server turned this client away before the TLS handshake"


def channel_to(handle: socket.socket, address: Address, wanted: Wanted, kind: type[AnyChannel]) -> AnyChannel:
    """Begin a session with the server at the other end of a connected socket, which doesn't block from now on.

    :param kind: of the channel.
    :raises ValueError: the name of the server can't be one.
    """
    handle.setblocking(False)
    context = wanted.client_context() if isinstance(wanted, TLS) else wanted
    before = wanted.session_of(_key(address, wanted)) if isinstance(wanted, TLS) else None
    name = name_wanted(address, wanted)
    try:
        session = Session(context, server=False, name=name, session=before)
    except ValueError as error:
        problem = f"{address}: {name!r} can't be the name of a server: {error}"
        raise ParameterError("name", problem, name="") from None
    return kind(handle, session)


def remember(channel: Channel, address: Address, wanted: Wanted) -> None:
    """The next connection there may go on with this session."""
    if isinstance(wanted, TLS) and (session := channel.session.to_go_on()) is not None:
        wanted.remember(_key(address, wanted), session)


def _key(address: Address, wanted: Wanted) -> str:
    return f"{name_wanted(address, wanted)} {address.host}:{address.port}"


def explained(error: OSError, address: Address) -> OSError:
    """What the handshake failed with, in words that name the address."""
    if not isinstance(error, TLSError):  # it is passing, as the end of a server is
        return ConnectionLost(f"{address}: the connection ended in the TLS handshake; is it a server that speaks TLS?")
    said = str(error)
    if said == NO_TLS:
        return TLSError(f"{address}: the server there speaks no TLS; is it one for tcp://?")
    if said == in_words(FULL):
        return ServerFull(
            f"{address}: {_AWAY} (internal error): it is full, or has too many clients of this address, most likely"
        )
    if said == in_words(DENIED):
        return ConnectionRefused(f"{address}: {_AWAY} (access denied): this client isn't allowed to connect")
    return TLSError(f"{address}: TLS failed: {error}")
