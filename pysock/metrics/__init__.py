"""What a server tells those who look after it: counters, times and states, for Prometheus and for whoever reads them.

It is off, and costs nothing, until it is asked for: ``Server(metrics=True)``. See the page "Metrics".
"""

from pysock.metrics.collector import Collector
from pysock.metrics.exporter import Exporter
from pysock.metrics.families import Family, Source
from pysock.metrics.page import Page, make
from pysock.metrics.snapshot import Histogram, Snapshot

__all__ = ["Collector", "Exporter", "Family", "Histogram", "Page", "Snapshot", "Source", "make"]
