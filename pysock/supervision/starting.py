"""How a worker starts: its process, the line to it, and what it is told and lent first.

This file owns that beginning. The process is a Python of its own that imports the program itself, so each one is of the
code that is there when it starts; and it has a session of its own, so that Ctrl-C in a terminal is the supervisor's
alone.
"""

from __future__ import annotations

import subprocess
import sys

from pysock.base.lean import TYPE_CHECKING
from pysock.supervision.line import pair
from pysock.supervision.member import Member

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from typing import Any

    from pysock.metrics import Page
    from pysock.supervision.inquiry import Inquiry
    from pysock.supervision.member import Process


def started(command: Sequence[str], fd: int) -> Process:
    """A process of this command, behind the interpreter and before the number of its descriptor.

    :raises OSError: it can't be.
    """
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    whole = [sys.executable, *flags, *command, str(fd)]
    return subprocess.Popen(whole, pass_fds=[fd], stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603  # ours


def new_member(
    command: Sequence[str],
    seats: int,
    page: Page | None,
    inquiry: Inquiry | None,
    takes: socket.socket | None,
    told: dict[str, Any],
) -> Member:
    """A worker.

    :param seats: the descriptor of the page that all share.
    :param page: where its metrics are, if they are wanted; it is the member's from now on.
    :param inquiry: by which it is asked for the admin socket, if there is one; likewise.
    :param takes: by which it takes over from the one before, if it does; it is closed here.
    :param told: ``worker`` is its number, ``row`` that of its row in the page.
    :raises OSError: it can't be started.
    """
    line, theirs = pair()
    try:
        with theirs:
            process = started(command, theirs.fileno())
        fds = {"seats": seats}
        if page is not None:
            fds["page"] = page.fd
        if inquiry is not None:
            fds["inquiry"] = inquiry.theirs.fileno()
        if takes is not None:
            fds["takes"] = takes.fileno()
        line.say("begin", [*fds.values()], lends=[*fds], **told)
    except BaseException:
        line.close()
        raise
    finally:
        if takes is not None:
            takes.close()
    if inquiry is not None:
        inquiry.passed_on()
    return Member(told["worker"], told["row"], process, line, page, inquiry)
