"""What may be said about a hand-over, and what came of one."""

from __future__ import annotations

from pysock.base.lean import NamedTuple


class Options(NamedTuple):
    """How long one side waits for the other, in seconds."""

    step: float = 5.0  # for each answer: whoever is later has failed
    prepare: float = 60.0  # for the new side to be ready to serve
    grace: float = 30.0  # for what is in flight on the old side; then it is answered by an ERROR


class Given(NamedTuple):
    """What came of a hand-over, on the old side."""

    moved: int  # clients that the new side has
    drained: int  # that couldn't move: they speak TLS, or what the program keeps of them can't be written down
    seconds: float  # for which those that moved at once weren't served
