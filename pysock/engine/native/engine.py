"""The native engine: the contract of ``pysock.engine`` on the C code of ``csrc``.

With ``load.py`` the only Python module that imports the extension. It owns the crossing: options become C
structs, objects cross as ``id()`` numbers which are kept alive here for as long as C looks at them, and negative
numbers become exceptions, in one place (:func:`_checked`).
"""

from __future__ import annotations

import builtins
import errno
import os
import select
import socket
import struct
import sys
from collections import deque
from threading import get_ident

from pysock._engine import ffi, lib
from pysock.base import forking
from pysock.base.aliases import Buffer, SocketAddress
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import ERROR
from pysock.base.payload import checked_all
from pysock.base.unique import Unique
from pysock.base.vanish import vanishing
from pysock.engine.causes import COUNTERS
from pysock.engine.contract import (
    BUSY,
    TEXT_DESCRIPTORS_LOST,
    Backend,
    ClientInfo,
    EngineOptions,
    EngineStats,
    OnlyInMain,
    too_much_queued,
)
from pysock.engine.inbox import INBOX_MAX, Inbox
from pysock.engine.native.abi import check_abi
from pysock.engine.ready import wait_until_ready
from pysock.errors import ConnectionLost, FrameTooLarge, ProtocolError, PysockError, RemoteError, RequestTimeout
from pysock.limits import Limits
from pysock.wire.format import Frame, Kind

if TYPE_CHECKING:
    from typing import Any, Final

    # The extension imports it in C, out of sight of programs that freeze programs; those look into such blocks, too.
    import _cffi_backend  # noqa: F401

_NANOSECONDS: Final = 1_000_000_000

#: Of the counters those that come one by one; the rest is an array, by cause.
_PLAIN_COUNTERS: Final = EngineStats._fields[: -len(COUNTERS)]

check_abi(lib)

if not lib.ps_python_is_main(id(builtins)):
    # Beside a loop of the main interpreter its objects and threads would be taken for that one's.
    raise OnlyInMain("this is a sub-interpreter, and pysock's native engine runs in the main interpreter only")


def _checked(result: int) -> int:
    """Return what a C function returned, or raise the ``OSError`` that a negative number stands for."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _posted(result: int) -> int:
    """The same for what is left to the loop to do."""
    if result == -errno.ENOBUFS:
        raise too_much_queued()
    return _checked(result)


def _nanoseconds(seconds: float | None) -> int:
    return 0 if seconds is None else max(1, int(seconds * _NANOSECONDS)) if seconds else 0


def _linger(seconds: float | None) -> int:
    return lib.PS_LINGER_AUTO if seconds is None else _nanoseconds(seconds)


def _bytes(data: Buffer) -> Any:
    """A C view of bytes-like data; no copy."""
    return ffi.from_buffer("uint8_t[]", data)


def _fill_limits(c: Any, limits: Limits) -> None:
    for name in ("cir_timeout", "frame_timeout", "output_timeout", "idle_timeout"):
        setattr(c, f"{name}_ns", _nanoseconds(getattr(limits, name)))
    for name in ("max_clients", "max_pending_cir", "max_cir_bytes", "max_payload", "max_in_flight"):
        setattr(c, name, getattr(limits, name))
    c.max_clients_per_uid = limits.max_clients_per_uid or 0
    c.max_clients_per_ip = limits.max_clients_per_ip or 0
    wanted = vanishing(limits.vanish_timeout, limits.output_timeout)
    if wanted is not None:
        c.keep_idle, c.keep_interval, c.keep_count, c.user_timeout = wanted
    c.output_pause, c.output_drop = limits.output_pause, limits.output_drop


#: Why a loop didn't run; and what ends one in a child, where a handler has forked.
_NOT_RUN: Final = {-errno.EBUSY: "this loop runs already", -errno.EINVAL: "this loop has run: make a new server"}
_IN_A_CHILD: Final = -errno.ECHILD
#: And what ends one whose descriptors the program has closed.
_LOST: Final = -errno.EBADFD


class NativeEngine(Unique):
    """One server's loop and client table, in C."""

    def __init__(self, options: EngineOptions) -> None:
        callbacks = options.callbacks
        c = ffi.new("ps_options *")
        welcome = ffi.from_buffer("uint8_t[]", options.welcome)
        _fill_limits(c.limits, options.limits)
        c.linger_ns = _linger(options.linger)
        c.hold_ns = _nanoseconds(1.2 * sys.getswitchinterval())
        c.welcome, c.welcome_size = welcome, len(options.welcome)
        c.framing, c.services = int(options.framing), len(options.services)
        c.watch_disconnects = options.watch_disconnects
        c.ask_connects = callbacks.connect is not None
        c.has_key = callbacks.challenge is not None
        c.ask_allow = callbacks.allow is not None
        uids = ffi.new("uint32_t[]", sorted(options.access.uids))
        gids = ffi.new("uint32_t[]", sorted(options.access.gids))
        c.uids, c.uid_count, c.gids, c.gid_count = uids, len(uids), gids, len(gids)
        services = tuple(options.services)
        hooks = (
            callbacks.client,
            callbacks.connect,
            callbacks.disconnect,
            callbacks.failed,
            callbacks.draining,
            callbacks.log,
            callbacks.dropped,
            callbacks.noted,
            callbacks.allow,
            callbacks.challenge,
            callbacks.prove,
            FrameTooLarge,
        )
        error = ffi.new("int *")
        python = lib.ps_python_new(c, id(services), id(hooks), error)
        if python == ffi.NULL:
            _checked(error[0])
        # Freed with this object, not by close(): another thread may be inside a call.
        self._python: Any = ffi.gc(python, lib.ps_python_free)
        self._engine: Any = lib.ps_python_engine(python)
        self._wakeup_fd: int = lib.ps_engine_wakeup_fd(self._engine)
        inside: list[Any] = []
        _checked(lib.ps_python_inside(python, id(inside)))
        self._push_inside, self._broadcast_inside, self._disconnect_inside = inside
        self._log = callbacks.log
        self._loop: int | None = None  # the thread that runs it

    def add_master(self, fd: int, checked: bool = False, prepared: bool = False) -> None:
        os.set_blocking(fd, False)  # the loop accepts until there is nothing left
        flags = lib.PS_MASTER_CHECKED * checked | lib.PS_MASTER_PREPARED * prepared
        _checked(lib.ps_engine_add_master(self._engine, fd, flags))

    @property
    def wakeup_fd(self) -> int:
        return self._wakeup_fd

    def run(self) -> None:
        raised: list[BaseException] = []
        self._loop = get_ident()
        try:
            result = lib.ps_python_run(self._python, id(raised))
        finally:
            self._loop = None
        if raised:
            raise raised[0]
        if result in _NOT_RUN:
            raise PysockError(_NOT_RUN[result])
        if result == _LOST:
            self._log(ERROR, TEXT_DESCRIPTORS_LOST)
        elif result != _IN_A_CHILD:
            _checked(result)

    def stop(self, grace: float) -> None:
        result = lib.ps_engine_stop(self._engine, min(int(grace * _NANOSECONDS), 2**63))
        if result != -errno.EBADF:  # else the loop has lost its descriptors, and will find that out
            _checked(result)

    def close(self) -> None:
        lib.ps_python_close(self._python)

    def abandon(self) -> None:
        lib.ps_engine_abandon(self._engine)

    def client_ids(self) -> list[int]:
        room = self.client_count() + 64  # a few may come in meanwhile
        ids = ffi.new("uint64_t[]", room)
        count = _checked(lib.ps_engine_ids(self._engine, ids, room))
        return list(ffi.unpack(ids, count)) if count else []

    def client_count(self) -> int:
        return self.stats().clients

    def attach(self, client_id: int) -> bool:
        return bool(lib.ps_engine_attach(self._engine, client_id))

    def info(self, client_id: int) -> ClientInfo | None:
        row = ffi.new("ps_info *")
        if not lib.ps_engine_info(self._engine, client_id, row):
            return None
        return ClientInfo(
            client_id=row.client_id,
            fd=row.fd,
            state=row.state,
            name=ffi.string(row.name).decode(),
            master=row.master,
            address=ffi.string(row.address).decode(),
            pid=row.pid,
            uid=row.uid,
            gid=row.gid,
            connected_at=row.connected_at_ns / _NANOSECONDS,
            requests=row.requests,
            bytes_in=row.bytes_in,
            bytes_out=row.bytes_out,
            in_flight=row.in_flight,
            queued=row.queued,
        )

    def find(self, name: str) -> int | None:
        if "\0" in name:
            return None
        return lib.ps_engine_find(self._engine, name.encode()) or None

    def push(self, client_id: int, payload: Buffer) -> bool:
        if get_ident() == self._loop:
            return self._push_inside(client_id, payload)  # type: ignore[no-any-return]
        data = _bytes(payload)
        result = lib.ps_engine_push(self._engine, client_id, data, len(data))
        if result == -errno.EMSGSIZE:
            raise FrameTooLarge(
                f"a payload of {len(data)} bytes is more than this client takes (max_payload= of its connect())"
            )
        return bool(_posted(result))

    def broadcast(self, payload: Buffer) -> int:
        if get_ident() == self._loop:
            return self._broadcast_inside(payload)  # type: ignore[no-any-return]
        data = _bytes(payload)
        return _posted(lib.ps_engine_broadcast(self._engine, data, len(data)))

    def disconnect(self, client_id: int) -> bool:
        if get_ident() == self._loop:
            return self._disconnect_inside(client_id)  # type: ignore[no-any-return]
        return bool(_checked(lib.ps_engine_disconnect(self._engine, client_id)))

    def stats(self) -> EngineStats:
        counters = ffi.new("ps_stats *")
        lib.ps_engine_stats(self._engine, counters)
        return EngineStats._make([*(getattr(counters, name) for name in _PLAIN_COUNTERS), *counters.causes])


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


class NativeSockets:
    """Sockets used by hand: one system call each."""

    def socket(self, family: int) -> int:
        return _checked(lib.ps_socket_open(family))

    def bind(self, fd: int, address: SocketAddress) -> None:
        packed = pack_address(address)
        _checked(lib.ps_socket_bind(fd, packed, len(packed)))

    def listen(self, fd: int, backlog: int) -> None:
        _checked(lib.ps_socket_listen(fd, backlog))

    def accept(self, fd: int) -> int:
        return _waited(fd, select.POLLIN, lib.ps_socket_accept)

    def recv(self, fd: int, max_bytes: int) -> bytes:
        data = ffi.new("uint8_t[]", max_bytes)
        count = _waited(fd, select.POLLIN, lib.ps_socket_recv, data, max_bytes)
        return bytes(ffi.buffer(data, count))

    def send(self, fd: int, data: Buffer) -> None:
        c_data, sent = _bytes(data), 0
        size = len(c_data)
        while sent < size:
            sent += _waited(fd, select.POLLOUT, lib.ps_socket_send, c_data + sent, size - sent)

    def close(self, fd: int) -> None:
        _checked(lib.ps_socket_close(fd))

    def unlink(self, path: str) -> None:
        _checked(lib.ps_socket_unlink(os.fsencode(path)))


def _waited(fd: int, event: int, call: Any, *args: Any) -> int:
    """Make a system call again after a signal; Python's handlers have run in between (PEP 475). And when the descriptor
    is ready, where whoever made the socket has set O_NONBLOCK or a timeout (SO_RCVTIMEO) on it.
    """
    while True:
        result = call(fd, *args)
        if result == -errno.EAGAIN:
            wait_until_ready(fd, event)
        elif result != -errno.EINTR:
            return _checked(result)


#: What a call on a link can fail with, beside an exception raised inside it.
_LINK_ERRORS: Final = {
    errno.ETIMEDOUT: (RequestTimeout, "the server didn't answer in time"),
    errno.ECONNRESET: (ConnectionLost, "the server closed the connection; it may have run what it hasn't answered"),
    errno.EPIPE: (ConnectionLost, "the connection is closed"),
    errno.EMSGSIZE: (ProtocolError, "the server sent a frame that is too large: give connect() a larger max_payload"),
    errno.EPROTO: (ProtocolError, "the server sent a frame that no server sends, or not in the middle of a connection"),
    errno.EBUSY: (PysockError, BUSY),
}
#: After these it stays open, if no frame was left half sent.
_HARMLESS: Final = frozenset((errno.ETIMEDOUT, errno.ECANCELED))
_VERDICTS: Final = frozenset((Kind.CIR_ACCEPTED, Kind.CIR_REFUSED, Kind.CHALLENGE))
#: What a request with a payload that can't be sent results in.
_WRONG_PAYLOAD: Final = -errno.EINVAL


class NativeLink(Unique):
    """The client's end of one connection, in C."""

    def __init__(self, fd: int, linger: float | None, max_payload: int) -> None:
        self.inbox: Inbox = Inbox((), INBOX_MAX)
        self._verdicts: deque[Frame] = deque()  # on a CIR or a PROOF, that came while something was being sent
        error = ffi.new("int *")
        link = lib.ps_link_new(fd, _linger(linger), max_payload, error)
        if link == ffi.NULL:
            _checked(error[0])
        # Freed with its last user: another thread may be inside a call.
        self._link: Any = ffi.gc(link, lib.ps_link_free)
        forking.own(self)

    @property
    def closed(self) -> bool:
        return self._link is None

    def _finish(self, result: int, raised: list[BaseException]) -> None:
        if result == 0:
            return
        link = self._link
        # None: this is a child, forked by a signal's handler in the middle of the call. Busy: it is another's call.
        if link is not None and result != -errno.EBUSY and (-result not in _HARMLESS or lib.ps_link_broken(link)):
            self.close()
        if raised:
            raise raised[0]
        kind, text = _LINK_ERRORS.get(-result, (ConnectionLost, os.strerror(-result)))
        raise kind(text)

    def _open(self) -> Any:
        if self._link is None:
            raise ConnectionLost("the connection is closed")
        return self._link

    def send(
        self, kind: int, code: int, request_id: int, payload: Buffer, timeout: float | None, flags: int = 0
    ) -> None:
        raised: list[BaseException] = []
        others = Inbox((), INBOX_MAX)
        wait = -1 if timeout is None else _nanoseconds(timeout)
        result = lib.ps_link_send(
            self._open(), kind, flags, code, request_id, id(payload), wait, id(others), id(raised)
        )
        self.inbox.dropped += others.dropped
        for frame in map(Frame._make, others):
            (self._verdicts if frame.kind in _VERDICTS else self.inbox).append(frame)
        if self._verdicts and kind != Kind.PROOF:
            result = -errno.EPROTO
        if result == -errno.ECONNRESET and self._verdicts:
            self.close()  # what was being sent came too late; the verdict says why
            return
        self._finish(result, raised)

    def receive(self, timeout: float | None) -> Frame:
        if self._verdicts:
            return self._verdicts.popleft()
        raised: list[BaseException] = []
        got: deque[tuple[int, int, int, int, bytes]] = deque()
        wait = -1 if timeout is None else _nanoseconds(timeout)
        self._finish(lib.ps_link_receive(self._open(), wait, id(got), id(raised)), raised)
        return Frame._make(got[0])

    def _exchange(
        self, service: int, payloads: list[Any], limit: int, timeout: float | None, window: int
    ) -> tuple[list[Any], int]:
        """The results, and how many of them are errors, as pairs of code and message; or why nothing was sent."""
        raised: list[BaseException] = []
        results: list[Any] = [None] * len(payloads)
        others = Inbox((), INBOX_MAX)
        wait = -1 if timeout is None else _nanoseconds(timeout)
        result = lib.ps_link_request(
            self._open(), service, id(payloads), limit, id(results), window, wait, id(others), id(raised)
        )
        if others:
            self.inbox.dropped += others.dropped
            self.inbox.extend(map(Frame._make, others))
        if result < 0 and result != _WRONG_PAYLOAD:
            self._finish(result, raised)
        return results, result

    def request(self, service: int, payload: Buffer, timeout: float | None) -> bytes:
        (result,), errors = self._exchange(service, [payload], len(payload), timeout, 1)
        if errors:
            raise _remote_error(result)
        return result  # type: ignore[no-any-return]  # bytes

    def request_many(
        self, service: int, payloads: list[Any], limit: int, timeout: float | None, window: int
    ) -> tuple[list[Any], int]:
        # C looks at each payload anyway: nothing here takes time for each, unless something is wrong.
        results, errors = self._exchange(service, payloads, limit, timeout, window)
        if errors == _WRONG_PAYLOAD:
            results, errors = self._exchange(service, checked_all(payloads, limit), limit, timeout, window)
        if errors:
            results = [result if type(result) is bytes else _remote_error(result) for result in results]
        return results, errors

    def next_request_id(self) -> int:
        return int(lib.ps_link_next_id(self._open()))

    def close(self) -> None:
        link = self._link
        if link is None:
            return
        with forking.guard:
            if lib.ps_link_close(link) < 0:
                raise PysockError(BUSY)
            self._link = None

    def abandon(self, why: str) -> None:
        link, self._link = self._link, None
        if link is not None:
            lib.ps_link_abandon(link)


def _remote_error(answer: tuple[int, bytes]) -> RemoteError:
    code, text = answer
    return RemoteError(text.decode("utf-8", "replace"), code)


BACKEND: Final = Backend("native", frozenset({"c-loop"}), NativeEngine, NativeSockets(), NativeLink)
