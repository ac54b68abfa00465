"""Listening: the master sockets of one server, in their order.

This file owns what is done to them before the loop has them, and their end: inherited ones are adopted, the others
created, bound and made to listen, and each is looked at for who could reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

from pysock.access.networks import networks_of
from pysock.access.rule import Rule, refuse_exposed
from pysock.address import Address
from pysock.base.lean import TYPE_CHECKING, NamedTuple
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.engine.choice import choose_for_tls
from pysock.engine.contract import Backend, Engine
from pysock.engine.proxies import Proxies
from pysock.engine.seats import Seat
from pysock.errors import PysockError
from pysock.limits import Limits
from pysock.master import MasterSocket
from pysock.parameters import checked_addresses, refuse_twice
from pysock.states import ServerEvent

if TYPE_CHECKING:
    from typing import Any, Final

    from pysock.address import AddressLike
    from pysock.tls.wanted import Spoken


#: What ``?proxy=`` takes, as an engine does.
_VERSIONS: Final = {"v1": 1, "v2": 2, "any": 3}


class Lent(NamedTuple):
    """A master socket of another process's: its descriptor here, where it listens, and if its data sockets inherit what
    options they need.
    """

    fd: int
    at: Address
    prepared: bool


class Listening(Unique):
    """Where a server listens.

    :param guarded: other machines may reach it, since an auth key or its owner's word says so.
    :param tls: what it speaks at addresses of the transport ``tls`` that don't say so themselves.
    :param backend: which engine is asked for.
    :param tls_driver: and what is to speak TLS in it.
    :ivar backend: the engine, which can do what the addresses want.
    """

    _instead = "make a new Server"

    def __init__(
        self,
        addresses: Iterable[AddressLike],
        rule: Rule,
        backend: str,
        limits: Limits,
        guarded: bool,
        tls: Any = None,
        tls_driver: str = "auto",
    ) -> None:
        self._rule = rule
        self._limits = limits
        self._guarded = guarded
        self._given = tls
        self._backend = backend
        self.tls_driver: str = tls_driver
        self.tls: tuple[Spoken | None, ...] = ()  # by address, in their order
        self.backend: Backend
        self.listen_at(addresses)
        self.masters: list[MasterSocket] = []
        #: In a worker: who makes the master sockets, by address, and which place at them is this one's.
        self.lender: Callable[[Sequence[Address], Limits], Sequence[Sequence[Lent]]] | None = None
        self.seat: Seat | None = None

    @property
    def engine_options(self) -> dict[str, Any]:
        """What its engine has to know of them, by the names of ``EngineOptions``."""
        return {"seat": self.seat, "tls_driver": self.tls_driver}

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where it listens, with the ports that the kernel chose; before that, what was asked for."""
        masters = self.masters
        return tuple(master.address for master in masters) if masters else self._wanted

    def asked_as(self, name: str | None) -> list[str]:
        """What the program calls its addresses, each of which is ``groups`` many.

        :param name: as ``open`` has it.
        """
        return [str(address.named(name)) for address in self._asked]

    def listen_at(self, addresses: Iterable[AddressLike]) -> None:
        """Listen at these instead."""
        wanted = checked_addresses(addresses, self._rule)
        tls: tuple[Spoken | None, ...] = (None,) * len(wanted)
        if self._given is not None or any(address.transport == "tls" for address in wanted):
            from pysock.tls.wanted import servers_tls  # noqa: PLC0415  # the module ssl takes a while to import

            found = servers_tls(wanted, self._given)
            tls = tuple(found.get(address) for address in wanted)
            for address, one in found.items():
                self._rule.refuse_unverified(address, one.asks)
        self.backend = choose_for_tls(self._backend, {one.kind for one in tls if one is not None}, self.tls_driver)
        self._wanted, self.tls = wanted, tls
        self.groups: list[int] = [1] * len(wanted)
        self._asked = wanted

    def reload_tls(self, engine: Engine | None) -> None:
        """Load the certificates of its TLS from their files once more; each, once. The engine is told.

        :raises ValueError: one isn't good; all are as they were.
        :raises PysockError: there are none that were loaded from files by us.
        """
        ours: list[Any] = [one.wanted for one in self.tls if one is not None and one.kind == "TLS"]
        known = {id(tls): tls for tls in ours}
        if not known:
            what = "its contexts are the program's: call their load_cert_chain()" if any(self.tls) else "it has none"
            raise PysockError(f"this server has no certificates that it could load again: {what}")
        for tls in known.values():
            tls.check()
        for tls in known.values():
            tls.reload()
            if engine is not None:
                engine.reload_tls(tls)
        log.info("the certificates of %s were loaded again", " ".join(map(str, self.addresses)))

    def open(self, name: str | None, advance: Callable[[ServerEvent], None]) -> None:
        """Make them listen, and tell of each step of the server's state.

        :param name: for an address without a name of its own.
        """
        # All are made before the first is touched, so that a wrong user or group leaves nothing behind.
        self._make_masters(name)
        inherited = [master for master in self.masters if master.inherited]
        made = [master for master in self.masters if not master.inherited]
        for master in inherited:
            if master.fd < 0:  # else it is lent
                master.adopt()
        self._rule.refuse_tcp_alone((master.address, master.fd) for master in self.masters)
        for master in made:
            master.remove_stale()
            master.create()
        advance(ServerEvent.CREATE if made else ServerEvent.ADOPT)
        share_ports(made)
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
        for master, tls in zip(self.masters, self.tls, strict=True):
            checked = self._rule.checks(master.address, master.fd)
            wanted = None if tls is None else tls.wanted
            engine.add_master(master.fd, checked, master.prepared, wanted, proxies_of(master.address))
            master.advance(ServerEvent.SERVE)

    def close(self) -> None:
        """Close them, the last one first. Called again it does nothing."""
        with ExitStack() as steps:  # whatever one of them raises, the others are closed
            for master in self.masters:
                steps.callback(_close, master)

    def _make_masters(self, name: str | None) -> None:
        wanted = [address.named(name) for address in self._wanted]
        if self.lender is not None:
            lent = self.lender(wanted, self._limits)
            self._expand([[one.at for one in each] for each in lent])
            for one in (one for each in lent for one in each):
                self.masters.append(master := MasterSocket(one.at, self.backend))
                master.lend(one.fd, one.at, one.prepared)
            return
        if any(address.transport == "systemd" for address in wanted):
            from pysock.files.passed import addresses_of  # noqa: PLC0415  # few need it

            self._expand([addresses_of(one) if one.transport == "systemd" else (one,) for one in wanted])
            wanted = [address.named(name) for address in self._wanted]
        self.masters = [MasterSocket(address, self.backend) for address in wanted]

    def _expand(self, each: Sequence[Sequence[Address]]) -> None:
        """Put these in the place of each address: ``systemd:NAME`` may mean several."""
        self.tls = tuple(tls for found, tls in zip(each, self.tls, strict=True) for _ in found)
        self.groups = list(map(len, each))
        self._wanted = refuse_twice(tuple(address for found in each for address in found))

    def _refuse_exposed(self) -> None:
        if self._guarded:
            return
        for master, tls in zip(self.masters, self.tls, strict=True):
            if tls is not None and tls.asks == "require":  # who comes has a certificate
                continue
            if master.address.proxy is not None and self._rule.names is not None:  # a proxy has found out who comes
                continue
            refuse_exposed(master.address, master.fd)

    def _listen(self, master: MasterSocket) -> None:
        limits = self._limits
        master.listen(
            master.address.backlog or limits.backlog, vanish_timeout=limits.vanish_timeout, stall=limits.output_timeout
        )


def proxies_of(address: Address) -> Proxies | None:
    """Through which proxies clients come to it."""
    if address.proxy is None:
        return None
    return Proxies(_VERSIONS[address.proxy], networks_of(address.trust) if address.trust else ())


def share_ports(masters: list[MasterSocket]) -> None:
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
