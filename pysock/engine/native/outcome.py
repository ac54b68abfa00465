"""What the load generator of ``csrc/load/`` tells: the C structs as tuples.

No extension is needed for that, so that whoever only reads them can be imported without one.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Failure(IntEnum):
    """Why it failed: ``enum ps_load_failure``."""

    WELL = 0
    CONNECT = 1
    SYSTEM = 2
    HUNG_UP = 3
    STALLED = 4
    REFUSED = 5
    CHALLENGED = 6
    NOT_PYSOCK = 7
    NO_SERVICE = 8
    TOO_LARGE = 9
    WRONG_KIND = 10
    WRONG_ID = 11
    WRONG_LENGTH = 12
    WRONG_BYTES = 13
    UNASKED = 14
    GIVEN_UP = 15
    SHUTTING_DOWN = 16


class Outcome(NamedTuple):
    """What the C code tells of a run: ``ps_load_result``. Times are in nanoseconds."""

    connections: int
    messages: int
    errors: int
    elapsed_ns: int
    opening_ns: int
    cpu_ns: int
    polling_ns: int
    sleeping_ns: int
    min_ns: int
    max_ns: int
    sum_ns: int
    position: int
    expected: int
    got: int
    failure: int
    error: int
    code: int
    text: str


class Progress(NamedTuple):
    """How far a run is."""

    connections: int
    messages: int
    errors: int
    seconds: float
