"""What other nodes want of this one's clients: pushes, questions, an end. In the bus's thread, which must not wait.

A push is answered when the engine has taken it for its client, as it takes those of this node's threads: another way by
the server's loop and back would cost as much again as the whole way. What changes a client is done in that loop.
Whatever comes may be forged or broken by whoever may use the bus: it is counted and dropped, and never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Event

from pysock.base.deadlines import FOREVER
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import WARNING, Seldom
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.clients import ServedSocket
from pysock.cluster import results
from pysock.cluster.directory.messages import MAJOR, MessageKind, Tag
from pysock.cluster.directory.words import NODES_MAX
from pysock.errors import RequestTimeout
from pysock.wire.format import LARGEST_NAME, Malformed

if TYPE_CHECKING:
    from typing import Final

    from pysock.cluster.bus.contract import Heard
    from pysock.cluster.directory.machine import Directory
    from pysock.cluster.directory.messages import Message
    from pysock.cluster.station import Station
    from pysock.engine.contract import Engine
    from pysock.running import Running

    Answer = Callable[[bytes], None]


class Receiving(Unique):
    """Of one node."""

    def __init__(self, directory: Directory, station: Station, running: Running, engine: Engine) -> None:
        self._directory = directory
        self._station = station
        self._running = running
        self._clients = running.clients
        self._engine = engine
        self._versions: set[int] = set()  # of the protocol: those that have been told of
        self._newest: dict[int, int] = {}  # connection to the bus that was heard, of each node, by its epoch
        #: How many messages were dropped, for newer ones had come.
        self.overtaken: int = 0
        #: Set when this node has heard its own goodbye: so has everybody.
        self.goodbye: Event = Event()
        self._dropped = Seldom(
            log, WARNING, "what a node of the cluster has sent to all, or without waiting, is lost: %s"
        )

    def heard(self, heard: Heard) -> None:
        """A message has come."""
        message = self._directory.decoded(heard.payload)
        if message is None:
            self._tell_of_versions()
            return
        take = _TAKES.get(message.kind)
        try:
            if take is None:
                self._station.heard(message)
            elif message.kind in _IN_ORDER and self._is_overtaken(message):
                self.overtaken += 1  # and whoever waits for an answer was told that it is unknown
            else:
                take(self, message, heard.answer)
        except Malformed:
            self._directory.foreign += 1
        except Exception as error:
            self.failed(error, heard.answer)

    def _is_overtaken(self, message: Message) -> bool:
        """Whether it comes over a connection of its node's that was lost, and newer ones have come over the next.

        What was in a kernel then, or in a bus that was stopped, still comes when that goes on.
        """
        connection, newest = message.number(Tag.CONNECTION, 0), self._newest.get(message.epoch, 0)
        if connection < newest:
            return True
        if connection > newest and message.epoch in self._directory.nodes:
            if len(self._newest) >= 2 * NODES_MAX:
                self._newest = {epoch: self._newest[epoch] for epoch in self._newest if epoch in self._directory.nodes}
            self._newest[message.epoch] = connection
        return False

    def _tell_of_versions(self) -> None:
        """Of each one that this node doesn't speak once: nodes of it are none for this one, nor is it for them."""
        for major in self._directory.other_versions.keys() - self._versions:
            self._versions.add(major)
            log.warning(
                "a node of the cluster speaks version %d of its protocol, and this one version %d: they don't see each"
                " other; run versions of pysock that go together",
                major,
                MAJOR,
            )

    def failed(self, error: Exception, answer: Answer | None) -> None:
        """It wasn't."""
        if answer is None:
            self._dropped.tell(error)
        else:
            answer(results.failed(self._directory.epoch, self._directory.clock, error))

    def done(self, answer: Answer | None, payload: bytes = b"") -> None:
        """It was done."""
        if answer is not None:
            answer(results.done(self._directory.epoch, self._directory.clock, payload))

    def _nobody(self, answer: Answer | None) -> None:
        if answer is not None:
            answer(results.no_client(self._directory.epoch, self._directory.clock))

    def in_loop(self, function: Callable[[], object], answer: Answer | None, otherwise: Callable[[], object]) -> None:
        """Have this done in the server's loop; what it raises is answered. ``otherwise``: there is no loop any more."""
        with suppress(OSError):  # the loop wasn't woken, and will notice by itself
            if not self._engine.call_later(partial(self._guarded, function, answer)):
                otherwise()

    def _guarded(self, function: Callable[[], object], answer: Answer | None) -> None:
        try:
            function()
        except Exception as error:
            self.failed(error, answer)

    def _bye(self, message: Message, answer: Answer | None) -> None:
        del answer
        if message.epoch == self._directory.epoch:
            self.goodbye.set()
        else:
            self._station.heard(message)

    # To one client

    def _push(self, message: Message, answer: Answer | None) -> None:
        is_there = self._clients.push(message.number(Tag.CLIENT), message.body)
        (self.done if is_there else self._nobody)(answer)

    def _close(self, message: Message, answer: Answer | None) -> None:
        close = partial(self._close_now, message.number(Tag.CLIENT), answer)
        self.in_loop(close, answer, partial(self._nobody, answer))

    def _close_now(self, client_id: int, answer: Answer | None) -> None:
        client = self._clients.get(client_id)
        if client is None:
            self._nobody(answer)
        else:
            client.close()
            self.done(answer)

    def _ask(self, message: Message, answer: Answer | None) -> None:
        if answer is None:
            raise Malformed("a question that nobody waits for")
        client_id, service = message.number(Tag.CLIENT), message.fields.get(Tag.SERVICE, b"")
        milliseconds = message.number(Tag.TIMEOUT, 0)
        client = self._clients.get(client_id)
        if len(service) > LARGEST_NAME:
            raise Malformed("there is no service of so long a name")
        if client is None:
            self._nobody(answer)
            return
        assert isinstance(client, ServedSocket)
        asks, engine = self._clients.asking.begin(client)
        asked = _Asked(self, answer)
        number = asks.ask(engine, bytes((len(service),)) + service, message.body, asked)
        asked.until(self._station, milliseconds / 1000 or FOREVER, partial(asks.give_up, engine, number))

    # To many

    def _group(self, message: Message, answer: Answer | None) -> None:
        if message.epoch != self._directory.epoch:  # its own have got it already
            self._clients.broadcast(message.body, where={"group": message.text(Tag.GROUP)})
        self.done(answer)

    def _broadcast(self, message: Message, answer: Answer | None) -> None:
        if message.epoch != self._directory.epoch:
            self._clients.broadcast(message.body)
        self.done(answer)


class _Asked(Unique):
    """A client is asked for another node: this waits, as a thread or a task would."""

    def __init__(self, receiving: Receiving, answer: Answer) -> None:
        self._receiving = receiving
        self._answers = [answer]  # whoever is the first to take it
        self._call_off: Callable[[], object] = lambda: None

    def until(self, station: Station, seconds: float, give_up: Callable[[], object]) -> None:
        """No longer than this."""
        self._call_off = station.alarm(seconds, partial(self._late, give_up))
        if not self._answers:  # it was faster
            self._call_off()

    def done(self) -> bool:
        """It waits until it is told."""
        return False

    def set_result(self, payload: bytes) -> None:
        """The answer."""
        for answer in self._taken():
            self._receiving.done(answer, payload)

    def set_exception(self, error: Exception) -> None:
        """There is none."""
        for answer in self._taken():
            self._receiving.failed(error, answer)

    def _late(self, give_up: Callable[[], object]) -> None:
        for answer in self._taken():
            give_up()
            self._receiving.failed(RequestTimeout("the client didn't answer in time"), answer)

    def _taken(self) -> list[Answer]:
        self._call_off()
        with suppress(IndexError):
            return [self._answers.pop()]
        return []


_IN_ORDER: Final = (MessageKind.PUSH, MessageKind.GROUP, MessageKind.BROADCAST)
_TAKES: Final[dict[int, Callable[[Receiving, Message, Answer | None], None]]] = {
    MessageKind.BYE: Receiving._bye,
    MessageKind.PUSH: Receiving._push,
    MessageKind.CLOSE: Receiving._close,
    MessageKind.ASK: Receiving._ask,
    MessageKind.GROUP: Receiving._group,
    MessageKind.BROADCAST: Receiving._broadcast,
}
