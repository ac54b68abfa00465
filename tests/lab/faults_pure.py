"""The fault table of the pure engine: each call that it makes fails with each of its errnos, and so does memory.

``faulty_pure.py`` has the scripts and the checks, ``seam.py`` the calls that fail.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from lab.experiment import Experiment, Scale
from lab.faults import Torture, inflict

#: Python calls again by itself (PEP 475).
_NEVER = frozenset((errno.EINTR,))


def _torture(script: str, framing: str, transport: str) -> Torture:
    program = os.path.join(os.path.dirname(__file__), "faulty_pure.py")
    return Torture((sys.executable, program, script, framing, transport), never=_NEVER, one_of=3)


def _experiment(script: str, framings: tuple[str, ...], transport: str) -> Callable[[Scale], str]:
    def run(scale: Scale) -> str:
        return inflict([_torture(script, framing, transport) for framing in framings[: scale.of(1, None)]], scale)

    return run


EXPERIMENTS = [
    Experiment(
        f"faults/pure/{transport}/{script}",
        f"each system call and allocation of the {words} fails",
        _experiment(script, framings, transport),
    )
    for transport in ("unix", "tcp")
    for script, words, framings in (
        ("engine", "engine", ("pysock", "u32")),
        ("guest", "engine in a loop of the program's", ("pysock",)),
        ("client", "client's end", ("pysock",)),
    )
]
