"""The new side of a hand-over: it asks for what there is, and serves it when the old side has let go.

This file owns when that is. Clients that have come sleep until the old side says COMMIT; or until it has died, for they
were frozen there and nobody else has them. Whatever else happens, they are the old side's.
"""

from __future__ import annotations

import resource
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from pysock._version import __version__
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.descriptors import raise_descriptor_limit
from pysock.engine.rows import NO_STATS
from pysock.errors import HandoverFailed, PysockError
from pysock.handover import baggage, tags, totals
from pysock.handover.channel import Channel, Gone, Heard, can_be, close_all
from pysock.handover.life import Life
from pysock.handover.listeners import Borrowed, heard
from pysock.handover.messages import Kind, Message, encode_versions
from pysock.handover.options import Options
from pysock.handover.within import within
from pysock.limits import RESERVED_DESCRIPTORS

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.engine.contract import Engine
    from pysock.engine.rows import EngineStats
    from pysock.handover.door import Door
    from pysock.running import Running

#: In seconds.
_PACE: Final = 0.005


class Taking(Unique):
    """One hand-over, on the new side.

    :param ready: called when the server could serve; what it raises ends the hand-over.
    :param door: where it will wait for who follows; it gets that of the old side.
    """

    def __init__(
        self,
        running: Running,
        channel: Channel,
        options: Options,
        ready: Callable[[], object] | None = None,
        door: Door | None = None,
    ) -> None:
        self._running = running
        self._channel = channel
        self._options = options
        self._ready = ready
        self._door = door
        self._life: Life | None = None
        self._borrowed = Borrowed([])
        self._luggage: dict[int, bytes] = {}
        self._is_over = False
        self._thread: threading.Thread | None = None
        #: What the old side has counted.
        self.counted: EngineStats = NO_STATS
        #: The ids of those that have come.
        self.came: list[int] = []

    # Before anything is made

    def greet(self) -> None:
        """Ask, and hear what there is: listeners, and the numbers of services.

        :raises Gone: there is nobody.
        :raises HandoverFailed: the old side refuses, or isn't understood.
        """
        running, door = self._running, self._door
        raise_descriptor_limit(running.limits.max_clients)
        fields = hello(running)
        if running.listening.lender is not None:
            fields.append((tags.LENT, b"\1"))
        if door is not None:
            fields.append((tags.DOOR, str(door.address).encode()))
        with suppress(Gone):  # it may have said before why it won't
            self._say(Kind.HELLO, fields)
        try:
            self._understand(self._hear(self._options.step, Kind.OFFER).message)
            self._borrow(self._hear(self._options.step, Kind.LISTENERS))
        except ValueError as error:
            self.give_up(str(error))
            raise HandoverFailed(f"the old side isn't understood: {error}") from error

    def _understand(self, offer: Message) -> None:
        offer.refuse_unknown({tags.VERSION})
        self._life = Life(offer.number(tags.PID, 4))
        self._running.services.follow([name.decode() for name in offer.fields.get(tags.SERVICE, [])])

    def _borrow(self, message: Heard) -> None:
        descriptors = message.descriptors
        try:
            message.message.refuse_unknown({tags.LISTENER})
            passed = heard(message.message.fields.get(tags.LISTENER, []), descriptors)
            self._borrowed = Borrowed(passed)
            if passed:
                self._running.listening.lender = self._borrowed.lend
            if self._door is not None and tags.DOOR in message.message.fields and len(descriptors) >= len("fd"):
                self._door.borrow(descriptors.pop(0), descriptors.pop(0))
        finally:
            close_all(descriptors)

    # Before the loop runs

    def receive(self, engine: Engine) -> None:
        """Everything that can move at once: then it is this process's, and awake in the loop's first turn.

        :raises HandoverFailed: nothing has come of it: all is the old side's.
        """
        if self._ready is not None:
            self._ready()
        with suppress(Gone):  # it may have died: then what it has told of is this one's
            self._say(Kind.PREPARED)
        if not self._round(engine, lambda function: function(), 2 * self._options.step):
            raise HandoverFailed("the old side says goodbye, and has given nothing")
        running = self._running
        self._borrowed.own(running.listening.masters, running.limits)
        if self._door is not None:
            self._door.own_it()
        if self._is_over:
            engine.reserve(0)
        log.info("%d clients have come from the process before", len(self.came))

    def _round(self, engine: Engine, do: Callable[[Callable[[], Any]], Any], patience: float) -> bool:
        """Until they are awake; ``False``: no more will come."""
        asleep: list[int] = []
        try:
            while True:
                try:
                    message, descriptors = self._channel.receive(patience, self._life)
                except Gone as gone:
                    self._wait_for_death(gone)
                    break
                patience = 2 * self._options.step  # of which the old side has one: so it is the one who gives up
                if message.kind in {Kind.TOTALS, Kind.BYE} and not asleep:
                    close_all(descriptors)
                    return self._last(message)
                if self._step(engine, do, message, descriptors, asleep):
                    break
        except (HandoverFailed, ValueError, OSError) as error:
            self.give_up(str(error))
            with suppress(OSError, PysockError):  # it has ended, and they with it
                self._surely(engine, partial(baggage.discard, self._running, engine, asleep))
            raise error if isinstance(error, HandoverFailed) else HandoverFailed(str(error)) from error
        self._surely(engine, partial(self._activate, engine, asleep))
        self.came += asleep
        return True

    def _step(
        self,
        engine: Engine,
        do: Callable[[Callable[[], Any]], Any],
        message: Message,
        descriptors: list[int],
        asleep: list[int],
    ) -> bool:
        """Do what a message says; whether those that sleep may be awakened."""
        try:
            message.refuse_unknown(_KNOWN.get(message.kind, set()))
            if message.kind == Kind.FREEZE:
                places = message.number(tags.SLOTS, 4), message.number(tags.GENERATION, 4)
                do(partial(engine.reserve, *places))
            elif message.kind == Kind.EXTRA:
                self._luggage.update(map(baggage.labelled, message.fields.get(tags.BAGGAGE, [])))
            elif message.kind == Kind.ROWS:
                do(partial(self._add, engine, message.one(tags.ROWS), descriptors, asleep))
                with suppress(Gone):  # what it said before it went is still to be heard
                    self._say(Kind.TAKEN, [(tags.NUMBER, message.one(tags.NUMBER))])
            elif message.kind == Kind.COMMIT:
                self._commit(message)
                return True
            else:
                _refuse(message)
        finally:
            close_all(descriptors)
        return False

    def _add(self, engine: Engine, rows: bytes, descriptors: list[int], asleep: list[int]) -> None:
        ids = engine.add(rows, descriptors)
        descriptors.clear()  # they are the engine's
        asleep += ids
        for client_id in self._luggage.keys() & set(ids):
            baggage.unpacked(self._running, engine, client_id, self._luggage.pop(client_id))

    def _surely(self, engine: Engine, function: Callable[[], object]) -> None:
        """In the loop's thread, however long that is busy: nobody else would see to it."""
        if self._thread is None:
            function()
        else:
            engine.call_later(function)

    def _activate(self, engine: Engine, ids: Sequence[int]) -> None:
        """Serve them; the cluster is told who has come, as of all that are let in: who isn't yet will be then."""
        engine.activate()
        presence = self._running.hooks.presence
        if presence is not None:
            for row in engine.rows(array("Q", ids).tobytes()):
                presence.joined(row.client_id, moved=True)

    def _commit(self, message: Message) -> None:
        """Say so first: where that can't be said any more, the old side has taken it back, or has died."""
        try:
            self._say(Kind.ACTIVE, [(tags.ROUND, message.one(tags.ROUND))])
        except Gone as gone:
            self._wait_for_death(gone)

    def _wait_for_death(self, gone: Gone) -> None:
        """The old side is gone, and may live."""
        if self._is_over or self._life is None or not self._life.ends_within(self._options.step):
            raise HandoverFailed("the old side has taken it back") from gone
        self._is_over = True
        log.warning("the process before has died during the hand-over; this one serves those that have come")

    # When it serves

    def follow(self, engine: Engine) -> None:
        """In a thread: take those that were busy, until there are no more."""
        if not self._is_over:
            self._thread = threading.Thread(target=self._follow, args=(engine,), name="pysock-handover", daemon=True)
            self._thread.start()

    def _follow(self, engine: Engine) -> None:
        do = partial(within, engine, patience=self._options.step)
        longest = self._options.grace + 2 * self._options.step
        try:
            while not self._is_over and self._round(engine, do, longest):
                pass
        except PysockError as error:
            if not self._is_over:  # else this server ends
                log.warning("the hand-over ended before all clients had come: %s", error)
        finally:
            self._is_over = True
            self.close()
            with suppress(PysockError):
                do(partial(engine.reserve, 0))

    def _last(self, message: Message) -> bool:
        if message.kind == Kind.TOTALS:
            self.counted = totals.decoded(message.fields.get(tags.TOTAL, []))
        return message.kind != Kind.BYE

    def is_over_within(self, seconds: float) -> bool:
        """Wait so long at most until nobody may come any more, and say whether it is so."""
        end = monotonic() + seconds
        while not self._is_over and monotonic() < end:
            time.sleep(_PACE)
        return self._is_over

    # The end

    def give_up(self, why: str) -> None:
        """Tell the old side, if it can be, that everything is its own."""
        with suppress(HandoverFailed):
            self._channel.send(Kind.GAVE_UP, [(tags.WHY, why.encode(errors="replace")[:1000])], patience=0.0)
        self._channel.hang_up()
        if self._thread is None:  # else it is what closes
            self._is_over = True
            self.close()

    def end(self, why: str) -> None:
        """The server ends."""
        if not self._is_over:
            self._is_over = self._thread is not None
            self.give_up(why)

    def close(self) -> None:
        """Called again it does nothing."""
        self._channel.close()
        self._borrowed.close()
        if self._life is not None:
            self._life.close()

    def _say(self, kind: Kind, fields: Sequence[tuple[int, bytes]] = ()) -> None:
        self._channel.send(kind, fields, patience=self._options.step)

    def _hear(self, patience: float, kind: Kind) -> Heard:
        came = self._channel.receive(patience, self._life)
        if came.message.kind != kind:
            close_all(came.descriptors)
            _refuse(came.message)
        return came


_KNOWN: dict[int, set[int]] = {
    Kind.FREEZE: {tags.SLOTS, tags.GENERATION},
    Kind.ROWS: {tags.NUMBER, tags.ROWS},
    Kind.EXTRA: {tags.BAGGAGE},
    Kind.COMMIT: {tags.ROUND},
}


def _refuse(message: Message) -> None:
    if message.kind in {Kind.REFUSE, Kind.ABORT}:
        why = message.fields.get(tags.WHY, [b"it doesn't say why"])[0].decode(errors="replace")
        raise HandoverFailed(f"the old server serves on: {why}")
    raise HandoverFailed(f"the old side says {message.name}, which isn't expected now")


def hello(running: Running) -> list[tuple[int, bytes]]:
    """What one server says of itself."""
    return [
        (tags.VERSIONS, encode_versions()),
        (tags.SOFTWARE, f"pysock/{__version__}".encode()),
        (tags.FRAMING, int(running.framing).to_bytes(1, "little")),
        (tags.KEY, b"" if running.proof is None else running.proof.fingerprint()),
        (tags.MAX_CLIENTS, running.limits.max_clients.to_bytes(4, "little")),
        (tags.ROOM, _room().to_bytes(4, "little")),
        *((tags.ADDRESS, address.encode()) for address in running.listening.asked_as(running.name)),
    ]


def _room() -> int:
    """How many more descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2**32 - 1
    return most if soft == resource.RLIM_INFINITY else min(most, max(0, soft - RESERVED_DESCRIPTORS // 2))


def checked_system() -> None:
    """:raises HandoverFailed: this system has no hand-overs."""
    if not can_be():
        raise HandoverFailed("a hand-over needs Linux, and a Python with os.memfd_create and os.pidfd_open")
