"""One run of the load generator of ``csrc/load/``."""

from __future__ import annotations

import os
from typing import Any, Final

from pysock.base.aliases import SocketAddress
from pysock.base.unique import Unique
from pysock.engine.native.crossing import NANOSECONDS, ffi, lib, pack_address
from pysock.engine.native.outcome import Outcome, Progress

_MODES: Final = {"closed": lib.PS_LOAD_CLOSED, "open": lib.PS_LOAD_OPEN, "churn": lib.PS_LOAD_CHURN}


class NativeLoad(Unique):
    """One run, in C.

    :param framing: a :class:`pysock.wire.format.Framing`.
    :param mode: ``closed``, ``open`` or ``churn``.
    :param duration: seconds, like ``linger`` and ``stall``. Of what doesn't matter the value is 0.
    """

    def __init__(
        self,
        target: SocketAddress,
        *,
        cir: bytes,
        service: str,
        framing: int,
        mode: str,
        connections: int,
        in_flight: int,
        size: int,
        rate: float,
        duration: float,
        count: int,
        linger: float,
        stall: float,
    ) -> None:
        address = pack_address(target)
        c = ffi.new("ps_load_options *")
        kept = [ffi.from_buffer("uint8_t[]", address), ffi.from_buffer("uint8_t[]", cir)]
        name = ffi.new("char[]", service.encode())
        c.address, c.address_size = kept[0], len(address)
        c.cir, c.cir_size = kept[1], len(cir)
        c.service, c.rate = name, rate
        c.duration_ns, c.count = int(duration * NANOSECONDS), count
        c.linger_ns, c.stall_ns = int(linger * NANOSECONDS), int(stall * NANOSECONDS)
        c.framing, c.mode = framing, _MODES[mode]
        c.connections, c.in_flight, c.size = connections, in_flight, size
        error = ffi.new("int *")
        self._load: Any = lib.ps_load_new(c, error)
        if self._load == ffi.NULL:
            raise OSError(-error[0], os.strerror(-error[0]))

    def run(self, seconds: float | None = None) -> bool:
        """Go on for so long, or to the end, without the GIL. Whether there is more to do."""
        slice_ns = 2**64 - 1 if seconds is None else int(seconds * NANOSECONDS)
        return bool(lib.ps_load_run(self._load, slice_ns) > 0)

    def stop(self) -> None:
        """End it; from any thread."""
        lib.ps_load_stop(self._load)

    def progress(self) -> Progress:
        """Return how far it is; from any thread."""
        c = ffi.new("ps_load_progress *")
        lib.ps_load_watch(self._load, c)
        return Progress(c.connections, c.messages, c.errors, c.elapsed_ns / NANOSECONDS)

    def outcome(self) -> Outcome:
        """Return what came of it, when it ended."""
        c = ffi.new("ps_load_result *")
        lib.ps_load_get_result(self._load, c)
        text = ffi.unpack(c.text, c.text_size).decode("utf-8", "replace")
        return Outcome._make([*(getattr(c, name) for name in Outcome._fields[:-1]), text])

    def histogram(self) -> list[tuple[int, int]]:
        """Return the (longest latency in ns, count) of each bucket that isn't empty."""
        room = lib.PS_LOAD_ROWS_MAX
        longest, counts = ffi.new("uint64_t[]", room), ffi.new("uint64_t[]", room)
        rows = lib.ps_load_histogram(self._load, longest, counts, room)
        return list(zip(ffi.unpack(longest, rows), ffi.unpack(counts, rows), strict=True)) if rows else []

    def close(self) -> None:
        """Free it; nothing else may be called then."""
        lib.ps_load_free(self._load)
