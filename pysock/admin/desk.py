"""Desk: an admin socket. It is a pysock server of its own, whose services take and give JSON.

This file owns that server, who may come to it, and the form of requests and replies. What is answered are functions
that it is given: of one server (:mod:`pysock.admin.companion`), or of several.

A request is a JSON object, or nothing, which is an empty one; a reply is a JSON object. ``_admin`` says what it is, and
which services there are. A request that is wrong is answered by an error with the words.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping

from pysock._version import __version__
from pysock.address import Address
from pysock.base.lean import TYPE_CHECKING, replace
from pysock.base.logs import server_log as log
from pysock.errors import PysockError, RemoteError
from pysock.limits import Limits
from pysock.server import Server

if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias

    from pysock.data import DataSocket

#: What answers: a request's fields -> the reply's. A ValueError, PysockError or OSError is told to who asks.
Answering: TypeAlias = "Callable[[Mapping[str, Any]], Mapping[str, Any]]"

#: The service that tells what this is. A program can't register one of this name: it begins as those of servers do.
ADMIN: Final = "_admin"

#: Operators, and what they have started, are few.
_CLIENTS: Final = 32
#: No request is longer.
_REQUEST: Final = 64 * 1024


class Desk:
    """An admin socket at this address, for this user and root alone.

    :param address: of a Unix socket.
    :param services: what it answers, by name.
    :param name: of the server that it is about, or of several.
    :param backend: the engine.
    :param acts: the names of those services that change something, and are logged.
    :param slow: those that may take their time: a thread beside the socket's own answers them.
    """

    def __init__(
        self,
        address: Address,
        services: Mapping[str, Answering],
        *,
        name: str | None = None,
        backend: str = "auto",
        acts: frozenset[str] = frozenset(),
        slow: frozenset[str] = frozenset(),
    ) -> None:
        self._name = name
        self._names = sorted(services)
        self._acts = acts
        where = replace(address, mode=0o600) if address.transport == "unix" else address
        self.server: Server = Server(
            where,
            backend=backend,  # type: ignore[arg-type]  # it is looked at there
            name=f"admin of {name}" if name else "admin",
            limits=Limits(max_clients=_CLIENTS, max_pending_cir=_CLIENTS, max_in_flight=16),
            allow={"uid": sorted({0, os.geteuid()})},
            linger=0,
        )
        self.server._services.add_own(ADMIN, self._served(ADMIN, lambda _fields: self._about()))
        for each, answering in services.items():
            self.server.service(each, threads=1 if each in slow else None)(self._served(each, answering))

    def start(self) -> None:
        """Listen, and answer in a thread of its own.

        :raises OSError: the address can't be used.
        """
        self.server.start()

    def stop(self) -> None:
        """Close all. Called again it does nothing."""
        self.server.stop(grace=1.0)

    def _about(self) -> Mapping[str, Any]:
        return {"pysock": __version__, "name": self._name, "pid": os.getpid(), "services": self._names}

    def _served(self, name: str, answering: Answering) -> Callable[[DataSocket, bytes], bytes]:
        def answer(client: DataSocket, request: bytes) -> bytes:
            fields = _fields_of(request)
            if name in self._acts:
                peer = client.peer
                by = f"process {peer.pid} of user {peer.uid}" if peer is not None else "somebody"
                log.info("%s %s: asked for by %s", name, json.dumps(fields), by)
            try:
                reply = answering(fields)
            except RemoteError:
                raise
            except (ValueError, PysockError, OSError) as error:
                raise RemoteError(str(error) or type(error).__name__) from error
            return json.dumps(reply, separators=(",", ":")).encode()

        return answer


def _fields_of(request: bytes) -> dict[str, Any]:
    if len(request) > _REQUEST:
        raise RemoteError(f"a request is a JSON object of at most {_REQUEST} bytes, not {len(request)}")
    try:
        fields = json.loads(request) if request.strip() else {}
    except ValueError as error:  # also UnicodeDecodeError
        raise RemoteError(f"a request is a JSON object, and this isn't: {error}") from error
    except RecursionError as error:
        raise RemoteError("a request is a JSON object, and this one is too deep") from error
    if not isinstance(fields, dict):
        raise RemoteError(f"a request is a JSON object, not {request[:40]!r}")
    return fields
