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
from pysock.causes import Cause
from pysock.limits import STREAM_WINDOW
from pysock.states import ConnectionEvent, ConnectionState, DisconnectReason, next_connection_state
from pysock.wire import format as p
from pysock.wire import texts
from pysock.wire.challenge import decode_proof
from pysock.wire.cir import Cir, decode_cir, encode_accepted
from pysock.wire.endings import ENDINGS, End, last_words
from pysock.wire.features import DEADLINE, Feature, agreed, decode_deadline
from pysock.wire.format import RULES, UNKNOWN, ErrorCode, Frame, Header, Kind, Most, Refusal, Rule
from pysock.wire.framing import FrameCutter, FramingFacts, PlainCutter
from pysock.wire.health import Health
from pysock.wire.tracing import Traced

if TYPE_CHECKING:
    from typing import Final, TypeAlias


class Rules(NamedTuple):
    """What is the same for all connections of a server."""

    max_payload: int
    max_cir_bytes: int
    services: Container[int]  # the numbers of the services there are
    # Where an auth key is set, as in Callbacks of the engine contract.
    challenge: Callable[[bytes, bytes], tuple[bytes, bytes]] | None = None
    prove: Callable[[bytes, bytes], bool] | None = None
    stream_window: int = STREAM_WINDOW  # bytes that a stream may send before its client gives it credit
    health: Health = Health()  # of the engine; alone, as here, it is always well

    def most(self, most: Most) -> int:
        """How many bytes that is."""
        return (self.max_payload, self.max_cir_bytes, p.LARGEST_PING, 0, p.CREDIT.size, self.max_payload)[most]


class Request(NamedTuple):
    """Let the handler answer this SRM."""

    service: int
    request_id: int
    wants_reply: bool
    payload: bytes
    deadline: float = 0.0  # by the clock of ``feed``: then nobody waits for the answer any more; 0: there is none
    takes_stream: bool = False  # its client takes the reply in pieces


class Cancel(NamedTuple):
    """The client doesn't wait for the request with this id any more, if it is in flight still."""

    request_id: int


class Credit(NamedTuple):
    """The client has taken so many bytes of the stream that answers the request with this id, if one does still."""

    request_id: int
    size: int


class Answered(NamedTuple):
    """The client answers what it was asked under this id; code: of an ANSWER_ERROR. If it wasn't, call ``unasked``."""

    request_id: int
    code: int
    payload: bytes


class Initiation(NamedTuple):
    """The CIR is good, and so is its proof where an auth key is set: now call ``accept``, or ``refuse``."""

    cir: Cir


class Answer(NamedTuple):
    """Send this."""

    frame: bytes


class NotServed(NamedTuple):
    """Send this, the ERROR of a request that isn't served; it is empty if no reply was wanted."""

    frame: bytes
    whole: bool  # the request arrived whole
    service: int = 0
    code: ErrorCode = ErrorCode.NO_SUCH_SERVICE


class Ending(NamedTuple):
    """Send this (it may be empty), flush, close."""

    frame: bytes
    reason: DisconnectReason
    cause: Cause | None = None  # where it is somebody's fault


Action: TypeAlias = Request | Cancel | Credit | Traced | Answered | Initiation | Answer | NotServed | Ending

_OPEN = (ConnectionState.ACCEPTED, ConnectionState.CHALLENGED, ConnectionState.ESTABLISHED)


_TIMED = int(Feature.DEADLINE)
_STREAMS = int(Feature.STREAM)
_TELLS = int(Feature.DEADLINE | Feature.CANCEL)


def _error(flags: int, request_id: int, code: ErrorCode, text: str) -> bytes:
    return b"" if flags & p.FLAG_NO_REPLY else p.encode_text(Kind.ERROR, code, text, request_id)


def is_client_hello(header: Header) -> bool:
    """Whether it isn't a header, but how a connection with TLS begins: type 22, version 3, and a ClientHello's 1 behind
    the length (RFC 8446, 5.1 and 4).
    """
    return header.length >> 16 == 0x1603 and header.flags == 1


class FrameProtocol:
    """The server's side of one connection of the framing ``pysock``."""

    __slots__ = (
        "_cir",
        "_rules",
        "began",
        "cutter",
        "expected",
        "features",
        "in_flight",
        "name",
        "read_at",
        "reply_limit",
        "shutting_down",
        "software",
        "state",
        "stream_window",
    )

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.state: ConnectionState = ConnectionState.ACCEPTED
        self.cutter: FrameCutter[NotServed | Ending] = FrameCutter(self._judge)
        self._cir = Cir()
        self.expected: bytes = b""  # the MAC of the PROOF that is awaited
        self.name: str = ""
        self.software: str = ""
        self.reply_limit: int = rules.max_payload  # the largest payload this client takes
        self.shutting_down: bool = False  # SRMs get ERROR 5
        self.features: int = 0  # those that both ends speak
        self.stream_window: int | None = None  # the first credit of a stream, where both speak of them
        #: By their ids, the requests that are in flight and may be cancelled; whoever lets them wait keeps it up.
        self.in_flight: dict[int, object] = {}
        self.read_at: float = 0.0  # when what is looked at was read
        self.began: float = 0.0  # the same of the header of the SRM that is being received, where it has a deadline

    def take(self, event: ConnectionEvent) -> None:
        """Change the state.

        :raises IllegalTransition: if the event is not allowed in this state.
        """
        self.state = next_connection_state(self.state, event)

    def feed(self, data: bytes, at: int = 0, now: float = 0.0) -> None:
        """Take what has arrived, from ``at`` on; then ask ``next`` until it has nothing more.

        :param now: the time, by the clock that deadlines are to be told by.
        """
        self.read_at = now
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
        return encode_accepted(client_id, welcome, self.features, self.stream_window)

    # --- a header ---

    def _judge(self, header: Header) -> NotServed | Ending | None:
        """Judge a frame by its header: ``None`` if its payload is wanted."""
        rule = RULES.get(header.kind, UNKNOWN)
        wrong = rule.wrong[self.state - ConnectionState.ACCEPTED] or self._fault(rule, header)
        length = header.length
        if not wrong and rule.version and header.code != p.PROTOCOL_VERSION:
            # Before the length: another version may well have longer ones.
            return self._dismiss(End.VERSION, texts.BAD_VERSION)
        if header.flags & rule.timed_flags:
            self.began = self.read_at
            length -= DEADLINE.size
        if not wrong and length > self._rules.most(rule.most):
            if rule.most is Most.REQUEST:
                return self._too_large(header, length)
            wrong = rule.too_long
        elif length < rule.least:
            wrong = wrong or rule.too_long
        if wrong and self.state is ConnectionState.ACCEPTED and is_client_hello(header):
            return self._dismiss(End.ONLY_TLS)
        return self._dismiss(End.VIOLATION, wrong, header.request_id) if wrong else None

    def _fault(self, rule: Rule, header: Header) -> str:
        """Why it may not come from this client; empty: it may."""
        if rule.needs & ~self.features:
            return texts.UNKNOWN_KIND
        flags = rule.flags | (rule.timed_flags if self.features & _TIMED else 0)
        if header.flags & ~(flags | (rule.stream_flags if self.features & _STREAMS else 0)):
            return texts.BAD_FLAGS
        short = header.flags & rule.timed_flags and header.length < DEADLINE.size
        return texts.SHORT_DEADLINE if short else ""

    def _too_large(self, header: Header, length: int) -> NotServed:
        """An SRM is never too long to live with; all other frames are."""
        code, text = ErrorCode.PAYLOAD_TOO_LARGE, texts.REQUEST_TOO_LARGE % (length, self._rules.max_payload)
        return NotServed(_error(header.flags, header.request_id, code, text), False, header.code, code)

    # --- a whole frame ---

    def _whole(self, frame: Frame) -> Action:
        return _TAKES[frame.kind](self, frame)

    def _ping(self, frame: Frame) -> Answer:
        self.take(ConnectionEvent.PING)
        return Answer(p.encode(Kind.PONG, frame.payload, code=self._rules.health.code, request_id=frame.request_id))

    def _bye(self, _frame: Frame) -> Ending:
        self.take(ConnectionEvent.BYE)
        return Ending(b"", DisconnectReason.LEFT)

    def _initiation(self, frame: Frame) -> Initiation | Answer | Ending:
        """A connection initiation request."""
        try:
            cir = decode_cir(frame.payload)
        except p.Malformed as error:
            return self._dismiss(
                End.VERSION if error.code == Refusal.BAD_MAGIC_OR_VERSION else End.VIOLATION, str(error)
            )
        self.name, self.software = cir.name, cir.software
        self.features = agreed(cir.features)
        if self.features & _STREAMS:
            most = self._rules.stream_window
            self.stream_window = most if cir.stream_window is None else min(most, cir.stream_window)
        if cir.max_payload is not None:
            self.reply_limit = min(self.reply_limit, cir.max_payload)
        self._cir = cir
        return Initiation(cir) if self._rules.challenge is None else self._challenge(self._rules.challenge, cir)

    def _challenge(self, challenge: Callable[[bytes, bytes], tuple[bytes, bytes]], cir: Cir) -> Answer | Ending:
        if cir.nonce is None:
            return self._dismiss(End.KEY_WANTED)
        fields, self.expected = challenge(cir.nonce, cir.name.encode("utf-8"))
        self.take(ConnectionEvent.CIR_CHALLENGED)
        return Answer(p.encode(Kind.CHALLENGE, fields))

    def _proof(self, frame: Frame) -> Initiation | Ending:
        """The answer to a CHALLENGE."""
        try:
            mac = decode_proof(frame.payload)
        except p.Malformed as error:
            return self._dismiss(End.VIOLATION, str(error))
        assert self._rules.prove is not None
        return Initiation(self._cir) if self._rules.prove(self.expected, mac) else self._dismiss(End.WRONG_PROOF)

    def _cancel(self, frame: Frame) -> Cancel:
        return Cancel(frame.request_id)

    def _credit(self, frame: Frame) -> Credit:
        (size,) = p.CREDIT.unpack(frame.payload)
        return Credit(frame.request_id, size)

    def _answer(self, frame: Frame) -> Answered:
        code = (frame.code or ErrorCode.HANDLER_FAILED) if frame.kind == Kind.ANSWER_ERROR else 0
        return Answered(frame.request_id, int(code), frame.payload)

    def unasked(self, answered: Answered) -> Ending:
        """End it: nothing was asked under this id, or it has been answered already."""
        return self._dismiss(End.VIOLATION, texts.UNASKED_ANSWER, answered.request_id)

    def not_started(self, request_id: int, code: ErrorCode, text: str) -> bytes:
        """Return the ERROR of a request whose handler isn't started."""
        return p.encode(Kind.ERROR, text.encode(), code=code, request_id=request_id, flags=self.not_started_flag)

    @property
    def not_started_flag(self) -> int:
        """The flag of such an ERROR, where the client knows it."""
        return p.FLAG_NOT_STARTED if self.features & _TELLS else 0

    def _srm(self, frame: Frame) -> Request | NotServed | Ending:
        """A service request message."""
        wants_reply = not frame.flags & p.FLAG_NO_REPLY
        if wants_reply and frame.request_id in self.in_flight:
            return self._dismiss(End.VIOLATION, texts.ID_IN_FLIGHT, frame.request_id)
        self.take(ConnectionEvent.SRM)
        if self.shutting_down:
            error = self.not_started(frame.request_id, ErrorCode.SHUTTING_DOWN, texts.SHUTTING_DOWN)
            return NotServed(error if wants_reply else b"", True, frame.code, ErrorCode.SHUTTING_DOWN)
        if frame.code not in self._rules.services:
            error = _error(frame.flags, frame.request_id, ErrorCode.NO_SUCH_SERVICE, texts.NO_SUCH_SERVICE)
            return NotServed(error, True, frame.code)
        payload, deadline = frame.payload, 0.0
        if frame.flags & p.FLAG_DEADLINE:
            deadline = self.began + decode_deadline(payload)
            payload = payload[DEADLINE.size :]
        takes_stream = bool(frame.flags & p.FLAG_TAKES_STREAM)
        return Request(frame.code, frame.request_id, wants_reply, payload, deadline, takes_stream)

    # --- the end ---

    def dismiss(self, end: End, text: str = "", request_id: int = 0) -> bytes:
        """End it in this way; what to send it before. A text, where the table has none."""
        frame = last_words(end, self.state is ConnectionState.ESTABLISHED, text, request_id)
        event = ENDINGS[end].event
        if event is None:  # it is refused, whatever it is that is awaited of it
            challenged = self.state is ConnectionState.CHALLENGED
            event = ConnectionEvent.PROOF_REFUSED if challenged else ConnectionEvent.CIR_REFUSED
        self.take(event)
        return frame

    def _dismiss(self, end: End, text: str = "", request_id: int = 0) -> Ending:
        row = ENDINGS[end]
        return Ending(self.dismiss(end, text, request_id), row.reason, row.cause)


#: What takes a whole frame.
_TAKES: Final[dict[int, Callable[[FrameProtocol, Frame], Action]]] = {
    Kind.CIR: FrameProtocol._initiation,
    Kind.PROOF: FrameProtocol._proof,
    Kind.SRM: FrameProtocol._srm,
    Kind.PING: FrameProtocol._ping,
    Kind.BYE: FrameProtocol._bye,
    Kind.CANCEL: FrameProtocol._cancel,
    Kind.CREDIT: FrameProtocol._credit,
    Kind.TRACE: lambda _protocol, frame: Traced(frame.request_id, frame.payload),
    Kind.ANSWER: FrameProtocol._answer,
    Kind.ANSWER_ERROR: FrameProtocol._answer,
}


class PlainProtocol:
    """The server's side of one connection of the framings without a CIR.

    The kernel's connect is the connection initiation request, so ``accept`` comes with the accept.
    """

    __slots__ = ("_max_payload", "_new_cutter", "cutter", "name", "reply_limit", "state")

    features: int = 0
    software: str = ""
    stream_window: int | None = None

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
