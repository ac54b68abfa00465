"""The threads in which a blocking client answers its server.

One runs the services, one after the other. Where such a service makes a call of its own client, another thread goes on
with what comes meanwhile: the server may have to ask once more before it can answer.
"""

from __future__ import annotations

import threading
import weakref
from contextvars import copy_context
from queue import SimpleQueue

from pysock.answering.services import ClientServices, answer_of, cancelled, failed
from pysock.base.green import would_block
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import client_log as log
from pysock.base.unique import Unique
from pysock.errors import PysockError, RequestTimeout
from pysock.wire.format import Kind

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.answering.services import Answer
    from pysock.engine.link import Link

_ASK: Final = int(Kind.ASK)


def prepared(services: Any, owner: Any, backend: str) -> ClientServices:
    """What ``services=`` says, for a client that is about to be connected.

    :raises PysockError: gevent or eventlet has patched threads, and no thread could answer.
    """
    made = services if isinstance(services, ClientServices) else ClientServices(services, waits=False)
    if would_block(backend):
        raise PysockError(
            "services= needs a thread that answers, and gevent or eventlet has patched threads: leave threads as they"
            " are (monkey.patch_all(thread=False)), or use backend='pure' where select is patched as well"
        )
    if made.owner() is None:  # else it is one that connects again
        made.owner = weakref.ref(owner)
    return made


class Answerer(Unique):
    """Of one connection. It doesn't keep the client.

    :param most: how many bytes the server takes.
    :param timeout: seconds for the sending of an answer.
    """

    def __init__(self, services: ClientServices, link: Link, most: int, timeout: float | None) -> None:
        self._services = services
        self._link = link
        self._most = most
        self._timeout = timeout
        self._queue: SimpleQueue[int | None] = SimpleQueue()
        #: What waits for its turn: by number, its payload, or ``None`` where nobody wants the answer any more.
        self._waiting: dict[int, bytes | None] = {}
        self._runner = 0  # the thread whose turn it is
        self._start()

    def append(self, kind: int, number: int, payload: bytes) -> None:
        """An ASK or an ASK_CANCEL has come: called by whichever thread reads."""
        if kind == _ASK:
            self._waiting[number] = payload
            self._queue.put(number)
        elif number in self._waiting:
            self._waiting[number] = None

    def relieve(self) -> None:
        """A call is made here: if this is the thread that answers, another does that now."""
        if self._runner == threading.get_ident():
            self._start()

    def end(self) -> None:
        """The connection has ended."""
        self._queue.put(None)

    def _start(self) -> None:
        self._runner = 0
        threading.Thread(target=self._run, name="pysock services", daemon=True).start()

    def _run(self) -> None:
        me = self._runner = threading.get_ident()
        while self._runner == me:
            number = self._queue.get()
            if number is None:
                self._queue.put(None)  # for others, that may have taken over
                return
            payload = self._waiting.pop(number)
            self._send(number, cancelled() if payload is None else self._answer(payload))

    def _answer(self, payload: bytes) -> Answer:
        try:
            handler, _, request = self._services.find(payload)
            return answer_of(copy_context().run(handler, self._services.owner(), request), self._most)
        except BaseException as error:  # also an exit: this thread has no caller
            return failed(error)

    def _send(self, number: int, answer: Answer) -> None:
        kind, code, payload = answer
        try:
            self._link.send(kind, code, number, payload, self._timeout)
        except RequestTimeout:
            log.warning("the server took the answer to its request %d too slowly: it doesn't get it", number)
        except PysockError:
            pass  # the connection has ended; whoever reads tells
