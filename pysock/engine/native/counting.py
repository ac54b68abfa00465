"""The memory of a meter, handed to the C engine, which counts there."""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.native.crossing import ffi, lib, result_of

if TYPE_CHECKING:
    from typing import Any

    from pysock.engine.meter import Meter


def count_there(python: Any, meter: Meter) -> Meter:
    """Have this server count there; what is returned keeps the memory, and must be kept as long as the server.

    No cdata is kept of the memoryviews: garbage collection may empty those first, and then cffi crashes.

    :raises MemoryError: there is none for it.
    """
    counters, rows = (ffi.cast("uint64_t *", ffi.from_buffer(each)) for each in meter)
    result_of(lib.ps_python_measure(python, counters, rows))
    return meter
