"""The channel between both sides of a hand-over: a Unix socket of the kind SEQPACKET, and descriptors in its messages.

This file owns the socket, and how a message goes through it: one packet each, so that it is whole and its descriptors
are those that came with it. One that is too long for a packet lies in a sealed file without a name, whose descriptor
travels in its place. Whatever is received and not kept is closed here.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from pysock.base.clock import monotonic
from pysock.base.forking import own_socket
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.unique import Unique
from pysock.errors import HandoverFailed
from pysock.handover.messages import FLAG_IN_FILE, HEAD, Kind, Message, decode, encode
from pysock.handover.sealed import read_sealed, sealed

if TYPE_CHECKING:
    from typing import Final

    from pysock.handover.life import Life

#: A longer message goes by a file. Two of these, and two of what belongs to them, are what a socket of the kernel's
#: usual size takes while nobody reads; so there is always room for an ABORT.
LONGEST: Final = 32 * 1024
#: The kernel passes no more at once: SCM_MAX_FD, 253.
MOST_DESCRIPTORS: Final = 253
_ROOM: Final = socket.CMSG_LEN(MOST_DESCRIPTORS * array.array("i").itemsize) if hasattr(socket, "CMSG_LEN") else 0
#: Too many descriptors are under way (unix(7)): until they have arrived, in seconds.
_PACE: Final = 0.005


class Gone(HandoverFailed):
    """Nobody is at the other end any more."""


class Late(HandoverFailed):
    """The other side didn't answer in time."""


class Heard(NamedTuple):
    """A message, and the descriptors that came with it: they are whose who has asked."""

    message: Message
    descriptors: list[int]


def can_be() -> bool:
    """Whether this system has what a hand-over needs."""
    return hasattr(os, "memfd_create") and hasattr(os, "pidfd_open") and hasattr(socket, "SOCK_SEQPACKET")


class Channel(Unique):
    """One end of it.

    :param fd: of the socket, which is this object's from now on.
    :raises OSError: it is no such socket.
    """

    def __init__(self, fd: int) -> None:
        self._socket = sock = socket.socket(fileno=fd)
        own_socket(sock)
        sock.setblocking(False)
        if sock.type != socket.SOCK_SEQPACKET or sock.family != socket.AF_UNIX:
            sock.close()
            raise OSError(errno.EPROTOTYPE, "a hand-over goes by a Unix socket of the kind SEQPACKET")

    def close(self) -> None:
        """Called again it does nothing."""
        with suppress(OSError):
            self._socket.close()

    def send(
        self,
        kind: Kind,
        fields: Iterable[tuple[int, bytes]] = (),
        descriptors: Sequence[int] = (),
        *,
        patience: float,
    ) -> None:
        """Send a message, with copies of these descriptors.

        :param patience: seconds, for the other side to make room.
        :raises Gone: nobody is there any more; or nobody there reads.
        :raises Late: there was no room.
        :raises HandoverFailed: it can't be sent.
        """
        data = encode(kind, fields)
        try:
            if len(data) <= LONGEST:
                self._put(data, descriptors, patience)
                return
            file = sealed(data)
            try:
                self._put(HEAD.pack(kind, FLAG_IN_FILE, 0), [*descriptors, file], patience)
            finally:
                os.close(file)
        except (BrokenPipeError, ConnectionError):
            raise Gone("the other side is gone") from None
        except OSError as error:
            raise HandoverFailed(f"{kind.name} can't be sent: {os.strerror(error.errno or 0)}") from error

    def _put(self, data: bytes, descriptors: Sequence[int], patience: float) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        end = monotonic() + patience
        while True:
            try:
                self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
                return
            except BlockingIOError:  # noqa: PERF203  # it is a call of the system
                if not self._waits_for(select.POLLOUT, end):
                    raise Late(f"the other side has read nothing for {patience:g} seconds") from None
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS or monotonic() > end:
                    raise
                time.sleep(_PACE)

    def receive(self, patience: float, life: Life | None = None) -> Heard:
        """The next message.

        :param patience: seconds.
        :param life: of the other side, whose end counts as that of the channel when all was read.
        :raises Gone: there is none, and nobody will send one.
        :raises Late: none came in time.
        :raises HandoverFailed: it isn't one, or didn't come whole.
        """
        end = monotonic() + patience
        while True:
            try:
                return self._get()
            except BlockingIOError:
                pass
            except ConnectionError:
                raise Gone("the other side is gone") from None
            if life is not None and life.has_ended:
                with suppress(BlockingIOError):  # it may have said something, and then ended
                    return self._get()
                raise Gone("the other side has died")
            if not self._waits_for(select.POLLIN, end, life):
                raise Late(f"the other side has said nothing for {patience:g} seconds")

    def queued(self) -> Iterator[Heard]:
        """What has come and wasn't read yet."""
        with suppress(BlockingIOError, Gone, ConnectionError):
            while True:
                yield self._get()

    def hang_up(self) -> None:
        """From now on the other side can't send anything: it is told so (EPIPE). What it has sent can still be read."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def _waits_for(self, event: int, end: float, life: Life | None = None) -> bool:
        poll = select.poll()
        poll.register(self._socket, event)
        if life is not None and life.fd >= 0:
            poll.register(life.fd, select.POLLIN)
        left = end - monotonic()
        return left > 0 and bool(poll.poll(left * 1000))

    def _get(self) -> Heard:
        try:
            return self._next()
        except ConnectionResetError:  # it has closed its end with something unread; what it said before is still here
            return self._next()

    def _next(self) -> Heard:
        data, ancillary, flags, _ = self._socket.recvmsg(LONGEST, _ROOM, getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        descriptors = array.array("i")
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        try:
            if flags & socket.MSG_CTRUNC:
                raise HandoverFailed("not all descriptors have come: this process has too few left (ulimit -n)")
            if flags & socket.MSG_TRUNC:
                raise HandoverFailed("a message is longer than one may be")
            if not data:
                raise Gone("the other side is gone")
            return _whole(data, list(descriptors))
        except BaseException:
            close_all(descriptors)
            raise


def close_all(descriptors: Iterable[int]) -> None:
    """Close these, which nobody wants."""
    for fd in descriptors:
        with suppress(OSError):
            os.close(fd)


def _whole(data: bytes, descriptors: list[int]) -> Heard:
    try:
        message = decode(data)
        if not message.flags & FLAG_IN_FILE:
            return Heard(message, descriptors)
        if not descriptors:
            raise ValueError(f"{message.name}: the file that it is in isn't there")
        whole = decode(read_sealed(descriptors[-1]))
        if whole.kind != message.kind or whole.flags:
            raise ValueError(f"{message.name}: another message is in its file")
    except ValueError as error:
        raise HandoverFailed(f"a message isn't as it may be: {error}") from None
    os.close(descriptors.pop())
    return Heard(whole, descriptors)
