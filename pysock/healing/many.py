"""Many requests of one call: which of them have an answer, and which are to be sent again. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from pysock.base.lean import TYPE_CHECKING
from pysock.errors import ConnectionLost, OutcomeUnknown, RemoteError
from pysock.healing.verdict import sort

if TYPE_CHECKING:
    from typing import Any

    from pysock.base import kinds
    from pysock.healing.verdict import Sending


class Many:
    """See the head of this file.

    :param keeps: what a request failed with stands in the place of its answer.
    :ivar places: of those that have none yet.
    """

    __slots__ = ("_keeps", "_payloads", "_results", "places", "sending")

    def __init__(self, payloads: Iterable[kinds.Buffer], sending: Sending, keeps: bool) -> None:
        self._payloads = list(payloads)
        self._results: list[Any] = [None] * len(self._payloads)
        self._keeps = keeps
        self.sending: Sending = sending
        self.places: list[int] = list(range(len(self._payloads)))

    def next(self) -> list[kinds.Buffer]:
        """What is to be sent now."""
        return [self._payloads[at] for at in self.places]

    def answered(self, answers: list[Any], client_id: int) -> float:
        """All of them had an answer; the seconds to wait before those that aren't final are asked for again."""
        again, pause = [], 0.0
        for at, answer in zip(self.places, answers, strict=True):
            self._results[at] = answer
            if isinstance(answer, RemoteError):
                try:
                    pause = max(pause, self.sending.after(answer, client_id))
                    again.append(at)
                except RemoteError:
                    pass  # it is final
            else:
                self.sending.answered()
        self.places = again
        return pause

    def cut_short(self, error: ConnectionLost, client_id: int) -> None:
        """The connection ended in between.

        :raises OutcomeUnknown: one may have been run, and may not be run twice.
        """
        fates = error.fates
        if fates is None:
            fates = [0] * len(self.places)
        elif not fates:
            return
        again, unknown = sort(fates)
        if unknown:
            try:
                self.sending.unknown(fates[unknown[0]], client_id, error)
                again = sorted(again + unknown)
            except OutcomeUnknown:
                if not self._keeps:
                    raise
        for at, fate in enumerate(fates):
            if type(fate) is int:
                fate = self.sending.outcome_unknown(fate, client_id, error)  # noqa: PLW2901  # or it is sent again
            if fate is not False:
                self._results[self.places[at]] = fate
        self.places = [self.places[at] for at in again]

    def all(self) -> list[Any]:
        """The answers.

        :raises RemoteError: the first one that is an error, unless errors are kept.
        """
        if not self._keeps:
            for one in self._results:
                if isinstance(one, RemoteError):
                    raise one
        return self._results
