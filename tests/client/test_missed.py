"""What a client is told of pushes that the server has dropped: how many, and between which others."""

from __future__ import annotations

import asyncio
import struct

import pytest
from support import until_bye, wait_for

from pysock import Limits, aio, connect
from pysock.calls.mailbox import Mailbox
from pysock.wire.cir import encode_accepted, encode_welcome
from pysock.wire.features import FEATURES
from pysock.wire.format import FLAG_GAP, Kind, encode

WELCOME = encode_accepted(7, encode_welcome(1000, 100, [(0, "")], "fake"), FEATURES)
EXPECTED = [b"a", 3, b"b", b"c", 2**32 - 1, b""]


def push(payload, lost=0):
    prefix = struct.pack("!I", lost) if lost else b""
    return encode(Kind.PUSH, prefix + payload, flags=FLAG_GAP if lost else 0)


PUSHES = push(b"a") + push(b"b", 3) + push(b"c") + push(b"", 2**32 - 1)


def tells(peer):
    """The script of a server that pushes these, and answers what it is asked."""
    assert peer.frame().kind == Kind.CIR
    peer.send(WELCOME + PUSHES)
    while (frame := peer.frame()) is not None and frame.kind == Kind.SRM:
        peer.send(encode(Kind.REPLY, b"", request_id=frame.request_id))


@pytest.fixture(params=[False, True], ids=["plain", "healing"])
def client(request, backend, fake):
    with connect(fake(tells), backend=backend, timeout=5, reconnect=request.param) as client:
        yield client


def test_by_pushes(client):
    got = []
    client.on_gap(got.append)
    for payload in client.pushes(timeout=5):
        got.append(payload)
        if payload == b"":
            break
    assert got == EXPECTED
    assert client.missed_pushes == 3 + 2**32 - 1
    assert client.dropped_pushes == 0


def test_by_on_push(client):
    """Within a call, and while nobody is in one."""
    got = []
    client.on_gap(got.append)
    client.on_push(got.append)
    client.request(b"x")
    wait_for(lambda: len(got) == len(EXPECTED))
    assert got == EXPECTED


def test_without_the_hook(client):
    """They are counted all the same."""
    client.request(b"x")
    assert list(client.pushes(timeout=0)) == [b"a", b"b", b"c", b""]
    assert client.missed_pushes == 3 + 2**32 - 1


def test_a_hook_that_fails(client, caplog):
    @client.on_gap
    def hook(lost):
        raise ValueError("oh")

    client.request(b"x")
    assert list(client.pushes(timeout=0)) == [b"a", b"b", b"c", b""]
    assert "ValueError: oh" in caplog.text
    assert "on_gap" in caplog.text
    with pytest.raises(TypeError, match="a hook must be callable"):
        client.on_gap(3)


@pytest.mark.parametrize("reconnect", [False, True], ids=["plain", "healing"])
def test_of_asyncio(backend, fake, reconnect):
    async def main():
        got = []
        async with await aio.connect(fake(tells), backend=backend, reconnect=reconnect) as client:
            client.on_gap(got.append)
            async for payload in client.pushes(timeout=5):
                got.append(payload)
                if payload == b"":
                    break
            assert client.missed_pushes == 3 + 2**32 - 1
        return got

    assert asyncio.run(main()) == EXPECTED


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_the_next_connection_counts_on(backend, played, kind):
    """And has the same hook."""

    def last(peer):
        tells(peer)
        until_bye(peer)

    def first(peer):
        assert peer.frame().kind == Kind.CIR
        peer.send(WELCOME + push(b"1", 5))
        peer.frame()  # it has that, and asks for more

    def blocking(address):
        got = []
        with connect(address, backend=backend, reconnect=True, timeout=5) as client:
            client.on_gap(got.append)
            got.append(next(client.pushes(timeout=5)))
            client.request(b"x", idempotent=True)
            got += client.pushes(timeout=0)
            return got, client.missed_pushes

    async def by_asyncio(address):
        got = []
        async with await aio.connect(address, backend=backend, reconnect=True) as client:
            client.on_gap(got.append)
            async for payload in client.pushes(timeout=5):
                got.append(payload)
                break
            await client.request(b"x", idempotent=True)
            got += [payload async for payload in client.pushes(timeout=0)]
            return got, client.missed_pushes

    address = played(first, last)
    got, missed = blocking(address) if kind == "blocking" else asyncio.run(by_asyncio(address))
    assert missed == 5 + 3 + 2**32 - 1
    assert got[:2] == [5, b"1"]
    assert [one for one in got[2:] if isinstance(one, bytes)] == [b"a", b"b", b"c", b""]
    assert [one for one in got[2:] if isinstance(one, int)] == [3, 2**32 - 1]


def test_what_is_thrown_away_here_as_well():
    """The mailbox keeps two: what the others told isn't lost, and counted once."""
    mail, told = Mailbox("it", 2), []
    for number, lost in enumerate((0, 3, 4, 0, 5)):
        prefix = struct.pack("!I", lost) if lost else b""
        mail.append((Kind.PUSH, FLAG_GAP if lost else 0, 0, 0, prefix + b"%d" % number))
    assert (mail.dropped, mail.missed) == (3, 12)
    assert (mail.take(told.append), mail.take(told.append), mail.take(told.append)) == (b"3", b"4", None)
    assert told == [7, 5]


@pytest.mark.parametrize("slow", ["drop-new", "drop-old"])
def test_all_that_is_sent_comes_or_is_told(make_server, backend, unix_address, slow):
    """A client that doesn't listen for a while."""
    limits = Limits(push_soft=100_000, push_hard=200_000, output_timeout=60)
    server, count = make_server(unix_address, slow=slow, limits=limits), 100
    with server, connect(server.addresses[0], backend=backend) as client:
        wait_for(lambda: server.clients)
        for _ in range(count):
            server.clients.broadcast(bytes(20_000))
        wait_for(lambda: server.stats()["pushes"] == count)
        gaps, got = [], 0
        client.on_gap(gaps.append)
        for payload in client.pushes(timeout=5):
            got += payload != b"last"
            if payload == b"last":
                break
            if got + server.stats()["pushes_dropped"] == count:
                server.clients.broadcast(b"last")
        assert sum(gaps) == client.missed_pushes == server.stats()["pushes_dropped"] > 0
        assert got + sum(gaps) == count
