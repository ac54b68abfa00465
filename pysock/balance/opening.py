"""How a client comes to its connection where there may be several nodes: a generator that says what is to be done, and
is sent what came of it. It does no I/O, but closes what it doesn't keep; so both kinds of clients drive it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from pysock.balance.policy import ASKED_WITHIN
from pysock.balance.round import Verdict
from pysock.balance.targets import Target, nodes_of
from pysock.base.clock import monotonic
from pysock.base.deadlines import time_left
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.logs import client_log as log
from pysock.errors import RemoteError, RequestTimeout
from pysock.wire.format import Malformed
from pysock.wire.nodes import NODES, decode_nodes

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from pysock.address import Address
    from pysock.balance.balancer import Balancer
    from pysock.balance.finding import Finder
    from pysock.balance.round import Round
    from pysock.client import Client
    from pysock.wire.nodes import NodeList


class LookUp(NamedTuple):
    """Resolve the names in these addresses: what comes is a list of targets."""

    addresses: tuple[Address, ...]


class Find(NamedTuple):
    """Ask a cluster where its nodes are, within so many seconds: what comes are their rows."""

    finder: Finder
    seconds: float | None


class Connect(NamedTuple):
    """Make a client of one connection there, within so many seconds: what comes is that client."""

    address: Address
    seconds: float | None


class Ask(NamedTuple):
    """Ask the server that the client is connected to for its list of nodes: what comes is the answer's payload."""

    client: Any
    seconds: float | None


if TYPE_CHECKING:
    Step: TypeAlias = "LookUp | Find | Connect | Ask"


def opening(balancer: Balancer, until: float | None) -> Generator[Step, Any, Any]:
    """Returns the client, or raises what all that there are have failed with.

    :param until: when the time is over.
    """
    if balancer.alone:
        client = yield Connect(balancer.seeds[0], time_left(until))
        return client
    yield from _found(balancer, until)
    targets = yield LookUp(balancer.wanted())
    attempts = balancer.round(targets, monotonic())
    held = None
    try:
        while (target := attempts.next()) is not None:
            client = yield from _attempt(balancer, attempts, target, until)
            if client is None:
                continue
            told = yield from _asked(balancer, attempts, target, client, until)
            if told is _LOST:
                continue
            verdict = attempts.came(None if told is None else told.own)
            if verdict is Verdict.TAKE:
                if held is not None:
                    _drop(balancer, held)
                kept, held = (client, told), None
                return _taken(balancer, *kept)
            if verdict is Verdict.DROP:
                _drop(balancer, (client, told))
            else:
                held = client, told
        if held is not None:
            kept, held = held, None
            return _taken(balancer, *kept)
    finally:
        if held is not None:
            _drop(balancer, held)
    balancer.at_a_loss()
    raise attempts.error()


def _found(balancer: Balancer, until: float | None) -> Generator[Step, Any, None]:
    """Where the nodes of a cluster are; where that can't be asked, what is known so far is used."""
    finder = balancer.finder
    if finder is None or not balancer.has_to_find(monotonic()):
        return
    known, left = balancer.wanted(), time_left(until)
    if known:
        left = ASKED_WITHIN if left is None else min(left / 2, ASKED_WITHIN)
    try:
        rows = yield Find(finder, left)
        balancer.found(rows, monotonic())
    except (OSError, RequestTimeout) as error:
        if not known:
            raise
        log.warning("%s doesn't say where its nodes are, so those that are known are tried: %s", finder, error)


#: In the place of an answer: the connection has ended.
_LOST = object()


def _attempt(balancer: Balancer, attempts: Round, target: Target, until: float | None) -> Generator[Step, Any, Any]:
    """The client; ``None``: it isn't let in, and the next one is tried."""
    balancer.begins(target.address)
    try:
        client = yield Connect(target.address, attempts.share(time_left(until)))
    except Exception as error:
        balancer.failed(target.address, monotonic())
        if not attempts.failed(target, error):
            raise
        return None
    except BaseException:
        balancer.given_up(target.address)
        raise
    balancer.let_in(target.address, monotonic())
    return client


def _asked(
    balancer: Balancer, attempts: Round, target: Target, client: Any, until: float | None
) -> Generator[Step, Any, Any]:
    """What the server says of the nodes; ``None``: it doesn't, or nobody wants to know."""
    if NODES not in client.services or not (attempts.compares or balancer.discovers):
        return None
    try:
        payload = yield Ask(client, attempts.share(time_left(until)))
        return decode_nodes(payload)
    except (RemoteError, RequestTimeout, Malformed):
        return None
    except Exception as error:
        balancer.ended(target.address, monotonic(), lost=True)
        client.close()
        if not attempts.failed(target, error):
            raise
        return _LOST
    except BaseException:
        _drop(balancer, (client, None))
        raise


def _taken(balancer: Balancer, client: Any, told: NodeList | None) -> Any:
    if told is not None and balancer.discovers:
        balancer.told(client.address, told)
    return client


def _drop(balancer: Balancer, held: tuple[Any, object]) -> None:
    client = held[0]
    client.close()
    balancer.ended(client.address, monotonic(), lost=False)


def open_one(balancer: Balancer, make: Callable[[Address, float | None], Client], until: float | None) -> Client:
    """The blocking driver.

    :param make: makes a plain client of an address, within so many seconds.
    """
    steps = opening(balancer, until)
    try:
        step = next(steps)
        while True:
            try:
                result = _done(step, make)
            except Exception as error:  # noqa: PERF203  # it is what is looped for
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as over:
        client: Client = over.value
        return client
    finally:
        steps.close()


def _done(step: Step, make: Callable[[Address, float | None], Client]) -> Any:
    if isinstance(step, Connect):
        return make(step.address, step.seconds)
    if isinstance(step, Ask):
        return step.client.request(b"", NODES, step.seconds)
    if isinstance(step, Find):
        return step.finder.find(step.seconds)
    return nodes_of(step.addresses)
