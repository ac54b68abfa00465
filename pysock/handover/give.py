"""The old side of a hand-over: it says what there is, gives it, and stays for those that are busy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from pysock._version import __version__
from pysock.base.clock import monotonic
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.errors import HandoverFailed
from pysock.handover import baggage, listeners, tags, totals
from pysock.handover.channel import Channel
from pysock.handover.giving import Giving
from pysock.handover.messages import Kind, Message, common_version
from pysock.handover.options import Given, Options

if TYPE_CHECKING:
    from typing import Final

    from pysock.handover.door import Door
    from pysock.running import Running
    from pysock.server import Server

#: How often to look whether a busy client isn't any more, in seconds.
PACE: Final = 0.005
#: How long what was answered by an ERROR may take to be over, in seconds.
LAST: Final = 1.0
#: Descriptors that the new side needs besides its clients'.
SPARE: Final = 16


def give(
    server: Server,
    fd: int,
    *,
    options: Options = Options(),  # noqa: B008  # it doesn't change
    on_moved: Callable[[int], object] | None = None,
) -> Given:
    """Hand the clients of a running server over to the process at the other end, which says :func:`take`.

    Not in the loop's thread. When it returns, nobody is accepted here any more, and the listeners' files are the new
    side's: stop the server then; that says goodbye to whoever couldn't move.

    :param fd: one end of a pair of Unix sockets of the kind SEQPACKET; it is closed.
    :param on_moved: called with how many have moved, as soon as the new side serves.
    :raises HandoverFailed: nothing has become of it; the server serves on, as if nothing had been.
    :raises OSError: the descriptor is no such socket.
    """
    channel = Channel(fd)
    try:
        return Offer(server._running, channel, options, door=None).give(on_moved)
    finally:
        channel.close()


class Offer(Unique):
    """One hand-over, on the old side.

    :param door: where the server waits for who follows, if it does.
    """

    def __init__(self, running: Running, channel: Channel, options: Options, door: Door | None) -> None:
        if running.engine is None:
            raise HandoverFailed("this server hasn't been started")
        self._running = running
        self._engine = running.engine
        self._channel = channel
        self._options = options
        self._door = door
        self._giving = Giving(running, channel, options)
        self._passes_door = False

    def give(self, on_moved: Callable[[int], object] | None = None) -> Given:
        """As :func:`give`; the channel stays open."""
        hello = self._giving.hear(Kind.HELLO).message
        self._offer(hello)
        self._giving.hear(Kind.PREPARED, self._options.prepare)
        began = monotonic()
        self._giving.first()
        seconds = monotonic() - began
        listeners.leave(self._running.listening, self._door if self._passes_door else None)
        log.info("%d clients have moved to the process that follows, in %.1f ms", self._giving.moved, seconds * 1000)
        if on_moved is not None:
            on_moved(self._giving.moved)
        drained = self._stay()
        return Given(self._giving.moved, drained, seconds)

    # What there is

    def _offer(self, hello: Message) -> None:
        try:
            hello.refuse_unknown({tags.VERSIONS})
            version = common_version(hello.one(tags.VERSIONS))
            self._refuse(hello)
        except ValueError as error:
            self._say(Kind.REFUSE, [(tags.WHY, str(error).encode())])
            raise HandoverFailed(f"the new side was refused: {error}") from None
        running = self._running
        self._say(
            Kind.OFFER,
            [
                (tags.VERSION, version.to_bytes(2, "little")),
                (tags.SOFTWARE, f"pysock/{__version__}".encode()),
                (tags.PID, os.getpid().to_bytes(4, "little")),
                (tags.COUNT, self._count().to_bytes(4, "little")),
                *((tags.SERVICE, name.encode()) for name in running.services.named()),
            ],
        )
        self._pass_listeners(hello)

    def _refuse(self, hello: Message) -> None:
        """:raises ValueError: the new side is another server."""
        running, count = self._running, self._count()
        addresses = [address.decode(errors="replace") for address in hello.fields.get(tags.ADDRESS, [])]
        mine = running.listening.asked_as(running.name)
        key = b"" if running.proof is None else running.proof.fingerprint()
        framing, room = hello.number(tags.FRAMING, 1), hello.number(tags.ROOM, 4, 2**32 - 1)
        most = hello.number(tags.MAX_CLIENTS, 4, 2**32 - 1)
        stop = "stop the old server, and start the new one"
        for good, problem in (
            (framing == running.framing, f"it has another framing than {running.framing.name.lower()!r}: {stop}"),
            (hello.one(tags.KEY, b"") == key, f"it has another authkey: {stop}"),
            (addresses == mine, f"it listens at {' '.join(addresses)}, and not at {' '.join(mine)}: {stop}"),
            (most >= count, f"there are {count} clients, and it lets in {most}: raise Limits.max_clients"),
            (room >= count + SPARE, f"there are {count} clients, and it has room for {room} descriptors (ulimit -n)"),
            (len(running.listening.masters) <= listeners.MOST, "there are too many listeners"),
        ):
            if not good:
                raise ValueError(problem)

    def _pass_listeners(self, hello: Message) -> None:
        values: list[bytes] = []
        descriptors: list[int] = []
        if tags.LENT not in hello.fields:
            values, descriptors = listeners.told(self._running.listening)
        fields = [(tags.LISTENER, value) for value in values]
        door = self._door
        self._passes_door = door is not None and hello.one(tags.DOOR, b"").decode() == str(door.address)
        if door is not None and self._passes_door:
            fields.append((tags.DOOR, str(door.address).encode()))
            descriptors += door.descriptors()
        self._channel.send(Kind.LISTENERS, fields, descriptors, patience=self._options.step)

    # The end

    def _stay(self) -> int:
        """For those that are busy; how many couldn't move."""
        giving = self._giving
        staying = set(giving.stay)
        by_tls = self._by_tls()
        try:
            self._in_loop(self._dismiss)
            self._moves_until(monotonic() + self._options.grace)
            self._in_loop(self._hurry)
            self._moves_until(monotonic() + LAST)
        except HandoverFailed as error:
            log.warning("the hand-over ends before all clients have moved; they are told to connect again: %s", error)
        if not giving.is_cut_off:
            self._part()
        return len(staying | set(giving.stay)) + by_tls

    def _moves_until(self, end: float) -> None:
        while not self._giving.is_cut_off and self._count() and monotonic() < end:
            time.sleep(PACE)
            self._giving.more()

    def _by_tls(self) -> int:
        listening = self._running.listening
        rows = self._engine.rows() if any(listening.tls) else ()
        return sum(listening.tls[row.master] is not None for row in rows)

    def _dismiss(self) -> None:
        running, stay = self._running, self._giving.stay
        for client_id, why in stay.items():
            log.warning("client %d can't move, and is told to connect again: %s", client_id, why)
        if running.clients.nodes is not None:
            running.clients.nodes.drain()
        self._engine.dismiss(list(stay))

    def _hurry(self) -> None:
        for client in self._running.clients.all_known():
            if client.asks is not None:
                client.asks.end("the server hands its clients over, and waits no longer for this answer")
        self._engine.dismiss([*self._giving.stay, *baggage.asked(self._running)])
        self._engine.hurry()

    def _part(self) -> None:
        try:
            self._say(Kind.TOTALS, [(tags.TOTAL, value) for value in totals.encoded(self._running.stats())])
            self._say(Kind.BYE)
        except HandoverFailed as error:
            log.debug("the new side isn't told the counters: %s", error)

    def _count(self) -> int:
        stats = self._engine.stats()
        return stats.clients + stats.pending

    def _in_loop(self, function: Callable[[], None]) -> None:
        self._giving.in_loop(function)

    def _say(self, kind: Kind, fields: list[tuple[int, bytes]] | None = None) -> None:
        self._channel.send(kind, fields or [], patience=self._options.step)
