"""One round of the nodes: who is tried next, for how long, and whether the one that let the client in is kept. No I/O:
whoever drives it says what happened.
"""

from __future__ import annotations

import socket
from enum import Enum

from pysock.balance.policy import COMPARED_WITHIN, tries_the_next
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import ConnectionRefused
from pysock.healing.policy import is_passing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pysock.balance.targets import Target
    from pysock.wire.nodes import NodeRow


class Verdict(Enum):
    """What becomes of a connection that came about."""

    TAKE = 1  # it is the one
    HOLD = 2  # another one is tried, and they are compared
    DROP = 3  # the one that was held is the one


class Round(Unique):
    """See the head of this file.

    :param targets: in the order in which they are tried.
    :param comparable: of so many at the beginning, the first two that are tried are compared.
    """

    def __init__(self, targets: Sequence[Target], comparable: int = 0) -> None:
        self._targets = targets
        self._comparable = comparable
        self._at = 0
        self._held: NodeRow | None = None
        self._is_over = False
        self._errors: list[tuple[Target, Exception]] = []

    @property
    def compares(self) -> bool:
        """Whether it matters how many clients the node has that was given last."""
        return self._held is not None or self._at < self._comparable

    def next(self) -> Target | None:
        """The next one to be tried; ``None``: there is none, or what is held is good enough."""
        while self._at < len(self._targets) and not self._is_over:
            if self._held is not None:
                if self._at >= self._comparable:
                    break
                self._is_over = True
            target = self._targets[self._at]
            self._at += 1
            if target.error is None:
                return target
            self._errors.append((target, target.error))
        return None

    def share(self, left: float | None) -> float | None:
        """Of the seconds that are left, those for the one that was given last: a silent one leaves some to the others.

        :param left: ``None``: there is no limit.
        """
        if self._held is not None:
            return COMPARED_WITHIN if left is None else min(left, COMPARED_WITHIN)
        return None if left is None else left / (len(self._targets) - self._at + 1)

    def failed(self, target: Target, error: Exception) -> bool:
        """It came to nothing; whether the next one may be tried."""
        self._errors.append((target, error))
        return self._held is not None or tries_the_next(error)

    def came(self, row: NodeRow | None) -> Verdict:
        """The one that was given last has let the client in.

        :param row: what it says of itself; ``None``: nothing.
        """
        if self._held is not None:
            return Verdict.TAKE if row is not None and _burden(row) < _burden(self._held) else Verdict.DROP
        if row is None or row.clients is None or self._at >= self._comparable:
            return Verdict.TAKE
        self._held = row
        return Verdict.HOLD

    def error(self) -> Exception:
        """What to raise where nobody has let the client in: of several nodes, with the reason of each."""
        errors = [error for _, error in self._errors]
        if len(errors) == 1:
            return errors[0]
        told = [f"({at}) {_reason(target, error)}" for at, (target, error) in enumerate(self._errors, 1)]
        passing = [error for error in errors if is_passing(error)]
        text = f"none of {len(errors)} addresses lets this client in: start one of them, or correct them:"
        return _alike((passing or errors)[-1], " ".join((text, *told)))


def _burden(row: NodeRow) -> tuple[int, float]:
    return row.state, float("inf") if row.clients is None else row.clients


def _reason(target: Target, error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return text if text.startswith(str(target.address)) else f"{target.address}: {text}"


def _alike(error: Exception, text: str) -> Exception:
    """An exception of the same kind, with another text."""
    made: Exception
    if isinstance(error, ConnectionRefused):
        made = type(error)(text, error.code)
    elif isinstance(error, socket.gaierror):
        made = socket.gaierror(error.errno, text)
    elif isinstance(error, OSError) and error.errno is not None:
        made = OSError(error.errno, text)
    else:
        made = type(error)(text)
    made.__cause__ = error
    return made
