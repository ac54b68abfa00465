"""Clients of the native engine move to another process, or come from one: see ``csrc/moving``."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from functools import cached_property

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.native.crossing import result_of

if TYPE_CHECKING:
    from typing import Any


class _Functions:
    """What moves clients, in C."""

    def __init__(self, made: list[Any]) -> None:
        self.freeze, self.hold, self.pack, self.discard, self.dismiss, *others = made
        self.thaw, self.hurry, self.places, self.reserve, self.add, self.moved = others


class NativeMoving:
    """The part of the engine by which its clients move. All of it in the loop's thread, or before ``run``."""

    _moving: Callable[[], list[Any]]

    @cached_property
    def _moves(self) -> _Functions:
        return _Functions(self._moving())

    def freeze(self) -> None:
        self._moves.freeze()

    def hold(self, but: Sequence[int] = ()) -> list[int]:
        return self._moves.hold(array("Q", sorted(but)))  # type: ignore[no-any-return]

    def pack(self, ids: Sequence[int]) -> tuple[bytes, list[int]]:
        return self._moves.pack(array("Q", ids))  # type: ignore[no-any-return]

    def discard(self, ids: Sequence[int]) -> None:
        self._moves.discard(array("Q", ids))

    def thaw(self) -> None:
        self._moves.thaw()

    def dismiss(self, ids: Sequence[int] = ()) -> None:
        self._moves.dismiss(array("Q", ids))

    def hurry(self) -> None:
        self._moves.hurry()

    def places(self) -> tuple[int, int]:
        return self._moves.places()  # type: ignore[no-any-return]

    def reserve(self, slots: int, generation: int = 0) -> None:
        result_of(self._moves.reserve(slots, generation))

    def add(self, rows: bytes, descriptors: Sequence[int]) -> list[int]:
        added = self._moves.add(rows, array("i", descriptors))
        if isinstance(added, int):
            result_of(added)
        return added  # type: ignore[no-any-return]

    def activate(self) -> None:
        self._moves.thaw()

    def moved(self) -> tuple[int, int]:
        """How many clients have come from another process, and how many have moved to one."""
        return self._moves.moved()  # type: ignore[no-any-return]
