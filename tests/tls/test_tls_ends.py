"""How connections with TLS end while something is on its way still."""

from __future__ import annotations

import contextlib
import ssl

import pytest
import wire
from certificates import certificates
from wire import replied, srm

from pysock import Limits


@pytest.fixture
def server(make_server, driver):
    one = make_server("tls://127.0.0.1:0", tls=certificates().served, limits=Limits(output_pause=1000))
    one.service(lambda client, request: bytes(int(request)))
    with one:
        yield one


def send_at_once(peer, *pieces, ends):
    """In one flight, with the word that nothing follows: the end of the TCP connection doesn't come behind it."""
    for piece in pieces:
        peer.sock.tls.write(piece)
    if ends:
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.sock.tls.unwrap()
    peer.sock.plain.sendall(peer.sock.taken())


def test_the_end_came_together_with_a_request_that_had_to_wait(server):
    """The first reply isn't taken at once, so the second request waits; behind it nothing comes that a poll could tell
    of, for the end is known already."""
    with wire.let_in(server) as peer:
        send_at_once(peer, srm(b"8000000", 1), srm(b"1", 2), ends=True)
        assert wire.rest_of(peer) == [replied(bytes(8_000_000), 1), replied(b"\0", 2)]
    wire.counted(server, requests=2, disconnected=1, tls_truncated=0)
