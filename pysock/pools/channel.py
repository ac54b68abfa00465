"""The bytes between a server and a worker process: messages on a pair of sockets, each with its length in 32 bits.

One message is under way at a time: the request, then its answer. So whatever is read belongs to one message.
"""

from __future__ import annotations

import socket
import struct

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import RemoteError

if TYPE_CHECKING:
    from typing import Any, Final

_LENGTH: Final = struct.Struct("!I")
_CODE: Final = struct.Struct("!H")
_READ: Final = 65536
#: Up to so many bytes a copy costs less than a list of pieces.
_COPY_MAX: Final = 16384

#: What an answer begins with.
REPLY, NOTHING, MEANT, FAILED = b"R", b"N", b"M", b"F"


class FromWorker(Exception):
    """A traceback of another process."""

    def __str__(self) -> str:
        return f"in the worker process:\n{self.args[0]}"


def send(sock: socket.socket, kind: bytes, payload: bytes | bytearray | memoryview) -> None:
    """Send one message.

    :raises OSError: the other end is gone.
    """
    head = _LENGTH.pack(len(kind) + len(payload)) + kind
    if len(payload) <= _COPY_MAX:
        sock.sendall(head + payload)
    else:
        sent = sock.sendmsg([head, payload])
        if sent < len(head):
            sock.sendall(head[sent:])
            sent = len(head)
        sock.sendall(memoryview(payload)[sent - len(head) :])


def receive(sock: socket.socket) -> memoryview:
    """The next message.

    :raises EOFError: the other end is gone.
    :raises OSError: likewise.
    """
    data = sock.recv(_READ)
    while len(data) < _LENGTH.size:
        data += _more(sock.recv(_READ))
    size = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    if len(data) < size:
        whole = memoryview(bytearray(size))
        at = len(data)
        whole[:at] = data
        while at < size:
            at += _more(sock.recv_into(whole[at:]))
        return whole[_LENGTH.size :]
    return memoryview(data)[_LENGTH.size :]


def _more(got: Any) -> Any:
    if not got:
        raise EOFError
    return got


def meant(error: RemoteError) -> bytes:
    """The payload of an answer that the handler wanted to be an error."""
    return _CODE.pack(error.code) + str(error.message).encode("utf-8", "replace")


def failed(name: str, text: str, traceback: str) -> bytes:
    """The payload of the answer of a handler that raised."""
    return "\0".join(part.replace("\0", "") for part in (name, text, traceback)).encode("utf-8", "replace")


def answer_of(message: memoryview) -> Any:
    """What an answer says: bytes, ``None`` or an exception."""
    kind, payload = bytes(message[:1]), message[1:]
    if kind == REPLY:
        return payload
    if kind == NOTHING:
        return None
    if kind == MEANT:
        return RemoteError(bytes(payload[_CODE.size :]).decode(), _CODE.unpack_from(payload)[0])
    name, text, traceback = bytes(payload).decode().split("\0")
    # Its type is the worker's: here there may be none of that name.
    error: Exception = type(name, (Exception,), {})(text)
    error.__cause__ = FromWorker(traceback)
    return error


class Exchange:
    """One message to the other end, and one from there, again and again, by whoever doesn't wait.

    :param sock: one that doesn't block.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = memoryview(b"")  # of the message that is to be sent
        self._part = b""  # of one that is to come, as long as its length isn't known
        self._whole: memoryview | None = None  # the room for it
        self._got = 0

    def send(self, payload: bytes) -> bool:
        """Send a message, or its beginning. Whether that was all.

        :raises OSError: the other end is gone.
        """
        head = _LENGTH.pack(len(payload))
        if len(payload) <= _COPY_MAX:
            self._rest = memoryview(head + payload)
            return self.go_on()
        try:
            sent = self._sock.sendmsg([head, payload])
        except BlockingIOError:
            sent = 0
        self._rest = memoryview(payload)[sent - len(head) :] if sent >= len(head) else memoryview(head[sent:] + payload)
        return not self._rest

    def go_on(self) -> bool:
        """Send more of it. Whether that was all.

        :raises OSError: the other end is gone.
        """
        try:
            self._rest = self._rest[self._sock.send(self._rest) :]
        except BlockingIOError:
            return False
        return not self._rest

    def receive(self) -> memoryview | None:
        """The message that comes; ``None``: not all of it is there.

        :raises EOFError: the other end is gone.
        :raises OSError: likewise.
        """
        try:
            return self._take()
        except BlockingIOError:
            return None

    def _take(self) -> memoryview | None:
        if self._whole is None:
            data = self._part + _more(self._sock.recv(_READ))
            if len(data) < _LENGTH.size:
                self._part = data
                return None
            size = _LENGTH.size + _LENGTH.unpack_from(data)[0]
            self._part = b""
            if len(data) >= size:
                return memoryview(data)[_LENGTH.size :]
            self._whole, self._got = memoryview(bytearray(size)), len(data)
            self._whole[: self._got] = data
        self._got += _more(self._sock.recv_into(self._whole[self._got :]))
        if self._got < len(self._whole):
            return None
        whole, self._whole = self._whole, None
        return whole[_LENGTH.size :]
