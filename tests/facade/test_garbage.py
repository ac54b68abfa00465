"""What is thrown away open: it warns, names itself, and leaves nothing behind."""

from __future__ import annotations

import gc
import os
import resource
import socket
import threading
import warnings
import weakref

import pytest
from support import left_in, plug, running, wait_for

from pysock import MasterSocket, RequestTimeout, Server, ServerState, connect, later


def echo(client, request):
    return request


@pytest.fixture
def server(make_server, address):
    server = make_server(address)
    server.service(echo)
    with running(server):
        yield server


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def warned(throw_away):
    """The one warning that this gives: its text, the object it is about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        throw_away()
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning], [str(each.message) for each in caught]
    return str(caught[0].message), caught[0].source


@pytest.mark.plain  # a loop opens descriptors of its own, later
@pytest.mark.parametrize("cycle", [False, True], ids=["", "in a cycle"])
def test_an_unclosed_client(server, cycle):
    before = descriptors()
    names = []

    def throw_away():
        client = connect(server.addresses[0], name="lost", backend=server.backend)
        assert client.request(b"x") == b"x"
        names.append(repr(client))
        if cycle:
            client.on_push(lambda payload: client)

    text, source = warned(throw_away)
    assert text == f"unclosed {names[0]}"
    assert str(server.addresses[0]) in text
    assert source.name == "lost"
    assert source.closed
    wait_for(lambda: server.stats()["disconnected"] == 1)
    wait_for(lambda: descriptors() == before)


def test_a_client_that_was_closed_or_never_connected_does_not_warn(server, unix_address):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connect(server.addresses[0], backend=server.backend).close()
        with pytest.raises(FileNotFoundError):
            connect(unix_address + "nobody", backend=server.backend)
        gc.collect()


def test_a_client_whose_server_is_gone_does_not_warn(server):
    """Its connection is closed already, as it has noticed."""
    client = connect(server.addresses[0], backend=server.backend)
    server.stop(1)
    with pytest.raises(ConnectionError):
        client.request(b"x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del client
        gc.collect()


def listening(address, backend):
    master = MasterSocket(address, backend)
    for step in (master.remove_stale, master.create, master.bind, master.listen):
        step()
    return master


@pytest.mark.not_over_tls("a MasterSocket that is used by hand speaks none")
def test_an_unclosed_master_socket(backend, address, socket_dir):
    """It is closed, and the file that it made goes."""
    before = descriptors()
    text, source = warned(lambda: listening(address, backend) and None)
    assert text.startswith(f"unclosed <MasterSocket {address.removesuffix(':0')}")
    assert "LISTENING" in text
    assert source.state is ServerState.CLOSED
    del source
    assert descriptors() == before
    assert left_in(socket_dir) == []


def test_a_master_socket_that_was_closed_or_never_created_does_not_warn(backend, address):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        listening(address, backend).close()
        MasterSocket(address, backend)
        with pytest.raises(ValueError, match="choose one of"):
            MasterSocket(address, "no such engine")
        gc.collect()


@pytest.mark.not_over_tls("a MasterSocket that is used by hand speaks none")
def test_an_unclosed_data_socket(backend, address):
    before = descriptors()
    with listening(address, backend) as master, plug(master.address) as client:
        text, source = warned(lambda: master.accept().send(b"x"))
        assert text.startswith("unclosed <DataSocket 0.1 ESTABLISHED fd=")
        assert (master.address.bare() if master.address.transport == "unix" else "127.0.0.1:") in text
        assert source.fd == -1
        assert client.recv(10) == b"x"
        assert client.recv(10) == b""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with plug(master.address):
                master.accept().close()
            gc.collect()
    assert descriptors() == before


def test_a_server_that_was_not_started_or_is_closed_leaves_nothing(make_server, backend, socket_dir):
    """It owns nothing then, so it doesn't warn either."""

    def life(start):
        server = Server(f"unix:{socket_dir}/s", "127.0.0.1:0", backend=backend)
        server.service(lambda client, request: server.name)  # a cycle
        server.on_disconnect(lambda client, reason: server)
        if start:
            with server, connect(server.addresses[0], backend=backend) as client:
                client.notify(b"x")
                client.ping()
        return weakref.ref(server)

    before, threads = descriptors(), threading.active_count()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = [life(start) for start in (False, True)]
        gc.collect()
        wait_for(lambda: [ref() for ref in found] == [None, None], "the servers to be freed")
    assert (descriptors(), threading.active_count()) == (before, threads)
    assert left_in(socket_dir) == []


@pytest.mark.parametrize("turn", range(3))
def test_a_server_a_client_and_a_reply_are_garbage_together(backend, unix_address, turn):
    """Whichever goes first: none of them finds that another's memory is gone."""

    def life():
        server = Server(unix_address, backend=backend)
        kept = [server] * turn

        @server.service
        def hold(client, request):
            kept.append(later())
            return kept[-1]

        server.start()
        kept.append(connect(server.addresses[0], backend=backend))
        with pytest.raises(RequestTimeout):
            kept[turn].request(b"x", timeout=0.05)
        wait_for(lambda: len(kept) == turn + 2)
        server.stop(grace=0)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a client that was not closed
        life()
        gc.collect()


def test_a_background_server_that_nobody_refers_to_goes_on(backend, unix_address):
    """Its thread refers to it. What it is asked can end it."""

    def begin():
        server = Server(unix_address, backend=backend)

        @server.service
        def end(client, request):
            server.stop()
            return b"ended"

        server.start()
        return weakref.ref(server)

    found = begin()
    gc.collect()
    with connect(unix_address, backend=backend) as client:
        assert client.request(b"") == b"ended"
    wait_for(lambda: gc.collect() is not None and found() is None, "the server to be freed")


@pytest.mark.parametrize("what", ["server", "client", "thrown away"])
def test_memory_stays_flat(make_server, backend, socket_dir, what):
    """However often it is done."""

    def server():
        server = Server(f"unix:{socket_dir}/m", backend=backend)
        server.service(echo)  # without one each start is logged, and pytest keeps the records with the servers
        with server:
            pass

    def client():
        with connect(f"unix:{socket_dir}/s", backend=backend) as client:
            client.request(b"x" * 1000)

    def thrown_away():
        connect(f"unix:{socket_dir}/s", backend=backend).request(b"x" * 100_000)

    do = {"server": server, "client": client, "thrown away": thrown_away}[what]
    standing = make_server(f"unix:{socket_dir}/s")
    standing.service(echo)

    def pages():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    with standing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(60):
            do()
        gc.collect()
        before = pages()
        for _ in range(200):
            do()
        gc.collect()
        grown = (pages() - before) * resource.getpagesize()
    assert grown < 2 << 20, f"{grown} bytes more after 200 times"  # 10 KiB each


def test_a_descriptor_number_that_is_somebody_elses_by_now_stays_open(server):
    """Closing twice, by hand and by the collector, must not close what has taken the number since."""
    client = connect(server.addresses[0], backend=server.backend)
    client.close()
    pairs = [socket.socketpair() for _ in range(8)]
    client.close()
    del client
    gc.collect()
    for left, right in pairs:
        left.sendall(b"x")
        assert right.recv(1) == b"x"
        left.close()
        right.close()
