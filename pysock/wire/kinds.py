"""What holds for each kind of frame from a client: when it may come, with which flags, how long it may be. No I/O."""

from __future__ import annotations

from enum import IntEnum

from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.wire import format as p
from pysock.wire import texts
from pysock.wire.features import Feature
from pysock.wire.format import Kind

if TYPE_CHECKING:
    from typing import Final


class Most(IntEnum):
    """How long a frame's payload may be."""

    REQUEST = 0  # the server's max_payload; a longer one is answered, and the connection lives
    CIR = 1  # the server's max_cir_bytes
    PING = 2  # 64 bytes
    NOTHING = 3
    CREDIT = 4  # 4 bytes


class Rule(NamedTuple):
    """What holds for one kind of frame. ``csrc/conn/rules.c`` has the same rows; a test compares them cell by cell."""

    # Why it may not come: before a CIR was accepted, while a PROOF is awaited, and after; empty: it may.
    wrong: tuple[str, str, str] = ("", "", "")
    flags: int = 0  # the bits that have a meaning
    timed_flags: int = 0  # those that have one where both ends speak of deadlines
    stream_flags: int = 0  # and of streams
    needs: int = 0  # the feature without which it is unknown
    version: bool = False  # its code is the version of the protocol
    most: Most = Most.NOTHING
    least: int = 0  # bytes
    too_long: str = ""  # what is said of a longer one, or one that is too short


def _never(text: str) -> Rule:
    return Rule(wrong=(text, text, text))


#: What clients may send. A kind that isn't here is unknown.
RULES: Final[dict[int, Rule]] = {
    Kind.CIR: Rule(
        wrong=("", texts.SECOND_CIR_WAITING, texts.SECOND_CIR),
        version=True,
        most=Most.CIR,
        too_long=texts.LONG_CIR,
    ),
    Kind.PROOF: Rule(wrong=(texts.UNASKED_PROOF, "", texts.UNASKED_PROOF), most=Most.CIR, too_long=texts.LONG_PROOF),
    Kind.SRM: Rule(
        wrong=(texts.SRM_BEFORE_CIR, texts.SRM_BEFORE_CIR, ""),
        flags=p.FLAG_NO_REPLY,
        timed_flags=p.FLAG_DEADLINE,
        stream_flags=p.FLAG_TAKES_STREAM,
        most=Most.REQUEST,
    ),
    Kind.PING: Rule(most=Most.PING, too_long=texts.LONG_PING),
    Kind.BYE: Rule(most=Most.NOTHING, too_long=texts.LONG_BYE),
    Kind.CANCEL: Rule(
        wrong=(texts.UNKNOWN_KIND, texts.UNKNOWN_KIND, ""),
        needs=int(Feature.CANCEL),
        most=Most.NOTHING,
        too_long=texts.LONG_CANCEL,
    ),
    Kind.CREDIT: Rule(
        wrong=(texts.UNKNOWN_KIND, texts.UNKNOWN_KIND, ""),
        needs=int(Feature.STREAM),
        most=Most.CREDIT,
        least=p.CREDIT.size,
        too_long=texts.CREDIT_SIZE,
    ),
    **{kind: _never(texts.SERVER_KIND) for kind in Kind if kind.comes_from_server},
}
UNKNOWN: Final = _never(texts.UNKNOWN_KIND)
