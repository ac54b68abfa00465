"""MasterSocket: the server's connection socket, one classical step a call.

This file owns the order of the steps and the words of their failures. A master socket only accepts; no byte of a
client's data is ever read from it or written to it. :class:`pysock.Server` walks its own master sockets through the
same steps; by hand it goes like this::

    with MasterSocket("unix:/run/demo.sock") as master:
        master.remove_stale()
        master.create()                 # socket()
        master.bind()                   # bind()
        master.listen()                 # listen()
        client = master.accept()        # accept(): a DataSocket
        client.send(client.recv())      # recvfrom(), sendto()
        client.close()                  # close(): the data socket
                                        # close(): the master socket, then unlink() of its file
"""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Callable
from contextlib import ExitStack, suppress

from pysock.address import INHERITED, NETWORK, Address, AddressLike, as_address
from pysock.base.aliases import SocketAddress
from pysock.base.borrowed import borrowed
from pysock.base.faults import explains
from pysock.base.forking import close_quietly, guard, own
from pysock.base.identity import file_of, is_still
from pysock.base.lean import TYPE_CHECKING, replace
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.base.vanish import notice_vanished, prepare, vanishing
from pysock.data import HandSocket
from pysock.engine.choice import choose
from pysock.engine.contract import Backend
from pysock.errors import PysockError
from pysock.files.binding import explained_binding
from pysock.files.socketfile import SocketFile
from pysock.limits import VANISH_TIMEOUT, Limits
from pysock.states import IllegalTransition, ServerEvent, ServerState, next_server_state

if TYPE_CHECKING:
    from typing import Any

    from pysock.base import kinds


class MasterSocket(Unique):
    """A listening socket, made step by step. A step out of order raises and changes nothing.

    :param address: where to listen; a text is parsed by :meth:`pysock.Address.parse`, a ``Path`` is that of a
        socket file.
    :param backend: ``"auto"``, ``"native"`` or ``"pure"``: whose system calls to use.
    :raises ValueError: the address or the backend is wrong, or the address names an unknown user or group.

    Close it: one that is thrown away open closes itself, with a ``ResourceWarning``. In a forked child it is closed,
    and the parent's goes on.
    """

    __slots__ = (
        "__weakref__", "_accepted", "_address", "_elsewhere", "_fd", "_file", "_open_file", "_sockets", "_state",
        "_target", "inherited", "prepared",
    )  # fmt: skip

    def __init__(self, address: AddressLike, backend: kinds.BackendName | Backend = "auto") -> None:
        log.prepare()
        self._address = as_address(address)
        self._sockets = (choose(backend) if isinstance(backend, str) else backend).sockets
        self._file = SocketFile(self._address) if self._address.transport == "unix" else None
        self._target: SocketAddress | None = None
        self._fd = -1
        self._open_file: tuple[int, int] | None = None  # what the number stands for, as long as it is ours
        self._accepted = 0
        #: Its data sockets inherit the options of TCP that they need. An inherited one is somebody else's: never.
        self.prepared: bool = False
        #: Another process has made it, so the kernel tells clients of that one.
        self.inherited: bool = self._address.transport in INHERITED
        #: In a forked child, where it is the parent's: what to say to whoever uses it.
        self._elsewhere: str | None = None
        self._state = ServerState.NEW  # at last: without it there is nothing to close
        own(self)

    @property
    def address(self) -> Address:
        """Where it listens; once bound, with the port that the kernel chose and the absolute path."""
        return self._address

    @property
    def fd(self) -> int:
        """The number of the descriptor; -1 when there is none."""
        return self._fd

    @property
    def state(self) -> ServerState:
        """How far it has come."""
        return self._state

    @property
    def takes_ipv4(self) -> bool:
        """Whether it was created for an IPv4 address."""
        return self._target is not None and self._target[0] == socket.AF_INET

    def remove_stale(self) -> bool:
        """Remove the socket file that a dead server left at the path; return whether there was one.

        Does nothing for addresses without a file. The lock beside a file, ``PATH.lock``, is taken here or by
        :meth:`bind`, whichever comes first, and held until :meth:`close`.

        :raises AddressInUse: a live server listens there, or another one holds the lock.
        :raises FileExistsError: something that isn't a socket is there; it is never removed.
        :raises OSError: the directory or the lock file can't be used, in words that name it.
        :raises pysock.states.IllegalTransition: this socket is bound already, so the file would be its own.
        """
        self._check_here()
        if self._state not in {ServerState.NEW, ServerState.CREATED}:
            raise IllegalTransition(f"a master socket that is {self._state.name} can't remove a stale file any more")
        with explains(self._address, "removing a stale socket file"):
            return self._file is not None and self._file.remove_stale(self._sockets)

    def create(self) -> None:
        """``socket()``. The host of a TCP address is looked up first.

        :raises OSError: the host can't be resolved, or what ``socket()`` says.
        """
        state = self._after(ServerEvent.CREATE)
        if self.inherited:
            raise ValueError(f"{self._address} exists already: adopt() it instead")
        target = self._address.resolve(listening=True)[0]
        with explains(self._address, "socket()"), guard:
            self._fd = self._sockets.socket(target[0])
            self._open_file = file_of(self._fd)
        self._target = target
        self._state = state
        if target[0] == socket.AF_INET6:
            self._take_ipv4(True)
        log.debug("socket() -> %d, to listen at %s", self._fd, self._address)

    def leave_ipv4(self) -> None:
        """For the server, before :meth:`bind`: another master socket of its has the port for IPv4.

        A socket at ``[::]`` would take that, too (IPV6_V6ONLY, ipv6(7)).
        """
        if self._target is not None and self._target[0] == socket.AF_INET6:
            self._take_ipv4(False)

    def _take_ipv4(self, too: bool) -> None:
        """Whatever the system's default is (net.ipv6.bindv6only). One without IPv4 may refuse, and has none to take."""
        with borrowed(self._fd) as handle, suppress(OSError):
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not too)

    def bind(self) -> None:
        """``bind()``. A socket file gets its mode and owner here, while nobody can connect yet.

        :raises AddressInUse: a socket is at the address already, or another server holds the lock.
        :raises FileExistsError: something that isn't a socket is at the path.
        :raises OSError: what ``bind()`` says, in words that name the address: ``FileNotFoundError``,
            ``NotADirectoryError``, ``PermissionError`` ...
        """
        state = self._after(ServerEvent.BIND)
        assert self._target is not None
        with explains(self._address, "making the socket file" if self._file else "bind()"):
            self._bind(*self._target)
            self._state = state
            try:
                self._note_bound()
            except BaseException:
                self.close()  # a file that isn't as private as was asked for must not be listened at
                raise
        log.debug("bind(%d, %s)", self._fd, self._address)

    def _bind(self, family: int, where: Any) -> None:
        place = None
        if self._file is not None:
            place = self._file.claim()
            where = place.reach()
            self._file.restrict(self._fd)
        try:
            self._sockets.bind(self._fd, (family, where))
        except OSError as error:
            raise explained_binding(error, self._address, place) from error

    def listen(
        self, backlog: int | None = None, *, vanish_timeout: float | None = VANISH_TIMEOUT, stall: float = 0.0
    ) -> None:
        """``listen()``: from now on clients can connect, and wait to be accepted.

        :param backlog: how many the kernel lets wait; by default what the address says, or ``Limits.backlog``.
        :param vanish_timeout: as ``Limits.vanish_timeout``, of the connections that will be accepted.
        :param stall: seconds for which a peer that lives may take nothing of what is sent to it; a shorter
            ``vanish_timeout`` would end it then (see tcp(7), ``TCP_USER_TIMEOUT``).
        :raises AddressInUse: another socket listens at the address.
        """
        state = self._after(ServerEvent.LISTEN)
        if backlog is None:
            backlog = self._address.backlog or Limits().backlog
        self.prepared = prepare(self._fd, vanishing(vanish_timeout, stall))
        try:
            self._sockets.listen(self._fd, backlog)
        except OSError as error:
            raise explained_binding(error, self._address) from error
        self._state = state
        log.debug("listen(%d, %d)", self._fd, backlog)

    def adopt(self) -> None:
        """Instead of the three steps before: take over the listening socket of ``fd://N`` or ``systemd:NAME``.

        From now on it is this object's, which closes it. The file of an inherited Unix socket isn't ours to remove, and
        whether the socket blocks is left as it is: other processes may share it.

        :raises OSError: there is no such descriptor, or it isn't a listening stream socket; or several have that name.
        """
        state = self._after(ServerEvent.ADOPT)
        if self._address.transport == "systemd":
            self._address = _only(self._address)
        if self._address.transport != "fd":
            raise ValueError(f"{self._address} isn't an inherited socket: create() it instead")
        self._take_over(self._address.fd, state)

    def lend(self, fd: int, at: Address, prepared: bool) -> None:
        """For the server: the same with one that a process whose worker this is has made for the address.

        :param at: where it listens, as that one's master socket says.
        :param prepared: as :attr:`prepared`.
        :raises OSError: as :meth:`adopt`.
        """
        state = self._after(ServerEvent.ADOPT)
        self._file, self._address, self.inherited = None, at, True
        self._take_over(fd, state)
        self.prepared = prepared

    def _take_over(self, fd: int, state: ServerState) -> None:
        with explains(self._address, "taking over the descriptor"):
            _check_inherited(self._address, fd)
            os.set_inheritable(fd, False)
        self._fd, self._open_file = fd, file_of(fd)
        self._state = state
        log.debug("took over %d, which listens already", self._fd)

    def own(self, file: SocketFile | None, backlog: int) -> None:
        """For the server: who has lent it leaves it to this process, with its file. Clients are told of us from now on,
        for we call ``listen()`` (unix(7), ``SO_PEERCRED``).
        """
        self._file, self.inherited = file, False
        self._sockets.listen(self._fd, backlog)

    @property
    def lock_fd(self) -> int:
        """For the server: the descriptor of the lock of its file; -1: it has none."""
        return -1 if self._file is None else self._file.lock_fd

    def leave(self) -> None:
        """For the server: it is another process's now, with its file."""
        if self._file is not None:
            self._file.leave()

    def accept(self) -> HandSocket:
        """``accept()``: wait for a client and return its data socket, which blocks and has no framing.

        :raises pysock.states.IllegalTransition: it doesn't listen, or a server's loop does the accepting.
        """
        self._check_here()
        if self._state is not ServerState.LISTENING:
            raise IllegalTransition(f"a master socket that is {self._state.name} can't ACCEPT")
        if self._address.transport == "tls":
            raise PysockError(f"{self._address}: by hand there is no TLS, and nothing is sent without: use a Server")
        fd = self._sockets.accept(self._fd)
        self._accepted += 1
        log.debug("accept(%d) -> %d", self._fd, fd)
        try:
            if not self.prepared:
                with borrowed(fd) as handle:
                    notice_vanished(handle, vanishing(VANISH_TIMEOUT))
            return HandSocket(self._accepted, fd, self._sockets, self._address)
        except BaseException:  # no memory, or Ctrl-C
            self._sockets.close(fd)
            raise

    def close(self) -> None:
        """``close()``, then ``unlink()`` of the socket file if we made it. Called again it does nothing.

        In a forked child only its copies of the descriptors are closed: file and lock stay the parent's.
        """
        if self._state is ServerState.CLOSED:
            return
        self._state = self._after(ServerEvent.CLOSE)
        fd = self._fd
        with ExitStack() as steps:  # last things first; whatever one of them raises, the others are taken
            if self._file is not None:
                steps.callback(self._file.remove, self._sockets)
            if fd >= 0:
                steps.callback(self._close_fd)
                log.debug("close(%d): the master socket at %s", fd, self._address)

    def _close_fd(self) -> None:
        with guard:
            fd, self._fd = self._fd, -1  # Linux frees the number, whatever close() says (close(2))
            if is_still(fd, self._open_file):
                self._sockets.close(fd)

    def advance(self, event: ServerEvent) -> None:
        """For the server: note that its loop serves this socket, or drains."""
        self._state = self._after(event)

    def abandon(self, why: str) -> None:
        """For :mod:`pysock.base.forking`: this is a forked child, the address and its file are the parent's."""
        if self._file is not None:
            self._file.abandon()
        if self._state in {ServerState.NEW, ServerState.CLOSED}:
            return
        self._state = self._after(ServerEvent.CLOSE)
        self._elsewhere = f"this master socket {why}"
        fd, self._fd = self._fd, -1
        if is_still(fd, self._open_file):
            close_quietly(fd)

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        if getattr(self, "_state", ServerState.CLOSED) is ServerState.CLOSED:
            return
        try:
            if self._fd >= 0:
                warn(f"unclosed {self!r}", ResourceWarning, source=self)
        finally:  # where warnings are errors; and also of one that has no more than the lock of its path
            self.close()

    def __enter__(self) -> MasterSocket:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MasterSocket {self._address} {self._state.name} fd={self._fd}>"

    def _after(self, event: ServerEvent) -> ServerState:
        self._check_here()
        return next_server_state(self._state, event)

    def _check_here(self) -> None:
        if self._elsewhere is not None:
            raise PysockError(self._elsewhere)

    def _note_bound(self) -> None:
        if self._file is not None:
            self._file.made()
            self._address = _real(self._address, self._file.path)
        elif self._address.transport in NETWORK:
            host, port = _bound_to(self._fd)[:2]
            self._address = replace(self._address, host=host, port=port)


def _real(address: Address, path: str) -> Address:
    try:
        return replace(address, path=path, name=None)
    except ValueError:
        return address  # bound by a relative path because the absolute one is too long


def _bound_to(fd: int) -> Any:
    with borrowed(fd) as handle:
        return handle.getsockname()


def _only(address: Address) -> Address:
    from pysock.files.passed import addresses_of  # noqa: PLC0415  # few need it

    found = addresses_of(address)
    if len(found) > 1:
        raise OSError(errno.EINVAL, f"{address}: that means {len(found)} sockets, and one master socket is one of them")
    return found[0]


def _check_inherited(address: Address, fd: int) -> None:
    try:
        with borrowed(fd) as handle:
            number, kind = getattr(socket, "SO_ACCEPTCONN", None), handle.type  # in POSIX, not on every system
            listens = kind == socket.SOCK_STREAM and (number is None or handle.getsockopt(socket.SOL_SOCKET, number))
    except OSError as error:
        text = f"{address}: that isn't a socket of this process ({os.strerror(error.errno or 0)})"
        raise OSError(error.errno, text) from None
    if not listens:
        name = socket.SocketKind(kind).name
        advice = "call listen() on it first" if kind == socket.SOCK_STREAM else f"it is a {name}"
        raise OSError(errno.EINVAL, f"{address}: that isn't a listening stream socket; {advice}")
