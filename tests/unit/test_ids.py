"""How client ids are shown, and read again."""

from __future__ import annotations

import pytest

from pysock import Limits, Server, connect
from pysock.base.ids import read, shown
from pysock.engine.contract import SLOT_BITS
from pysock.limits import MOST_CLIENTS


@pytest.mark.parametrize(
    ("number", "text"),
    [(4294967303, "1.7"), (0, "0.0"), (1, "0.1"), ((1 << 64) - 1, "4294967295.4294967295"), (12345 << 32, "12345.0")],
)
def test_an_id_is_shown_short_and_read_again(number, text):
    assert shown(number) == text
    assert read(text) == number


@pytest.mark.parametrize(
    "text", ["", ".", "1", "1.", ".7", "1.7.0", "01.7", " 1.7", "1.x", "1.4294967296", "-1.7", "\u0661.\u0667"]
)
def test_what_is_no_id(text):
    assert read(text) is None


def test_what_people_read_is_taken(tmp_path, backend):
    server = Server(f"unix:{tmp_path}/s", backend=backend)
    server.service(lambda client, request: repr(client).encode())
    with server, connect(server.addresses[0], backend=backend) as client:
        text = client.request(b"").decode().split()[1]
        assert repr(client).split()[1] == text == shown(client.id)
        assert server.clients[text] is server.clients[client.id]
        assert text in server.clients
        for wrong in ("0.99", "anna", "4294967297"):
            assert wrong not in server.clients
            assert server.clients.get(wrong) is None


def test_eight_bits_are_the_loops(tmp_path, backend):
    """Those above the slot's 24: there is one loop, number 0, and an id of another finds nobody."""
    server = Server(f"unix:{tmp_path}/s", backend=backend, limits=Limits(max_clients=MOST_CLIENTS))
    server.service(lambda client, request: shown(client.id).encode())
    assert MOST_CLIENTS < 2**SLOT_BITS
    with server, connect(server.addresses[0], backend=backend) as first, connect(server.addresses[0]) as second:
        assert (first.request(b""), second.request(b"")) == (b"1.0", b"1.1")
        assert {client.id >> SLOT_BITS for client in server.clients.values()} == {1 << (32 - SLOT_BITS)}
        for loop in (1, 255):
            assert second.id | loop << SLOT_BITS not in server.clients
            assert server.clients.get(second.id | loop << SLOT_BITS) is None
