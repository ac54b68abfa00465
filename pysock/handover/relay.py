"""What one server has to do with hand-overs: from whom it takes over when it starts, and who takes over from it.

This file owns the order of both beside the server's life: it is asked at the steps of its start and at its end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.errors import HandoverFailed, PysockError
from pysock.handover.channel import Channel, Gone
from pysock.handover.door import Door, refuse
from pysock.handover.give import Offer
from pysock.handover.options import Options
from pysock.handover.place import checked_handover
from pysock.handover.take import Taking, checked_system
from pysock.handover.totals import added

if TYPE_CHECKING:
    from typing import Final

    from pysock.address import AddressLike
    from pysock.engine.contract import Engine
    from pysock.engine.rows import EngineStats
    from pysock.running import Running
    from pysock.server import Server

#: For those that couldn't move, when the hand-over is over; in seconds.
_GOODBYE: Final = 10.0


def take(
    server: Server,
    fd: int,
    *,
    ready: Callable[[], object] | None = None,
    options: Options = Options(),  # noqa: B008  # it doesn't change
) -> None:
    """When this server starts, it takes over from the one at the other end, which says :func:`pysock.handover.give`.

    Its start then raises :class:`pysock.HandoverFailed` where nothing comes of that, and the other one serves on.

    :param fd: one end of a pair of Unix sockets of the kind SEQPACKET, which is the server's from now on.
    :param ready: called when it could serve, in the thread that starts it; if it raises, so does the start.
    :raises PysockError: the server runs, or has run, already.
    :raises HandoverFailed: this system has no hand-overs.
    :raises OSError: the descriptor is no such socket.
    """
    checked_system()
    relay = relay_of(server)
    relay.taking = Taking(relay.running, Channel(fd), options, ready)


def relay_of(server: Server) -> Relay:
    """That of this server, made if need be.

    :raises PysockError: it runs, or has run, already.
    """
    running = server._running
    if running.state.name != "NEW":
        raise PysockError("this server runs, or has run, already: it can't take over any more")
    if not isinstance(running.relay, Relay):
        running.relay = Relay(running)
    return running.relay


class Relay(Unique):
    """That of one server."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.options: Options = Options()
        self.taking: Taking | None = None
        self._door: Door | None = None

    def wait_at(self, address: AddressLike) -> None:
        """As ``handover=`` of :class:`pysock.Server`.

        :raises ValueError: it is no address of a Unix socket with a file.
        :raises HandoverFailed: this system has no hand-overs.
        """
        checked_system()
        where = checked_handover(address)
        self._door = Door(where, self.running.backend.sockets)

    # The start

    def begin(self) -> None:
        """Before anything is made: whether there is somebody to take over from."""
        door, is_known = self._door, self.taking is not None
        if door is not None and not is_known and (channel := door.knock()) is not None:
            self.taking = Taking(self.running, channel, self.options, door=door)
        if self.taking is not None:
            try:
                self.taking.greet()
            except Gone:
                if is_known:
                    raise
                self.taking.close()
                self.taking = None  # whoever was there has ended just then, or is about to: what it has is free then
                if door is not None:
                    door.wait_for_its_end(self.options.step)
        if door is not None and not door.is_there:
            door.open()

    def receive(self, engine: Engine) -> None:
        """All is made, and nobody is served yet."""
        if self.taking is not None:
            self.taking.receive(engine)

    def serve(self, engine: Engine) -> None:
        """It serves."""
        if self.taking is not None:
            self.taking.follow(engine)
        if self._door is not None:
            self._door.serve(self._give)

    @property
    def took_over(self) -> int:
        """How many clients have come from the process before."""
        return 0 if self.taking is None else len(self.taking.came)

    def counted(self, stats: EngineStats) -> EngineStats:
        """With what was counted there."""
        return stats if self.taking is None else added(stats, self.taking.counted)

    # Who follows; in a thread

    def _give(self, channel: Channel) -> None:
        try:
            if self.taking is not None and not self.taking.is_over_within(self.options.step / 2):
                refuse(channel, "it takes over itself just now")
                return
            given = Offer(self.running, channel, self.options, self._door).give()
        except HandoverFailed as error:
            log.warning("a hand-over has failed, and this server serves on: %s", error)
        except Exception:
            log.exception("a hand-over has failed, and this server serves on")
        else:
            ms = given.seconds * 1000
            log.info("%d clients moved in %.1f ms, %d drained; this server ends", given.moved, ms, given.drained)
            self.running.stop(_GOODBYE)
        finally:
            channel.close()

    # The end

    def end(self) -> None:
        """Called again it does nothing."""
        if self.taking is not None:
            error = sys.exc_info()[1]
            self.taking.end("it stops" if error is None else f"it couldn't be started: {error!r}")
        if self._door is not None:
            self._door.close()
