"""How connections end, as a table: who is told what, what is counted, and what becomes of what still waits.

One row for each way in which this end ends a connection by itself; that the other one has gone, or is closed by a
handler, needs no words. ``csrc/base/endings.h`` has the same rows, and a test compares them cell by cell.
"""

from __future__ import annotations

from enum import IntEnum

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.causes import Cause
from pysock.states import ConnectionEvent, DisconnectReason
from pysock.wire import format as p
from pysock.wire import texts
from pysock.wire.format import ErrorCode, Kind, Refusal

if TYPE_CHECKING:
    from typing import Final


class End(IntEnum):
    """A way to end; ``enum ps_end`` in C, a name of a row there."""

    VIOLATION = 0  # a frame breaks the rules; the text says how
    VERSION = 1  # the CIR is of another protocol, or of another version of it
    KEY_WANTED = 2
    WRONG_PROOF = 3
    NOT_LET_IN = 4  # the connect hook says no; the text is its own
    CIR_LATE = 5
    CROWD = 6
    FRAME_LATE = 7
    IDLE = 8
    OUTPUT_STALLED = 9
    OUTPUT_FULL = 10
    NO_MEMORY = 11
    TOO_LARGE = 12  # a request, in a framing that can't say so
    STOPPING = 13
    DOOR_FULL = 14  # these four are turned away before they have a row
    DOOR_PEER = 15
    DOOR_ACCESS = 16
    DOOR_NO_MEMORY = 17
    REPLACED = 18  # another client has come by its name, and names are unique here
    PUSHES_FULL = 19
    ONLY_TLS = 20
    SETTLED = 21  # STOPPING, where all that was accepted is answered: words alone
    DOOR_UNTRUSTED = 22  # only proxies may connect there, and it is none of them; as the four above
    HEADER = 23  # no header of the PROXY protocol, or no good one; the text says why
    ORIGIN = 24  # as DOOR_PEER, of who a proxy says that it is


class How(IntEnum):
    """What becomes of replies that aren't sent yet."""

    FLUSH = 0  # what was accepted is answered, and all of it is sent
    NOW = 1  # what goes without waiting is sent
    CUT = 2  # nothing more is sent


class Said(NamedTuple):
    """Last words; without a text those of whoever ends it."""

    kind: Kind
    code: int = 0
    text: str = ""


class Row(NamedTuple):
    """One ending."""

    reason: DisconnectReason
    how: How = How.FLUSH
    cause: Cause | None = None
    before: Said | None = None  # to one that isn't let in; it counts as refused then
    after: Said | None = None  # to one that is
    event: ConnectionEvent | None = ConnectionEvent.DRAIN  # None: that it is refused, by what is awaited of it
    is_error: bool = False  # counts among the errors


def _refused(code: Refusal, text: str = "") -> Said:
    return Said(Kind.CIR_REFUSED, code, text)


ENDINGS: Final = {
    End.VIOLATION: Row(
        DisconnectReason.PROTOCOL_VIOLATION,
        cause=Cause.VIOLATION,
        before=_refused(Refusal.MALFORMED),
        after=Said(Kind.ERROR, ErrorCode.MALFORMED),
        event=ConnectionEvent.VIOLATION,
        is_error=True,
    ),
    End.VERSION: Row(
        DisconnectReason.PROTOCOL_VIOLATION,
        cause=Cause.VIOLATION,
        before=_refused(Refusal.BAD_MAGIC_OR_VERSION),
        event=ConnectionEvent.VIOLATION,
    ),
    End.KEY_WANTED: Row(
        DisconnectReason.CLOSED_BY_SERVER,
        cause=Cause.PROOF,
        before=_refused(Refusal.WRONG_PROOF, texts.KEY_WANTED),
        event=None,
    ),
    End.WRONG_PROOF: Row(
        DisconnectReason.CLOSED_BY_SERVER,
        cause=Cause.PROOF,
        before=_refused(Refusal.WRONG_PROOF, texts.WRONG_PROOF),
        event=None,
    ),
    End.NOT_LET_IN: Row(DisconnectReason.CLOSED_BY_SERVER, before=_refused(Refusal.NOT_ALLOWED), event=None),
    End.CIR_LATE: Row(
        DisconnectReason.TIMED_OUT,
        How.NOW,
        Cause.LATE,
        before=_refused(Refusal.CIR_TOO_LATE, texts.CIR_TOO_LATE),
        event=None,
    ),
    End.CROWD: Row(
        DisconnectReason.OVER_A_LIMIT,
        How.NOW,
        Cause.CROWD,
        before=_refused(Refusal.CIR_TOO_LATE, texts.CIR_CROWD),
        event=None,
    ),
    End.FRAME_LATE: Row(
        DisconnectReason.TIMED_OUT,
        How.NOW,
        Cause.FRAME_LATE,
        after=Said(Kind.ERROR, ErrorCode.DEADLINE_PASSED, texts.FRAME_TOO_SLOW),
    ),
    End.IDLE: Row(DisconnectReason.TIMED_OUT, How.NOW, Cause.IDLE, after=Said(Kind.GOAWAY, 0, texts.IDLE)),
    End.OUTPUT_STALLED: Row(DisconnectReason.TIMED_OUT, How.CUT, Cause.OUTPUT_STALLED),
    End.OUTPUT_FULL: Row(DisconnectReason.OVER_A_LIMIT, How.CUT, Cause.OUTPUT_FULL),
    End.NO_MEMORY: Row(DisconnectReason.OVER_A_LIMIT, How.CUT, Cause.NO_MEMORY),
    End.TOO_LARGE: Row(DisconnectReason.OVER_A_LIMIT, How.FLUSH, Cause.TOO_LARGE),
    End.STOPPING: Row(
        DisconnectReason.SERVER_STOPPING,
        before=_refused(Refusal.SHUTTING_DOWN, texts.SHUTTING_DOWN),
        after=Said(Kind.GOAWAY, 0, texts.SHUTTING_DOWN),
    ),
    End.DOOR_FULL: Row(
        DisconnectReason.OVER_A_LIMIT,
        How.CUT,
        Cause.FULL,
        before=_refused(Refusal.SERVER_FULL, texts.SERVER_FULL),
    ),
    End.DOOR_PEER: Row(
        DisconnectReason.OVER_A_LIMIT,
        How.CUT,
        Cause.PEER,
        before=_refused(Refusal.SERVER_FULL, texts.PEER_FULL),
    ),
    End.DOOR_ACCESS: Row(
        DisconnectReason.CLOSED_BY_SERVER,
        How.CUT,
        Cause.ACCESS,
        before=_refused(Refusal.NOT_ALLOWED, texts.NOT_ALLOWED),
    ),
    End.DOOR_NO_MEMORY: Row(
        DisconnectReason.OVER_A_LIMIT,
        How.CUT,
        Cause.NO_MEMORY,
        before=_refused(Refusal.SERVER_FULL, texts.SERVER_FULL),
    ),
    End.REPLACED: Row(DisconnectReason.CLOSED_BY_SERVER, after=Said(Kind.GOAWAY, p.GOAWAY_REPLACED, texts.REPLACED)),
    End.PUSHES_FULL: Row(DisconnectReason.OVER_A_LIMIT, How.CUT, Cause.PUSHES_FULL),
    End.ONLY_TLS: Row(
        DisconnectReason.PROTOCOL_VIOLATION,
        cause=Cause.ONLY_TLS,
        before=_refused(Refusal.BAD_MAGIC_OR_VERSION, texts.NO_TLS_HERE),
        event=ConnectionEvent.VIOLATION,
    ),
    End.SETTLED: Row(
        DisconnectReason.SERVER_STOPPING,
        after=Said(Kind.GOAWAY, p.GOAWAY_SETTLED, texts.SHUTTING_DOWN),
    ),
    End.DOOR_UNTRUSTED: Row(
        DisconnectReason.CLOSED_BY_SERVER,
        How.CUT,
        Cause.UNTRUSTED,
        before=_refused(Refusal.NOT_ALLOWED, texts.UNTRUSTED),
    ),
    End.HEADER: Row(
        DisconnectReason.PROTOCOL_VIOLATION,
        cause=Cause.HEADER,
        before=_refused(Refusal.MALFORMED),
        event=ConnectionEvent.VIOLATION,
    ),
    End.ORIGIN: Row(
        DisconnectReason.OVER_A_LIMIT,
        cause=Cause.PEER,
        before=_refused(Refusal.SERVER_FULL, texts.PEER_FULL),
        event=None,
    ),
}

#: Those at the door, by why they are turned away.
DOOR: Final = {
    Cause.FULL: End.DOOR_FULL,
    Cause.PEER: End.DOOR_PEER,
    Cause.ACCESS: End.DOOR_ACCESS,
    Cause.NO_MEMORY: End.DOOR_NO_MEMORY,
    Cause.UNTRUSTED: End.DOOR_UNTRUSTED,
}


def last_words(end: End, admitted: bool, text: str = "", request_id: int = 0) -> bytes:
    """Return the frame that is sent to one that ends in this way; nothing where there is nothing to say.

    :param text: where the row has none.
    :param request_id: of the frame that is to blame, for an ERROR.
    """
    row = ENDINGS[end]
    said = row.after if admitted else row.before
    if said is None:
        return b""
    return p.encode_text(said.kind, said.code, said.text or text, request_id if said.kind is Kind.ERROR else 0)
