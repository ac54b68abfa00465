"""What one end may speak and another not, and the bytes of it: the field FEATURES, and an SRM's deadline.

A client says in its CIR what it speaks, the server in its CIR_ACCEPTED what both do. Who doesn't say speaks nothing of
it; bits that one doesn't know are ignored. What needs a bit is sent only where both have it, and breaks the rules
elsewhere, as any unknown kind or flag does.
"""

from __future__ import annotations

import struct
from enum import IntFlag

from pysock.base.lean import TYPE_CHECKING
from pysock.wire import tracing

if TYPE_CHECKING:
    from typing import Final


class Feature(IntFlag):
    """A bit of the field FEATURES."""

    DEADLINE = 1  # an SRM may say how long its client still waits: FLAG_DEADLINE
    CANCEL = 2  # Kind.CANCEL; and the client closes its sending side only when it is gone
    STREAM = 4  # replies in pieces: FLAG_TAKES_STREAM, FLAG_MORE, Kind.CREDIT; only with CANCEL
    ASK = 8  # the client answers requests, too: Kind.ASK, Kind.ASK_CANCEL, Kind.ANSWER, Kind.ANSWER_ERROR
    GAP = 16  # a PUSH may tell of pushes that were dropped: FLAG_GAP
    TRACE = 32  # the client may say of which trace a request is a part: Kind.TRACE


#: What servers of this version speak. A plain number, as every set of features: an enum's operators cost more.
FEATURES: Final = int(sum(Feature))  # all of them
#: What its clients say.
CLIENT_FEATURES: Final = int(Feature.DEADLINE | Feature.CANCEL | Feature.STREAM | Feature.GAP)

#: What those of them say that answer requests.
ANSWERING_FEATURES: Final = CLIENT_FEATURES | int(Feature.ASK)


def agreed(asked: int) -> int:
    """What both ends speak, where a client asks for this."""
    features = asked & FEATURES
    return features if features & Feature.CANCEL else features & ~int(Feature.STREAM)


#: What each frame of a stream takes of its credit, beside the size of its payload.
STREAM_COST: Final = 16

#: What the payload of an SRM begins with that has FLAG_DEADLINE: microseconds. Lengths count without it.
DEADLINE: Final = struct.Struct("!I")

#: The longest that can be said, in seconds.
LONGEST: Final = (2**32 - 1) / 1e6


def encode_deadline(seconds: float) -> bytes:
    """Return how long a client still waits, for the front of a payload.

    Nothing, where that is too long to be said: then the SRM has no deadline, and no flag.
    """
    return DEADLINE.pack(max(0, round(seconds * 1e6))) if seconds <= LONGEST else b""


def decode_deadline(payload: bytes) -> float:
    """Return the seconds that the front of a payload says, of at least 4 bytes."""
    (microseconds,) = DEADLINE.unpack_from(payload)
    return float(microseconds) / 1e6


def client_features(answers: bool) -> int:
    """What a client speaks.

    :param answers: it has services.
    """
    features = ANSWERING_FEATURES if answers else CLIENT_FEATURES
    return features if tracing.inject is None else features | int(Feature.TRACE)
