"""How values cross between Python and C: what each of them is on the other side.

Only here is the extension imported, so that nobody calls it who hasn't found out that it is the right one: the other
modules of this folder take ``ffi`` and ``lib`` from here. Objects cross as ``id()`` numbers, which whoever calls keeps
alive for as long as C looks at them, and negative numbers become exceptions, in one place (:func:`result_of`).
"""

from __future__ import annotations

import builtins
import os
import socket
import struct

from pysock._engine import ffi, lib
from pysock.base.aliases import Buffer, SocketAddress
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.native.abi import check_abi
from pysock.engine.said import OnlyInMain

if TYPE_CHECKING:
    from typing import Any, Final

    # The extension imports it in C, out of sight of programs that freeze programs; those look into such blocks, too.
    import _cffi_backend  # noqa: F401

__all__ = ["NANOSECONDS", "ffi", "lib", "nanoseconds", "of_linger", "pack_address", "result_of", "view_of"]

NANOSECONDS: Final = 1_000_000_000

check_abi(lib)

if not lib.ps_python_is_main(id(builtins)):
    # Beside a loop of the main interpreter its objects and threads would be taken for that one's.
    raise OnlyInMain("this is a sub-interpreter, and pysock's native engine runs in the main interpreter only")


def result_of(result: int) -> int:
    """Return what a C function returned, or raise the ``OSError`` that a negative number stands for."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def nanoseconds(seconds: float | None) -> int:
    """At least one, where it isn't 0; 0 is ``None`` as well."""
    return 0 if seconds is None else max(1, int(seconds * NANOSECONDS)) if seconds else 0


def of_linger(seconds: float | None) -> int:
    """How long to poll before a sleep, as ``linger_ns`` has it."""
    return lib.PS_LINGER_AUTO if seconds is None else nanoseconds(seconds)


def view_of(data: Buffer) -> Any:
    """A C view of bytes-like data; no copy."""
    return ffi.from_buffer("uint8_t[]", data)


def pack_address(address: SocketAddress) -> bytes:
    """The C struct of an address, as connect(2) takes it (unix(7), ip(7), ipv6(7))."""
    family, where = address
    if family == socket.AF_UNIX:
        path = os.fsencode(where)
        return struct.pack("=H", family) + path + (b"" if path.startswith(b"\0") else b"\0")
    if family == socket.AF_INET:
        return struct.pack("=H", family) + struct.pack("!H4s8x", where[1], socket.inet_pton(family, where[0]))
    host, port, flow, scope = where
    return (
        struct.pack("=H", family)
        + struct.pack("!HI16s", port, flow, socket.inet_pton(family, host))
        + struct.pack("=I", scope)
    )
