"""Where a server counts for those who look from outside: two arrays of numbers of 8 bytes, in memory that other
processes may see, too.

The engines write there, each in its loop's thread, and know nothing else of it; ``pysock/metrics/page.py`` makes the
memory, and has the words around the numbers. ``enum ps_metered`` and what stands behind it in C are the same.
"""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.causes import COUNTERS as CAUSES
from pysock.engine.rows import EngineStats

if TYPE_CHECKING:
    from typing import Final

#: How connections come, and why clients went: the first words of what is counted for each.
CAME: Final = ("unix", "tcp", "tls")
LEFT: Final = (
    "left",
    "closed_by_peer",
    "closed_by_server",
    "timed_out",
    "protocol_violation",
    "over_a_limit",
    "server_stopping",
)

#: The counters, each in its place. ``stamp_ns``: when the loop's last turn was over, on the monotonic clock: that is at
#: least once a second, as long as it lives; ``in_turn``: one runs; ``called``: the service whose handler was called
#: last; ``busy_ns``: what the turns took, ``outside_ns``: what of that the loop has waited for the GIL.
COUNTERS: Final = (
    "stamp_ns",
    "in_turn",
    "called",
    "busy_ns",
    "outside_ns",
    "output_bytes",
    *(f"came_{how}" for how in CAME),
    *(f"left_{why}" for why in LEFT),
    *EngineStats._fields[:-1],
    *CAUSES,
)
STAMP, IN_TURN, CALLED, BUSY, OUTSIDE, OUTPUT, CAME_AT, LEFT_AT, STATS_AT = 0, 1, 2, 3, 4, 5, 6, 9, 16

#: Of a service: how many requests by what became of them (an ErrorCode; 0: well), then nanoseconds in all, then how
#: many took so long.
OUTCOMES: Final = 16
OK, OTHER, GONE = 0, 14, 15  #: OTHER: an error of another code; GONE: nobody has waited for the answer
SUM: Final = OUTCOMES
BUCKETS_AT: Final = OUTCOMES + 1
BUCKETS: Final = 104
#: Numbers of a service's row, some of them unused.
ROW: Final = 128

#: Four buckets to each power of two from here on, in nanoseconds; the last one has all that is longer.
_FIRST_BIT: Final = 10


class Meter(NamedTuple):
    """The memory of one server: so many numbers as there are counters; and a row for each service, and behind the last
    one for numbers that no service has.
    """

    counters: memoryview
    rows: memoryview


def bucket_of(ns: int) -> int:
    """In which bucket a time is counted."""
    bit = ns.bit_length() - 1
    if bit < _FIRST_BIT:
        return 0
    return min(BUCKETS - 1, (bit - _FIRST_BIT) * 4 + (ns >> (bit - 2) & 3))


def edge_of(bucket: int) -> float:
    """Up to where a bucket goes, in seconds; the last one, to be exact, has no end."""
    octave, quarter = divmod(bucket, 4)
    return (1 << (octave + _FIRST_BIT)) * (5 + quarter) / 4e9


def outcome_of(code: int) -> int:
    """Under which number an error is counted."""
    return code if 0 < code < OTHER else OTHER
