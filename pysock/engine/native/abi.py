"""One number that the compiled engine and these Python files must have in common.

It is made from ``csrc/pysock_abi*.h``. An extension of another version may lie in the place of the right one, after a
build that failed, say; calling it would be undefined, so importing it is an error. A test tells the number after a
change of the declarations.
"""

from __future__ import annotations

from pysock.base.lean import TYPE_CHECKING
from pysock.engine.said import REINSTALL

if TYPE_CHECKING:
    from typing import Any, Final


ABI: Final = 0xDCB5FCAE


def check_abi(lib: Any) -> None:
    """Raise if the extension was built from other declarations.

    :raises ImportError: it was; the message says how to build it again.
    """
    found = lib.ps_abi() if hasattr(lib, "ps_abi") else 0
    if found != ABI:
        raise ImportError(
            f"the native engine here was built from another version of pysock ({found:#x}, not {ABI:#x}): build it"
            f" again, with {REINSTALL} (in a checkout: -e and its path), or use PYSOCK_BACKEND=pure"
        )
