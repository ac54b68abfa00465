"""What a call that fails knows of each request: whether the kernel has taken it whole, by its end at every byte."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from support import wait_for

from pysock import ConnectionLost, RemoteError, connect
from pysock.wire.cir import encode_accepted, encode_welcome
from pysock.wire.format import HEADER, Kind, encode, encode_text

WELCOME = encode_accepted(7, encode_welcome(2**31 - 1, 4, [], "fake/1"))


@pytest.fixture
def played(backend, fake):
    """A client of a server that follows a script."""
    made = []

    def play(script):
        made.append(connect(fake(lambda peer: (peer.frame(), peer.send(WELCOME), script(peer))), backend=backend))
        return made[-1]

    yield play
    for client in made:
        client.close()


def fates(call, *arguments):
    with pytest.raises(ConnectionLost) as caught:
        call(*arguments)
    return caught.value.fates


def test_one_that_the_server_has_taken(played):
    client = played(lambda peer: peer.frame())
    assert fates(client.request, b"x") == [1]


def test_one_on_a_connection_that_has_gone(played):
    over = threading.Event()

    def script(peer):
        peer.close()
        over.set()

    client = played(script)
    assert over.wait(10)
    assert fates(client.request, b"x") == [False]
    assert fates(client.request, b"x") == []


def test_a_notify_that_fails_wasnt_sent(played):
    over = threading.Event()

    def script(peer):
        peer.close()
        over.set()

    client = played(script)
    assert over.wait(10)
    assert fates(client.notify, b"x") in (None, [])


def test_a_large_one_of_which_the_kernel_took_a_part(played):
    """The server has read the head of it, and some more."""

    def script(peer):
        assert peer.read(HEADER.size + 1000)

    client = played(script)
    assert fates(client.request, bytes(10_000_000)) == [False]


def test_of_many_those_that_were_answered_are_kept(played):
    def script(peer):
        ids = [peer.frame().request_id for _ in range(4)]
        peer.send(encode(Kind.REPLY, b"one", request_id=ids[0]))
        peer.send(encode_text(Kind.ERROR, 1, "two", ids[1]))

    client = played(script)
    one, two, three, four, *rest = fates(client.request_many, [b"x"] * 10)
    assert (one, three, four) == (b"one", 3, 4)
    assert isinstance(two, RemoteError)
    assert (two.code, two.message, two.request_id) == (1, "two", 2)
    sent = sum(type(fate) is int for fate in rest)  # two answers came, so that two more may be on their way
    assert rest == [*range(5, 5 + sent), *[False] * (6 - sent)]
    assert sent <= 2


def test_of_many_large_ones_the_first_may_be_whole(played):
    """4 in flight, of 200,000 bytes each: the server reads half a one, and the kernel keeps some."""
    client = played(lambda peer: peer.read(100_000))
    all_fates = fates(client.request_many, [bytes(200_000)] * 4)
    whole = sum(type(fate) is int for fate in all_fates)
    assert all_fates == [*range(1, whole + 1), *[False] * (4 - whole)]
    assert whole < 4


@pytest.mark.parametrize("size", [0, 1, 50, 5000, 50_000])
def test_whole_is_what_the_server_can_still_read_whole(played, size):
    """The kernel's own buffer is the referee: the server takes no more, and counts what is in it."""
    read = []

    def script(peer):
        time.sleep(0.2)  # until the kernel takes no more
        peer.sock.shutdown(socket.SHUT_RDWR)
        while data := peer.sock.recv(1_000_000):
            read.append(data)
        while_reading.wait(10)

    while_reading = threading.Event()
    client = played(script)
    client._window = 100_000
    all_fates = fates(client.request_many, [bytes(size)] * (1000 + 20_000_000 // (size + 500)))
    while_reading.set()
    wait_for(lambda: sum(map(len, read)) // (HEADER.size + size) == sum(type(fate) is int for fate in all_fates))
    whole = sum(type(fate) is int for fate in all_fates)
    assert all_fates == [*range(1, whole + 1), *[False] * (len(all_fates) - whole)]
    assert 1 <= whole < len(all_fates)
