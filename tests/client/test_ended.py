"""Why a connection has ended, and the heartbeat that keeps a listener's alive: both kinds of clients, both engines."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from support import until_bye, wait_for, welcomed

from pysock import ConnectionLost, Limits, aio, connect
from pysock.address import Address
from pysock.calls.heartbeat import FAR, period
from pysock.wire import texts
from pysock.wire.format import Kind, encode_text

UNIX, TCP = Address.parse("unix:/x"), Address.parse("tcp://127.0.0.1:1")


def goodbye(reason):
    def play(peer):
        peer.send(encode_text(Kind.GOAWAY, 0, reason))

    return welcomed(play)


def gone(peer):
    """It is let in, and that is all."""


def deaf(peer):
    """It answers no PING."""
    until_bye(peer)


def test_one_that_leaves(make_server, address, backend):
    with make_server(address) as server:
        client = connect(server.addresses[0], backend=backend)
        assert client.ended is None
        client.close()
        assert (client.ended.how, client.ended.reason, str(client.ended)) == ("left", "", "left")


def test_the_servers_goodbye(backend, fake):
    with connect(fake(goodbye("maintenance")), backend=backend) as client:
        assert list(client.pushes()) == []
        assert client.ended == ("goodbye", "maintenance")
        assert str(client.ended) == "goodbye: maintenance"
    assert client.ended.how == "goodbye"  # what was first counts


def test_a_connection_that_breaks(backend, fake):
    with connect(fake(welcomed(gone)), backend=backend) as client:
        with pytest.raises(ConnectionLost):
            list(client.pushes())
        assert client.ended.how == "lost"
        assert "closed the connection" in client.ended.reason


def test_a_connection_that_breaks_in_a_call(backend, fake):
    with connect(fake(welcomed(lambda peer: peer.frame())), backend=backend) as client:
        with pytest.raises(ConnectionLost):
            client.request(b"x")
        assert client.ended.how == "lost"


def test_one_that_breaks_while_a_hook_listens(backend, fake):
    with connect(fake(welcomed(gone)), backend=backend) as client:
        client.on_push(print)
        assert wait_for(lambda: client.ended).how == "lost"


def test_who_is_dropped_as_idle_hears_it(make_server, address, backend):
    with (
        make_server(address, limits=Limits(idle_timeout=0.2)) as server,
        connect(server.addresses[0], backend=backend, heartbeat=0) as client,
    ):
        with pytest.raises(ConnectionLost, match=texts.IDLE):
            list(client.pushes())
        assert client.ended == ("timed out", texts.IDLE)


def test_a_heartbeat_keeps_a_listener(make_server, address, backend):
    with (
        make_server(address, limits=Limits(idle_timeout=0.3)) as server,
        connect(server.addresses[0], backend=backend, heartbeat=0.1) as client,
    ):
        assert list(client.pushes(timeout=1.0)) == []
        assert (client.ended, client.closed) == (None, False)


def test_it_beats_while_pushes_come_and_nothing_goes(make_server, address, backend):
    with (
        make_server(address, limits=Limits(idle_timeout=0.3)) as server,
        connect(server.addresses[0], backend=backend, heartbeat=0.1) as client,
    ):
        over = threading.Event()

        def news():
            while not over.wait(0.02):
                server.clients.broadcast(b"news")

        thread = threading.Thread(target=news)
        thread.start()
        assert len(list(client.pushes(timeout=1.0))) > 10
        over.set()
        thread.join()
        assert client.ended is None


def test_a_heartbeat_keeps_one_with_a_hook(make_server, address, backend):
    with (
        make_server(address, limits=Limits(idle_timeout=0.3)) as server,
        connect(server.addresses[0], backend=backend, heartbeat=0.1) as client,
    ):
        got = []
        client.on_push(got.append)
        time.sleep(1)
        server.clients.broadcast(b"news")
        assert wait_for(lambda: got) == [b"news"]


def test_a_dead_server_is_found(backend, fake):
    with connect(fake(welcomed(deaf)), backend=backend, heartbeat=0.05) as client:
        started = time.monotonic()
        with pytest.raises(ConnectionLost, match=r"^the server answered no PING for 0.15 seconds$"):
            list(client.pushes())
        assert 0.15 < time.monotonic() - started < 5
        assert client.ended == ("timed out", "the server answered no PING for 0.15 seconds")
        assert client.closed


def test_a_dead_server_is_found_by_a_hook(backend, fake):
    with connect(fake(welcomed(deaf)), backend=backend, heartbeat=0.05) as client:
        client.on_push(print)
        assert wait_for(lambda: client.ended).how == "timed out"


@pytest.mark.parametrize("wrong", [-1, float("nan"), "1"])
def test_what_is_no_heartbeat(backend, wrong):
    with pytest.raises(ValueError, match="heartbeat must be 0 or more seconds"):
        connect("unix:/x", backend=backend, heartbeat=wrong)
    with pytest.raises(ValueError, match="heartbeat must be 0 or more seconds"):
        aio.connect("unix:/x", backend=backend, heartbeat=wrong)


@pytest.mark.parametrize(
    ("heartbeat", "address", "idle", "every"),
    [
        (None, UNIX, None, None),
        (None, TCP, None, FAR),
        (None, UNIX, 30, 10),
        (None, TCP, 30, 10),
        (None, TCP, 300, FAR),
        (0, TCP, 30, None),
        (0, UNIX, None, None),
        (2, UNIX, None, 2),
        (2, TCP, 3, 1),
        (2, UNIX, 30, 2),
    ],
)
def test_how_often_it_beats(heartbeat, address, idle, every):
    assert period(heartbeat, address, idle) == every


# The same in a loop


def test_aio_one_that_leaves(run, make_server, address, backend):
    async def main():
        async with aio.connect(server.addresses[0], backend=backend) as client:
            assert client.ended is None
        assert client.ended == ("left", "")

    with make_server(address) as server:
        run(main())


def test_aio_the_servers_goodbye(run, backend, fake):
    async def main():
        async with aio.connect(address, backend=backend) as client:
            while client.ended is None:
                await asyncio.sleep(0.005)
            assert client.ended == ("goodbye", "maintenance")

    address = fake(goodbye("maintenance"))
    run(main())


def test_aio_a_connection_that_breaks(run, backend, fake):
    async def main():
        async with aio.connect(address, backend=backend) as client:
            with pytest.raises(ConnectionLost):
                async for _ in client.pushes():
                    pass
            assert client.ended.how == "lost"

    address = fake(welcomed(gone))
    run(main())


def test_aio_who_is_dropped_as_idle_hears_it(run, make_server, address, backend):
    async def main():
        async with aio.connect(server.addresses[0], backend=backend, heartbeat=0) as client:
            with pytest.raises(ConnectionLost, match=texts.IDLE):
                async for _ in client:
                    pass
            assert client.ended == ("timed out", texts.IDLE)

    with make_server(address, limits=Limits(idle_timeout=0.2)) as server:
        run(main())


def test_aio_a_heartbeat_keeps_it(run, make_server, address, backend):
    async def main():
        async with aio.connect(server.addresses[0], backend=backend, heartbeat=0.1) as client:
            await asyncio.sleep(1)
            assert client.ended is None
            assert await client.ping() < 10

    with make_server(address, limits=Limits(idle_timeout=0.3)) as server:
        run(main())


def test_aio_a_dead_server_is_found(run, backend, fake):
    async def main():
        async with aio.connect(address, backend=backend, heartbeat=0.05) as client:
            with pytest.raises(ConnectionLost, match=r"answered no PING for 0.15 seconds"):
                await client.request(b"x", timeout=5)
            assert client.ended.how == "timed out"

    address = fake(welcomed(deaf))
    run(main())
