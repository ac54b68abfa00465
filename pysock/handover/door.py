"""Where a server waits for the process that follows it: ``Server(handover="unix:PATH")``.

This file owns the listening socket there, its file and its lock, and the thread that looks who comes: processes of the
same user, one at a time. The socket changes hands with all else, so that there is always somebody who waits.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from pysock.base.forking import own
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.errors import HandoverFailed
from pysock.files.place import reachable
from pysock.files.socketfile import SocketFile
from pysock.handover import tags
from pysock.handover.channel import Channel, close_all
from pysock.handover.life import Life
from pysock.handover.messages import Kind

if TYPE_CHECKING:
    from typing import Final

    from pysock.address import Address
    from pysock.engine.sockets import Sockets

_CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED
_BACKLOG: Final = 8


class Door(Unique):
    """That of one server.

    :param address: of a Unix socket with a file.
    :param sockets: the engine's, which removes the file.
    """

    def __init__(self, address: Address, sockets: Sockets) -> None:
        self.address = address
        self._sockets = sockets
        self._file: SocketFile | None = None
        self._fd = self._lock = -1  # the second where it is only borrowed
        self._wake: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0  # of the process that waits there, where there is one
        own(self)

    # Who comes first

    def knock(self) -> Channel | None:
        """Reach the server that waits there; ``None``: none does.

        :raises HandoverFailed: it is another user's, or takes nobody.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            with reachable(self.address) as targets:
                sock.connect(targets[0][1])
            self._pid = _refuse_others(sock)
            return Channel(sock.detach())
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise HandoverFailed(f"{self.address}: whoever is there hands nothing over: {why}") from error
        finally:
            sock.close()

    def wait_for_its_end(self, seconds: float) -> None:
        """Who was there has closed its channel: if it is dying, wait until all that it has is free, so long at most."""
        life = Life(self._pid)
        try:
            life.ends_within(seconds)
        finally:
            life.close()

    def open(self) -> None:
        """Nobody was there: wait there from now on.

        :raises OSError: as of :meth:`pysock.Server.start`.
        """
        file = SocketFile(self.address)
        file.remove_stale(self._sockets)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            file.restrict(sock.fileno())
            sock.bind(file.claim().reach())
            self._file = file
            file.made()
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            file.remove(self._sockets)
            self._file = None
            raise
        self._fd = sock.detach()

    @property
    def is_there(self) -> bool:
        """Whether there is a socket already, own or borrowed."""
        return self._fd >= 0

    # It changes hands

    def descriptors(self) -> list[int]:
        """That of the socket, and that of the lock."""
        assert self._file is not None
        return [self._fd, self._file.lock_fd]

    def borrow(self, fd: int, lock: int) -> None:
        """The server before has it still."""
        self._fd, self._lock = fd, lock

    def own_it(self) -> None:
        """It is this process's, if it was borrowed."""
        lock, self._lock = self._lock, -1
        if lock < 0:
            return
        self._file = SocketFile.taken_over(self.address, lock)
        self._sockets.listen(self._fd, _BACKLOG)

    def leave(self) -> None:
        """It is the next one's: nothing is removed."""
        if self._file is not None:
            self._file.leave()
        self.close()

    # Who comes next

    def serve(self, give: Callable[[Channel], object]) -> None:
        """Wait, in a thread, and call ``give`` in another one for who comes, while there is none yet."""
        if self._fd < 0:
            return
        self._wake = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(
            target=self._wait, args=(self._fd, self._wake[0], give), name="pysock-door", daemon=True
        )
        self._thread.start()

    def _wait(self, fd: int, wake: int, give: Callable[[Channel], object]) -> None:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(wake, select.POLLIN)
        given: threading.Thread | None = None
        with socket.socket(fileno=os.dup(fd)) as listener:
            listener.setblocking(False)
            while wake not in dict(poll.poll()):
                channel = _accepted(listener)
                if channel is None:
                    continue
                if given is not None and given.is_alive():
                    refuse(channel, "another process takes over from this one just now")
                    continue
                given = threading.Thread(target=give, args=(channel,), name="pysock-handover", daemon=True)
                given.start()

    def close(self) -> None:
        """Wait no longer, and remove the file if it is ours. Called again it does nothing."""
        wake, self._wake = self._wake, None
        if wake is not None:
            os.write(wake[1], b"!")
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join()
            close_all(wake)
        fd, self._fd = self._fd, -1
        lock, self._lock = self._lock, -1
        close_all(one for one in (fd, lock) if one >= 0)
        file, self._file = self._file, None
        if file is not None:
            file.remove(self._sockets)

    def abandon(self, _why: str) -> None:
        """For :mod:`pysock.base.forking`: in a child there is no thread, and the socket is the parent's."""
        file, self._file = self._file, None
        if file is not None:
            file.abandon()
        wake, self._wake = self._wake or (), None
        close_all(one for one in (self._fd, self._lock, *wake) if one >= 0)
        self._fd = self._lock = -1
        self._thread = None


def _refuse_others(sock: socket.socket) -> int:
    """Only this user's processes are believed; its number.

    :raises HandoverFailed: it is another one's.
    """
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    if uid != os.geteuid():
        raise HandoverFailed(f"the process at the other end is one of uid {uid}, and this one of uid {os.geteuid()}")
    return int(pid)


def _accepted(listener: socket.socket) -> Channel | None:
    try:
        sock, _ = listener.accept()
    except OSError as error:
        if error.errno not in {errno.EAGAIN, errno.ECONNABORTED}:
            log.warning("nobody can take over from this server just now: %s", os.strerror(error.errno or 0))
            threading.Event().wait(0.1)  # there are too few descriptors, say
        return None
    try:
        _refuse_others(sock)
        return Channel(sock.detach())
    except (HandoverFailed, OSError) as error:
        log.warning("somebody who wanted to take over from this server was refused: %s", error)
        return None
    finally:
        sock.close()


def refuse(channel: Channel, why: str) -> None:
    """Send whoever it is away."""
    with suppress(HandoverFailed):
        channel.send(Kind.REFUSE, [(tags.WHY, why.encode())], patience=0.0)
    channel.close()
