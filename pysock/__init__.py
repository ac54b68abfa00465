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

This file owns the list of public names. ``pysock.backend`` is the name of the engine in use, ``"native"`` or
``"pure"``; it is found out when it is first asked for, so that importing pysock stays light.
"""

from __future__ import annotations

import logging as _logging
from typing import TYPE_CHECKING

from pysock._version import __version__
from pysock.address import Address
from pysock.client import Client, connect
from pysock.clients import ClientTable
from pysock.data import DataSocket
from pysock.errors import (
    AddressInUse,
    ConnectionRefused,
    FrameTooLarge,
    ProtocolError,
    PysockError,
    RemoteError,
    RequestTimeout,
    ServerFull,
)
from pysock.limits import Limits
from pysock.master import MasterSocket
from pysock.server import Server, serve
from pysock.states import ConnectionState, ServerState

if TYPE_CHECKING:
    backend: str

__all__ = [
    "Address",
    "AddressInUse",
    "Client",
    "ClientTable",
    "ConnectionRefused",
    "ConnectionState",
    "DataSocket",
    "FrameTooLarge",
    "Limits",
    "MasterSocket",
    "ProtocolError",
    "PysockError",
    "RemoteError",
    "RequestTimeout",
    "Server",
    "ServerFull",
    "ServerState",
    "__version__",
    "backend",
    "connect",
    "serve",
]

_logging.getLogger("pysock").addHandler(_logging.NullHandler())


def __getattr__(name: str) -> str:
    if name != "backend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pysock.engine import choose  # noqa: PLC0415  # loads an engine only now

    return choose().name
