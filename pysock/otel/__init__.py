"""Traces and the time of calls, by OpenTelemetry; the extra ``otel``. See the page "Traces".

A client says of which trace a request is a part, if it is made in a span that is sampled; a server makes a span of what
its handler does then. Both have to be asked for it.
"""

from __future__ import annotations

try:
    import opentelemetry.trace  # noqa: F401  # here, so that it is said once how it can be had
except ImportError as _error:
    raise ImportError("pysock.otel needs opentelemetry-api: pip install 'pysock-engine[otel]'") from _error

from pysock.otel.clients import instrument_clients
from pysock.otel.servers import instrument

__all__ = ["instrument", "instrument_clients"]
