"""What owns a descriptor, a lock or a file can't be copied; what was never made does nothing when it is thrown away."""

from __future__ import annotations

import copy
import importlib
import os
import pickle
import pkgutil
import socket
import warnings

import pytest

import pysock
from pysock import Address, Limits, MasterSocket, connect
from pysock.base.unique import Unique
from pysock.data import Peer

WAYS = [copy.copy, copy.deepcopy, pickle.dumps, lambda value: pickle.dumps(value, 0)]


def classes():
    found = set()
    for module in pkgutil.walk_packages(pysock.__path__, "pysock."):
        if module.name not in {"pysock._engine", "pysock.__main__"} and ".examples" not in module.name:
            members = vars(importlib.import_module(module.name)).values()
            found |= {kind for kind in members if isinstance(kind, type) and kind.__module__ == module.name}
    return sorted(found, key=lambda kind: (kind.__module__, kind.__qualname__))


#: These close what they are given, or only tell of an error.
NO_OWNERS = {"NativeSockets", "PureSockets", "ExceptionThatCouldNotBeLogged"}
#: Or are contracts, of which no object is made.
CONTRACTS = {"Bus", "Engine", "Link", "Owner", "Poller", "Sockets", "Worker"}


def test_whatever_closes_something_is_unique():
    """A class with a ``close``, ``abandon`` or ``__del__`` of its own: a new one can't forget it."""
    owners = [kind for kind in classes() if {"close", "abandon", "__del__"} & set(vars(kind))]
    assert pysock.Client in owners
    assert {kind.__name__ for kind in owners if not issubclass(kind, Unique)} <= NO_OWNERS | CONTRACTS


def by_hand(master):
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect("\0" + master.address.path)
        return master.accept()


@pytest.fixture
def things(make_server, address, backend):
    server = make_server(address)
    server.service(lambda client, request: request)
    with (
        server,
        connect(server.addresses[0], backend=backend) as client,
        MasterSocket("unix:@" + os.urandom(8).hex(), backend) as master,
    ):
        client.request(b"x")
        served = next(iter(server.clients.values()))
        master.create()
        master.bind()
        master.listen()
        with by_hand(master) as hand:
            yield [server, client, server.clients, served, master, hand, client._link, server._running.engine]
        assert client.request(b"y") == b"y"
        assert served.requests == 2


@pytest.mark.parametrize("way", WAYS)
def test_no_copies(things, way):
    for thing in things:
        with pytest.raises(TypeError, match=f"a {type(thing).__name__} can't be copied or pickled, for it owns"):
            way(thing)
    for thing in things if way is not copy.copy else ():
        with pytest.raises(TypeError, match="can't be copied or pickled"):
            way([thing])


VALUES = [Address.parse("unix:/run/x?mode=0660"), Limits(max_clients=5), Peer(1, 2, 3)]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_can(value):
    for again in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert again == value
        assert type(again) is type(value)


@pytest.mark.parametrize(
    "kind", [kind for kind in classes() if hasattr(kind, "__del__")], ids=lambda kind: kind.__name__
)
def test_what_was_never_made_does_nothing_at_its_end(kind):
    if kind.__name__ in NO_OWNERS:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        object.__new__(kind).__del__()


def interrupted(*arguments):
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["SocketFile", "own", "choose"])
def test_one_whose_making_was_interrupted_leaves_nothing(backend, monkeypatch, name):
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(f"pysock.master.{name}", interrupted)
    with pytest.raises(KeyboardInterrupt):
        MasterSocket("unix:/nowhere/x", backend)
    assert os.listdir("/proc/self/fd") == before


def test_a_client_whose_warning_is_an_error_is_closed_all_the_same(make_server, address, backend):
    server = make_server(address)
    server.service(lambda client, request: request)
    with server:
        client = connect(server.addresses[0], backend=backend)
        link = client._link
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ResourceWarning):
                client.__del__()
        assert link.closed
