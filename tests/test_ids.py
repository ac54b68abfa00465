"""How client ids are shown, and read again."""

from __future__ import annotations

import pytest

from pysock import Server, connect
from pysock.base.ids import read, shown


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
