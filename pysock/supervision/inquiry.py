"""What a supervisor's admin socket asks its workers, and how they answer: by a line beside the one of their life.

This file owns its form, a length of four bytes and a JSON object in each direction, and both ends of it. A worker
answers in a thread of its own, whatever its loop does; whoever asks waits for all of them at once, and no longer than
he likes: a worker whose process is stopped, say, gives no answer, and is not asked again before it has.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress

from pysock.base import forking
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.errors import PysockError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Final

    from pysock.admin.desk import Answering

_LENGTH: Final = struct.Struct("=I")
#: One that has left a question unanswered for so long isn't waited for again, in seconds.
PATIENCE: Final = 0.8


class Refused(PysockError):
    """A worker says no; with its words."""


class Inquiry(Unique):
    """The supervisor's end of the line to one worker; of one thread at a time.

    :ivar theirs: the worker's end, until it has been passed on.
    :ivar asked: how many questions there were.
    """

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        self._socket = ours
        self.theirs: socket.socket = theirs
        self._socket.setblocking(False)
        self.asked: int = 0
        self._waits: dict[int, float] = {}  # questions without an answer yet, and since when
        self._received = bytearray()

    @classmethod
    def new(cls) -> Inquiry:
        """One of a worker that is to start."""
        return cls(*socket.socketpair())

    @classmethod
    def taken_up(cls, fd: int, asked: int) -> Inquiry:
        """One that was there before; what wasn't heard of its answers is skipped."""
        found = cls(socket.socket(fileno=fd), socket.socket())
        found.theirs.close()
        found.asked = asked
        return found

    def fileno(self) -> int:
        """The number of its descriptor."""
        return self._socket.fileno()

    def ask(self, service: str, fields: Mapping[str, Any]) -> int | None:
        """-> by which number its answer comes; ``None``: it isn't waited for."""
        for _ in self.heard():
            pass  # it comes too late
        if self._waits and monotonic() - min(self._waits.values()) >= PATIENCE:
            return None
        self.asked += 1
        data = json.dumps({"number": self.asked, "service": service, "fields": fields}).encode()
        try:
            if self._socket.send(_LENGTH.pack(len(data)) + data, socket.MSG_NOSIGNAL) != _LENGTH.size + len(data):
                self._socket.close()  # half a question is none
                return None
        except OSError:
            return None
        self._waits[self.asked] = monotonic()
        return self.asked

    def heard(self) -> Iterator[dict[str, Any]]:
        """The answers that are there, whole ones."""
        with suppress(OSError):
            while data := self._socket.recv(256 * 1024):
                self._received += data
        while len(self._received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            answer = json.loads(self._received[_LENGTH.size : end])
            del self._received[:end]
            self._waits.pop(answer["number"], None)
            yield answer

    def passed_on(self) -> None:
        """The worker has its end."""
        self.theirs.close()

    def __del__(self) -> None:  # another thread may be about to ask: so nobody closes it before
        for sock in (getattr(self, "_socket", None), getattr(self, "theirs", None)):
            if sock is not None:  # it was made
                sock.close()


def ask_all(
    service: str, asked: Mapping[int, tuple[Inquiry, Mapping[str, Any]]], patience: float
) -> dict[int, Mapping[str, Any] | Refused | None]:
    """What each says, by its number; ``None``: nothing in time.

    :param asked: whom, and with which fields.
    :param patience: how long to wait for all of them, in seconds.
    """
    until = monotonic() + patience
    found: dict[int, Mapping[str, Any] | Refused | None] = dict.fromkeys(asked)
    poll, waiting = select.poll(), {}
    for number, (inquiry, fields) in asked.items():
        if (question := inquiry.ask(service, fields)) is not None:
            waiting[inquiry.fileno()] = number, question
            poll.register(inquiry, select.POLLIN)
    while waiting and (left := until - monotonic()) > 0:
        for fd, event in poll.poll(left * 1000 + 1):
            number, question = waiting[fd]
            for answer in asked[number][0].heard():
                if answer["number"] == question:
                    found[number] = Refused(answer["refused"]) if "refused" in answer else answer["answer"]
            if found[number] is not None or event & (select.POLLHUP | select.POLLERR):
                poll.unregister(fd)
                del waiting[fd]
    return found


class Answerer(Unique):
    """A worker's end, and the thread that answers there.

    :param fd: the descriptor, which is this object's from now on.
    :param by_service: what answers.
    """

    def __init__(self, fd: int, by_service: Mapping[str, Answering]) -> None:
        self._socket = socket.socket(fileno=fd)
        self._by_service = by_service
        forking.own(self)
        threading.Thread(target=self._run, name="pysock-answers", daemon=True).start()

    def abandon(self, _why: str) -> None:
        """For :mod:`pysock.base.forking`: this is a forked child, and no worker."""
        self._socket.close()

    def _run(self) -> None:
        with self._socket, suppress(OSError, EOFError):  # the supervisor is gone: another thread sees to that
            while True:
                (length,) = _LENGTH.unpack(_exactly(self._socket, _LENGTH.size))
                asked = json.loads(_exactly(self._socket, length))
                data = json.dumps({"number": asked["number"], **self._answer(asked)}).encode()
                self._socket.sendall(_LENGTH.pack(len(data)) + data)

    def _answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        answering = self._by_service.get(asked["service"])
        if answering is None:  # the supervisor runs anew, and is newer
            return {"refused": "this worker is of an older pysock, which doesn't know that"}
        try:
            return {"answer": answering(asked["fields"])}
        except (ValueError, PysockError, OSError) as error:
            return {"refused": str(error) or type(error).__name__}
        except Exception as error:
            log.exception("admin service %r failed", asked["service"])
            return {"refused": f"it failed, and the worker's log says why: {type(error).__name__}"}


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = sock.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise EOFError
    return data
