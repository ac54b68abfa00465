from __future__ import annotations

import itertools
import os
import socket
import threading
import time

import pytest
from support import PATIENCE, Program, RawPeer, left_in, plug, running, wait_for

from pysock import AddressInUse, Limits, MasterSocket, PysockError, ServerState, connect
from pysock.wire.format import Kind


@pytest.fixture
def server(make_server, address):
    return make_server(address, name="test")


def handler(client, request):
    return request


def test_the_states_of_a_life(server):
    seen = []
    server.on_state(lambda old, new: seen.append((old.name, new.name)))
    names = ["NEW", "CREATED", "BOUND", "LISTENING", "SERVING", "DRAINING", "CLOSED"]
    assert server.state is ServerState.NEW
    server.start()
    assert server.state is ServerState.SERVING
    server.stop()
    assert server.state is ServerState.CLOSED
    assert seen == list(itertools.pairwise(names))


FORKED = """
import os, sys, pysock
server = pysock.Server(sys.argv[1], backend=sys.argv[2])
server.service(lambda client, request: request)
with server:
    child = os.fork()
    if child == 0:
        sys.exit(7)  # leaves the with statement, and runs the atexit functions
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with pysock.connect(server.addresses[0]) as client:
        print(status, client.request(b"still there"), flush=True)
"""


def test_a_forked_child_leaves_without_touching_its_parents_server(backend, address):
    with Program(FORKED, address, backend, PYTHONWARNINGS="ignore") as program:
        assert program.end() == (0, "7 b'still there'\n", "")


def test_ctrl_c_while_the_loop_is_being_started_ends_the_loop(server, monkeypatch):
    start, loops = threading.Thread.start, []

    def interrupted(thread):
        start(thread)
        loops.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert server.state is ServerState.CLOSED
    assert [loop.is_alive() for loop in loops] == [False]


def test_a_handler_stops_while_the_loop_is_being_started(server, monkeypatch):
    """It waits for no lock that start() holds, nor does start() wait for the handler with one when Ctrl-C comes."""
    start, loops, stopped, returned = threading.Thread.start, [], threading.Event(), []

    @server.service
    def quit_(client, request):
        server.stop()
        stopped.set()

    def interrupted(thread):
        start(thread)
        loops.append(thread)
        with RawPeer.connect(server.addresses[0]) as peer:
            peer.hello()
            peer.srm(b"")
            returned.append(stopped.wait(2))
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert returned == [True]
    assert server.state is ServerState.CLOSED
    assert [loop.is_alive() for loop in loops] == [False]


def test_a_failing_on_state_is_logged(server, caplog):
    @server.on_state
    def broken(old, new):
        raise ValueError("oh")

    with server:
        pass
    assert caplog.text.count("ValueError: oh") == 6


@pytest.mark.plain
def test_an_exit_in_the_last_on_state(server, monkeypatch):
    """Who stops the server doesn't wait in vain."""
    ended, others = [], threading.enumerate()
    monkeypatch.setattr(threading, "excepthook", lambda what: ended.append(what.exc_type))

    @server.on_state
    def leave(old, new):
        if new is ServerState.CLOSED:
            raise SystemExit

    server.service(lambda client, request: request)
    server.start()
    (loop,) = (thread for thread in threading.enumerate() if thread not in others)
    started = time.monotonic()
    server.stop(grace=5)
    assert time.monotonic() - started < 2
    assert server.state is ServerState.CLOSED
    loop.join(PATIENCE)  # else what it ends with would be told of in a later test
    assert ended == [SystemExit]


def test_a_server_runs_once(server):
    with server:
        with pytest.raises(PysockError, match="this server runs already"):
            server.start()
        with pytest.raises(PysockError, match="this server runs already"):
            server.serve_forever()
    with pytest.raises(PysockError, match="this server has ended: make a new Server"):
        server.start()


def test_stop_can_be_called_again_and_without_a_start(server, make_server, unix_address):
    with server:
        pass
    server.stop()
    fresh = make_server(unix_address + "2")
    fresh.stop()
    assert fresh.state is ServerState.CLOSED
    with pytest.raises(PysockError, match="make a new Server"):
        fresh.start()


def test_the_socket_file_is_there_while_it_serves(make_server, unix_address, socket_dir):
    server = make_server(unix_address)
    with server:
        assert (socket_dir / "s").is_socket()
    assert left_in(socket_dir) == []


def test_several_addresses_at_once(make_server, socket_dir):
    server = make_server(f"unix:{socket_dir}/a", f"unix:{socket_dir}/b?mode=0666", "127.0.0.1:0")
    server.service(lambda client, request: client.address.encode())
    with server:
        first, second, third = server.addresses
        assert (str(first), str(second)) == (f"unix:{socket_dir}/a", f"unix:{socket_dir}/b?mode=0666")
        assert third.port > 0
        for address in (first, second):
            with connect(address, backend=server.backend) as client:
                assert client.request(b"") == f"unix:{address.path}".encode()
        with connect(third, backend=server.backend) as client:
            assert client.request(b"").startswith(b"127.0.0.1:")
    assert server.addresses == (first, second, third)


def test_an_inherited_socket(make_server, socket_dir):
    path = socket_dir / "s"
    inherited = socket.socket(socket.AF_UNIX)
    inherited.bind(str(path))
    inherited.listen()
    server = make_server(f"fd://{inherited.detach()}")
    server.service(handler)
    seen = []
    server.on_state(lambda old, new: seen.append(new.name))
    with server, connect(f"unix:{path}", backend=server.backend) as client:
        assert client.request(b"x") == b"x"
    assert seen == ["LISTENING", "SERVING", "DRAINING", "CLOSED"]
    assert path.exists()


def test_a_start_that_fails_half_way_is_undone(make_server, socket_dir):
    taken = f"unix:{socket_dir}/taken"
    before = set(os.listdir("/proc/self/fd"))
    with MasterSocket(taken, "pure") as other:
        for step in (other.create, other.bind, other.listen):
            step()
        server = make_server(f"unix:{socket_dir}/first", "127.0.0.1:0", taken)
        with pytest.raises(AddressInUse, match=f"{taken}: another server .* holds the lock"):
            server.start()
        assert server.state is ServerState.CLOSED
        assert left_in(socket_dir) == ["taken", "taken.lock"]
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_start_that_fails_while_binding_is_undone(make_server, socket_dir):
    server = make_server(f"unix:{socket_dir}/first", f"unix:{socket_dir}/no/second")
    with pytest.raises(FileNotFoundError, match=f"the directory {socket_dir}/no doesn't exist"):
        server.start()
    assert left_in(socket_dir) == []


@pytest.mark.parametrize("again", ["unix:/x", "unix:/x?mode=0666", "ipc:///x"])
def test_the_same_path_twice(make_server, again):
    with pytest.raises(ValueError, match=r"this server has the address unix:/x\S* twice: leave one out"):
        make_server("unix:/x", again)


@pytest.mark.parametrize("address", ["unix:@pysock-twice", "unix:", "unix:?name=twice"])
def test_the_same_name_twice(make_server, unix_address, address):
    server = make_server(unix_address)
    with pytest.raises(ValueError, match=r"this server has the address .* twice"):
        server.listen_at("unix:/x", address, unix_address, address)


def test_the_same_port_twice(make_server):
    """Where the kernel chooses it they are two."""
    with make_server("tcp://127.0.0.1:0", "tcp://127.0.0.1:0") as server:
        assert len({address.port for address in server.addresses}) == 2


def test_the_same_path_in_other_words(make_server, socket_dir):
    server = make_server(f"unix:{socket_dir}/s", f"unix:{socket_dir}/./s")
    with pytest.raises(AddressInUse):
        server.start()
    assert left_in(socket_dir) == []


def test_a_stale_file_is_replaced(make_server, unix_address, socket_dir):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_dir / "s"))
    with make_server(unix_address):
        plug(unix_address).close()


def test_a_second_server_does_not_take_the_path(make_server, unix_address):
    first = make_server(unix_address)
    first.service(handler)
    with first, connect(unix_address, backend=first.backend) as client:
        with pytest.raises(
            AddressInUse, match=r"another server of this process .* holds the lock .*: stop it or choose another path"
        ):
            make_server(unix_address).start()
        assert client.request(b"x") == b"x"


def test_stop_answers_what_was_accepted(server):
    entered, go_on = threading.Event(), threading.Event()

    @server.service
    def slow(client, request):
        entered.set()
        go_on.wait(5)
        return request

    with server, RawPeer.connect(server.addresses[0]) as peer:
        peer.hello()
        peer.srm(b"last", request_id=7)
        entered.wait(5)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        go_on.set()
        frames = list(iter(peer.frame, None))
        stopper.join()
        replies = [(frame.kind, frame.request_id, frame.payload) for frame in frames if frame.kind != Kind.GOAWAY]
        assert replies == [(Kind.REPLY, 7, b"last")]
        assert [frame.kind for frame in frames].count(Kind.GOAWAY) == 1


def test_stop_waits_for_the_end(server):
    with running(server):
        server.stop()
        assert server.state is ServerState.CLOSED


def test_stop_in_a_handler_does_not_wait(server):
    @server.service
    def quit_(client, request):
        server.stop()
        return server.state.name.encode()

    server.start()
    with connect(server.addresses[0], backend=server.backend) as client:
        assert client.request(b"") in {b"SERVING", b"DRAINING"}
    wait_for(lambda: server.state is ServerState.CLOSED)


@pytest.mark.plain
def test_stop_returns_though_a_handler_does_not(make_server, unix_address, monkeypatch, caplog):
    monkeypatch.setattr("pysock.running.PATIENCE", 0.05)
    entered, go_on = threading.Event(), threading.Event()
    server = make_server(unix_address)

    @server.service
    def stuck(client, request):
        entered.set()
        go_on.wait(20)

    server.start()
    with RawPeer.connect(unix_address) as peer:
        peer.hello()
        peer.srm(b"")
        entered.wait(5)
        server.stop(0.05)
        assert server.state is not ServerState.CLOSED
        assert "didn't end in 0.1 seconds: a handler hasn't returned" in caplog.text
        go_on.set()
        wait_for(lambda: server.state is ServerState.CLOSED)


def test_the_grace_ends_a_client_that_does_not_read(make_server, unix_address):
    server = make_server(unix_address, limits=Limits(output_timeout=60))
    server.service(lambda client, request: bytes(8_000_000))
    with server, RawPeer.connect(unix_address) as peer:
        peer.hello()
        peer.srm(b"")
        wait_for(lambda: server.stats()["requests"] == 1)
        started = time.monotonic()
        server.stop(0.2)
        assert server.state is ServerState.CLOSED
        assert 0.15 < time.monotonic() - started < 1.5


def test_two_threads_may_stop(server):
    server.start()
    threads = [threading.Thread(target=server.stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert server.state is ServerState.CLOSED


@pytest.mark.parametrize("turn", range(5))
def test_others_ask_while_it_closes(server, turn):
    """Their calls may be inside the engine when it is closed: a sanitizer sees memory that went too soon."""
    ended = threading.Event()

    def ask():
        while not ended.is_set():
            server.stats()
            list(server.clients)
            server.clients.broadcast(b"to nobody")

    server.start()
    threads = [threading.Thread(target=ask) for _ in range(2)] + [threading.Thread(target=server.stop)]
    for thread in threads:
        thread.start()
    threads[-1].join(10)
    ended.set()
    for thread in threads:
        thread.join(10)
    assert server.state is ServerState.CLOSED


def test_a_hook_that_stops_the_start(server):
    @server.on_state
    def regret(old, new):
        if new is ServerState.LISTENING:
            server.stop()

    with pytest.raises(PysockError, match="the server was stopped while it was starting"):
        server.start()
    assert server.state is ServerState.CLOSED


def test_a_hook_that_stops_as_soon_as_it_serves(server):
    @server.on_state
    def regret(old, new):
        if new is ServerState.SERVING:
            server.stop()

    server.start()
    wait_for(lambda: server.state is ServerState.CLOSED)


@pytest.mark.plain
def test_a_keyboard_interrupt_in_a_handler_ends_the_loop(server, caplog):
    @server.service
    def interrupt(client, request):
        raise KeyboardInterrupt

    server.start()
    with connect(server.addresses[0], backend=server.backend) as client, pytest.raises(ConnectionError):
        client.request(b"")
    wait_for(lambda: server.state is ServerState.CLOSED)
    assert "ended because of an exception" in caplog.text
    server.stop()


def test_stats(server):
    assert set(server.stats().values()) == {0}
    server.service(handler)
    with server:
        with connect(server.addresses[0], backend=server.backend) as client:
            client.request(b"hello")
            now = server.stats()
            assert (now["clients"], now["established"], now["requests"]) == (1, 1, 1)
        wait_for(lambda: server.stats()["disconnected"] == 1)
    last = server.stats()
    assert (last["clients"], last["accepted"], last["requests"], last["errors"]) == (0, 1, 1, 0)
    assert last["bytes_in"] > 5


def test_its_repr(server, address):
    assert repr(server) == f"<Server 'test' NEW {address} ({server.backend})>"


def test_several_servers_in_one_process(make_server, socket_dir):
    servers = [make_server(f"unix:{socket_dir}/{number}") for number in range(3)]
    for number, server in enumerate(servers):
        server.service(lambda client, request, number=number: b"%d" % number)
        server.start()
    for number in range(3):
        with connect(f"unix:{socket_dir}/{number}", backend=servers[0].backend) as client:
            assert client.request(b"") == b"%d" % number


def test_serve_forever_outside_of_the_main_thread(server):
    thread = threading.Thread(target=server.serve_forever)
    server.service(handler)
    thread.start()
    wait_for(lambda: server.state is ServerState.SERVING)
    with connect(server.addresses[0], backend=server.backend) as client:
        assert client.request(b"x") == b"x"
    server.stop()
    assert server.state is ServerState.CLOSED
    thread.join(5)
