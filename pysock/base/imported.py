"""A module that serves while ``pysock serve`` imports it would keep that from ever serving: it is told so at once.

This file owns the mark of the thread that imports.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pysock.errors import PysockError

_importers: set[int] = set()


class ServesWhileImported(PysockError):
    """The module's own top level serves, and wouldn't return."""


@contextmanager
def importing() -> Iterator[None]:
    """Around the import of a module whose server, or handler, is to be served afterwards."""
    thread = threading.get_ident()
    _importers.add(thread)
    try:
        yield
    finally:
        _importers.discard(thread)


def refuse_while_imported() -> None:
    """Raise where this thread is importing such a module.

    :raises ServesWhileImported: it is.
    """
    if threading.get_ident() in _importers:
        raise ServesWhileImported('it serves while it is imported: put that behind if __name__ == "__main__":')
