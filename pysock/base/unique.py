"""Objects of which there is one: they own a descriptor, a lock or a file, or stand for something that does.

A copy would close what the first one uses, and another process has neither the descriptor nor the thread. So copying
and pickling them is a ``TypeError`` in words (:mod:`copy` and :mod:`pickle` both go through ``__reduce_ex__``).
"""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NoReturn, SupportsIndex


class Unique:
    """It can't be copied, deep-copied or pickled."""

    __slots__ = ()

    #: What to do instead, for the message.
    _instead = "use this one"

    def __reduce_ex__(self, _protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} can't be copied or pickled, for it owns, or stands for, an open descriptor:"
            f" {self._instead}"
        )
