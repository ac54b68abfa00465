"""The master sockets' side of the turn: connections are taken from them, and nothing else ever happens on them.

Where accept() fails for want of descriptors or memory the master sockets are left alone for a moment: they would stay
readable, and a level-triggered wait would spin. A descriptor that we free ourselves ends the pause at once. One is kept
in reserve: it is given up so that those who wait can be told that there is none for them.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from pysock.address import join_host_port
from pysock.base.clock import monotonic
from pysock.base.forking import guard
from pysock.base.lean import TYPE_CHECKING
from pysock.base.vanish import notice_vanished, vanishing
from pysock.causes import Cause
from pysock.engine.pure.door.access import Door
from pysock.engine.pure.door.gate import Gate
from pysock.engine.pure.door.kinds import kind_of
from pysock.engine.pure.door.proxied import Header
from pysock.engine.pure.ending import dismiss
from pysock.engine.pure.listener import drop, transport_of
from pysock.engine.pure.moving.masters import MovingMasters
from pysock.engine.pure.poll import READ, SHARED
from pysock.engine.pure.transport import discard_input, no_delay
from pysock.states import DisconnectReason
from pysock.wire.endings import DOOR, End, last_words

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.proxies import Proxies
    from pysock.engine.pure.connection import Connection
    from pysock.engine.pure.core import Core
    from pysock.engine.pure.guest import Events
    from pysock.engine.pure.listener import Listener
    from pysock.engine.pure.transport import Transport

#: Accepts of one master socket a turn; and where other workers accept from it, too.
_ACCEPTS_MAX: Final = 16
_SHARED_ACCEPTS: Final = 4
#: How often a loop with nothing to do puts the master sockets into the poll anew, in seconds: a worker that was stopped
#: may have been woken for a client that still waits, and the kernel wakes no other for it.
_REARM: Final = 1.0
_PAUSE: Final = 0.05
#: A client that has said nothing for so long makes way where the server is full, in seconds.
_CROWD_WAIT: Final = 0.1

#: accept(2), "Error handling": Linux passes pending network errors of the new socket on as an error of accept(). They
#: concern that connection alone, as EPERM does, a firewall's word.
_NEXT: Final = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED", "EINTR", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENONET", "ENOPROTOOPT",
        "EOPNOTSUPP", "EPERM", "EPROTO",
    )
    if hasattr(errno, name)
)  # fmt: skip
_DONE: Final = frozenset((errno.EAGAIN, errno.EWOULDBLOCK))
_NO_DESCRIPTORS: Final = frozenset((errno.EMFILE, errno.ENFILE))

#: What somebody is told who isn't let through the door.
_REFUSALS: Final = {cause: last_words(end, admitted=False) for cause, end in DOOR.items()}


class Masters(MovingMasters):
    """The master sockets of one engine."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._door = Door(core)
        self._fds: list[tuple[int, bool, bool, Transport, Proxies | None]] = []
        self._vanishing = vanishing(core.limits.vanish_timeout, core.limits.output_timeout)
        self._listeners: list[Listener] = []
        self.resume_at: float | None = None  # the end of a pause
        self.frozen: bool = False
        self._reserve = -1
        self._open = False
        self._newcomer: socket.socket | None = None  # accepted last: it may not have a row yet
        seat = core.options.seat
        self._gate = None if seat is None else Gate(seat)
        self._interest, self._most = (READ, _ACCEPTS_MAX) if seat is None else (READ | SHARED, _SHARED_ACCEPTS)
        self._rearmed = 0.0
        self._leave_by = 0.0  # it stops, and until then lets in who has come already
        core.descriptor_freed = self.resume

    def add(
        self, fd: int, checked: bool = False, prepared: bool = False, tls: Any = None, proxies: Proxies | None = None
    ) -> None:
        """Accept from this one, too."""
        os.fstat(fd)
        self._fds.append((fd, checked, prepared, transport_of(tls), proxies))
        self._open_reserve()

    def start(self) -> None:
        """Begin to accept."""
        self._open = True
        for listener in self.listeners():
            self._core.on_event[listener.fd] = lambda bits, one=listener: self._on_event(one, bits)  # type: ignore[misc]
        for listener in self._listeners:
            self._core.poller.change(listener.fd, 0, self._interest)
            listener.interest = self._interest
        self._rearmed = self._core.now
        self._sit(True)

    def stop(self) -> None:
        """Accept no more. Called again it does nothing."""
        self._open = False
        self.resume_at = None
        self._watch(0)
        self._sit(False)
        for listener in self._listeners:
            self._core.on_event.pop(listener.fd, None)
            listener.sock.detach()
        self._listeners = []
        self.close_reserve()

    def abandon(self) -> None:
        """In a forked child: accept no more. The descriptors are the caller's."""
        self._open = False
        if self._gate is not None:
            self._gate.leave()
        self.resume_at = None
        for listener in self._listeners:
            listener.sock.detach()
        self._listeners = []
        if self._newcomer is not None:
            self._newcomer.close()
        self.close_reserve()

    def forget(self) -> None:
        """The descriptors aren't ours any more."""
        self._open, self.resume_at, self._reserve = False, None, -1
        for listener in self._listeners:
            self._core.on_event.pop(listener.fd, None)
            listener.sock.detach()
        self._listeners = []

    def resume_if_due(self) -> None:
        """End a pause that has been long enough."""
        if self.resume_at is not None and self.resume_at <= self._core.now:
            self.resume()

    def resume(self) -> None:
        """End a pause."""
        if self.resume_at is not None:
            self.resume_at = None
            self._open_reserve()
            self._sit(self._open)
            if self._is_over_its_share():
                return
            if not self._watch(self._interest):  # nobody would come in any more: try again
                self.resume_at = self._core.now + _PAUSE

    def _watch(self, interest: int) -> bool:
        """Whether it could be done: somebody may have closed one, or the kernel has no memory."""
        done = True
        for listener in self._listeners:
            if listener.interest != interest and not listener.shut:
                try:
                    self._core.poller.change(listener.fd, listener.interest, interest)
                except OSError:
                    done = False
                else:
                    listener.interest = interest
        return done

    def _on_event(self, listener: Listener, bits: int) -> None:
        self._accept(listener)
        if bits & ~READ and self._open:
            self._shut(listener)

    def _shut(self, listener: Listener) -> None:
        """Who made an inherited socket may shut it down: nobody comes through it any more, and it would count as ready
        for ever.
        """
        self._core.note(Cause.ACCEPT)
        listener.shut = True
        if listener.interest:
            with suppress(OSError):
                self._core.poller.change(listener.fd, listener.interest, 0)
            listener.interest = 0

    def _accept(self, listener: Listener) -> None:
        failed = 0
        for _ in range(self._most):
            if not self._open or self.resume_at is not None:
                return
            try:
                with guard:
                    sock, peer = listener.sock.accept()
                    self._newcomer = sock
            except MemoryError:
                self._pause()
            except OSError as error:
                if error.errno in _DONE:
                    return
                failed += 1
                if error.errno in _NEXT and failed < self._most:
                    continue
                if error.errno in _NO_DESCRIPTORS:
                    if self._core.dead:
                        return  # some are closed at the end of this turn
                    self._refuse_waiting(listener)
                # Or all failed alike: not each connection's own trouble, but a rule that forbids them, say.
                self._pause()
            else:
                self._admit(listener, sock, peer)
                self._leave_next_ones()

    # --- other workers ---

    def around(self, turn: Callable[[Events], None]) -> Callable[[Events], None]:
        """A turn, where other workers have the master sockets, too."""
        return turn if self._gate is None else partial(self._shared_turn, self._gate, turn)

    def _shared_turn(self, gate: Gate, turn: Callable[[Events], None], events: Events) -> None:
        gate.turn(monotonic())
        if not events:
            self._look_again()
        turn(events)
        gate.rest(self._clients())

    def lets_in_first(self, stop_at: float) -> bool:
        """A stop is wanted, and would be over then. Where others accept on, the next ones are theirs, and who has come
        already is let in before all are told goodbye; for half of the grace. Whether there is somebody left.
        """
        now = self._core.now
        if self._gate is None or (self._open and not self._gate.others_accept()):
            return False
        if self._open:
            self.stop()
            self._leave_by = now + (stop_at - now) / 2
        return now < min(stop_at, self.leave_by())

    def leave_by(self) -> float:
        """How long they are waited for; 0: there is none."""
        return self._leave_by if self._core.counts.pending else 0.0

    def _leave_next_ones(self) -> None:
        if self._is_over_its_share():
            self._watch(0)

    def _sit(self, is_open: bool) -> None:
        if self._gate is not None:
            self._gate.open(is_open, self._core.now, self._clients())

    def _clients(self) -> int:
        return self._core.counts.clients + self._core.counts.pending

    def _is_over_its_share(self) -> bool:
        """Whether others are to have the next ones; then it looks again later."""
        core = self._core
        if self._gate is None or not self._open or not self._gate.is_shut(core.now, self._clients()):
            return False
        self.resume_at = core.now + self._gate.pause()
        return True

    def _look_again(self) -> None:
        core = self._core
        if self._open and self.resume_at is None and monotonic() - self._rearmed >= _REARM:
            self._rearmed = monotonic()
            self._watch(0)
            if not self._watch(self._interest):
                self.resume_at = core.now + _PAUSE

    def _pause(self) -> None:
        core = self._core
        core.note(Cause.ACCEPT)
        self.resume_at = core.now + _PAUSE
        self._watch(0)
        self._sit(False)

    # --- the reserve ---

    def _open_reserve(self) -> None:
        if self._reserve < 0:
            with guard, suppress(OSError):
                self._reserve = socket.socket(socket.AF_UNIX).detach()  # any kind of descriptor will do

    def close(self) -> None:
        """Nobody is here any more."""
        self._sit(False)
        self.forget_listeners()
        self.close_reserve()

    def close_reserve(self) -> None:
        """Give it up. Called again it does nothing."""
        with guard, suppress(OSError):  # the number is free, whatever close() says (close(2))
            reserve, self._reserve = self._reserve, -1
            if reserve >= 0 and self._core.are_open():
                os.close(reserve)

    def _refuse_waiting(self, listener: Listener) -> None:
        self.close_reserve()
        with suppress(OSError):  # nobody waits any more; or somebody else has taken the descriptor
            for _ in range(_ACCEPTS_MAX):
                with guard:
                    sock, _peer = listener.sock.accept()
                    self._newcomer = sock
                listener.count_accepted(self._core)
                self._turn_away(sock, listener, Cause.FULL)
        self._open_reserve()

    # --- the door ---

    def _admit(self, listener: Listener, sock: socket.socket, peer: Any) -> None:
        listener.count_accepted(self._core)
        if listener.tcp and not peer:  # macOS: it is gone already
            drop(sock)
            return
        try:
            connection = self._let_through(listener, sock, peer if listener.tcp else None)
        except MemoryError:
            self._turn_away(sock, listener, Cause.NO_MEMORY)
            return
        except OSError:  # it can't be made non-blocking, and the loop must not wait for it
            drop(sock)
            return
        except BaseException:  # out of the callback that was asked
            sock.close()
            raise
        if connection is not None:
            _begin(connection)

    def _let_through(self, listener: Listener, sock: socket.socket, peer: Any) -> Connection | None:
        newcomer, cause = self._door.judge(sock, peer, checked=listener.checked, proxies=listener.proxies)
        if cause is None and not self._make_way():
            cause = Cause.FULL
        if cause is not None:
            self._turn_away(sock, listener, cause)
            return None
        sock.setblocking(False)
        if listener.tcp and not listener.prepared:
            no_delay(sock)
            notice_vanished(sock, self._vanishing)
        make = kind_of(listener)
        connection = make(self._core, sock, listener, join_host_port(*peer[:2]) if listener.tcp else "")
        connection.credentials = newcomer.credentials
        if newcomer.origin is not None:
            self._core.origins.take(newcomer.origin)
            connection.origin = newcomer.origin
        return connection

    def _make_way(self) -> bool:
        """Whether there is room for one more. A crowd of silent clients must not keep the door shut: the one that has
        waited longest goes, where too many wait, and where the server is full and it had time enough to say something.
        """
        core, counts, limits = self._core, self._core.counts, self._core.limits
        if counts.pending >= limits.max_pending_cir:
            self._drop_oldest()
        if counts.clients + counts.pending < limits.max_clients:
            return True
        return core.cirs.age(core.now) >= _CROWD_WAIT and self._drop_oldest()

    def _drop_oldest(self) -> bool:
        oldest = self._core.cirs.first()
        if oldest is None:
            return False
        dismiss(oldest, End.CROWD)
        return True

    def _turn_away(self, sock: socket.socket, listener: Listener, cause: Cause) -> None:
        """No room for it, or no right to come in: say so where the framing or the transport can, and close."""
        self._core.counts.refused += 1
        self._core.note(cause)
        with guard, suppress(OSError, MemoryError), sock:
            if listener.framing.has_texts or listener.transport.kinds:  # TLS has words of its own
                listener.transport.last_words(sock, _REFUSALS[cause])
                discard_input(sock)


def _begin(connection: Connection) -> None:
    try:
        if connection.listener.proxies is None:
            connection.start()
        else:
            Header(connection, connection.listener.proxies.versions).wait()
    except MemoryError:
        connection.no_memory()
    except OSError:  # macOS: no option can be set where the peer is gone already
        connection.lost(DisconnectReason.CLOSED_BY_PEER)
