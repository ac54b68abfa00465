"""Why there is no connection to a bus: what a server or a library says, and what it means to whoever runs it."""

from __future__ import annotations

import asyncio

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def explained(error: BaseException | None, meanings: Mapping[str, str], prefix: str) -> tuple[str, bool]:
    """The end of a sentence; and whether the next attempt will fail as well, until somebody does what is said.

    :param meanings: of words in what is said, in small letters; ``{prefix}`` in a meaning is that of the subjects.
    """
    if error is None:
        return "its server has closed the connection", False
    said = str(error) or type(error).__name__
    for words, meaning in meanings.items():
        if words in said.lower():
            return f"{meaning.format(prefix=prefix)} ({said})", True
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return "nobody answers there, in the time that there is: is it such a bus, does it run?", False
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens there: does it run? ({said})", False
    return said, False
