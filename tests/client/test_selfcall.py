"""A server's own loop that calls its server: an error at once, in words."""

from __future__ import annotations

import threading

import pytest

import pysock
from pysock import PysockError, Server, connect

WORDS = "this thread runs the loop of <Server .*, which would have to answer: it would wait for itself"


@pytest.fixture(params=["unix", "abstract", "tcp", "everywhere", "both"])
def server(request, backend, tmp_path):
    place = {
        "unix": f"unix:{tmp_path}/s",
        "abstract": f"unix:@{tmp_path}/s",
        "tcp": "tcp://127.0.0.1:0",
        "everywhere": "tcp://0.0.0.0:0",
        "both": "tcp://[::]:0",
    }[request.param]
    return Server(place, backend=backend, insecure=True)


def reach(server):
    address = server.addresses[0]
    return f"tcp://127.0.0.1:{address.port}" if address.transport == "tcp" else address


def test_a_handler_that_connects_to_its_own_server(server, backend):
    @server.service
    def handler(client, request):
        with pytest.raises(PysockError, match=WORDS):
            connect(reach(server), backend=backend)
        return b"told"

    with server, connect(reach(server), backend=backend) as client:
        assert client.request(b"") == b"told"


def test_a_handler_that_uses_a_client_of_its_own_server(server, backend):
    @server.service
    def handler(client, request):
        for call in (
            lambda: other.request(b""),
            lambda: other.request_many([b""]),
            other.ping,
            lambda: next(other.pushes(), None),
        ):
            with pytest.raises(PysockError, match=WORDS):
                call()
        assert list(other.pushes(timeout=0)) == []
        other.notify(b"doesn't wait", service="noted")
        other.close()
        return b"told"

    noted = threading.Event()
    server.service("noted")(lambda client, request: noted.set())
    with server, connect(reach(server), backend=backend) as other, connect(reach(server), backend=backend) as client:
        assert client.request(b"") == b"told"
        assert noted.wait(10)


@pytest.mark.parametrize(
    "places", ["unix:{}/a unix:{}/b", "tcp://127.0.0.1:0 unix:{}/b", "unix:{}/a tcp://127.0.0.1:0"]
)
def test_a_handler_that_calls_another_server(tmp_path, backend, places):
    first, second = (Server(place.format(tmp_path), backend=backend) for place in places.split())
    second.service(lambda client, request: request.upper())

    @first.service
    def handler(client, request):
        with connect(second.addresses[0], backend=backend) as onward:
            return onward.request(request)

    with first, second, connect(first.addresses[0], backend=backend) as client:
        assert client.request(b"x") == b"X"


def test_a_server_that_has_ended_is_told_of_as_ever(tmp_path, backend):
    server = Server(f"unix:{tmp_path}/s", backend=backend)
    server.service(lambda client, request: request)
    with server:
        client = connect(server.addresses[0], backend=backend)
    with pytest.raises(pysock.errors.ConnectionLost):
        client.request(b"")
    client.close()
