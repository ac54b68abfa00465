"""Use from a thread that it isn't for, or at a moment: a clear error, and what runs isn't disturbed."""

from __future__ import annotations

import threading

import pytest
from support import plug, running, until_bye, wait_for, welcomed

from pysock import MasterSocket, PysockError, RemoteError, RequestTimeout, ServerState, connect
from pysock.engine.choice import choose
from pysock.states import IllegalTransition
from pysock.wire.cir import encode_cir
from pysock.wire.format import Kind, encode


@pytest.fixture
def server(make_server, address):
    server = make_server(address)
    server.service(lambda client, request: request.upper())
    return server


def test_a_loop_runs_once_and_in_one_thread(server):
    """The second call raises, and the loop goes on."""
    with running(server), connect(server.addresses[0], backend=server.backend) as client:
        engine = server._running.engine
        for _ in range(3):
            with pytest.raises(PysockError, match="this loop runs already"):
                engine.run()
            assert client.request(b"x") == b"X"
    with pytest.raises(PysockError, match="this loop has run: make a new server"):
        engine.run()


def test_a_server_is_started_once(server):
    with running(server), connect(server.addresses[0], backend=server.backend) as client:
        for start in (server.start, server.serve_forever):
            with pytest.raises(PysockError, match="this server runs already"):
                start()
        assert client.request(b"x") == b"X"


def test_a_handler_that_starts_its_own_server(server):
    """It is told as anybody is; the client gets an ERROR, and the next request its answer."""
    starts = [server.start, server.serve_forever, lambda: server._running.engine.run()]  # noqa: PLW0108  # it is made later

    @server.service("again")
    def again(client, request):
        return starts[int(request)]()

    with running(server), connect(server.addresses[0], backend=server.backend) as client:
        for number in range(len(starts)):
            with pytest.raises(RemoteError, match="PysockError"):
                client.request(b"%d" % number, service="again")
        assert client.request(b"x") == b"X"


def test_two_threads_that_start_it(server):
    results = []

    def start():
        try:
            server.start()
            results.append("started")
        except PysockError as error:
            results.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(results) == ["started"] + ["this server runs already"] * 3
    server.stop()


def linked(backend, address):
    """A link, let in."""
    sock = plug(address)
    sock.sendall(encode_cir("it"))
    sock.setblocking(True)
    link = choose(backend).link(sock.detach(), 20e-6, 1000)
    assert link.receive(10).kind == Kind.CIR_ACCEPTED
    return link


def test_a_link_takes_calls_of_several_threads(backend, fake):
    """Those that get no answer in time leave it as it was; the first gets its own."""
    arrived, go_on = threading.Event(), threading.Event()

    def play(peer):
        frame = peer.frame()
        arrived.set()
        go_on.wait(10)
        peer.send(encode(Kind.REPLY, b"reply", request_id=frame.request_id))
        until_bye(peer)

    link, replies = linked(backend, fake(welcomed(play))), []
    caller = threading.Thread(target=lambda: replies.append(link.request(0, b"x", 10)))
    caller.start()
    try:
        assert arrived.wait(10)
        for call in (
            lambda: link.receive(0.01),
            lambda: link.request(0, b"y", 0.01),
            lambda: link.request_many(0, [b"y"], 100, 0.01, 1),
        ):
            with pytest.raises(RequestTimeout):
                call()
        link.send(Kind.PING, 0, 1, b"", 1)
        assert not link.closed
    finally:
        go_on.set()
        caller.join(10)
    assert replies == [b"reply"]
    link.send(Kind.BYE, 0, 0, b"", 1)
    link.close()


def test_threads_that_all_use_one_link(backend, fake):
    """Whatever they call and whenever: each call does its work or is refused, and nothing breaks."""

    def play(peer):
        while (frame := peer.frame()) is not None and frame.kind != Kind.BYE:
            peer.send(encode(Kind.REPLY, frame.payload, request_id=frame.request_id))

    link, done, refused, odd = linked(backend, fake(welcomed(play))), [], [], []

    def ask(text):
        try:
            done.append(link.request(0, text, 10) == text)
        except PysockError as error:
            (refused if "another call" in str(error) else odd).append(error)

    def use(number):
        for _ in range(300):
            ask(b"%d" % number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (odd, all(done), len(done) + len(refused)) == ([], True, 1200)
    assert done
    link.send(Kind.BYE, 0, 0, b"", 1)
    link.close()
    assert link.closed


def test_a_client_may_be_used_by_several_threads(server):
    """It lets them in one by one."""
    wrong = []
    with running(server), connect(server.addresses[0], backend=server.backend) as client:

        def use(number):
            for turn in range(50):
                text = b"client %d %d" % (number, turn)
                if client.request(text) != text.upper():
                    wrong.append(text)

        threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert wrong == []


def test_a_master_socket_that_a_server_has(server):
    """Its loop does the accepting; by hand it is refused, and the loop goes on."""
    with running(server), connect(server.addresses[0], backend=server.backend) as client:
        (master,) = server._running.listening.masters
        for step in (master.accept, master.create, master.bind, master.listen):
            with pytest.raises(IllegalTransition, match="SERVING"):
                step()
        with pytest.raises(IllegalTransition, match="SERVING"):
            master.remove_stale()
        assert master.state is ServerState.SERVING
        assert client.request(b"x") == b"X"


def test_a_descriptor_that_is_no_listening_socket(backend, socket_dir):
    with MasterSocket(f"unix:{socket_dir}/s", backend) as master:
        with pytest.raises(IllegalTransition, match="a master socket that is NEW can't ACCEPT"):
            master.accept()
        master.create()
        with pytest.raises(IllegalTransition, match="a master socket that is CREATED can't ACCEPT"):
            master.accept()


def test_others_use_the_table_while_a_handler_blocks(server):
    """From other threads everything answers at once, and what they send goes out when the handler returns."""
    entered, go_on = threading.Event(), threading.Event()

    @server.service("block")
    def block(client, request):
        entered.set()
        go_on.wait(10)
        return b"done"

    with running(server), connect(server.addresses[0], name="it", backend=server.backend) as client:
        replies, pushes = [], []
        client.on_push(pushes.append)
        caller = threading.Thread(target=lambda: replies.append(client.request(b"", service="block")))
        caller.start()
        try:
            assert entered.wait(10)
            served = server.clients.by_name("it")
            served.send(b"one")
            assert server.clients.broadcast(b"two") == 1
            assert (len(server.clients), server.stats()["clients"], served.state.name) == (1, 1, "ESTABLISHED")
            assert replies == []
        finally:
            go_on.set()
            caller.join(10)
        assert replies == [b"done"]
        assert client.request(b"x") == b"X"
        wait_for(lambda: client.ping() and pushes == [b"one", b"two"])
