"""Connections that speak TLS: a handshake comes before the framing's own beginning, and some of what is received may
lie in the session where the socket has nothing more.

``Secured`` is put in front of the connection of a framing, and carries that out; the bytes go through the channel, by
the row of the listener (``transport.py``). What a handshake costs is bounded: it has the deadline of the CIR, waits
among those who aren't let in, and a turn makes one step of one of them, when all who are let in have been served: a
step takes up to a millisecond, and they wait meanwhile.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING
from pysock.base.sigpipe import NO_SIGNAL, no_sigpipe
from pysock.causes import Cause
from pysock.engine.pure.connection import Connection
from pysock.engine.pure.core import READ_MAX
from pysock.engine.pure.ending import spare_others
from pysock.engine.pure.framed import FramedConnection
from pysock.engine.pure.plain import PlainConnection, U32Connection
from pysock.engine.pure.poll import READ, WRITE
from pysock.errors import TLSError
from pysock.states import ConnectionEvent, ConnectionState, DisconnectReason
from pysock.tls.words import NO_TLS
from pysock.wire.format import Framing

if TYPE_CHECKING:
    from typing import Final

    from pysock.tls.info import TLSInfo

#: To somebody who doesn't speak TLS, of whom OpenSSL says nothing: a fatal alert, protocol_version (RFC 8446, 6).
_NO_TLS: Final = bytes((21, 3, 3, 0, 2, 2, 70))
_DRAINING: Final = ConnectionState.DRAINING


class Secured(Connection):
    """See the head of this file."""

    __slots__ = ()

    def start(self) -> None:
        """Wait for the handshake."""
        core = self.core
        core.counts.pending += 1
        core.on_event[self.fd] = self._on_event_handshake
        no_sigpipe(self.sock)
        core.cirs.start_now(self, core.now)
        self._watch(READ)

    def tls(self) -> TLSInfo | None:
        """What came of the handshake."""
        known: TLSInfo | None = self.channel.known
        return known

    # --- the handshake ---

    def _on_event_handshake(self, bits: int) -> None:
        shakes = self.core.shakes
        if not shakes:  # else it is told of again in the next turn, before those who have waited less
            shakes.append(lambda: spare_others(self, lambda: self._shake(bits)))

    def _shake(self, bits: int) -> None:
        """One step."""
        if self.protocol.state is ConnectionState.CLOSED:
            return  # another one needed its place
        try:
            if bits & WRITE:
                self.channel.flush()
            done = bool(bits & ~WRITE) and self.channel.shake()
        except (BlockingIOError, InterruptedError):
            done = False
        except TLSError as error:
            self._turn_away(error)
            return
        except OSError as error:
            self.input_failed(error)
            return
        if done:
            self._secured()
        else:
            self.settle()

    def _turn_away(self, error: TLSError) -> None:
        self.core.counts.refused += 1
        if str(error) == NO_TLS:
            self.core.note(Cause.NO_TLS)
            with suppress(OSError):
                self.sock.send(_NO_TLS, NO_SIGNAL)
        else:
            self.core.causes.note(Cause.TLS, self.core.now, str(error))
        self._linger()

    def _linger(self) -> None:
        """Take what else comes until the client closes, which has the CIR's deadline for it. If this end closed first,
        with something unread, a reset could overtake the alert (RFC 2525, 2.17).
        """
        self.core.on_event[self.fd] = self._on_event_deaf
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.lost(DisconnectReason.PROTOCOL_VIOLATION)

    def _on_event_deaf(self, _bits: int) -> None:
        try:
            more = self.sock.recv(READ_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            more = b""
        if not more:
            self.lost(DisconnectReason.PROTOCOL_VIOLATION)

    def _secured(self) -> None:
        """From now on it is as any other connection."""
        core = self.core
        self.channel.known = self.channel.info()
        if core.limits.idle_timeout is None:
            core.on_event[self.fd] = self.on_event
        else:
            core.on_event[self.fd] = self._on_event_idle
            core.idles.start(self, core.now)
        self.arrive()
        if self.protocol.state < _DRAINING:
            self.on_event(READ)  # what came behind the handshake
            self.settle()

    # --- input ---

    def on_event(self, bits: int) -> None:
        """Something is ready: read, serve, send."""
        super().on_event(bits)  # type: ignore[safe-super]  # the framing has it; and so below
        if self.channel.pending and self.may_read():
            self.core.ready[self] = None

    def go_on(self) -> None:
        """Go on with input that was kept, by the framing or by the session."""
        super().go_on()  # type: ignore[safe-super]
        if self.channel.pending and self.may_read() and not super().has_input():  # type: ignore[safe-super]
            self.on_event(READ)
            self.settle()

    def has_input(self) -> bool:
        """There is input to go on with."""
        return super().has_input() or bool(self.channel.pending)  # type: ignore[safe-super]

    def input_failed(self, error: OSError) -> None:
        """It can't be received."""
        if isinstance(error, TLSError):
            self.core.note(Cause.VIOLATION)
            self.lost(DisconnectReason.PROTOCOL_VIOLATION)
        else:
            super().input_failed(error)

    def end_of_file(self) -> None:
        """Its client sends nothing more; but if it hasn't said so, somebody may have cut it short."""
        if not self.channel.truncated or self.protocol.state >= _DRAINING:
            super().end_of_file()
            return
        self.core.note(Cause.TLS_TRUNCATED)
        framing = self.listener.framing
        if self.is_partial() or not (framing.tells_size or framing.ends_line):
            self.core.note(Cause.VIOLATION)  # what is there may be but a part of what was sent
            self.lost(DisconnectReason.PROTOCOL_VIOLATION)
        else:
            super().end_of_file()

    def last_read(self) -> None:
        """The server stops."""
        if self.channel.known is None:
            self.lost(DisconnectReason.SERVER_STOPPING)
        else:
            super().last_read()  # type: ignore[safe-super]

    # --- output ---

    def put(self, frame: bytes) -> None:
        """Queue something whole, if the other end could read it."""
        if self.channel.known is not None:
            super().put(frame)

    def flush(self) -> None:
        """Send what waits, that of the session first."""
        if self.channel.has_raw and not self.channel.failed:
            try:
                self.channel.flush()
            except OSError as error:
                self._not_sent(error)
                return
        super().flush()

    def settle(self) -> None:
        """Bring what is waited for in line with what has happened."""
        super().settle()
        if self.protocol.state is not ConnectionState.CLOSED and not self.interest & WRITE and self.channel.has_raw:
            self._watch(self.interest | WRITE)

    # --- the end ---

    def end(self, event: ConnectionEvent, reason: DisconnectReason) -> None:
        """Read nothing more; close when all is said."""
        if self.channel.known is None:  # to whoever is in the handshake nothing can be said
            self.lost(reason)
        else:
            super().end(event, reason)

    def _close(self, event: ConnectionEvent) -> None:
        self.channel.goodbye()
        super()._close(event)


class SecuredFramed(Secured, FramedConnection):
    """The framing ``pysock``, over TLS."""

    __slots__ = ()


class SecuredPlain(Secured, PlainConnection):
    """The framings without a CIR, over TLS."""

    __slots__ = ()


class SecuredU32(Secured, U32Connection):
    """The framing ``u32``, over TLS."""

    __slots__ = ()


KINDS: Final[dict[Framing | None, type[Connection]]] = {
    Framing.PYSOCK: SecuredFramed,
    Framing.U32: SecuredU32,
    None: SecuredPlain,
}
