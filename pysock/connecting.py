"""``connect()``: what a program calls for a client.

This file owns the words of it. The client itself is imported with the first one that is made, since a program that only
has the name shall pay nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from pysock.base.lean import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from typing import Any

    from pysock.access.peers import Ids
    from pysock.address import AddressLike
    from pysock.base import kinds
    from pysock.client import Client
    from pysock.healing.policy import Backoff


def connect(
    address: AddressLike | Sequence[AddressLike],
    name: str | None = None,
    *,
    timeout: float | None = 10.0,
    backend: kinds.BackendName = "auto",
    linger: float | None = None,
    max_payload: int = 16 * 1024 * 1024,
    max_pushes: int = 10_000,
    authkey: bytes | None = None,
    server_uid: Ids | None = None,
    deadline: kinds.Deadline = "inherit",
    heartbeat: float | None = None,
    services: kinds.ClientServices | None = None,
    tls: kinds.TLS | None = None,
    proxy: kinds.Proxy | None = None,
    reconnect: bool | Backoff = False,
    wait: float | None = None,
    balance: kinds.Balance | None = None,
) -> Client:
    """Connect to a server and be let in: ``connect()``, then the connection initiation request (CIR).

    :param address: where the server listens: a text, an :class:`Address`, or the ``Path`` of a socket file. Or several,
        in a list, or in one text with commas between them: see ``balance``. Or a cluster's nodes, found by its bus:
        ``cluster+nats://HOST:4222/NAME``, ``cluster+redis://HOST:6379/NAME``, ``cluster+local:BUS/NAME``; where the bus
        is down, those that are known so far. NAME may be left out where the cluster has none; ``balance`` is then
        ``"p2c"``, unless it is said.
    :param name: how the server shall call this client: at most 255 bytes of UTF-8.
    :param timeout: seconds for all of this, and by default for each call later; ``None`` waits for ever.
    :param backend: ``"auto"``, ``"native"`` or ``"pure"``.
    :param linger: how long to poll for a reply without sleeping before the first sleep. By default up to 20
        microseconds, where trying now and then shows that it pays, as of a :class:`Server`; a number of seconds is
        obeyed, 0 switches it off, 1 is the most.
    :param max_payload: the largest reply in bytes that this client takes.
    :param max_pushes: pushes that are kept while nobody takes them; then the oldest goes for each new one. Of those
        that come within one call at most 65,536 are kept.
    :param authkey: a secret that the server must have, too. Each end proves to the other that it has it, by HMAC-SHA256
        and without sending it; nothing is encrypted.
    :param server_uid: who the server behind a Unix socket may run as: the number or name of a user, or several.
        It is the user who called ``listen()``, looked at before a byte is sent. By default anybody; on an abstract
        address, which has no permissions, this process's own user and root.
    :param deadline: a call that a handler makes waits no longer than the client waits for that handler; with
        ``"ignore"`` it does, for what is to be done in any case.
    :param heartbeat: seconds between two PINGs of a client that listens (``pushes()``, ``on_push``); where one has no
        answer for three times as long, the server is taken for dead. By default 15 over TCP, none on a Unix socket, and
        in any case often enough for the server's ``Limits.idle_timeout``, where it has told it. 0 is none.
    :param services: what this client answers when the server asks it (``DataSocket.request``): a dict of functions by
        name, called as ``service(client, request)`` in a thread that the client has for it; ``None`` names the unnamed
        one. They may use the client. What it connects to again, it answers likewise.
    :param tls: what is spoken at an address ``tls://HOST:PORT`` that doesn't say it itself: a :class:`TLS`, or an
        ``ssl.SSLContext``. By default the server's certificate must come from an authority that the system trusts, and
        have the host's name in it.
    :param proxy: for whom this program connects, which is a proxy itself: a :class:`ProxyHeader`, or a pair of the
        source and the destination of the connection that it passes on, as texts or as ``getpeername()`` has them. It is
        sent first, by the PROXY protocol, version 2, to a server whose address says ``?proxy=v2``.
    :param reconnect: ``True``, or a :class:`Backoff`: the client connects again when the connection has ended, after a
        wait at random that doubles with each failure, and likewise for the first time, within the timeout. Requests
        that come meanwhile wait, within theirs. What wasn't run is sent again; so is, at most three times, what may
        have been run, if that may happen twice (``request(..., idempotent=True)``, or the service says so). For all
        else its caller gets an :class:`OutcomeUnknown`.
    :param wait: seconds to wait for a server that isn't there yet: attempts are begun for so long, each with the whole
        timeout. So it doesn't matter which of the two is started first.
    :param balance: which one of several servers: ``"first"``, the default, is the first that lets the client in, in
        their order; ``"p2c"`` the one of two chosen at random that has fewer clients (where they tell it:
        ``Server(advertise=...)``); ``"round"`` begins anywhere, and goes on to the next with each connection. A host's
        name that has several addresses is as many servers, looked up for each attempt. One that fails again and again
        is left alone for a while. A client that connects again hears from ``advertise`` of servers that come and go.
        Where none lets it in, what is raised has the reason of each, and is of one of these kinds.
    :raises FileNotFoundError: there is no such socket file.
    :raises ConnectionRefusedError: nobody listens there.
    :raises ConnectionRefused: the server didn't let the client in (:class:`ServerFull` if it had no room); with code 3
        because of the auth key: the two differ, or only one end has one.
    :raises PermissionError: the server runs as somebody else than ``server_uid`` says, or the system doesn't let this
        process connect.
    :raises TLSError: its certificate isn't good, or it wants one of this client, or speaks no TLS. It is for good.
    :raises RequestTimeout: it took too long.
    :raises ProtocolError: it isn't a pysock server.
    :raises BusDown: the bus of a cluster isn't there, or doesn't let this client in, and no node is known.
    :raises ImportError: what that bus needs isn't installed; the message says how to install it.
    :raises ValueError: a parameter is wrong; the message says which.
    """
    options: dict[str, Any] = {
        "timeout": timeout, "backend": backend, "linger": linger, "max_payload": max_payload, "max_pushes": max_pushes,
        "authkey": authkey, "server_uid": server_uid, "deadline": deadline, "heartbeat": heartbeat,
        "services": services, "tls": tls, "proxy": proxy,
    }  # fmt: skip
    return _made(address, name, reconnect, wait, balance, options)


def _made(
    address: AddressLike | Sequence[AddressLike],
    name: str | None,
    reconnect: bool | Backoff,
    wait: float | None,
    balance: str | None,
    options: dict[str, Any],
) -> Client:
    several = isinstance(address, (list, tuple)) or (
        isinstance(address, str) and ("," in address or address[:8].lower() == "cluster+")
    )
    if several or reconnect or wait is not None or balance is not None:
        from pysock.healing.connect import connect_patiently  # noqa: PLC0415  # as below

        return connect_patiently(address, name, reconnect, wait, balance, options)
    from pysock.client import Client  # noqa: PLC0415  # see the head of this file

    return Client(cast("AddressLike", address), name, **options)
