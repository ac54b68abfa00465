"""The TLS handshake of a blocking client, before its CIR: it waits for one socket until it is done, or too late."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from math import ceil

from pysock.base.deadlines import time_left
from pysock.base.lean import TYPE_CHECKING
from pysock.calls.initiation import within
from pysock.errors import RequestTimeout, TLSError
from pysock.tls.channel import SharedChannel
from pysock.tls.client import channel_to, explained

if TYPE_CHECKING:
    from typing import Final, TypeVar

    from pysock.address import Address
    from pysock.tls.wanted import Wanted

    Result = TypeVar("Result")


#: The longest sleep, in milliseconds: poll() takes an int.
_NAP: Final = 3_600_000


class Securing:
    """Of one connection.

    :param timeout: what was given for all of it, and ``deadline``: until when.
    """

    def __init__(self, address: Address, wanted: Wanted, deadline: float | None, timeout: float | None) -> None:
        self._address = address
        self._wanted = wanted
        self._deadline = deadline
        self._timeout = timeout

    def shake(self, handle: socket.socket) -> SharedChannel:
        """The handshake.

        :raises TLSError: the server's certificate isn't good, or it isn't one that speaks TLS so.
        :raises ConnectionRefused: the server turned this client away before it; :class:`ServerFull` as without TLS.
        :raises ConnectionLost: the connection ended.
        :raises RequestTimeout: it took too long.
        """
        channel = channel_to(handle, self._address, self._wanted, SharedChannel)
        try:
            done = channel.shake(reads=False)
            while not done:
                done = bool(self._when_ready(handle, select.POLLIN, channel.shake))
        except (TLSError, ConnectionError) as error:
            raise explained(error, self._address) from error
        return channel

    def send(self, handle: socket.socket, channel: SharedChannel, data: bytes) -> None:
        """Send it whole, where the other end takes it; else why it doesn't may be waiting to be read."""
        try:
            while data:
                data = data[self._when_ready(handle, select.POLLOUT, channel.send, data) or 0 :]
        except (BrokenPipeError, ConnectionResetError):
            pass

    def _when_ready(
        self, handle: socket.socket, bits: int, call: Callable[..., Result], *arguments: object
    ) -> Result | None:
        """Call it when the socket is ready; ``None``: it is to be called again."""
        left = time_left(self._deadline)
        poll = select.poll()
        poll.register(handle, bits)
        longest = _NAP if left is None else min(_NAP, ceil(left * 1000))
        if not poll.poll(longest):
            if longest == _NAP:
                return None
            late = f"{self._address}: the server didn't answer in the TLS handshake{within(self._timeout)}"
            raise RequestTimeout(late) from None
        try:
            return call(*arguments)
        except (BlockingIOError, InterruptedError):
            return None
