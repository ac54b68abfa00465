"""URLs of clusters: that of the bus, with the cluster's name behind it."""

from __future__ import annotations

from urllib.parse import urlsplit

from pysock.base.lean import TYPE_CHECKING
from pysock.cluster.subjects import Subjects
from pysock.errors import ParameterError

if TYPE_CHECKING:
    from typing import Final

#: What a cluster is called that nobody has given a name.
DEFAULT: Final = "default"


def parted(url: str, name: str | None = None) -> tuple[str, str]:
    """The URL of the bus alone, and the name of the cluster: ``nats://HOST:4222/NAME``, ``local:BUS/NAME``.

    Behind the path of a socket file it is ``local:/PATH?name=NAME``, which the others may have as well.

    :param name: what was said beside the URL; both may say it, if they say the same.
    :raises ParameterError: the two differ, or a cluster can't be called so.
    :raises TypeError: the URL is no text.
    """
    if not isinstance(url, str):
        raise TypeError(f"the URL of a bus is a text, such as local:NAME or nats://HOST:4222, not {url!r}")
    bus, said = _split(url)
    if name is not None and said and said != name:
        problem = f"is {name!r}, and the URL ends with {said!r}: say one of them, or the same twice"
        raise ParameterError("name", problem, name="the name of the cluster")
    found = name if name is not None else said or DEFAULT
    Subjects(found)  # judges it
    return bus, found


def _split(url: str) -> tuple[str, str]:
    bus, sign, said = url.partition("?name=")
    if sign:
        return bus, said
    return _of_local(url) if url.partition(":")[0].lower() == "local" else _of_servers(url)


def _of_local(url: str) -> tuple[str, str]:
    """Behind a path there is none: what looks like one is the path's end."""
    scheme, _, rest = url.partition(":")
    if rest.startswith("/"):
        return url, ""
    bus, _, said = rest.partition("/")
    return f"{scheme}:{bus}", said


def _of_servers(url: str) -> tuple[str, str]:
    """Of several servers, with commas between them, the last one has it; behind the master's, where Sentinels know."""
    *others, last = url.split(",")
    try:
        path = urlsplit(last if "://" in last else f"any://{last}").path
    except ValueError:  # whoever takes the URL apart says what is wrong with it
        return url, ""
    whole = path[1:].removesuffix("/")
    master, _, said = whole.partition("/") if "+sentinel:" in url else ("", "", whole)
    if not said:
        return url, ""
    return ",".join([*others, last.removesuffix(path)]) + (f"/{master}" if master else ""), said
