"""Listening: the master sockets of one server, in their order.

This file owns what is done to them before the loop has them, and their end: inherited ones are adopted, the others
created, bound and made to listen, and each is looked at for who could reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack

from pysock.access.rule import Rule, refuse_exposed
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.engine.contract import Backend, Engine
from pysock.limits import Limits
from pysock.master import MasterSocket
from pysock.parameters import checked_addresses
from pysock.states import ServerEvent

if TYPE_CHECKING:
    from pysock.address import Address, AddressLike


class Listening(Unique):
    """Where a server listens.

    :param guarded: other machines may reach it, since an auth key or its owner's word says so.
    """

    _instead = "make a new Server"

    def __init__(
        self, addresses: Iterable[AddressLike], rule: Rule, backend: Backend, limits: Limits, guarded: bool
    ) -> None:
        self._wanted = checked_addresses(addresses, rule)
        self._rule = rule
        self._backend = backend
        self._limits = limits
        self._guarded = guarded
        self.masters: list[MasterSocket] = []

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it listens, with the ports that the kernel chose; before that, what was asked for."""
        masters = self.masters
        return tuple(master.address for master in masters) if masters else self._wanted

    def listen_at(self, addresses: Iterable[AddressLike]) -> None:
        """Listen at these instead."""
        self._wanted = checked_addresses(addresses, self._rule)

    def open(self, name: str | None, advance: Callable[[ServerEvent], None]) -> None:
        """Make them listen, and tell of each step of the server's state.

        :param name: for an address without a name of its own.
        """
        # All are made before the first is touched, so that a wrong user or group leaves nothing behind.
        self.masters = [MasterSocket(address.named(name), self._backend) for address in self._wanted]
        inherited = [master for master in self.masters if master.address.transport == "fd"]
        made = [master for master in self.masters if master.address.transport != "fd"]
        for master in inherited:
            master.adopt()
        self._rule.refuse_tcp_alone((master.address, master.fd) for master in self.masters)
        for master in made:
            master.remove_stale()
            master.create()
        advance(ServerEvent.CREATE if made else ServerEvent.ADOPT)
        _share_ports(made)
        for master in made:
            master.bind()
        if made:
            advance(ServerEvent.BIND)
        self._refuse_exposed()
        for master in made:
            self._listen(master)
        self._rule.warn_unreachable(master.address for master in made)
        if made:
            advance(ServerEvent.LISTEN)

    def hand_to(self, engine: Engine) -> None:
        """Let the engine accept on them."""
        for master in self.masters:
            engine.add_master(master.fd, self._rule.checks(master.address, master.fd), master.prepared)
            master.advance(ServerEvent.SERVE)

    def close(self) -> None:
        """Close them, the last one first. Called again it does nothing."""
        with ExitStack() as steps:  # whatever one of them raises, the others are closed
            for master in self.masters:
                steps.callback(_close, master)

    def _refuse_exposed(self) -> None:
        if self._guarded:
            return
        for master in self.masters:
            refuse_exposed(master.address, master.fd)

    def _listen(self, master: MasterSocket) -> None:
        limits = self._limits
        master.listen(
            master.address.backlog or limits.backlog, vanish_timeout=limits.vanish_timeout, stall=limits.output_timeout
        )


def _share_ports(masters: list[MasterSocket]) -> None:
    """Where one has a port for IPv4, another may have it for IPv6."""
    shared = {master.address.port for master in masters if master.takes_ipv4} - {0}
    for master in masters:
        if master.address.port in shared:
            master.leave_ipv4()


def _close(master: MasterSocket) -> None:
    try:
        master.close()
    except OSError as error:  # the descriptor is gone all the same, and the others must be closed too
        log.warning("closing %r: %s", master, error)
