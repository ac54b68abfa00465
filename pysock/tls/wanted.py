"""Which TLS an address speaks: by what is written after its ``?``, or by ``tls=`` of a server or a client.

Never none: an address of the transport ``tls`` for which there is nothing to speak it with is an error, and so is a
``tls=`` that no address would speak.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable

from pysock.address import Address
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.errors import ParameterError
from pysock.tls.config import TLS
from pysock.tls.contexts import asks, checked_client, checked_server

if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

    #: What ``tls=`` takes.
    Wanted: TypeAlias = TLS | ssl.SSLContext


class Spoken(NamedTuple):
    """What a server speaks at an address."""

    wanted: Wanted
    asks: str  # how it looks at its clients' certificates

    @property
    def kind(self) -> str:
        """``"TLS"``, which knows its files; or ``"context"``, which is the program's."""
        return "TLS" if isinstance(self.wanted, TLS) else "context"


_FIELDS: Final = ("cert", "key", "ca", "verify")
#: Clients' by default and by what their addresses say: kept, and with them the sessions that may go on.
_clients: dict[tuple[Any, ...], TLS] = {}
_CLIENTS_MAX: Final = 256


def checked_tls(tls: Any) -> Wanted | None:
    """Return it.

    :raises TypeError: it is neither a TLS nor a context.
    """
    if tls is not None and not isinstance(tls, (TLS, ssl.SSLContext)):
        raise TypeError(f"tls= takes a pysock.TLS or an ssl.SSLContext, not {tls!r}")
    return tls


def servers_tls(addresses: Iterable[Address], tls: Any) -> dict[Address, Spoken]:
    """What a server speaks at those of its addresses that are of the transport ``tls``.

    :raises ValueError: an address has no certificate; ``tls`` goes with none of them; or it can't be a server's.
    """
    given, several = checked_tls(tls), tuple(addresses)
    found = {address: _server(address, given) for address in several if address.transport == "tls"}
    if given is not None and not found:
        raise ParameterError("tls", _for_nobody(several), name="tls=")
    return found


def _for_nobody(addresses: tuple[Address, ...]) -> str:
    for address in addresses:
        if address.transport == "tcp":
            return f"goes with an address tls://HOST:PORT, and {address} is one without TLS: write tls://"
    return f"goes with an address tls://HOST:PORT, and {' '.join(map(str, addresses))} is none"


def _server(address: Address, given: Wanted | None) -> Spoken:
    if address.name is not None:
        problem = f"{address}: name= is for clients, who expect it of the server's certificate: leave it out"
        raise ParameterError("name", problem, name="")
    if _says_something(address):
        _refuse_both(address, given)
        try:
            given = TLS(address.cert, address.key, address.ca, _verify(address))
        except ParameterError as error:
            raise ParameterError(error.parameter, f"{address}: {error}", name="") from None
    if given is None:
        problem = (
            f"{address}: there is no certificate: pass tls=pysock.TLS(cert=..., key=...), or write"
            " tls://HOST:PORT?cert=CERT.PEM&key=KEY.PEM"
        )
        raise ParameterError("tls", problem, name="")
    if isinstance(given, TLS):
        given.server_context()
        return Spoken(given, given.asks)
    return Spoken(checked_server(given), asks(given))


def clients_tls(address: Address, tls: Any) -> Wanted | None:
    """What a client speaks at this address; ``None``: it isn't one of the transport ``tls``.

    :raises ValueError: ``tls`` goes with another address, or can't be a client's.
    """
    given = checked_tls(tls)
    if address.transport != "tls":
        if given is not None:
            raise ParameterError("tls", _for_nobody((address,)), name="tls=")
        return None
    if _says_something(address):
        _refuse_both(address, given)
        given = _kept(address.cert, address.key, address.ca, _verify(address))
    if given is None:
        given = _kept(None, None, None, None)
    if isinstance(given, TLS):
        given.client_context()
    else:
        checked_client(given)
    return given


def name_wanted(address: Address, tls: Wanted) -> str:
    """The name that the certificate of the server must have, and that it is asked for by (SNI)."""
    name = tls.name if isinstance(tls, TLS) else None
    return address.name or name or address.host or "localhost"


def _kept(*fields: Any) -> TLS:
    found = _clients.get(fields)
    if found is None:
        found = TLS(*fields)
        while len(_clients) >= _CLIENTS_MAX:
            _clients.pop(next(iter(_clients)), None)
        _clients[fields] = found
    return found


def _says_something(address: Address) -> bool:
    return any(getattr(address, field) is not None for field in _FIELDS)


def _verify(address: Address) -> Any:
    return address.verify


def _refuse_both(address: Address, given: Wanted | None) -> None:
    if given is not None:
        raise ParameterError("tls", f"is given, and {address} says it as well: leave one out", name="tls=")
