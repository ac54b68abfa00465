"""Rows of the client table as C has packed them, made objects of when they are looked at: ``ps_row`` of the ABI."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from pysock.base.lean import TYPE_CHECKING, overload
from pysock.engine.native.crossing import NANOSECONDS
from pysock.engine.rows import ClientInfo, Gone

if TYPE_CHECKING:
    from typing import Any, Final

_ROW: Final = struct.Struct("@11QiIIII7B5x")
#: Where these are in a row.
_LEFT_AT: Final = 10
_REASON: Final = 18
#: What ``_make`` of a NamedTuple calls, which takes twice as long.
_new_row: Final = tuple.__new__


class PackedRows(Sequence[ClientInfo]):
    """So many rows, and behind the last their texts."""

    __slots__ = ("_count", "_data", "_texts")

    def __init__(self, data: bytes, count: int) -> None:
        self._data = data
        self._count = count
        self._texts = count * _ROW.size  # where they begin

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> ClientInfo: ...
    @overload
    def __getitem__(self, index: slice) -> list[ClientInfo]: ...
    def __getitem__(self, index: int | slice) -> ClientInfo | list[ClientInfo]:
        which = range(self._count)[index]
        return self._row(which) if isinstance(which, int) else list(map(self._row, which))

    def gone(self, most: int) -> list[Gone]:
        """Of those that went, the last so many: when and why, too."""
        first = max(0, self._count - most) * _ROW.size
        packed = _ROW.iter_unpack(memoryview(self._data)[first : self._texts])
        return [Gone(self._made(row), row[_REASON], row[_LEFT_AT] / NANOSECONDS) for row in packed]

    def __iter__(self) -> Iterator[ClientInfo]:
        return map(self._made, _ROW.iter_unpack(memoryview(self._data)[: self._texts]))

    def _row(self, number: int) -> ClientInfo:
        return self._made(_ROW.unpack_from(self._data, number * _ROW.size))

    def _made(self, packed: tuple[Any, ...]) -> ClientInfo:
        (
            client_id, connected_at, idle_since, requests, bytes_in, bytes_out, frames_in, frames_out, queued, dropped,
            _left_at, pid, uid, gid, in_flight, texts, state, master, _reason, name_size, software_size, address_size,
            via_size,
        ) = packed  # fmt: skip
        begin = self._texts + texts
        end = begin + name_size
        name = self._data[begin:end].decode()
        software = self._data[end : end + software_size].decode("utf-8", "replace")
        end += software_size
        address = self._data[end : end + address_size].decode()
        end += address_size
        if pid == -1:
            uid = gid = -1
        return _new_row(
            ClientInfo,
            (
                client_id, -1, state, name, software, master, address, pid, uid, gid, connected_at / NANOSECONDS,
                idle_since / NANOSECONDS, requests, bytes_in, bytes_out, frames_in, frames_out, in_flight, queued,
                dropped, self._data[end : end + via_size].decode(), b"",
            ),
        )  # fmt: skip
