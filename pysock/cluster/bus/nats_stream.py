"""What goes over a connection to a NATS when the library nats-py has made it: messages, past that library.

It gives each message several turns of the asyncio loop, a queue and two tasks, which together take as long as the way
to the server and back. So this stands between the connection and the library: it sends and takes messages itself, and
leaves all else to the library, PINGs and errors above all.
"""

from __future__ import annotations

import asyncio

from pysock.base.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeAlias

    #: The number of the subscription, subject, reply's subject or b"", headers, payload.
    Message: TypeAlias = tuple[int, bytes, bytes, bytes, bytes]

#: A line that is longer is none of this protocol.
_LINE_MAX: Final = 1024 * 1024
_END: Final = b"\r\n"


class Stream(asyncio.Protocol):
    """Of one connection; all in the bus's thread.

    :param transport: asyncio's; it is connected.
    :param heard: is told of each message.
    """

    def __init__(self, transport: asyncio.Transport, heard: Callable[[Message], object]) -> None:
        self._transport = transport
        self._heard = heard
        self._said: list[bytes] = []
        self._buffer = bytearray()
        self._library: Any = transport.get_protocol()
        transport.set_protocol(self)

    # What goes

    def publish(self, subject: bytes, payload: bytes, reply: bytes = b"") -> None:
        """Say this, as all that follows, at the next :meth:`flush`."""
        self._said += (b"PUB %s %s %d\r\n" % (subject, reply, len(payload)), payload, _END)

    def subscribe(self, number: int, subject: bytes, queue: bytes = b"") -> None:
        """Hear it, under this number."""
        self._said.append(b"SUB %s %s %d\r\n" % (subject, queue, number))

    def unsubscribe(self, number: int) -> None:
        """Hear it no more."""
        self._said.append(b"UNSUB %d\r\n" % number)

    def flush(self) -> None:
        """Write what was said."""
        if self._said and not self._transport.is_closing():
            self._transport.write(b"".join(self._said))
        self._said.clear()

    # What comes: see asyncio

    def data_received(self, data: bytes) -> None:
        """Some bytes."""
        self._buffer += data
        try:
            end = self._take()
        except (ValueError, IndexError):
            self._transport.abort()  # the library notices, and so does whoever waits for that
            return
        del self._buffer[:end]

    def _take(self) -> int:
        """Take apart what is whole; where the rest begins."""
        buffer, at = self._buffer, 0
        while (end := buffer.find(_END, at)) >= 0 and not self._transport.is_closing():
            line, start = bytes(buffer[at:end]), end + len(_END)
            if not line.startswith((b"MSG ", b"HMSG ")):
                self._library.data_received(line + _END)
                at = start
                continue
            kind, subject, number, *reply, size = line.split()
            body = start + int(reply.pop()) if kind == b"HMSG" else start
            stop = start + int(size)
            if not start <= body <= stop:
                raise ValueError("sizes that no message has")
            if stop + len(_END) > len(buffer):
                return at
            headers, payload = bytes(buffer[start:body]), bytes(buffer[body:stop])
            at = stop + len(_END)
            self._heard((int(number), subject, reply[0] if reply else b"", headers, payload))
        if len(buffer) - at > _LINE_MAX:
            raise ValueError("a line without an end")
        return at

    def eof_received(self) -> bool | None:
        """No more of them."""
        ends: bool | None = self._library.eof_received()
        return ends

    def connection_lost(self, error: Exception | None) -> None:
        """The end."""
        self._library.connection_lost(error)

    def pause_writing(self) -> None:
        """The other end takes no more."""
        self._library.pause_writing()

    def resume_writing(self) -> None:
        """It does."""
        self._library.resume_writing()


def transport_of(client: Any) -> Any:
    """That of asyncio. The library has no way to ask what it hasn't sent yet, and none to end a connection at once."""
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    return None if writer is None else writer.transport
