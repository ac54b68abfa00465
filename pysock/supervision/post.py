"""A worker's place under its supervisor: what it is told, what it asks for, and when it has to go.

This file owns the worker's end of the line, and the thread that hears what comes by it. What the worker's server
listens at is the supervisor's, and lent when all workers that start together have come so far: none serves new code
while another one can't even import it.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from functools import partial

from pysock.address import Address
from pysock.admin.answers import Answers
from pysock.base import forking
from pysock.base.daemons import daemon
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.engine.seats import SEAT_BYTES, Seat, mine
from pysock.errors import HandoverFailed, PysockError
from pysock.handover.give import give
from pysock.handover.options import Options
from pysock.handover.relay import take
from pysock.listening import Lent
from pysock.metrics import Page
from pysock.states import ServerState
from pysock.supervision.hangs import stack_of
from pysock.supervision.inquiry import Answerer
from pysock.supervision.line import Line
from pysock.supervision.member import GOODBYE, PATIENCE
from pysock.supervision.reopening import reopen
from pysock.tls.tickets import given

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from pysock.limits import Limits
    from pysock.server import Server


class Post(Unique):
    """That of this process.

    :param fd: its end of the line, which is this object's from now on.
    :ivar told: what the supervisor has said at the beginning.
    :raises EOFError: there is no supervisor any more.
    """

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self._line = Line(socket.socket(fileno=fd))
        first = self._line.hear()
        if first is None:
            raise EOFError("the supervisor has ended")
        self.told: dict[str, Any]
        self.told, fds = first
        lent = dict(zip(self.told["lends"], fds, strict=True))
        self._metrics: Page | None = Page(lent["page"]) if "page" in lent else None
        self._inquiry: int | None = lent.get("inquiry")
        self._takes: int | None = lent.get("takes")
        self._gives = False
        memory = mmap.mmap(lent["seats"], self.told["rows"] * SEAT_BYTES)
        os.close(lent["seats"])
        self._seat = Seat(memory, self.told["rows"], self.told["row"])
        given.take(self.told.pop("tickets"))
        mine.worker, mine.workers = self.told["worker"], self.told["workers"]
        self._server: Server | None = None
        self._is_lame: bool = self.told["lame"]  # as the supervisor knows it
        self._answer: tuple[dict[str, Any], list[int]] | None = None  # to what was wanted
        self._answered = threading.Event()
        forking.own(self)
        threading.Thread(target=self._obey, name="pysock-worker", daemon=True).start()

    @property
    def number(self) -> int:
        """The worker's."""
        number: int = self.told["worker"]
        return number

    def take(self, server: Server) -> None:
        """Serve in this place. Before its start."""
        self._server = server
        server._running.listening.lender = self._lend
        server._running.listening.seat = self._seat
        if self._metrics is not None:
            server.measure(self._metrics)
        if self._inquiry is not None:
            Answerer(self._inquiry, Answers(server, self.told["slowlog"]).by_service)
        if self._is_lame:
            server.lame()
        server._running.lameness.watch(self._lame)
        server.on_state(self._changed)
        if self._takes is not None:
            take(server, self._takes, options=Options(prepare=self.told["patience"], grace=self.told["grace"]))
            self._say("greets")

    def failed(self, why: str, code: int) -> None:
        """Tell why this process ends, and with which exit code."""
        self._say("failed", why=why, code=code)

    # In the thread that starts the server

    def _lend(self, wanted: Sequence[Address], limits: Limits) -> list[list[Lent]]:
        asked = {name: getattr(limits, name) for name in ("backlog", "vanish_timeout", "output_timeout")}
        self._say("want", addresses=[str(address) for address in wanted], limits=asked)
        self._answered.wait()
        told, fds = self._answer or ({"say": "refused", "why": "it is to end"}, [])
        if told["say"] == "refused":
            raise PysockError(told["why"])
        rest = iter(fds)
        return [[Lent(next(rest), Address.parse(one["at"]), one["prepared"]) for one in each] for each in told["lent"]]

    # In any thread

    def _say(self, what: str, **fields: Any) -> None:
        with suppress(OSError):  # the supervisor is about to go: the other thread hears of it
            self._line.say(what, **fields)

    def _changed(self, _old: ServerState, new: ServerState) -> None:
        server = self._server
        assert server is not None
        if new is ServerState.SERVING:
            most = server.limits.max_clients
            # By its loop, when that accepts: then others may leave the listeners to it.
            server.call_soon(lambda: self._say("serves", backend=server.backend, max_clients=most))
        elif new is ServerState.DRAINING:
            self._say("ends")

    def _lame(self) -> None:
        server = self._server
        assert server is not None
        if not server._running.lameness.ends and server.is_lame != self._is_lame:
            self._is_lame = server.is_lame
            self._say("lame", lame=self._is_lame)

    # In the thread that hears

    def _obey(self) -> None:
        heard = self._line.hear()
        while heard is not None:
            told, fds = heard
            if told["say"] in {"lent", "refused"}:
                self._answer = told, fds
                self._answered.set()
            elif told["say"] == "stop":
                self._stop(told["grace"], told["delay"])
            elif told["say"] == "lame":
                self._be_lame(told["lame"])
            elif told["say"] == "count":
                self._say("counted", requests=self._requests())
            elif told["say"] == "give":
                daemon(partial(self._give, fds[0], Options(prepare=told["prepare"], grace=told["grace"])),
                       "pysock-give").start()  # fmt: skip
            elif told["say"] == "hangs":
                service, stack = stack_of(self._server)
                self._say("stack", service=service, stack=stack)
            elif told["say"] == "reopen":
                reopen()
            elif told["say"] == "workers":
                mine.workers = told["workers"]
            heard = self._line.hear()
        log.warning("the supervisor is gone: this worker drains, and ends")
        self._stop(self.told["grace"], 0.0)
        time.sleep(PATIENCE)
        os._exit(1)  # a handler hasn't returned

    def _requests(self) -> int:
        """Served by this process, whatever its clients had asked before they came."""
        engine = None if self._server is None else self._server._running.engine
        return 0 if engine is None else engine.stats().requests

    def _give(self, fd: int, options: Options) -> None:
        """Hand everybody over to the process at the other end; in a thread."""
        server = self._server
        try:
            if server is None or self._gives:
                os.close(fd)
                return
            self._gives = True
            given = give(server, fd, options=options)
        except (HandoverFailed, OSError) as error:
            self._gives = False
            log.info("no client has moved, this worker serves on: %s", error)
        else:
            log.info("%d clients were handed over, %d are told to connect again", given.moved, given.drained)
            server.stop(GOODBYE)

    def _be_lame(self, lame: bool) -> None:
        self._is_lame = lame
        server = self._server
        if server is not None:
            with suppress(PysockError):  # it is about to end
                server.lame() if lame else server.resume()

    def _stop(self, grace: float, delay: float) -> None:
        self._answered.set()  # who waits for something waits in vain
        server = self._server
        if server is None or server.state is ServerState.NEW:
            os.kill(os.getpid(), signal.SIGTERM)  # in the middle of an import, or of the server's start
        else:
            threading.Thread(target=server.stop, args=(grace,), kwargs={"drain_delay": delay}, daemon=True).start()

    def abandon(self, _why: str) -> None:
        """For :mod:`pysock.base.forking`: this is a forked child, and no worker."""
        self._line.close()
