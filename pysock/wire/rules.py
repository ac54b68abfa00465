"""The connection protocol: what a CIR, an SRM and everything else do to one connection. No I/O.

Bytes and events go in, actions come out. This file owns the judgement: which frames are allowed in which state, which
words answer one that isn't, and which state follows. Who runs it (the pure engine) owns the socket and the handlers,
and carries the actions out in the order in which they come. The C engine is tested against it.

Three rules about time:

1. A header is judged as soon as its 12 bytes are there, before any payload.
2. An action is asked for one at a time, since carrying it out may change how the next frame is judged: an SRM that
   arrives in one piece with the CIR is judged after the CIR was.
3. After an :class:`Ending` nothing more is read.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.engine.causes import Cause
from pysock.states import ConnectionEvent, ConnectionState, DisconnectReason, next_connection_state
from pysock.wire import format as p
from pysock.wire.format import ErrorCode, Frame, Header, Kind, Refusal
from pysock.wire.framing import FrameCutter, FramingFacts, PlainCutter

if TYPE_CHECKING:
    from typing import TypeAlias


class Rules(NamedTuple):
    """What is the same for all connections of a server."""

    max_payload: int
    max_cir_bytes: int
    services: Container[int]  # the numbers of the services there are
    # Where an auth key is set, as in Callbacks of the engine contract.
    challenge: Callable[[bytes, bytes], tuple[bytes, bytes]] | None = None
    prove: Callable[[bytes, bytes], bool] | None = None


class Request(NamedTuple):
    """Let the handler answer this SRM."""

    service: int
    request_id: int
    wants_reply: bool
    payload: bytes


class Initiation(NamedTuple):
    """The CIR is good, and so is its proof where an auth key is set: now call ``accept``, or ``refuse``."""

    cir: p.Cir


class Answer(NamedTuple):
    """Send this."""

    frame: bytes


class NotServed(NamedTuple):
    """Send this, the ERROR of a request that isn't served; it is empty if no reply was wanted."""

    frame: bytes
    whole: bool  # the request arrived whole


class Ending(NamedTuple):
    """Send this (it may be empty), flush, close."""

    frame: bytes
    reason: DisconnectReason
    cause: Cause | None = None  # where it is somebody's fault


Action: TypeAlias = Request | Initiation | Answer | NotServed | Ending

_SERVER_BIT = 0x80
_OPEN = (ConnectionState.ACCEPTED, ConnectionState.CHALLENGED, ConnectionState.ESTABLISHED)
_WRONG_CIR = {
    ConnectionState.CHALLENGED: p.TEXT_SECOND_CIR_WAITING,
    ConnectionState.ESTABLISHED: p.TEXT_SECOND_CIR,
}
#: What has a limit of its own before a client is let in.
_LONG = {int(Kind.CIR): p.TEXT_LONG_CIR, int(Kind.PROOF): p.TEXT_LONG_PROOF}


def _error(flags: int, request_id: int, code: ErrorCode, text: str) -> bytes:
    return b"" if flags & p.FLAG_NO_REPLY else p.encode_text(Kind.ERROR, code, text, request_id)


class FrameProtocol:
    """The server's side of one connection of the framing ``pysock``."""

    __slots__ = ("_cir", "_expected", "_rules", "cutter", "name", "reply_limit", "shutting_down", "state")

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.state: ConnectionState = ConnectionState.ACCEPTED
        self.cutter: FrameCutter[NotServed | Ending] = FrameCutter(self._judge)
        self._cir = p.Cir()
        self._expected = b""  # the MAC of the PROOF that is awaited
        self.name: str = ""
        self.reply_limit: int = rules.max_payload  # the largest payload this client takes
        self.shutting_down: bool = False  # SRMs get ERROR 5

    def take(self, event: ConnectionEvent) -> None:
        """Change the state.

        :raises IllegalTransition: if the event is not allowed in this state.
        """
        self.state = next_connection_state(self.state, event)

    def feed(self, data: bytes, at: int = 0) -> None:
        """Take what has arrived, from ``at`` on; then ask ``next`` until it has nothing more."""
        self.cutter.feed(data, at)

    def next(self) -> Action | None:
        """What to do next, or ``None`` if more bytes must come first or the connection is ending."""
        if self.state not in _OPEN:
            return None
        found = self.cutter.next()
        return self._whole(found) if isinstance(found, Frame) else found

    def accept(self, client_id: int, welcome: bytes) -> bytes:
        """Let the client in; what to send it."""
        challenged = self.state is ConnectionState.CHALLENGED
        self.take(ConnectionEvent.PROOF_ACCEPTED if challenged else ConnectionEvent.CIR_ACCEPTED)
        return p.encode_accepted(client_id, welcome)

    def refuse(self, code: int, text: str) -> bytes:
        """Don't let the client in, whatever it is that is awaited of it; what to send it before the end."""
        challenged = self.state is ConnectionState.CHALLENGED
        self.take(ConnectionEvent.PROOF_REFUSED if challenged else ConnectionEvent.CIR_REFUSED)
        return p.encode_text(Kind.CIR_REFUSED, code, text)

    # --- a header ---

    def _judge(self, header: Header) -> NotServed | Ending | None:
        """Judge a frame by its header: ``None`` if its payload is wanted."""
        wrong = self._wrong_kind(header.kind) or self._wrong_flags(header)
        if wrong is None and header.kind == Kind.CIR and header.code != p.PROTOCOL_VERSION:
            # Before the length: another version may well have longer CIRs.
            return self._violation(p.TEXT_BAD_VERSION, refusal=Refusal.BAD_MAGIC_OR_VERSION)
        wrong = wrong or self._wrong_length(header)
        if wrong is not None:
            return self._violation(wrong, header.request_id)
        if header.kind == Kind.SRM and header.length > self._rules.max_payload:
            text = p.TEXT_REQUEST_TOO_LARGE % (header.length, self._rules.max_payload)
            return NotServed(_error(header.flags, header.request_id, ErrorCode.PAYLOAD_TOO_LARGE, text), whole=False)
        return None

    def _wrong_kind(self, kind: int) -> str | None:
        """Why a frame of this kind may not come in this state; ``None`` if it may."""
        if kind in {Kind.PING, Kind.BYE}:
            return None
        if kind == Kind.SRM:
            return None if self.state is ConnectionState.ESTABLISHED else p.TEXT_SRM_BEFORE_CIR
        if kind == Kind.CIR:
            return _WRONG_CIR.get(self.state)
        if kind == Kind.PROOF:
            return None if self.state is ConnectionState.CHALLENGED else p.TEXT_UNASKED_PROOF
        return p.TEXT_SERVER_KIND if _SERVER_BIT < kind <= Kind.CHALLENGE else p.TEXT_UNKNOWN_KIND

    @staticmethod
    def _wrong_flags(header: Header) -> str | None:
        allowed = p.FLAG_NO_REPLY if header.kind == Kind.SRM else 0
        return p.TEXT_BAD_FLAGS if header.flags & ~allowed else None

    def _wrong_length(self, header: Header) -> str | None:
        """An SRM is never too long to live with; the others are."""
        kind, length = header.kind, header.length
        if kind == Kind.PING and length > p.LARGEST_PING:
            return p.TEXT_LONG_PING
        if kind == Kind.BYE and length:
            return p.TEXT_LONG_BYE
        if kind in _LONG and length > self._rules.max_cir_bytes:
            return _LONG[kind]
        return None

    # --- a whole frame ---

    def _whole(self, frame: Frame) -> Action:
        if frame.kind == Kind.SRM:
            return self._srm(frame)
        if frame.kind == Kind.PING:
            self.take(ConnectionEvent.PING)
            return Answer(p.encode(Kind.PONG, frame.payload, request_id=frame.request_id))
        if frame.kind == Kind.BYE:
            self.take(ConnectionEvent.BYE)
            return Ending(b"", DisconnectReason.LEFT)
        if frame.kind == Kind.PROOF:
            return self._proof(frame)
        assert frame.kind == Kind.CIR
        return self._initiation(frame)

    def _initiation(self, frame: Frame) -> Initiation | Answer | Ending:
        """A connection initiation request."""
        try:
            cir = p.decode_cir(frame.payload)
        except p.Malformed as error:
            return self._violation(str(error), refusal=error.code)
        self.name = cir.name
        if cir.max_payload is not None:
            self.reply_limit = min(self.reply_limit, cir.max_payload)
        self._cir = cir
        return Initiation(cir) if self._rules.challenge is None else self._challenge(self._rules.challenge, cir)

    def _challenge(self, challenge: Callable[[bytes, bytes], tuple[bytes, bytes]], cir: p.Cir) -> Answer | Ending:
        if cir.nonce is None:
            return self._unproven(p.TEXT_KEY_WANTED)
        fields, self._expected = challenge(cir.nonce, cir.name.encode("utf-8"))
        self.take(ConnectionEvent.CIR_CHALLENGED)
        return Answer(p.encode(Kind.CHALLENGE, fields))

    def _proof(self, frame: Frame) -> Initiation | Ending:
        """The answer to a CHALLENGE."""
        try:
            mac = p.decode_proof(frame.payload)
        except p.Malformed as error:
            return self._violation(str(error))
        assert self._rules.prove is not None
        return Initiation(self._cir) if self._rules.prove(self._expected, mac) else self._unproven(p.TEXT_WRONG_PROOF)

    def _unproven(self, text: str) -> Ending:
        return Ending(self.refuse(Refusal.WRONG_PROOF, text), DisconnectReason.CLOSED_BY_SERVER, Cause.PROOF)

    def _srm(self, frame: Frame) -> Request | NotServed:
        """A service request message."""
        self.take(ConnectionEvent.SRM)
        if self.shutting_down:
            error = _error(frame.flags, frame.request_id, ErrorCode.SHUTTING_DOWN, p.TEXT_SHUTTING_DOWN)
            return NotServed(error, whole=True)
        if frame.code not in self._rules.services:
            error = _error(frame.flags, frame.request_id, ErrorCode.NO_SUCH_SERVICE, p.TEXT_NO_SUCH_SERVICE)
            return NotServed(error, whole=True)
        return Request(frame.code, frame.request_id, not frame.flags & p.FLAG_NO_REPLY, frame.payload)

    # --- what can't be done ---

    def _violation(self, text: str, request_id: int = 0, refusal: int = Refusal.MALFORMED) -> Ending:
        """A frame that breaks the rules: the reason in words, then the end."""
        if self.state is ConnectionState.ESTABLISHED:
            frame = p.encode_text(Kind.ERROR, ErrorCode.MALFORMED, text, request_id)
        else:
            frame = p.encode_text(Kind.CIR_REFUSED, refusal, text)
        self.take(ConnectionEvent.VIOLATION)
        return Ending(frame, DisconnectReason.PROTOCOL_VIOLATION, Cause.VIOLATION)


class PlainProtocol:
    """The server's side of one connection of the framings without a CIR.

    The kernel's connect is the connection initiation request, so ``accept`` comes with the accept.
    """

    __slots__ = ("_max_payload", "_new_cutter", "cutter", "name", "reply_limit", "state")

    def __init__(self, framing: FramingFacts, max_payload: int) -> None:
        assert framing.cutter is not None
        self._new_cutter = framing.cutter
        self._max_payload = max_payload
        self.state: ConnectionState = ConnectionState.ACCEPTED
        self.cutter: PlainCutter = framing.cutter(max_payload)
        self.name: str = ""
        self.reply_limit: int = max_payload

    def take(self, event: ConnectionEvent) -> None:
        """Change the state.

        :raises IllegalTransition: if the event is not allowed in this state.
        """
        self.state = next_connection_state(self.state, event)

    def accept(self) -> None:
        """Let the client in."""
        self.take(ConnectionEvent.CIR_ACCEPTED)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what has arrived; the requests that are whole now. Then ``cutter.too_large`` asks for an end."""
        return self.cutter.feed(data) if self.state is ConnectionState.ESTABLISHED else []

    def forget(self) -> None:
        """Forget a request that has been begun."""
        self.cutter = self._new_cutter(self._max_payload)
