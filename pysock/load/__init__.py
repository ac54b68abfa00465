"""The load generator: many connections that send requests to an echo server, check the replies and time them.

It is part of the native engine, and works against any server of the framing, pysock's or not: ``csrc/load/`` does the
work, in a thread of its own without the GIL.

In an open loop latencies count from the moment at which the request was to be sent, so that a server that stalls can't
hide it.
"""

from pysock.engine.native.outcome import Failure, Outcome, Progress
from pysock.load.options import FRAMINGS, LARGEST, MOST_CONNECTIONS, MOST_IN_FLIGHT, LoadOptions
from pysock.load.result import Latency, LoadResult
from pysock.load.run import Load, run_load
from pysock.load.words import LoadError

__all__ = [
    "FRAMINGS",
    "LARGEST",
    "MOST_CONNECTIONS",
    "MOST_IN_FLIGHT",
    "Failure",
    "Latency",
    "Load",
    "LoadError",
    "LoadOptions",
    "LoadResult",
    "Outcome",
    "Progress",
    "run_load",
]
