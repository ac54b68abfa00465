"""pysock: a socket server whose loop runs in C and whose handlers are plain Python.

The smallest server and its client::

    import pysock

    server = pysock.Server("unix:/tmp/demo.sock")

    @server.service
    def upper(client, request):
        return request.upper()

    with server:
        with pysock.connect("unix:/tmp/demo.sock") as client:
            print(client.request(b"hello"))

This file owns the list of public names. Each is loaded from its module when it is first asked for, so that importing
pysock costs next to nothing; ``pysock.backend`` is the name of the engine in use, ``"native"`` or ``"pure"``, and
``pysock.tls_driver`` that of what speaks TLS in it, ``"ssl"`` or ``"libssl"``.
"""

from __future__ import annotations

import sys

from pysock._version import __version__

# Type checkers take this to be true; the module typing would cost more than all the rest.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from pysock import errors as errors
    from pysock import states as states
    from pysock.address import Address
    from pysock.admin.companion import Admin
    from pysock.base.kinds import Buffer
    from pysock.base.registry import servers
    from pysock.calls.ping import Pong
    from pysock.client import Client
    from pysock.clients import ClientTable
    from pysock.cluster.cluster import Cluster
    from pysock.cluster.directory.words import ClusterState, NodeChange
    from pysock.cluster.groups import ClusterGroup
    from pysock.cluster.sending import Spread
    from pysock.cluster.view import ClusterClient, ClusterClients, ClusterNode
    from pysock.connecting import connect
    from pysock.data import DataSocket, Peer
    from pysock.directory.groups import Group
    from pysock.directory.rows import ClientRow, LeftClient, Snapshot
    from pysock.errors import (
        AddressInUse,
        BusDown,
        Cancelled,
        ConnectionLost,
        ConnectionRefused,
        DeliveryUnknown,
        FrameTooLarge,
        HandoverFailed,
        NodeGone,
        OutcomeUnknown,
        Overloaded,
        ProtocolError,
        PysockError,
        RemoteError,
        RequestTimeout,
        ServerFull,
        TLSError,
    )
    from pysock.healing.policy import Backoff
    from pysock.healing.pool import Pool
    from pysock.health.agent import HealthAgent
    from pysock.health.control import control
    from pysock.limits import Limits
    from pysock.master import MasterSocket
    from pysock.replies.current import Request, current
    from pysock.replies.later import Reply, later
    from pysock.server import Server, serve
    from pysock.states import ConnectionState, DisconnectReason, IllegalTransition, ServerState
    from pysock.supervision.unit import notify_systemd
    from pysock.tls.config import TLS
    from pysock.tls.info import TLSInfo
    from pysock.wire.format import ErrorCode
    from pysock.wire.proxy.facts import ProxyHeader, ProxyTLS

    backend: str
    tls_driver: str

__all__ = [
    "TLS",
    "Address",
    "AddressInUse",
    "Admin",
    "Backoff",
    "Buffer",
    "BusDown",
    "Cancelled",
    "Client",
    "ClientRow",
    "ClientTable",
    "Cluster",
    "ClusterClient",
    "ClusterClients",
    "ClusterGroup",
    "ClusterNode",
    "ClusterState",
    "ConnectionLost",
    "ConnectionRefused",
    "ConnectionState",
    "DataSocket",
    "DeliveryUnknown",
    "DisconnectReason",
    "ErrorCode",
    "FrameTooLarge",
    "Group",
    "HandoverFailed",
    "HealthAgent",
    "IllegalTransition",
    "LeftClient",
    "Limits",
    "MasterSocket",
    "NodeChange",
    "NodeGone",
    "OutcomeUnknown",
    "Overloaded",
    "Peer",
    "Pong",
    "Pool",
    "ProtocolError",
    "ProxyHeader",
    "ProxyTLS",
    "PysockError",
    "RemoteError",
    "Reply",
    "Request",
    "RequestTimeout",
    "Server",
    "ServerFull",
    "ServerState",
    "Snapshot",
    "Spread",
    "TLSError",
    "TLSInfo",
    "__version__",
    "backend",
    "connect",
    "control",
    "current",
    "later",
    "notify_systemd",
    "serve",
    "servers",
    "tls_driver",
]

_HOMES = {
    "address": ("Address",),
    "admin.companion": ("Admin",),
    "calls.ping": ("Pong",),
    "client": ("Client",),
    "connecting": ("connect",),
    "clients": ("ClientTable",),
    "cluster.cluster": ("Cluster",),
    "cluster.directory.words": ("ClusterState", "NodeChange"),
    "cluster.groups": ("ClusterGroup",),
    "cluster.sending": ("Spread",),
    "cluster.view": ("ClusterClient", "ClusterClients", "ClusterNode"),
    "data": ("DataSocket", "Peer"),
    "directory.groups": ("Group",),
    "directory.rows": ("ClientRow", "LeftClient", "Snapshot"),
    "errors": (
        "AddressInUse",
        "BusDown",
        "Cancelled",
        "ConnectionLost",
        "ConnectionRefused",
        "DeliveryUnknown",
        "FrameTooLarge",
        "HandoverFailed",
        "NodeGone",
        "OutcomeUnknown",
        "Overloaded",
        "ProtocolError",
        "PysockError",
        "RemoteError",
        "RequestTimeout",
        "ServerFull",
        "TLSError",
    ),
    "base.kinds": ("Buffer",),
    "healing.policy": ("Backoff",),
    "healing.pool": ("Pool",),
    "health.agent": ("HealthAgent",),
    "health.control": ("control",),
    "limits": ("Limits",),
    "master": ("MasterSocket",),
    "wire.format": ("ErrorCode",),
    "wire.proxy.facts": ("ProxyHeader", "ProxyTLS"),
    "replies.current": ("Request", "current"),
    "replies.later": ("Reply", "later"),
    "base.registry": ("servers",),
    "server": ("Server", "serve"),
    "states": ("ConnectionState", "DisconnectReason", "IllegalTransition", "ServerState"),
    "supervision.unit": ("notify_systemd",),
    "tls.config": ("TLS",),
    "tls.info": ("TLSInfo",),
}
#: The modules whose names people write out.
_MODULES = ("errors", "states")
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # by it a type checker would take every name for one that there is

    def __getattr__(name: str) -> object:
        """Load a public name (PEP 562)."""
        from importlib import import_module  # noqa: PLC0415  # only when it is needed, as all here

        if name == "backend":
            return import_module("pysock.engine.choice").choose().name
        if name == "tls_driver":
            return import_module("pysock.engine.choice").tls_driver()
        if name in _MODULES:
            return import_module(f"pysock.{name}")
        if name not in _HOME_OF:
            # With both, Python adds "Did you mean: ...?" where a public name is like it.
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
        value = getattr(import_module(f"pysock.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
