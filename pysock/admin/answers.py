"""Answers: what the admin services say of one server, without a socket; any thread may ask.

This file owns which services there are, by name. What each does is in a file of :mod:`pysock.admin.services`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

from pysock.admin.doctor.checks import doctor
from pysock.admin.doctor.facts import gathered
from pysock.admin.services.clients import clients, kill
from pysock.admin.services.log import LogLevels
from pysock.admin.services.served import Requests, checked_slow
from pysock.admin.services.state import Pulse, drain, resume, stats
from pysock.base.lean import TYPE_CHECKING
from pysock.base.unique import Unique

if TYPE_CHECKING:
    from typing import Final

    from pysock.admin.desk import Answering
    from pysock.server import Server

#: The services that change something: who asks for one is logged.
ACTS: Final = frozenset(("kill", "drain", "resume", "log", "reload", "scale"))


class Answers(Unique):
    """Those of one server, which need not have been started.

    :param slowlog: requests that take so many seconds are in the slowlog; at least 0.001.
    :ivar by_service: what answers, by the name of the service.
    :raises ValueError: ``slowlog`` is no such time.
    """

    def __init__(self, server: Server, slowlog: float) -> None:
        self._levels = LogLevels()
        requests, pulse = Requests(server, checked_slow(slowlog)), Pulse(server)
        of_server: dict[str, Callable[..., Mapping[str, object]]] = {
            "clients": clients,
            "kill": kill,
            "drain": drain,
            "resume": resume,
        }
        self.by_service: dict[str, Answering] = {name: partial(each, server) for name, each in of_server.items()}
        self.by_service["stats"] = partial(stats, server, pulse, time.time())
        self.by_service["doctor"] = partial(doctor, lambda: gathered(server, pulse.stuck_for))
        self.by_service["log"] = self._levels.set
        self.by_service["slowlog"], self.by_service["tail"] = requests.slowlog, requests.tail

    def give_back(self) -> None:
        """What was changed for a while is as it was. Called again it does nothing."""
        self._levels.give_back()

    def abandon(self) -> None:
        """In a forked child, where nothing of it is to be given back."""
        self._levels = LogLevels()
