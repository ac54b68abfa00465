"""Whose metrics they are: of a server, or of whatever a function says at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pysock.base.lean import TYPE_CHECKING, cast
from pysock.errors import ParameterError
from pysock.metrics.families import Source

if TYPE_CHECKING:
    from typing import TypeAlias

    from pysock.server import Server

    Sources: TypeAlias = Callable[[], Iterable[Source]]


def sources_of(subject: Server | Sources) -> Sources:
    """What is read at each scrape.

    :raises ValueError: it is neither.
    :raises PysockError: it is a server that runs already, and isn't measured.
    """
    server = _server(subject)
    if server is None:
        if not callable(subject):
            raise ParameterError("subject", f"must be a Server, or a function that returns sources, not {subject!r}")
        return subject
    if server.metrics is None:
        server.measure()
    page = server.metrics
    assert page is not None
    sources = [Source(page.read)]
    return lambda: sources


def ready_of(subject: Server | Sources) -> Callable[[], str]:
    """What says why it isn't ready; empty: it is."""
    server = _server(subject)
    return (lambda: "") if server is None else (lambda: _why_not_ready(server))


def _why_not_ready(server: Server) -> str:
    state = server.state.name
    if state != "SERVING":
        return f"the server doesn't serve: it is {state}"
    if server.is_lame:
        return "the server drains: new clients should go elsewhere"
    cluster = server._cluster
    return "" if cluster is None else cluster.why_not_ready()


def cluster_of(subject: Server | Sources) -> dict[str, object]:
    """How the cluster is that a server is a node of, as a field; none, if it is none."""
    server = _server(subject)
    cluster = None if server is None else server._cluster
    return {} if cluster is None else {"cluster": cluster.status()}


def _server(subject: Server | Sources) -> Server | None:
    """By what it can do, for servers are of a floor above."""
    return cast("Server | None", subject if hasattr(subject, "measure") else None)
