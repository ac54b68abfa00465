"""What is counted and logged when a limit is reached or a fault is met: one cause, one counter, one line.

The engines count each cause, and tell of it at most once a second; this file owns the words. The counters appear in
``Server.stats()`` under the names of :data:`COUNTERS`.
"""

from __future__ import annotations

from enum import IntEnum

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.logs import ERROR, INFO, WARNING

if TYPE_CHECKING:
    from typing import Final


class Cause(IntEnum):
    """Why somebody was refused or dropped, or had to wait; ``enum ps_cause`` in C."""

    FULL = 0
    PEER = 1
    CROWD = 2
    LATE = 3
    ACCESS = 4
    PROOF = 5
    VIOLATION = 6
    TOO_LARGE = 7
    FRAME_LATE = 8
    OUTPUT_FULL = 9
    OUTPUT_STALLED = 10
    IDLE = 11
    NO_MEMORY = 12
    ACCEPT = 13
    SEND = 14
    PUSHES_FULL = 15
    PUSH_DROPPED = 16
    TLS = 17
    NO_TLS = 18
    ONLY_TLS = 19
    TLS_TRUNCATED = 20
    HEADER = 21
    UNTRUSTED = 22


class _Words(NamedTuple):
    counter: str
    level: int
    text: str


_WORDS: Final = {
    Cause.FULL: _Words("refused_full", WARNING, "refused: the server is full (Limits.max_clients)"),
    Cause.PEER: _Words(
        "refused_peer",
        WARNING,
        "refused: too many clients of one user or address (Limits.max_clients_per_uid, max_clients_per_ip)",
    ),
    Cause.CROWD: _Words(
        "refused_crowd", WARNING, "refused: too many others wait for their CIR (Limits.max_pending_cir)"
    ),
    Cause.LATE: _Words(
        "refused_late", WARNING, "refused: the CIR, or a proxy's header, came too late (Limits.cir_timeout)"
    ),
    Cause.ACCESS: _Words(
        "refused_access",
        WARNING,
        "refused: the peer isn't allowed (allow=), or its user isn't mapped into this user namespace",
    ),
    Cause.PROOF: _Words("refused_proof", WARNING, "refused: no proof, or a wrong one, of the auth key"),
    Cause.VIOLATION: _Words("violations", WARNING, "dropped: the protocol was violated"),
    Cause.TOO_LARGE: _Words("too_large", WARNING, "a request was too large (Limits.max_payload)"),
    Cause.FRAME_LATE: _Words(
        "frames_late", WARNING, "dropped: the rest of a frame came too late (Limits.frame_timeout)"
    ),
    Cause.OUTPUT_FULL: _Words("outputs_full", WARNING, "dropped: too many unread replies (Limits.output_drop)"),
    Cause.OUTPUT_STALLED: _Words(
        "outputs_stalled", WARNING, "dropped: its replies weren't read for too long (Limits.output_timeout)"
    ),
    Cause.IDLE: _Words("idle", INFO, "dropped: nothing came for too long (Limits.idle_timeout)"),
    Cause.NO_MEMORY: _Words("no_memory", ERROR, "dropped: the system had no memory for it"),
    Cause.ACCEPT: _Words(
        "accept_failures",
        WARNING,
        "accept() failed: there are no descriptors or no memory, or somebody has shut the socket down; it pauses",
    ),
    Cause.SEND: _Words(
        "send_failures", WARNING, "send() failed: the system has no memory for it (ENOBUFS); it is tried again"
    ),
    Cause.PUSHES_FULL: _Words(
        "pushes_full", WARNING, "dropped: too many unread pushes (Limits.push_soft, push_soft_seconds, push_hard)"
    ),
    Cause.PUSH_DROPPED: _Words(
        "pushes_dropped", WARNING, "a push was dropped, for too many wait for its client (slow=, Limits.push_hard)"
    ),
    Cause.TLS: _Words("tls_failures", WARNING, "refused: the TLS handshake failed"),
    Cause.NO_TLS: _Words(
        "refused_no_tls", WARNING, "refused: a client without TLS at a tls:// address; let it connect to tls://"
    ),
    Cause.ONLY_TLS: _Words(
        "refused_only_tls",
        WARNING,
        "refused: a client with TLS at an address without; let it connect to tcp://, or serve tls:// there",
    ),
    Cause.TLS_TRUNCATED: _Words(
        "tls_truncated",
        INFO,
        "a TLS connection ended without its client's word (close_notify): it may have been cut on the way",
    ),
    Cause.HEADER: _Words(
        "refused_header", WARNING, "refused: no header of the PROXY protocol came first, or a broken one (?proxy=)"
    ),
    Cause.UNTRUSTED: _Words(
        "refused_untrusted", WARNING, "refused: only trusted proxies may connect there, and it is none (?trust=)"
    ),
}

#: The names of the counters, in the order of the causes.
COUNTERS: Final = tuple(_WORDS[cause].counter for cause in Cause)


def level_and_line(cause: int, times: int, detail: str = "") -> tuple[int, str]:
    """Return the log record for a cause that was met so many times since it was last logged.

    :param detail: what is known of the last of them.
    """
    _, level, text = _WORDS[Cause(cause)]
    text = f"{text}: {detail}" if detail else text
    return level, f"{text}; {times} times" if times > 1 else text
