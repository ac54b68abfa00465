"""The store of a service manager: what is put there is given back to the next process of the service.

This file owns the words for it, sd_notify(3), and what comes back, sd_listen_fds(3). Unlike the other words these may
wait: what isn't there when this process ends is lost.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing

from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.errors import HandoverFailed
from pysock.files.passed import KEPT, STATE

if TYPE_CHECKING:
    from typing import Final

#: In one datagram: what the kernel passes at once, SCM_MAX_FD.
_MOST: Final = 253
#: Until the manager has read some of what is under way, in seconds.
_PACE: Final = 0.005


class Store(Unique):
    """That of the service which this process is.

    :param where: as ``$NOTIFY_SOCKET``.
    :param patience: seconds for the manager to take each of what is sent.
    """

    def __init__(self, where: str, patience: float = 5.0) -> None:
        self._where = "\0" + where[1:] if where.startswith("@") else where
        self._patience = patience
        #: Had by who takes out what is there, and by who puts something there.
        self.turn: threading.Lock = threading.Lock()

    def keep(self, name: str, descriptors: Sequence[int]) -> None:
        """Put copies of these there, also of such as have ended meanwhile.

        :raises HandoverFailed: the manager can't be told.
        """
        for at in range(0, len(descriptors), _MOST):
            self._say(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", descriptors[at : at + _MOST])

    def forget(self, names: Iterable[str]) -> None:
        """Take those of these names out. Where the manager can't be told that is an error of the service's.

        :raises HandoverFailed: likewise.
        """
        for name in names:
            self._say(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def settle(self) -> None:
        """Wait until the manager has read all that was said: ``BARRIER=1``.

        :raises HandoverFailed: it hasn't, in its time.
        """
        ours, theirs = os.pipe()
        with closing(os.fdopen(ours, "rb", buffering=0)) as end:
            try:
                self._say("BARRIER=1", [theirs])
            finally:
                os.close(theirs)
            poll = select.poll()
            poll.register(end, 0)  # only its end, when the manager closes its copy
            if not poll.poll(self._patience * 1000):
                raise HandoverFailed(f"the service manager hasn't answered for {self._patience:g} seconds")

    def _say(self, text: str, descriptors: Sequence[int] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        end = monotonic() + self._patience
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(self._patience)
            while True:
                try:
                    sock.sendmsg([text.encode()], rights, 0, self._where)
                    return
                except OSError as error:  # noqa: PERF203  # it is a call of the system
                    if error.errno != errno.ETOOMANYREFS or monotonic() > end:
                        raise HandoverFailed(f"the service manager can't be told to keep anything: {error}") from error
                    time.sleep(_PACE)


def names_of(number: int) -> tuple[str, str]:
    """What a round puts there is called so, and can be taken out alone: clients and listeners; and what is known of
    them, in a file.
    """
    return f"{KEPT}{number}", f"{STATE}{number}"
