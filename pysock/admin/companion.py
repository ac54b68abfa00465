"""Admin: the admin socket of one server, in a thread of its own.

This file owns when the socket comes and goes. What is answered there is in :mod:`pysock.admin.answers`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pysock.address import Address, AddressLike
from pysock.admin.answers import ACTS, Answers
from pysock.admin.desk import Answering, Desk
from pysock.admin.place import beside_first, checked_place
from pysock.admin.services.served import SLOW
from pysock.base.forking import own
from pysock.base.lean import TYPE_CHECKING
from pysock.base.logs import server_log as log
from pysock.base.unique import Unique
from pysock.errors import PysockError

if TYPE_CHECKING:
    from typing import Any

    from pysock.server import Server


class Admin(Unique):
    """The admin socket of a server: ``pysock clients``, ``kill``, ``stats`` and so on ask it. Usable in a ``with``
    statement, around the server's own.

    It is a pysock server itself, at a Unix socket of mode 0600, for the server's own user and root. It runs in a thread
    of its own and never waits for the server's loop: also one that hangs is told of.

    :param server: which one; it need not have been started.
    :param address: where: a Unix socket. By default beside the server's first Unix socket, with ``.admin`` behind its
        name. Then a place that can't be used is one line in the log, and nothing else: the server serves as without.
    :param services: more services, which take and give what JSON has as objects.
    :param slowlog: requests that take so many seconds are in the slowlog; at least 0.001.
    :raises ValueError: the address is wrong, or none of a Unix socket; or none was given, and the server has none; or
        ``slowlog`` is no such time.
    """

    _instead = "make a new Admin"

    def __init__(
        self,
        server: Server,
        address: AddressLike | None = None,
        *,
        services: Mapping[str, Answering] | None = None,
        slowlog: float = SLOW,
    ) -> None:
        self._server = server
        self._is_wanted_there = address is not None
        self._address = None if address is None else checked_place(address)
        if address is None:
            beside_first(_places(server))
        self._answers = Answers(server, slowlog)
        self._services: dict[str, Answering] = self._answers.by_service | dict(services or {})
        self._desk: Desk | None = None
        own(self)

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._address or beside_first(_places(self._server))

    def start(self) -> None:
        """Listen, and answer in a thread from now on.

        :raises OSError: the address that was given can't be used.
        :raises PysockError: it was started before.
        """
        if self._desk is not None:
            raise PysockError("this admin socket was started before: make a new one")
        server = self._server
        self._desk = Desk(self.address, self._services, name=server.name, backend=server.backend, acts=ACTS)
        try:
            self._desk.start()
        except (OSError, PysockError) as error:
            if self._is_wanted_there:
                raise
            log.info("there is no admin socket at %s, and all else is as it was: %s", self.address, error)

    def stop(self) -> None:
        """Close all, and end the thread. Called again it does nothing."""
        if self._desk is not None:
            self._desk.stop()
        self._answers.give_back()

    def answer(self, service: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the socket says to this request; any thread may ask.

        :param service: the name of one of its services.
        :param fields: of the request.
        :raises KeyError: there is no such service.
        :raises ValueError: a field is wrong.
        """
        return self._services[service](fields)

    def __enter__(self) -> Admin:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def abandon(self, _why: str) -> None:
        """For :mod:`pysock.base.forking`: in a child there is no thread, and the socket is the parent's."""
        self._answers.abandon()
        self._desk = None


def _places(server: Server) -> list[Address]:
    """Where it listens, with the names that its sockets get from it."""
    return [address.named(server.name) for address in server.addresses]
