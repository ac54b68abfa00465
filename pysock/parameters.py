"""What a server or a client is given, looked at: a wrong parameter is told of by its name, with what is right."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable
from contextlib import suppress

from pysock.address import INHERITED, Address, as_address
from pysock.base.forms import from_the_root, separated
from pysock.base.lean import TYPE_CHECKING, replace
from pysock.errors import ParameterError
from pysock.limits import LARGEST_PAYLOAD, Limits, Slow
from pysock.wire.format import Framing
from pysock.wire.framing import FRAMING_BY_NAME

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.access.rule import Rule
    from pysock.address import AddressLike
    from pysock.base import kinds
    from pysock.tls.wanted import Wanted
    from pysock.wire.auth import ClientProof, ServerProof

#: Polling longer than this would only burn the CPU, whatever it is meant for, in seconds.
LINGER_MAX: Final = 1.0

#: What a server may tell of an exception in a handler; each word means more than the one before.
EXPOSE: Final = ("type", "message", "traceback")

#: What a server may do where too many pushes wait for a client.
SLOW: Final = {"disconnect": Slow.DISCONNECT, "drop-new": Slow.DROP_NEW, "drop-old": Slow.DROP_OLD}


def checked_linger(linger: float | None) -> float | None:
    """Return it; ``None`` leaves it to the engine.

    :raises ValueError: it is no number of seconds from 0 to 1.
    """
    if linger is not None and (not isinstance(linger, (int, float)) or not 0 <= linger <= LINGER_MAX):
        raise ParameterError("linger", f"must be a number of seconds from 0 to {LINGER_MAX:g}, not {linger!r}")
    return linger


def checked_addresses(addresses: Iterable[AddressLike], rule: Rule) -> tuple[Address, ...]:
    """Return where a server is to listen.

    :raises ValueError: there is nothing, something twice, or something that doesn't go with the rule of access.
    """
    wanted = tuple(map(as_address, addresses))
    if not wanted:
        example = 'Server("unix:/run/demo.sock")'
        raise ParameterError("addresses", f"a server needs at least one address, for example {example}", name="")
    for address in wanted:
        rule.refuse_open_name(address, address.transport)
    refuse_twice(wanted)
    rule.refuse_tcp_alone((address, -1) for address in wanted)
    return wanted


def checked_advertised(advertise: AddressLike | Iterable[AddressLike], framing: Framing) -> tuple[Address, ...]:
    """Return what clients are told of where the service's servers are, each once.

    :raises ValueError: one isn't an address, or nobody could connect there; or the framing can't tell.
    :raises TypeError: one can't be an address.
    """
    if framing is not Framing.PYSOCK:
        problem = f"needs the framing 'pysock': clients of {framing.name.lower()!r} can't ask for it"
        raise ParameterError("advertise", problem, name="advertise=")
    one = isinstance(advertise, (str, Address, os.PathLike))
    given: Iterable[Any] = (advertise,) if one else advertise  # type: ignore[assignment]
    texts = [text for each in given for text in (separated(each) if isinstance(each, str) else (each,))]
    wanted = tuple(dict.fromkeys(_from_anywhere(as_address(text)) for text in texts))
    for address in wanted:
        if address.transport in INHERITED or (address.host and not address.port):
            problem = f"{address} is only something to listen at: write where clients connect to, with its port"
            raise ParameterError("advertise", problem, name="advertise=")
    return wanted


def _from_anywhere(address: Address) -> Address:
    """Clients may be in other directories than the server, which knows itself by its whole path, too."""
    if address.transport != "unix":
        return address
    with suppress(ValueError):  # too long for that: those in the same directory can use it
        return replace(address, path=from_the_root(address.socket_file), name=None)
    return address


def refuse_twice(wanted: tuple[Address, ...]) -> tuple[Address, ...]:
    """Return them, if each is there once.

    Its own lock would keep the server out of its second socket file, in words that tell of another server.

    :raises ValueError: one is there twice.
    """
    seen = set()
    for address in wanted:
        place = (address.transport, address.path, address.name, address.fd)
        if address.transport in {"unix", "abstract", *INHERITED} and place in seen:
            raise ParameterError("addresses", f"this server has the address {address} twice: leave one out", name="")
        seen.add(place)
    return wanted


def checked_limits(limits: Limits | None) -> Limits:
    """Return them, or the default.

    :raises TypeError: they are none.
    """
    if limits is None:
        return Limits()
    if not isinstance(limits, Limits):
        raise TypeError(f"limits= takes a Limits, for example Limits(max_clients=100), not {limits!r}")
    return limits


def checked_loop(loop: kinds.Loop) -> kinds.Loop:
    """Return what makes the loop for async handlers.

    :raises ValueError: there is no such loop.
    """
    if not callable(loop) and loop not in {"auto", "asyncio", "uvloop"}:
        problem = f"must be 'auto', 'asyncio', 'uvloop', or a function that makes a loop, not {loop!r}"
        raise ParameterError("loop", problem)
    return loop


def checked_slow(slow: str) -> Slow:
    """Return it.

    :raises ValueError: it is no such word.
    """
    if slow not in SLOW:
        raise ParameterError("slow", f"must be one of {', '.join(map(repr, SLOW))}, not {slow!r}")
    return SLOW[slow]


def checked_framing(name: str) -> Framing:
    """Return the framing of this name.

    :raises ValueError: there is none.
    """
    if name not in FRAMING_BY_NAME:
        known = ", ".join(FRAMING_BY_NAME)
        raise ParameterError("framing", f"unknown framing {name!r}: choose one of {known}", name="")
    return FRAMING_BY_NAME[name]


def checked_expose(expose: str) -> str:
    """Return it: what clients are told of an exception in a handler.

    :raises ValueError: it is none of the words for that.
    """
    if expose not in EXPOSE:
        raise ParameterError("expose", f"must be one of {', '.join(map(repr, EXPOSE))}, not {expose!r}")
    return expose


def checked_names(names: str, framing: Framing) -> bool:
    """Whether each client that comes replaces the one of its name.

    :raises ValueError: it is no word for that, or clients of the framing have no names.
    """
    if names not in ("any", "unique"):
        raise ParameterError("names", f"must be 'any' or 'unique', not {names!r}")
    if names == "unique" and framing is not Framing.PYSOCK:
        problem = f"needs the framing 'pysock': clients of {framing.name.lower()!r} have no names"
        raise ParameterError("names", problem, name="names='unique'")
    return names == "unique"


def server_proof(key: bytes, framing: Framing) -> ServerProof:
    """Return how a server proves its auth key, and has its clients prove it.

    :raises TypeError: the key isn't ``bytes``.
    :raises ValueError: it is empty, or the framing can't prove one.
    """
    if framing is not Framing.PYSOCK:
        problem = f"needs the framing 'pysock': {framing.name.lower()!r} has no frames to prove it with"
        raise ParameterError("authkey", problem, name="authkey=")
    from pysock.wire.auth import ServerProof  # noqa: PLC0415  # the hashes take a while to import

    return ServerProof(key)


def client_proof(key: bytes) -> ClientProof:
    """Return how a client proves its auth key on one connection.

    :raises TypeError: the key isn't ``bytes``.
    :raises ValueError: it is empty.
    """
    from pysock.wire.auth import ClientProof  # noqa: PLC0415  # as above

    return ClientProof(key)


def wanted_tls(address: Address, tls: Any) -> Wanted | None:
    """What a client speaks at this address; ``None``: no TLS.

    :raises ValueError: ``tls`` doesn't go with it, or a file that it names isn't good.
    """
    if address.transport != "tls" and tls is None:
        return None
    from pysock.tls.wanted import clients_tls  # noqa: PLC0415  # the module ssl takes a while to import

    return clients_tls(address, tls)


def checked_most(max_payload: int, max_pushes: int) -> None:
    """Look at how much a client takes.

    :raises ValueError: one of them can't be.
    """
    if not 0 < max_payload <= LARGEST_PAYLOAD:
        raise ParameterError("max_payload", f"must be from 1 to {LARGEST_PAYLOAD}, not {max_payload!r}")
    if not isinstance(max_pushes, int) or max_pushes < 1:
        raise ParameterError("max_pushes", f"must be a number from 1 on, not {max_pushes!r}")


def checked_deadline(deadline: str) -> bool:
    """Whether a client's calls in handlers keep to the deadlines of these.

    :raises ValueError: it is neither of the two.
    """
    if deadline not in ("inherit", "ignore"):
        raise ParameterError("deadline", f"must be 'inherit' or 'ignore', not {deadline!r}")
    return deadline == "inherit"


def checked_grace(grace: float, name: str = "grace") -> float:
    """Return the seconds, as far as threads can wait.

    :raises ValueError: they are no number from 0 on.
    """
    if not isinstance(grace, (int, float)) or not 0 <= grace < math.inf:
        raise ParameterError(name, f"must be 0 or more seconds, not {grace!r}")
    return min(float(grace), threading.TIMEOUT_MAX / 2)
