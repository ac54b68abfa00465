"""The system calls of a master socket and of data sockets used by hand, in C."""

from __future__ import annotations

import errno
import os
import select

from pysock.base.aliases import Buffer, SocketAddress
from pysock.base.lean import TYPE_CHECKING
from pysock.engine.native.crossing import ffi, lib, pack_address, result_of, view_of
from pysock.engine.ready import wait_until_ready

if TYPE_CHECKING:
    from typing import Any


class NativeSockets:
    """Sockets used by hand: one system call each."""

    def socket(self, family: int) -> int:
        return result_of(lib.ps_socket_open(family))

    def bind(self, fd: int, address: SocketAddress) -> None:
        packed = pack_address(address)
        result_of(lib.ps_socket_bind(fd, packed, len(packed)))

    def listen(self, fd: int, backlog: int) -> None:
        result_of(lib.ps_socket_listen(fd, backlog))

    def accept(self, fd: int) -> int:
        return _waited(fd, select.POLLIN, lib.ps_socket_accept)

    def recv(self, fd: int, max_bytes: int) -> bytes:
        data = ffi.new("uint8_t[]", max_bytes)
        count = _waited(fd, select.POLLIN, lib.ps_socket_recv, data, max_bytes)
        return bytes(ffi.buffer(data, count))

    def send(self, fd: int, data: Buffer) -> None:
        c_data, sent = view_of(data), 0
        size = len(c_data)
        while sent < size:
            sent += _waited(fd, select.POLLOUT, lib.ps_socket_send, c_data + sent, size - sent)

    def close(self, fd: int) -> None:
        result_of(lib.ps_socket_close(fd))

    def unlink(self, path: str) -> None:
        result_of(lib.ps_socket_unlink(os.fsencode(path)))


def _waited(fd: int, event: int, call: Any, *args: Any) -> int:
    """Make a system call again after a signal; Python's handlers have run in between (PEP 475). And when the descriptor
    is ready, where whoever made the socket has set O_NONBLOCK or a timeout (SO_RCVTIMEO) on it.
    """
    while True:
        result = call(fd, *args)
        if result == -errno.EAGAIN:
            wait_until_ready(fd, event)
        elif result != -errno.EINTR:
            return result_of(result)
