"""What both engines raise, or say in the log, in the same words."""

from __future__ import annotations

import errno
from io import UnsupportedOperation

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Final


def too_much_queued() -> OSError:
    """What a push raises when the loop is held up, and as much waits for it already as it keeps."""
    return OSError(
        errno.ENOBUFS,
        "the server's loop is held up, by a handler perhaps, and 64 MiB that other threads send wait for it already:"
        " try again later",
    )


def answers_nothing() -> UnsupportedOperation:
    """What asking raises where the client isn't one that answers."""
    return UnsupportedOperation("this client answers no requests: give its connect() services=")


#: Logged where the program has closed the descriptors of a loop that runs: it ends, and no number is used any more.
TEXT_DESCRIPTORS_LOST: Final = "the program has closed the descriptors of this server under it: it ends"


class OnlyInMain(ImportError):
    """The native engine was imported in a sub-interpreter that shares the GIL, and refused."""


#: What builds the engine again, whatever lies in a cache of pip's. In a checkout its path is in place of the last word.
REINSTALL: Final = (
    "PYSOCK_BUILD=require pip install --no-cache-dir --force-reinstall --no-binary pysock-engine pysock-engine"
)
