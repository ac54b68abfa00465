"""How many connections a pool may have, looked at."""

from __future__ import annotations

from pysock.errors import ParameterError


def checked_size(size: int) -> int:
    """Return it.

    :raises ValueError: it is no number from 1 on.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ParameterError("size", f"must be a number of connections from 1 on, not {size!r}", name="a pool's size")
    return size
