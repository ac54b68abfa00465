"""The page: memory in which a server counts, and which another process can read without asking it: also when its loop
hangs, or when it has died.

It is an unnamed file (memfd_create(2)), or any other that is empty. The server lays it out when it starts: a head, what
its numbers mean (JSON in UTF-8), the counters, and a row for each service; its engine writes the numbers, each of 8
bytes and at once, in the order of this machine. Readers read the file, as any other: they map nothing, so that no
writer can make them fail. A page of another layout than this version's has another number in its head.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import struct
import sys
import time
from contextlib import suppress

from pysock._version import __version__
from pysock.base.forking import guard
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.engine.meter import COUNTERS, ROW, Meter
from pysock.errors import ParameterError, PysockError
from pysock.metrics.snapshot import Snapshot, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

#: Magic, layout, size of the text, where the counters and the rows begin, size of all.
_HEAD: Final = struct.Struct("=8sIIQQQ")
_MAGIC: Final = b"pysockMP"
_LAYOUT: Final = 1

#: Of a memfd that may be sealed; memfd_create(2), fcntl(2).
_ALLOW_SEALING: Final = 2
_ADD_SEALS: Final = 1033
_SEAL_SHRINK: Final = 2


def make(name: str = "pysock-metrics") -> int:
    """An empty page, as a descriptor of the caller's: for ``Server(metrics=...)`` of another process, which inherits.

    :raises OSError: there are no descriptors left, or none of the kind on this system.
    """
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC | _ALLOW_SEALING)
    import tempfile  # noqa: PLC0415  # on systems without memfd_create(2)

    with tempfile.TemporaryFile(prefix=name) as file:
        return os.dup(file.fileno())


class Page(Unique):
    """One of them."""

    _instead = "open it once more, by its descriptor or its path"
    fd: int = -1  #: its descriptor, which is its own; -1: it is closed, or was never made

    def __init__(self, fd: int) -> None:
        """Of this descriptor, which is the page's from now on."""
        self.fd = fd
        self._known: tuple[bytes, dict[str, Any]] = (b"", {})

    @classmethod
    def new(cls) -> Page:
        """An empty one.

        :raises OSError: see :func:`make`.
        """
        return cls(make())

    @classmethod
    def open(cls, where: int | str | os.PathLike[str]) -> Page:
        """One that is there: by its descriptor, of which this is a copy; or by a path, another process's ``Page.path``.

        :raises OSError: it isn't there, or isn't this user's.
        """
        if isinstance(where, int):
            return cls(os.dup(where))
        return cls(os.open(where, os.O_RDONLY | os.O_CLOEXEC))

    @property
    def path(self) -> str:
        """Where other processes of this user find it, as long as this one lives; proc(5)."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    # --- the server's end ---

    def lay_out(self, services: Sequence[str], backend: str) -> Meter:
        """Make it that of a server that is to start, with services of these names. -> where its engine counts.

        :raises ParameterError: it isn't empty: a server has it, or had.
        :raises OSError: there is no memory for it, or the descriptor can't be written.
        """
        if os.fstat(self.fd).st_size:
            raise ParameterError("metrics", "this page is another server's, or was: give each an empty one")
        known = {
            "pysock": __version__,
            "backend": backend,
            "pid": os.getpid(),
            "python": sys.version.partition(" ")[0],
            "started": time.time(),
            "counters": COUNTERS,
            "services": list(services),
        }
        text = json.dumps(known).encode()
        counters_at = -(-(_HEAD.size + len(text)) // 8) * 8
        rows_at = counters_at + 8 * len(COUNTERS)
        size = rows_at + 8 * ROW * (len(services) + 1)
        os.ftruncate(self.fd, size)
        with suppress(OSError):  # not all files can be sealed
            fcntl.fcntl(self.fd, _ADD_SEALS, _SEAL_SHRINK)
        memory = memoryview(mmap.mmap(self.fd, size))
        memory[_HEAD.size : _HEAD.size + len(text)] = text
        memory[: _HEAD.size] = _HEAD.pack(_MAGIC, _LAYOUT, len(text), counters_at, rows_at, size)
        return Meter(memory[counters_at:rows_at].cast("Q"), memory[rows_at:].cast("Q"))

    # --- the reader's ---

    def read(self) -> Snapshot | None:
        """What it says now; ``None``: its server hasn't started yet.

        :raises PysockError: it is no page, or one of another version of pysock.
        :raises OSError: it can't be read.
        """
        head = os.pread(self.fd, _HEAD.size, 0)
        if len(head) < _HEAD.size or head[: len(_MAGIC)] == bytes(len(_MAGIC)):
            return None
        magic, layout, text_size, counters_at, rows_at, size = _HEAD.unpack(head)
        if magic != _MAGIC or layout != _LAYOUT:
            raise PysockError("this is no metrics page, or one of another version of pysock")
        if self._known[0] != head:
            self._known = (head, json.loads(_read(self.fd, text_size, _HEAD.size)))
        counters = memoryview(_read(self.fd, rows_at - counters_at, counters_at)).cast("Q")
        return snapshot_of(self._known[1], counters, memoryview(_read(self.fd, size - rows_at, rows_at)).cast("Q"))

    def close(self) -> None:
        """Close the descriptor. A server that counts in it goes on. Called again it does nothing."""
        with guard, suppress(OSError):
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()


def _read(fd: int, size: int, at: int) -> bytes:
    """All of it: one call needn't give so much."""
    parts = []
    while size:
        part = os.pread(fd, size, at)
        if not part:
            raise PysockError("this metrics page is shorter than it says: it was cut off")
        parts.append(part)
        size -= len(part)
        at += len(part)
    return b"".join(parts)


def page_of(metrics: bool | int | Page) -> Page | None:
    """What a server is given as ``metrics=``; ``None``: it isn't measured.

    :raises ParameterError: it is something else, or no open descriptor.
    """
    if isinstance(metrics, bool):
        return Page.new() if metrics else None
    if isinstance(metrics, Page):
        return metrics
    if not isinstance(metrics, int):
        raise ParameterError("metrics", f"must be True, a descriptor or a pysock.metrics.Page, not {metrics!r}")
    try:
        return Page.open(metrics)
    except OSError as error:
        raise ParameterError("metrics", f"there is no descriptor {metrics} of a page: {error.strerror}") from None
