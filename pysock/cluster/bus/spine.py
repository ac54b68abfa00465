"""What all drivers of a bus have in common: who hears what, who waits for an answer, the probe, the state.

A driver is a :class:`Spine` with a thread, in which it does its I/O and calls :meth:`Spine.turn`. Other threads only
put tasks into the outbox, and look at the state. So nothing here but the outbox needs a lock.

    LOST  --linked()-->  a probe is on its way  --it comes back-->  CONNECTED  --unlinked()-->  LOST

What is subscribed is known to the bus by the time that the first probe is back. Nothing that was published before a
loss is sent after it.
"""

from __future__ import annotations

import secrets
import signal
import threading
from collections.abc import Callable

from pysock.base.clock import monotonic
from pysock.base.daemons import explained_without_daemons
from pysock.base.forking import own
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.cluster.bus.contract import BusState, Heard, Outcome
from pysock.cluster.bus.outbox import Outbox
from pysock.cluster.bus.prober import Due, Prober
from pysock.cluster.bus.routes import Routes, Subscribed
from pysock.cluster.bus.subjects import encoded
from pysock.cluster.bus.waiting import Waiting
from pysock.errors import BusDown, FrameTooLarge, PysockError

if TYPE_CHECKING:
    from typing import Any

    from pysock.cluster.bus.contract import BusReport, Ends, Hears
    from pysock.cluster.bus.routes import Route


class Spine(Unique):
    """One node's end of a bus, without the I/O. See :class:`pysock.cluster.bus.contract.Bus`.

    :param where: the bus, as errors call it; no secrets in it.
    :param node: the name of this node, for whoever looks at the bus.
    :param prefix: what the subjects of this bus's own begin with.
    """

    kind = ""
    _instead = "make a new bus there"

    def __init__(
        self, where: str, node: str, prefix: str, max_payload: int, clock: Callable[[], float] = monotonic
    ) -> None:
        self.where = where
        self.node = node
        self.prefix = prefix
        self.state: BusState = BusState.LOST
        self.max_payload: int = max_payload
        self.dropped: int = 0
        self.round_trip: float = 0.0
        self.clock = clock
        #: By it others tell this end from all that were and will be.
        self.token: str = secrets.token_hex(8)
        self.why: str = "it isn't connected yet"  # where the state is LOST
        self.is_refused: bool = False  # an attempt has failed as the next one would, as far as can be told
        self.has_failed: bool = False
        self.is_guest: bool = False  # what others need is for others to run
        self.software: str = ""  # of what runs there
        self.is_closing: bool = False
        self.waiting: Waiting = Waiting(clock)
        self.prober: Prober = Prober()
        self.outbox: Outbox = Outbox(self.wake)
        self._routes = Routes()
        self._thread: threading.Thread | None = None
        self._changed: Callable[[BusState], None] = _nobody
        self._is_linked = False
        self._asked_at: float | None = None  # by a probe that isn't back yet
        self._refusal = ""  # the last one that was logged
        self._own_subject = encoded(f"{prefix}._i.{self.token}")
        self.subscribe(self._own_subject.decode(), self._probed)
        own(self)

    # Any thread

    def start(self, changed: Callable[[BusState], None]) -> None:
        """See :class:`pysock.cluster.bus.contract.Bus`."""
        if self._thread is not None or self.is_closing:
            raise PysockError(f"the bus {self.where} was started before: make a new one")
        self._changed = changed
        self.open()
        self._thread = threading.Thread(target=self._run, name=f"pysock bus {self.kind}", daemon=True)
        with explained_without_daemons():
            self._thread.start()

    def close(self) -> None:
        """See :class:`pysock.cluster.bus.contract.Bus`."""
        thread, was_closing, self.is_closing = self._thread, self.is_closing, True
        if thread is None:
            if not was_closing:
                self.release()
            return
        self.outbox.command(_nothing)
        if thread is not threading.current_thread():
            thread.join()

    def reconnect(self) -> None:
        """See :class:`pysock.cluster.bus.contract.Bus`."""
        self.outbox.command(self._reconnect)

    def publish(self, subject: str, payload: bytes) -> None:
        """See :class:`pysock.cluster.bus.contract.Bus`."""
        self._put((self._do_publish, (encoded(subject), payload)), len(payload))

    def request(self, subject: str, payload: bytes, timeout: float, ended: Ends) -> None:
        """See :class:`pysock.cluster.bus.contract.Bus`."""
        task = (encoded(subject), payload, self.clock() + timeout, ended)
        self._put((self._do_request, task), len(payload))

    def subscribe(self, subject: str, heard: Hears, *, queue: bool = False) -> Subscribed:
        """See :class:`pysock.cluster.bus.contract.Bus`."""
        one = Subscribed((encoded(subject), queue), heard, self._leave)
        self.outbox.command(self._do_subscribe, one)
        return one

    def check(self, subjects: tuple[str, ...], timeout: float) -> BusReport:
        """See :class:`pysock.cluster.bus.contract.Bus`."""
        from pysock.cluster.bus.checking import check  # noqa: PLC0415  # a bus that serves never needs it

        return check(self.another, subjects, timeout)

    def answer(self, token: Any, payload: bytes) -> None:
        """What ``Heard.answer`` is, with the token by which the driver finds who has asked."""
        self._check_size(payload)
        self.outbox.put((self._do_answer, (token, payload)), len(payload))

    def abandon(self, why: str) -> None:
        """For :mod:`pysock.base.forking`: this is a forked child, in which the thread isn't."""
        self.is_closing, self._thread, self.state = True, None, BusState.LOST
        self.why = f"it {why}"
        self.outbox = Outbox(_nothing)

    def _leave(self, one: Subscribed) -> None:
        self.outbox.command(self._do_unsubscribe, one)

    def _put(self, task: tuple[Callable[..., object], tuple[Any, ...]], size: int) -> None:
        self._check_size(task[1][1])
        if self.state is not BusState.CONNECTED:
            raise BusDown(f"the bus {self.where} is down: {self.why}")
        if not self.outbox.put(task, size):
            raise BusDown(f"the bus {self.where} takes no more: what waits to be sent to it has reached the limit")

    def _check_size(self, payload: bytes) -> None:
        if len(payload) > self.max_payload:
            raise FrameTooLarge(
                f"a message of {len(payload)} bytes is over the max_payload of the bus {self.where},"
                f" {self.max_payload} bytes"
            )

    # The bus's thread: what a driver calls

    def turn(self) -> float | None:
        """Do what other threads want, and what is due; return how many seconds may pass until the next turn."""
        for function, args in self.outbox.take():
            function(*args)
        for ended in self.waiting.late():
            self.call(ended, Outcome.LATE, b"")
        due = self.prober.ask(self.clock())
        if due is Due.SEND:
            self._asked_at = self.clock() if self._asked_at is None else self._asked_at
            self.send_probe()
        elif due is Due.GIVE_UP:
            self.lose("messages to oneself don't come back")
        moments = [moment for moment in (self.waiting.next_deadline(), self.prober.due) if moment is not None]
        return max(0.0, min(moments) - self.clock()) if moments else None

    def linked(self, max_payload: int) -> None:
        """There is a connection. By a probe it is seen whether messages come through, behind all subscriptions."""
        self._is_linked = True
        self.max_payload = max_payload
        for route in self._routes.all():
            self.send_subscribe(route)
        self._asked_at = None
        self.prober.begin(self.clock())

    def unlinked(self, why: str, *, refused: bool = False) -> None:
        """There is none any more, or has been none: why, as the end of a sentence."""
        self.why, self.is_refused, self.has_failed = why, refused, True
        if refused and self.state is BusState.LOST and why != self._refusal:
            log.warning("the bus %s can't be used: %s", self.where, why)
            self._refusal = why
        self._is_linked = False
        self.outbox.unsent = 0
        self.prober.end()
        self._set(BusState.LOST)
        for ended in self.waiting.all():
            self.call(ended, Outcome.LOST, b"")

    def note_dropped(self) -> None:
        """Count that this end was too slow, and has lost something."""
        self.dropped += 1

    def hear(self, route: Route, payload: bytes, answer: Callable[[bytes], None] | None) -> None:
        """A message came."""
        for one in self._routes.on(route):
            if not one.is_ended:
                self.call(one.heard, Heard(route[0].decode(), payload, answer))

    def ended(self, number: int, outcome: Outcome, payload: bytes = b"") -> None:
        """A request has come to its end; if that is known already, it is left out."""
        ended = self.waiting.take(number)
        if ended is not None:
            self.call(ended, outcome, payload)

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Call what isn't ours. What it raises is logged, and goes no further."""
        try:
            function(*args)
        except Exception as error:  # the thread must live
            log.error("in the bus %s: %r raised %r", self.where, function, error)

    # The bus's thread: tasks of others

    def _do_publish(self, subject: bytes, payload: bytes) -> None:
        if self._is_linked:
            self.send_publish(subject, payload)

    def _do_request(self, subject: bytes, payload: bytes, deadline: float, ended: Ends) -> None:
        if self._is_linked:
            self.send_request(self.waiting.add(ended, deadline), subject, payload)
        else:
            self.call(ended, Outcome.LOST, b"")

    def _do_answer(self, token: Any, payload: bytes) -> None:
        if self._is_linked:
            self.send_answer(token, payload)

    def _do_subscribe(self, one: Subscribed) -> None:
        if self._routes.add(one) and self._is_linked:
            self.send_subscribe(one.route)

    def _do_unsubscribe(self, one: Subscribed) -> None:
        if self._routes.remove(one) and self._is_linked:
            self.send_unsubscribe(one.route)

    def _reconnect(self) -> None:
        if self._is_linked:
            self.lose("it was told to connect again")

    def _probed(self, _heard: Heard) -> None:
        self.prober.heard()
        if self._asked_at is not None:
            self.round_trip, self._asked_at = self.clock() - self._asked_at, None
        if self._is_linked:
            self._set(BusState.CONNECTED)

    def _set(self, state: BusState) -> None:
        if state is self.state:
            return
        self.state = state
        if state is BusState.CONNECTED:
            log.info("the bus %s is connected", self.where)
        elif not self.is_closing:
            log.warning("the bus %s is lost: %s", self.where, self.why)
        self.call(self._changed, state)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})  # libraries send without a flag against it
        try:
            self.run()
        finally:
            self.unlinked("it was closed")
            for function, args in self.outbox.close():
                function(*args)  # requests end, too, that this thread hasn't seen yet
            self.release()

    # What a driver is: its own

    def another(self) -> Spine:
        """A new one, for the same bus and node."""
        raise NotImplementedError

    def open(self) -> None:
        """Have ready, before there is a thread, what :meth:`wake` needs."""
        raise NotImplementedError

    def wake(self) -> None:
        """Have the thread call :meth:`turn` soon. Any thread calls this, also before ``open`` and after ``release``."""
        raise NotImplementedError

    def run(self) -> None:
        """Be connected, again and again, until ``is_closing``. It closes its connection itself."""
        raise NotImplementedError

    def release(self) -> None:
        """Let go of what :meth:`open` has made."""
        raise NotImplementedError

    def lose(self, why: str) -> None:
        """Close the connection, soon; ``unlinked`` is told why."""
        raise NotImplementedError

    def findings(self) -> list[str]:
        """What an operator should know of the bus, in sentences; any thread, while it is connected."""
        return []

    def send_probe(self) -> None:
        """Say something to oneself."""
        self.send_publish(self._own_subject, b"")

    def send_publish(self, subject: bytes, payload: bytes) -> None:
        """Send a message. As all of these, it must not wait, and what can't be sent is lost."""
        raise NotImplementedError

    def send_request(self, number: int, subject: bytes, payload: bytes) -> None:
        """Send a request, whose end will be told to ``ended(number, ...)``."""
        raise NotImplementedError

    def send_answer(self, token: Any, payload: bytes) -> None:
        """Send an answer."""
        raise NotImplementedError

    def send_subscribe(self, route: Route) -> None:
        """Hear what goes on this route."""
        raise NotImplementedError

    def send_unsubscribe(self, route: Route) -> None:
        """Hear it no more."""
        raise NotImplementedError


def _nothing(*_args: object) -> None:
    pass


def _nobody(_state: BusState) -> None:
    pass
