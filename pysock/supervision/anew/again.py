"""SIGUSR2: the supervisor runs anew in its own process, of the code that is there now. Its number stays, so that a
service manager sees nothing; its workers stay, too, and are replaced afterwards, as at SIGHUP.

This file owns how that goes: whether the new code can run at all is tried first, by a child. Then all that the
supervisor has is written down (:mod:`pysock.supervision.anew.written`), its descriptors are kept open, and the process
executes the command by which it was started. Signals that come meanwhile wait.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress

from pysock.base.lean import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Final

log: Final = logging.getLogger(__name__)

#: The variable by which the next one is told where it is written down; and what it is where it is only tried.
_VARIABLE: Final = "_PYSOCK_SUPERVISOR"
_TRIED: Final = "tried"
#: How long the trial may take, in seconds.
_PATIENCE: Final = 20.0


def command() -> list[str]:
    """That by which this process was started."""
    return [sys.executable, *sys.orig_argv[1:]]


def why_not() -> str:
    """Why the command can't be run anew; empty: it can. It takes the time of a start."""
    environ = os.environ | {_VARIABLE: _TRIED}
    try:
        done = subprocess.run(  # noqa: S603  # our own command
            command(), env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"the command can't be run: {error}"
    if not done.returncode:
        return ""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with status {done.returncode}"


def is_trial() -> bool:
    """Whether this process is to end as soon as it is about to serve."""
    return os.environ.get(_VARIABLE) == _TRIED


class Written(NamedTuple):
    """What the next one is told.

    :ivar state: JSON; in it, ``fds`` are the descriptors that are kept.
    :ivar environ: more variables.
    """

    state: dict[str, Any]
    environ: dict[str, str]


def run_anew(written: Written) -> dict[str, Any]:
    """Become the next one. Where that can't be, what it would have been told is returned: this process goes on."""
    try:
        _execute(written)
    except OSError as error:
        log.error("the supervisor can't run anew, and goes on: %s", error)
    os.environ.update(written.environ)
    return written.state


def _execute(written: Written) -> None:
    kept = [*written.state["fds"], _file_of(written.state)]
    for fd in kept:
        os.set_inheritable(fd, True)
    environ = {**os.environ, **written.environ, _VARIABLE: str(kept[-1])}
    try:
        os.execve(sys.executable, command(), environ)  # noqa: S606  # our own command
    finally:
        for fd in kept:
            os.set_inheritable(fd, False)
        os.close(kept[-1])


def _file_of(state: Mapping[str, Any]) -> int:
    data = json.dumps(state).encode()
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("pysock-supervisor", os.MFD_CLOEXEC)
    else:
        fd, path = _file()
        os.unlink(path)
    with open(os.dup(fd), "wb") as file:
        file.write(data)
    return fd


def _file() -> tuple[int, str]:
    import tempfile  # noqa: PLC0415  # on systems without memfd_create(2)

    return tempfile.mkstemp(prefix="pysock-supervisor")


def taken_up() -> dict[str, Any] | None:
    """What the one before has written down; ``None``: there was none."""
    text = os.environ.pop(_VARIABLE, "")
    if not text.isdecimal():
        return None
    with suppress(OSError), open(int(text), "rb") as file:
        file.seek(0)
        state: dict[str, Any] = json.load(file)
        for fd in state["fds"]:
            os.set_inheritable(fd, False)
        return state
    return None


def hold_signals(wanted: Iterable[int]) -> None:
    """They wait, also over the change, for :func:`let_signals`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)


def let_signals(wanted: Iterable[int]) -> None:
    """They come again."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
