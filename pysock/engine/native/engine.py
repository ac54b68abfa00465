"""One server's loop and client table, in C: the contract of ``pysock.engine.contract`` on the C code of ``csrc``."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Coroutine
from threading import get_ident

from pysock.base.aliases import Buffer, Ids
from pysock.base.lean import TYPE_CHECKING, replace
from pysock.base.logs import ERROR
from pysock.base.unique import Unique
from pysock.base.vanish import vanishing
from pysock.causes import Cause, level_and_line
from pysock.engine.contract import OVER, WHEN_READABLE, Backend, EngineOptions
from pysock.engine.native.counting import count_there
from pysock.engine.native.crossing import NANOSECONDS, ffi, lib, nanoseconds, of_linger, result_of, view_of
from pysock.engine.native.inlet import NativeInlet
from pysock.engine.native.link import NativeLink
from pysock.engine.native.moving import NativeMoving
from pysock.engine.native.outlet import NativeOutlet
from pysock.engine.native.rows import PackedRows
from pysock.engine.native.sockets import NativeSockets
from pysock.engine.native.tls import driver_of, drivers, facts_of, info_of, secure, why_not_greeted
from pysock.engine.proxies import Proxies
from pysock.engine.rows import ClientInfo, Current, EngineStats, Gone
from pysock.engine.said import TEXT_DESCRIPTORS_LOST, answers_nothing, too_much_queued
from pysock.engine.seats import Seat
from pysock.errors import FrameTooLarge, PysockError
from pysock.limits import Limits
from pysock.wire import texts

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.native.hosted import HostedSessions
    from pysock.tls.info import TLSInfo


def _posted(result: int) -> int:
    """As ``result_of``, of what is left to the loop to do."""
    if result == -errno.ENOBUFS:
        raise too_much_queued()
    return result_of(result)


def _fill_limits(c: Any, limits: Limits) -> None:
    """Each by its name: a timeout in nanoseconds, what isn't limited as 0."""
    for name, _ in ffi.typeof("ps_limits").fields:
        if name.endswith("_ns"):
            setattr(c, name, nanoseconds(getattr(limits, name.removesuffix("_ns"))))
        elif hasattr(limits, name):
            setattr(c, name, getattr(limits, name) or 0)
    wanted = vanishing(limits.vanish_timeout, limits.output_timeout)
    if wanted is not None:
        c.keep_idle, c.keep_interval, c.keep_count, c.user_timeout = wanted


def _taken(packed: Any) -> PackedRows:
    try:
        return PackedRows(bytes(ffi.buffer(packed.data, packed.size)), packed.count)
    finally:
        lib.ps_rows_free(packed)


#: Why a loop didn't run; and what ends one in a child, where a handler has forked.
_NOT_RUN: Final = {-errno.EBUSY: "this loop runs already", -errno.EINVAL: "this loop has run: make a new server"}
_IN_A_CHILD: Final = -errno.ECHILD
#: And what ends one whose descriptors the program has closed.
_LOST: Final = -errno.EBADFD
#: Of an answer: somebody has waited for it; it was given between a guest's turns, and one is wanted; there is no loop.
_WAITED: Final = 1
_TURN_WANTED: Final = 2
_SENT: Final = 1  # of what is asked: it is on its way
_NO_LOOP: Final = frozenset({-errno.EPIPE, -errno.EBADF})
#: What ``_make`` of a NamedTuple calls, which takes twice as long.
_new_row: Final = tuple.__new__


class NativeEngine(NativeMoving, Unique):
    """One server's loop and client table, in C."""

    def __init__(self, options: EngineOptions) -> None:
        callbacks = replace(options.callbacks, noted=self._noted_tls)
        self._noted, self._log = options.callbacks.noted, options.callbacks.log
        c = ffi.new("ps_options *")
        welcome = ffi.from_buffer("uint8_t[]", options.welcome)
        _fill_limits(c.limits, options.limits)
        c.linger_ns = of_linger(options.linger)
        c.inside_max_ns = nanoseconds(1.2 * sys.getswitchinterval())
        c.welcome, c.welcome_size = welcome, len(options.welcome)
        c.framing, c.services = int(options.framing), len(options.services)
        c.watch_disconnects, c.slow = options.watch_disconnects, options.slow
        c.ask_connects = callbacks.connect is not None
        c.tell_joins = callbacks.joined is not None
        c.has_key = callbacks.challenge is not None
        c.ask_allow = callbacks.allow is not None
        c.held_up_ns = 0 if callbacks.held_up is None else nanoseconds(options.held_up)
        uids = ffi.new("uint32_t[]", sorted(options.access.uids))
        gids = ffi.new("uint32_t[]", sorted(options.access.gids))
        c.uids, c.uid_count, c.gids, c.gid_count = uids, len(uids), gids, len(gids)
        self._seat = options.seat and self._sit(c, options.seat)  # it keeps the page
        services = tuple(options.services)
        error = ffi.new("int *")
        python = lib.ps_python_new(c, id(services), id(callbacks), id(FrameTooLarge), error)
        if python == ffi.NULL:
            result_of(error[0])
        self._python: Any = python
        self._engine: Any = lib.ps_python_engine(python)
        self._wakeup_fd: int = lib.ps_engine_wakeup_fd(self._engine)
        inside: list[Any] = []
        # They own it: so it is freed with this object, not by close(), for another thread may be inside a call; and not
        # by ffi.gc(), for of garbage that is freed before the __del__ of a reply that says it was dropped.
        if error := lib.ps_python_inside(python, id(inside)):
            lib.ps_python_free(python)
            result_of(error)
        self._push_inside, self._broadcast_inside, self._push_to_inside, self._select, *others = inside
        self._disconnect_inside, self._answer, self._current, self._waiting, self._ask, more, *others = others
        self._later, self._watch, self._secure, self._notice, self._moving, *guest = others
        self.send_more: Callable[[int, Any], int] = more
        self._meter = options.meter and count_there(python, options.meter)
        self._begin, self._poll_fd, self._turn, self._end_turns = guest
        self._raised: list[BaseException] = []  # by a guest's turn
        self.wants_turn: Callable[[], None] = lambda: None
        self._tls: list[Any] = []  # by master
        self._tls_driver = options.tls_driver
        self._hosted: HostedSessions | None = None  # TLS by the module ssl, if there is any
        self._loop: int | None = None  # the thread that runs it

    @staticmethod
    def _sit(c: Any, seat: Seat) -> Any:
        page = ffi.from_buffer("ps_seat[]", seat.page, require_writable=True)
        c.seats, c.seat_count, c.seat = page, seat.rows, seat.mine
        return page

    def add_master(
        self, fd: int, checked: bool = False, prepared: bool = False, tls: Any = None, proxies: Proxies | None = None
    ) -> None:
        os.set_blocking(fd, False)  # the loop accepts until there is nothing left
        flags = lib.PS_MASTER_CHECKED * checked | lib.PS_MASTER_PREPARED * prepared
        result_of(lib.ps_engine_add_master(self._engine, fd, flags))
        self._tls.append(tls)
        if tls is not None:
            self._speak_tls(len(self._tls) - 1, tls)
        if proxies is not None:
            networks = ffi.new("ps_network[]", [(list(address), bits) for address, bits in proxies.networks])
            result_of(lib.ps_engine_expect_proxies(self._engine, proxies.versions, networks, len(networks)))

    def _speak_tls(self, master: int, tls: Any) -> None:
        if driver_of(tls, self._tls_driver) == "libssl":
            secure(self._engine, master, tls)
            return
        if self._hosted is None:
            from pysock.engine.native.hosted import HostedSessions  # noqa: PLC0415  # it brings the module ssl

            self._hosted = HostedSessions()
        self._hosted.add_master(master, tls)
        result_of(self._secure(master, self._hosted.begin))

    def tls_of(self, client_id: int) -> TLSInfo | None:
        if self._hosted is not None and (info := self._hosted.info(client_id)) is not None:
            return info
        return info_of(facts_of(self._engine, client_id)) if any(self._tls) else None

    def reload_tls(self, tls: Any) -> None:
        if driver_of(tls, self._tls_driver) != "libssl":
            return  # its context has changed itself
        for master, one in enumerate(self._tls):
            if one is tls:
                secure(self._engine, master, tls)

    def _noted_tls(self, cause: int, times: int) -> None:
        """As the callback; of a handshake that failed it says why."""
        if cause == Cause.TLS:
            why = why_not_greeted(self._engine)
            if why is None:
                why = "" if self._hosted is None else self._hosted.why
            self._log(*level_and_line(cause, times, why))
        else:
            self._noted(cause, times)

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
        self._ended(result, raised)

    def begin(self) -> None:
        result = self._begin(self._raised, self._turn_is_wanted)
        if result in _NOT_RUN:
            raise PysockError(_NOT_RUN[result])
        result_of(result)

    def _turn_is_wanted(self) -> None:
        self.wants_turn()  # which is set when the loop has begun

    @property
    def poll_fd(self) -> int:
        return self._poll_fd()  # type: ignore[no-any-return]

    def turn(self) -> float:
        self._loop = get_ident()
        try:
            return WHEN_READABLE if self._turn() else OVER
        finally:
            self._loop = None

    def end(self) -> None:
        self._ended(self._end_turns(), self._raised)

    def _ended(self, result: int, raised: list[BaseException]) -> None:
        if raised:
            raise raised[0]
        if result in _NOT_RUN:
            raise PysockError(_NOT_RUN[result])
        if result == _LOST:
            self._log(ERROR, TEXT_DESCRIPTORS_LOST)
        elif result != _IN_A_CHILD:
            result_of(result)

    def stop(self, grace: float) -> None:
        result = lib.ps_engine_stop(self._engine, min(int(grace * NANOSECONDS), 2**63))
        if result != -errno.EBADF:  # else the loop has lost its descriptors, and will find that out
            result_of(result)

    def lame(self, lame: bool) -> None:
        lib.ps_engine_lame(self._engine, lame)

    def close(self) -> None:
        lib.ps_python_close(self._python)

    def abandon(self) -> None:
        lib.ps_engine_abandon(self._engine)

    def client_ids(self) -> list[int]:
        room = self.client_count() + 64  # a few may come in meanwhile
        ids = ffi.new("uint64_t[]", room)
        count = result_of(lib.ps_engine_ids(self._engine, ids, room))
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
            software=ffi.string(row.software).decode("utf-8", "replace"),
            master=row.master,
            address=ffi.string(row.address).decode(),
            pid=row.pid,
            uid=row.uid,
            gid=row.gid,
            connected_at=row.connected_at_ns / NANOSECONDS,
            idle_since=row.idle_since_ns / NANOSECONDS,
            requests=row.requests,
            bytes_in=row.bytes_in,
            bytes_out=row.bytes_out,
            frames_in=row.frames_in,
            frames_out=row.frames_out,
            in_flight=row.in_flight,
            queued=row.queued,
            pushes_dropped=row.pushes_dropped,
            via=ffi.string(row.via).decode(),
            header=self._header(client_id) if row.via[0] != b"\0" else b"",
        )

    def _header(self, client_id: int) -> bytes:
        kept = ffi.new("uint8_t[]", lib.PS_PROXY_KEPT)
        return bytes(ffi.buffer(kept, lib.ps_engine_header(self._engine, client_id, kept, len(kept))))

    def rows(self, among: Ids | None = None) -> PackedRows:
        ids, count = (ffi.NULL, 0) if among is None else (of := ffi.from_buffer("uint64_t[]", among), len(of))
        packed = ffi.new("ps_rows *")
        result_of(lib.ps_engine_rows(self._engine, ids, count, packed))
        return _taken(packed)

    def gone(self, most: int = 1000) -> list[Gone]:
        packed = ffi.new("ps_rows *")
        result_of(lib.ps_engine_gone(self._engine, packed))
        return _taken(packed).gone(most)

    def find(self, name: str) -> int | None:
        if "\0" in name:
            return None
        return lib.ps_engine_find(self._engine, name.encode()) or None

    def push(self, client_id: int, payload: Buffer) -> bool:
        if get_ident() == self._loop:
            return self._push_inside(client_id, payload)  # type: ignore[no-any-return]
        data = view_of(payload)
        result = lib.ps_engine_push(self._engine, client_id, data, len(data))
        if result == -errno.EMSGSIZE:
            raise FrameTooLarge(texts.PUSH_TOO_LARGE % len(data))
        return bool(_posted(result))

    def broadcast(self, payload: Buffer) -> int:
        if get_ident() == self._loop:
            return self._broadcast_inside(payload)  # type: ignore[no-any-return]
        data = view_of(payload)
        return _posted(lib.ps_engine_broadcast(self._engine, data, len(data)))

    def push_to(self, client_ids: Ids, payload: Buffer) -> int:
        if get_ident() == self._loop:
            return self._push_to_inside(client_ids, payload)  # type: ignore[no-any-return]
        ids, data = ffi.from_buffer("uint64_t[]", client_ids), view_of(payload)
        return _posted(lib.ps_engine_push_to(self._engine, ids, len(ids), data, len(data)))

    def select(self, uid: int | None, name: str | None, among: Ids | None, but: int) -> Ids:
        pattern = None if name is None else name.encode("utf-8", "surrogatepass")
        return self._select(pattern, -1 if uid is None else uid, among, but)  # type: ignore[no-any-return]

    def ask(self, client_id: int, frame: bytes, size: int) -> bool:
        result: int = self._ask(client_id, frame, size)
        if result == _SENT:
            return True
        if result == -errno.EMSGSIZE:
            raise FrameTooLarge(texts.PUSH_TOO_LARGE % size)
        if result == -errno.EOPNOTSUPP:
            raise answers_nothing()
        if result >= _TURN_WANTED:
            self.wants_turn()
        return bool(_posted(result) & _SENT)

    def disconnect(self, client_id: int, replaced: bool = False) -> bool:
        if get_ident() == self._loop:
            return self._disconnect_inside(client_id, replaced)  # type: ignore[no-any-return]
        return bool(result_of(lib.ps_engine_disconnect(self._engine, client_id)))

    def answer(self, handle: int, reply: Any) -> bool:
        result: int = self._answer(handle, reply)
        if result == _WAITED:
            return True
        if result in _NO_LOOP:
            return False
        if result_of(result) & _TURN_WANTED:
            self.wants_turn()
        return bool(result & _WAITED)

    def current(self) -> Current | None:
        found = self._current() if get_ident() == self._loop else None
        return None if found is None else _new_row(Current, found)

    def waiting(self, handle: int) -> Current | None:
        found = self._waiting(handle)
        return None if found is None else _new_row(Current, found)

    def call_later(self, function: Callable[[], object]) -> bool:
        result: int = self._later(function)
        return result not in _NO_LOOP and result_of(result) == 0

    def notice(self, seconds: float | None, every: int = 0, most: int = 8) -> None:
        self._notice(-1.0 if seconds is None else seconds, every, most)

    def watch(self, fd: int, ready: Callable[[], object] | None, writes: bool = False) -> None:
        result_of(self._watch(fd, ready, writes))

    def stats(self) -> EngineStats:
        counters = ffi.new("ps_stats *")
        lib.ps_engine_stats(self._engine, counters)
        *plain, causes = (getattr(counters, name) for name in EngineStats._fields)
        return EngineStats._make([*plain, tuple(causes)])


def _tasks() -> tuple[Any, Any]:
    types: list[Any] = []
    result_of(lib.ps_python_tasks(id(types)))
    call, starter = types
    Coroutine.register(call)
    return call, starter


BACKEND: Final = Backend(
    "native",
    frozenset({"c-loop"}),
    NativeEngine,
    NativeSockets(),
    NativeLink,
    NativeInlet,
    NativeOutlet,
    _tasks(),
    drivers,
)
