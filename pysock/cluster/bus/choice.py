"""Which bus a URL means. The drivers, and the libraries that they need, are imported when they are asked for."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from pysock.address import Address
from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.bus.servers import servers_of, without_secrets
from pysock.cluster.bus.subjects import is_word
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from pysock.cluster.bus.contract import Bus

_REDIS_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_EXAMPLES: Final = "local:NAME, nats://HOST:4222 or redis://HOST:6379"


def bus_of(url: str, *, node: str, prefix: str = "pysock") -> Bus:
    """Return the bus that a URL names. It isn't connected before its ``start``.

    :param url: ``local:NAME``, ``local:/PATH``; ``nats://[USER:PASSWORD@|TOKEN@]HOST[:PORT]``, several with commas
        between them, ``tls://`` likewise; ``redis://[USER:PASSWORD@]HOST[:PORT]``, ``rediss://`` likewise;
        ``redis+sentinel://[USER:PASSWORD@]HOST[:PORT]/MASTER``, several with commas between them.
    :param node: the name of this node, as whoever looks at the bus sees it.
    :param prefix: what the subjects of all its users begin with: those of the bus's own do so, too.
    :raises ParameterError: the URL is wrong.
    :raises ImportError: what its driver needs isn't installed; the message says how to install it.
    """
    if not isinstance(url, str):
        raise TypeError(f"the URL of a bus is a text, such as {_EXAMPLES}, not {url!r}")
    kind = url.partition(":")[0].lower()
    if kind not in _KINDS:
        problem = f"must begin with the kind of the bus, not as {without_secrets([url]) if '@' in url else url!r}"
        raise ParameterError("url", problem, advice=_EXAMPLES, name="")
    return _KINDS[kind](url, node, prefix)


def _local(url: str, node: str, prefix: str) -> Bus:
    from pysock.cluster.bus.local.end import LocalBus  # noqa: PLC0415

    name = url.partition(":")[2]
    if name.startswith("/"):
        address = Address("unix", path=name)
    elif is_word(name):
        address = Address("unix", name=f"bus-{name}")
    else:
        problem = f"must name the local bus by letters, digits, - and _, or by the path of a socket file, not {url!r}"
        raise ParameterError("url", problem, advice="local:NAME or local:/run/NAME/bus.sock", name="the URL")
    return LocalBus(url, address, node, prefix)


def _nats(url: str, node: str, prefix: str) -> Bus:
    servers = servers_of(url, ("nats", "tls"), "nats://HOST:4222 or tls://USER:PASSWORD@HOST:4222")
    try:
        from pysock.cluster.bus.over_nats import NatsBus  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing("nats", "nats-py", error) from None
    return NatsBus(servers, node, prefix)


def _redis(url: str, node: str, prefix: str) -> Bus:
    example = "redis://HOST:6379 or rediss://USER:PASSWORD@HOST:6379"
    first, *others = servers_of(url, ("redis", "rediss"), example)
    if others:
        problem = f"must name one host, not {len(others) + 1}: what is said at one Redis isn't heard at another"
        raise ParameterError("url", problem, advice=example, name="the URL of a bus of this kind")
    try:
        from pysock.cluster.bus.over_redis.end import RedisBus  # noqa: PLC0415
        from pysock.cluster.bus.over_redis.link import Server  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing("redis", "hiredis", error) from None
    split = urlsplit(first)
    user, password = unquote(split.username or ""), unquote(split.password or "")
    server = Server(split.hostname or "", split.port or _REDIS_PORT, user, password, split.scheme == "rediss")
    return RedisBus(server, node, prefix)


def _sentinel(url: str, node: str, prefix: str) -> Bus:
    example = "redis+sentinel://HOST:26379/MASTER or redis+sentinel://USER:PASSWORD@HOST:26379,HOST:26379/MASTER"
    split = [urlsplit(one) for one in servers_of(url, ("redis+sentinel", "rediss+sentinel"), example)]
    master = unquote(split[-1].path.strip("/"))
    if not master or "/" in master or any(one.path for one in split[:-1]):
        problem = f"must end with the name that the Sentinels have for the master, not as {without_secrets([url])!r}"
        raise ParameterError("url", problem, advice=example, name="the URL of a bus")
    try:
        from pysock.cluster.bus.over_redis.end import RedisBus  # noqa: PLC0415
        from pysock.cluster.bus.over_redis.sentinel import Sentinels  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing("redis", "hiredis", error) from None
    hosts = tuple((one.hostname or "", one.port or _SENTINEL_PORT) for one in split)
    user, password = unquote(split[0].username or ""), unquote(split[0].password or "")
    return RedisBus(Sentinels(hosts, master, user, password, split[0].scheme == "rediss+sentinel"), node, prefix)


def _missing(extra: str, library: str, error: ModuleNotFoundError) -> ImportError:
    text = f"a bus of this kind needs the library {library}: pip install 'pysock-engine[{extra}]' (or {library} itself)"
    return ImportError(text, name=error.name)


_KINDS: Final[dict[str, Callable[[str, str, str], Bus]]] = {
    "local": _local,
    "nats": _nats,
    "tls": _nats,
    "redis": _redis,
    "rediss": _redis,
    "redis+sentinel": _sentinel,
    "rediss+sentinel": _sentinel,
}
