"""What becomes of a request that had no answer: it is sent again, or its caller is told. No I/O.

What the server certainly didn't run is sent again as often as there is time. What it may have run is sent again only
where it may be run twice, a few times, and as long as the bucket has tokens. All else is :class:`OutcomeUnknown`.
"""

from __future__ import annotations

import random
import time

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ConnectionLost, OutcomeUnknown, RemoteError
from pysock.healing.policy import AGAIN_MAX
from pysock.wire.format import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from pysock.healing.policy import Bucket

#: Seconds: the first wait of a request that the server had no room for, at most. It doubles.
_ROOM: Final = 0.01

#: Of a server that goes: it hasn't run it, and won't.
_GOING: Final = frozenset((ErrorCode.SHUTTING_DOWN, ErrorCode.CANCELLED))


def says_goodbye(error: BaseException) -> bool:
    """Whether an answer says that the server goes, and hasn't run the request."""
    if not isinstance(error, RemoteError) or error.code not in _GOING:
        return False
    return error.code == ErrorCode.SHUTTING_DOWN or error.started is False


class Sending:
    """One request, or one call of many, from its first sending to its end.

    :param idempotent: it may be run twice.
    :param began: when its caller asked for it, by the monotonic clock; ``None``: now.
    """

    __slots__ = ("_bucket", "_repeats", "_uniform", "idempotent", "sent_at")

    def __init__(
        self,
        bucket: Bucket,
        idempotent: bool,
        began: float | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.idempotent: bool = idempotent
        self.sent_at: float = time.time() - (0.0 if began is None else monotonic() - began)
        self._bucket = bucket
        self._uniform = uniform
        self._repeats = 0

    def after(self, error: ConnectionLost | RemoteError, client_id: int) -> float:
        """What came instead of the answer to one request; the seconds to wait before it is sent again.

        :raises RemoteError: it is the answer.
        :raises OutcomeUnknown: nobody knows.
        """
        if isinstance(error, RemoteError):
            return self._after_error(error)
        fates = error.fates
        if fates is not None and (not fates or fates[0] is False):
            return 0.0
        self.unknown(0 if fates is None else fates[0], client_id, error)
        return 0.0

    def _after_error(self, error: RemoteError) -> float:
        if says_goodbye(error):
            return 0.0
        if error.code == ErrorCode.OVERLOADED and error.started is False and self._may_repeat():
            return self._uniform(0.0, _ROOM * 2.0**self._repeats)
        raise error

    def answered(self) -> None:
        """A request had its answer."""
        self._bucket.answered()

    def unknown(self, request_id: int, client_id: int, error: ConnectionLost) -> None:
        """The server may have run it.

        :raises OutcomeUnknown: it may not be run twice, or has been sent often enough.
        """
        if not self.idempotent or not self._may_repeat():
            raise self.outcome_unknown(request_id, client_id, error) from error

    def outcome_unknown(self, request_id: int, client_id: int, error: ConnectionLost) -> OutcomeUnknown:
        """What its caller is told."""
        advice = "" if self.idempotent else "; where it may be run twice, idempotent=True has it sent again"
        unknown = OutcomeUnknown(f"nobody knows whether the server has run it: {error}{advice}")
        unknown.request_id, unknown.client_id, unknown.sent_at = request_id, client_id, self.sent_at
        return unknown

    def _may_repeat(self) -> bool:
        if self._repeats >= AGAIN_MAX or not self._bucket.take():
            return False
        self._repeats += 1
        return True


def sort(fates: list[Any]) -> tuple[list[int], list[int]]:
    """Of a call of many that was cut short: the places of those that weren't sent, and of those that may have run."""
    unsent = [at for at, fate in enumerate(fates) if fate is False]
    return unsent, [at for at, fate in enumerate(fates) if type(fate) is int]
