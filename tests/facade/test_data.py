from __future__ import annotations

import io
import os
import socket
import threading
import time

import pytest
from support import plug

from pysock import ConnectionState, MasterSocket, connect
from pysock.errors import ConnectionLost


def test_plain_bytes_go_there_and_back(pair):
    client, data = pair
    client.sendall(b"hello")
    assert data.recv() == b"hello"
    data.send(bytearray(b"world"))
    assert client.recv(100) == b"world"
    client.sendall(b"abcdef")
    assert data.recv(max_bytes=3) + data.recv(1) + data.recv() == b"abcdef"


def test_send_takes_all_of_a_large_payload(pair):
    client, data = pair
    payload = os.urandom(5_000_000)
    sender = threading.Thread(target=lambda: (data.send(memoryview(payload)), data.close()))
    sender.start()
    received = b"".join(iter(lambda: client.recv(1 << 20), b""))
    sender.join()
    assert received == payload


def test_the_end_of_the_clients_bytes(pair):
    client, data = pair
    client.shutdown(socket.SHUT_WR)
    assert data.recv() == b""
    assert data.state is ConnectionState.DRAINING
    assert data.recv() == b""
    data.send(b"still")
    assert client.recv(100) == b"still"


def test_the_states_of_a_data_socket(pair):
    _, data = pair
    assert data.state is ConnectionState.ESTABLISHED
    data.close()
    assert data.state is ConnectionState.CLOSED
    assert data.fd == -1
    data.close()


def test_a_closed_data_socket_says_so(pair):
    _, data = pair
    data.close()
    with pytest.raises(ConnectionLost, match="this data socket is closed"):
        data.send(b"x")
    with pytest.raises(ConnectionLost, match="this data socket is closed"):
        data.recv()


def test_what_a_data_socket_knows(listening, transport):
    before = time.time()
    with plug(listening.address) as client, listening.accept() as data:
        client.sendall(b"hello")
        data.recv()
        data.send(b"abc")
        assert (data.id, data.name, data.data) == (1, "", None)
        assert before <= data.connected_at <= time.time()
        assert (data.requests, data.bytes_in, data.bytes_out) == (1, 5, 3)
        if transport == "tcp":
            assert data.peer is None
            assert data.address == f"127.0.0.1:{client.getsockname()[1]}"
        else:
            assert data.peer == (os.getpid(), os.geteuid(), os.getegid())
            assert data.peer.uid == os.geteuid()
            assert data.address == str(listening.address)
        assert repr(data) == f"<DataSocket 0.1 ESTABLISHED fd={data.fd} {data.address}>"
        data.data = {"mine": 1}
        with pytest.raises(AttributeError):
            data.mine = 1
    assert (data.requests, data.bytes_in, data.bytes_out) == (1, 5, 3)


def test_every_client_gets_another_id(listening):
    with plug(listening.address), plug(listening.address), listening.accept() as one, listening.accept() as two:
        assert one.id != two.id


@pytest.mark.parametrize("wrong", ["text", None, 5, ["a"], memoryview(b"abcd")[::2]])
def test_only_bytes_can_be_sent(pair, wrong):
    with pytest.raises(TypeError, match="a payload must be"):
        pair[1].send(wrong)


@pytest.mark.parametrize("size", [0, -1])
def test_recv_wants_room_for_something(pair, size):
    with pytest.raises(ValueError, match="max_bytes must be more than 0"):
        pair[1].recv(size)


def test_a_client_that_resets_the_connection(backend):
    with MasterSocket("127.0.0.1:0", backend) as master:
        for step in (master.create, master.bind, master.listen):
            step()
        client = plug(master.address)
        with master.accept() as data:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
            with pytest.raises(ConnectionResetError):
                data.recv()


def test_a_client_that_is_gone_does_not_kill_the_sender(pair):
    client, data = pair
    client.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # and no SIGPIPE
        data.send(b"x" * 50_000_000)


def test_a_served_data_socket_is_not_read_by_hand(make_server, unix_address):
    server = make_server(unix_address)
    caught = []

    @server.service
    def handler(client, request):
        try:
            client.recv()
        except io.UnsupportedOperation as error:
            caught.append(str(error))

    with server, connect(unix_address, backend=server.backend) as client:
        client.request(b"")
    assert caught == ["recv(): the server's loop reads this data socket and gives requests to services"]
