"""The master sockets of a service with workers: the supervisor makes them, and lends them to whoever serves.

This file owns them from the first worker that wants them to the end of the service, with the locks and the files of
those at Unix sockets. Nothing is ever accepted here: who connects while no worker is there waits in the kernel's queue.
"""

from __future__ import annotations

from contextlib import ExitStack

from pysock.address import Address
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique
from pysock.files.passed import addresses_of
from pysock.files.socketfile import SocketFile
from pysock.listening import share_ports
from pysock.master import MasterSocket
from pysock.supervision.line import MOST_DESCRIPTORS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


class Listeners(Unique):
    """Those of one service, by what its program calls their addresses."""

    def __init__(self) -> None:
        self._open: dict[str, list[MasterSocket]] = {}

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where they listen."""
        return tuple(master.address for masters in self._open.values() for master in masters)

    def open(self, wanted: Sequence[str], limits: dict[str, Any]) -> None:
        """Make those that aren't there yet; where one fails, none of them is.

        :param limits: ``backlog``, ``vanish_timeout`` and ``output_timeout``, as of :class:`pysock.Limits`.
        :raises OSError: as of :meth:`pysock.Server.start`.
        :raises ValueError: likewise; or there are more than can be handed over.
        """
        new: dict[str, list[MasterSocket]] = {}
        with ExitStack() as undo:
            for text in wanted:
                if text not in self._open:
                    new[text] = [MasterSocket(address) for address in _meant(Address.parse(text))]
                    for master in new[text]:
                        undo.callback(master.close)
            if len(self.addresses) + sum(map(len, new.values())) > MOST_DESCRIPTORS:
                raise ValueError(f"a service with workers has at most {MOST_DESCRIPTORS} addresses")
            _listen([master for masters in new.values() for master in masters], limits)
            undo.pop_all()
        self._open.update(new)

    def lent(self, wanted: Sequence[str]) -> tuple[list[list[dict[str, Any]]], list[int]]:
        """What a worker is told of them, and their descriptors in that order."""
        masters = [self._open[text] for text in wanted]
        told = [[{"at": str(one.address), "prepared": one.prepared} for one in each] for each in masters]
        return told, [one.fd for each in masters for one in each]

    def written(self, copy: Callable[[int], int]) -> dict[str, Any]:
        """What there is, for :meth:`take_up` of another object; they and their files aren't this one's any more.

        :param copy: makes a descriptor that is kept.
        :raises OSError: it can't: then all is as before.
        """
        told: dict[str, Any] = {}
        for text, masters in self._open.items():
            told[text] = [
                {"fd": copy(one.fd), "lock": copy(one.lock_fd), "at": str(one.address), "prepared": one.prepared,
                 "inherited": one.inherited} for one in masters
            ]  # fmt: skip
        for masters in self._open.values():  # when all could be copied
            for one in masters:
                one.leave()
        self.close()
        return told

    def take_up(self, told: Mapping[str, Any], backlog: int) -> None:
        """Own what is written there."""
        for text, masters in told.items():
            self._open[text] = [_taken_up(text, one, backlog) for one in masters]

    def keep(self, wanted: Sequence[str]) -> None:
        """Close all others."""
        for text in self._open.keys() - set(wanted):
            for master in self._open.pop(text):
                master.close()

    def close(self) -> None:
        """Close them, and remove the files. Called again it does nothing."""
        self.keep(())


def _meant(address: Address) -> tuple[Address, ...]:
    return addresses_of(address) if address.transport == "systemd" else (address,)


def _taken_up(text: str, told: Mapping[str, Any], backlog: int) -> MasterSocket:
    at = Address.parse(told["at"])
    master = MasterSocket(at if told["inherited"] else text)
    master.lend(told["fd"], at, told["prepared"])
    if not told["inherited"]:
        file = SocketFile.taken_over(at, told["lock"]) if told["lock"] >= 0 else None
        master.own(file, at.backlog or backlog)
    return master


def _listen(masters: list[MasterSocket], limits: dict[str, Any]) -> None:
    for master in masters:
        if master.inherited:
            master.adopt()
    made = [master for master in masters if not master.inherited]
    for master in made:
        master.remove_stale()
        master.create()
    share_ports(made)
    for master in made:
        master.bind()
    for master in made:
        backlog = master.address.backlog or limits["backlog"]
        master.listen(backlog, vanish_timeout=limits["vanish_timeout"], stall=limits["output_timeout"])
