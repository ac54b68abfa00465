"""Collector: a server's metrics among those of a program that uses prometheus_client; the extra ``prometheus``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pysock.base.lean import TYPE_CHECKING
from pysock.metrics.families import HUNG_AFTER, every, families, readings
from pysock.metrics.watched import sources_of

if TYPE_CHECKING:
    from typing import Any

    from pysock.metrics.families import Family
    from pysock.metrics.watched import Sources
    from pysock.server import Server


class Collector:
    """What a registry of prometheus_client asks at each scrape.

    It is registered so::

        prometheus_client.REGISTRY.register(pysock.metrics.Collector(server))

    :param subject: a server, or a function that returns the sources of now: see :class:`pysock.metrics.Exporter`.
    :param extra: returns more families.
    :param hung_after: from how many seconds on without a turn of the loop it isn't taken to be alive.
    :raises ImportError: prometheus_client isn't installed.
    :raises PysockError: the server runs already, and isn't measured.
    """

    def __init__(
        self,
        subject: Server | Sources,
        *,
        extra: Callable[[], Iterable[Family]] | None = None,
        hung_after: float = HUNG_AFTER,
    ) -> None:
        try:
            from prometheus_client.metrics_core import Metric  # noqa: PLC0415  # an extra
        except ImportError as error:
            problem = "pysock.metrics.Collector needs prometheus_client: pip install 'pysock-engine[prometheus]'"
            raise ImportError(problem) from error
        self._metric: Any = Metric
        self._sources = sources_of(subject)
        self._extra = extra
        self._hung_after = hung_after

    def collect(self) -> Iterable[Any]:
        """All of them, as they are now: each a ``Metric`` of prometheus_client."""
        yield from map(self._made, families(readings(self._sources(), self._hung_after)))
        yield from map(self._made, self._extra() if self._extra else ())

    def describe(self) -> Iterable[Any]:
        """Their names, by which a registry sees that nobody else has them."""
        yield from map(self._made, every([]))

    def _made(self, family: Family) -> Any:
        metric = self._metric(family.name, family.help, family.kind)
        for suffix, labels, value in family.samples:
            metric.add_sample(family.name + suffix, dict(labels), value)
        return metric
