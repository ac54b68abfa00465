"""The client against servers that stall, talk out of turn, or break off, down to the frame."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
import threading
from pathlib import Path

import pytest
from support import WELCOME, Program, until_bye, wait_for

from pysock import ProtocolError, RemoteError, RequestTimeout, connect
from pysock.errors import ConnectionLost
from pysock.wire.cir import encode_accepted, encode_welcome
from pysock.wire.format import FLAG_GAP, FLAG_MORE, FLAG_NO_REPLY, HEADER, ErrorCode, Kind, encode, encode_text

ROOMY = encode_accepted(1, encode_welcome(16 << 20, 1000, [], "fake/1"))


def roomy(play):
    """The script of a server that takes large requests, after a CIR was taken and accepted."""

    def whole(peer):
        assert peer.frame().kind == Kind.CIR
        peer.send(ROOMY)
        play(peer)

    return whole


def wait_asleep(peer):
    """Wait until the program at the other end has read everything, and sleeps."""
    pid, _, _ = struct.unpack("3i", peer.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))

    def asleep():
        (unread,) = struct.unpack("i", fcntl.ioctl(peer.sock, termios.TIOCOUTQ, b"\0" * 4))
        return unread == 0 and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"

    wait_for(asleep)


CALLS = {
    "request": "client.request(b'x')",
    "request_many": "client.request_many([b'x'] * 3)",
    "pushes": "list(client.pushes())",
    "notify": "client.notify(bytes(4 << 20))",
}


@pytest.mark.parametrize("call", CALLS)
def test_a_server_that_dies_in_the_middle_of_a_large_frame(backend, fake, call):
    """What has come of it is freed with the GIL held: the debug build of the allocator sees to that."""

    def play(peer):
        kind, number = (Kind.PUSH, 0)
        if call.startswith("request"):
            kind, number = Kind.REPLY, peer.frame().request_id
        peer.send(HEADER.pack(100_000, kind, 0, 0, number) + b"x" * 30_000)
        wait_asleep(peer)

    code = f"""
import sys, pysock
client = pysock.connect(sys.argv[1], backend=sys.argv[2], linger=0)
try:
    {CALLS[call]}
except pysock.errors.ConnectionLost:
    print("lost", client.closed)
"""
    with Program(code, fake(roomy(play)), backend, PYTHONMALLOC="debug") as program:
        assert program.end() == (0, "lost True\n", "")


def test_a_server_that_pushes_more_than_the_pipe_holds_before_it_reads(backend, fake):
    """A client that sends goes on reading: else both would wait for each other."""
    count, notes, got = 64, [b"x" * 1000, bytes(4 << 20), b"last"], []

    def play(peer):
        for number in range(count):
            peer.send(encode(Kind.PUSH, b"%d" % number * 10_000))
        while len(got) < len(notes):
            got.append(peer.frame())
        until_bye(peer)

    with connect(fake(roomy(play)), backend=backend, timeout=5) as client:
        for note in notes:
            client.notify(note)
        pushes = client.pushes(timeout=5)
        for number in range(count):
            assert next(pushes) == b"%d" % number * 10_000
        assert client.dropped_pushes == 0
    wait_for(lambda: len(got) == len(notes))
    assert [(frame.payload, frame.flags) for frame in got] == [(note, FLAG_NO_REPLY) for note in notes]


def test_many_are_on_their_way_as_far_as_the_window_goes(backend, fake):
    """However large they are together: the server answers none of them before it has all."""
    count = 5

    def play(peer):
        for number in [peer.frame().request_id for _ in range(count)]:
            peer.send(encode(Kind.REPLY, b"", request_id=number))
        until_bye(peer)

    with connect(fake(roomy(play)), backend=backend, timeout=5) as client:
        assert client.request_many([bytes(70_000)] * count) == [b""] * count


ODD = {
    "a reply with flags": lambda number: encode(Kind.REPLY, b"no", request_id=number, flags=1),
    "a large reply with flags": lambda number: encode(Kind.REPLY, bytes(100_000), request_id=number, flags=4),
    "a client's kind": lambda number: encode(Kind.SRM, b"", request_id=number),
    "an unknown kind": lambda number: HEADER.pack(0, 0x89, 0, 0, number),
    "a second welcome": lambda number: WELCOME,
    "a late refusal": lambda number: encode(Kind.CIR_REFUSED, bytes(100_000)),
    "a late challenge": lambda number: encode(Kind.CHALLENGE, b""),
}


@pytest.mark.parametrize("call", ["request", "request_many"])
@pytest.mark.parametrize("odd", ODD)
def test_what_no_server_sends_breaks_the_protocol(backend, fake, odd, call):
    """Even if the reply comes right behind it."""

    def play(peer):
        number = peer.frame().request_id
        peer.send(ODD[odd](number) + encode(Kind.REPLY, b"ok", request_id=number))
        peer.rest()

    with connect(fake(roomy(play)), backend=backend) as client:
        with pytest.raises(ProtocolError, match="the server sent a frame"):
            getattr(client, call)(b"x" if call == "request" else [b"x"])
        assert client.closed


def test_what_no_server_sends_while_a_frame_is_being_sent(backend, fake):
    """It isn't collected until somebody looks for it."""

    def play(peer):
        peer.send(WELCOME * 1000)
        peer.rest()

    with connect(fake(roomy(play)), backend=backend, timeout=5) as client:
        with pytest.raises(ProtocolError, match="the server sent"):
            client.request_many([client.notify(bytes(1 << 20)) or b"" for _ in range(3)])
        assert client.closed


def test_a_small_limit_of_a_client_is_about_replies_and_pushes(make_server, backend, unix_address):
    """What the server says of itself comes through, however many services it has."""
    server = make_server(unix_address)
    server.service(lambda client, request: request)
    for number in range(100):
        server.service(f"service {number}")(lambda client, request: request)
    with server, connect(server.addresses[0], max_payload=1, backend=backend) as client:
        assert len(client.services) == 100
        assert client.request(b"x") == b"x"
        with pytest.raises(RemoteError):
            client.request(b"xx")
        assert client.request(b"y") == b"y"


def test_pushes_without_time_come_before_the_end(backend, fake):
    """What has come is yielded, and only then is it told that the connection is lost."""
    got = []

    def collect():
        while True:
            for push in client.pushes(timeout=0):
                got.append(push)  # noqa: PERF402  # extend() might keep nothing of what came before an exception

    with connect(fake(roomy(lambda peer: peer.send(encode(Kind.PUSH, b"news") * 3))), backend=backend) as client:
        with pytest.raises(ConnectionLost):
            collect()
        assert client.closed
    assert b"".join(got) == b"news" * 3


@pytest.mark.parametrize("call", ["request", "request_many"])
def test_a_reply_that_is_too_large_says_what_to_do(backend, fake, call):
    """From a server that doesn't keep to what the CIR says."""

    def play(peer):
        peer.send(encode(Kind.REPLY, bytes(2000), request_id=peer.frame().request_id))
        peer.rest()

    with connect(fake(roomy(play)), backend=backend, max_payload=1000) as client:
        with pytest.raises(ProtocolError, match=r"give connect\(\) a larger max_payload"):
            getattr(client, call)(b"x" if call == "request" else [b"x"])
        assert client.closed


LAST = encode_text(Kind.ERROR, ErrorCode.MALFORMED, "oops")


@pytest.mark.parametrize("call", ["request", "request_many", "pushes"])
def test_the_last_words_of_a_server_are_told(backend, fake, call):
    """An ERROR that answers no request says why the server closes the connection."""

    def play(peer):
        if call != "pushes":
            peer.frame()
        peer.send(LAST)

    with connect(fake(roomy(play)), backend=backend) as client:
        calls = {"request": lambda: client.request(b"x"), "request_many": lambda: client.request_many([b"x"] * 3)}
        with pytest.raises(ConnectionLost, match=r"^the server closed the connection; .*; it said: oops$"):
            calls.get(call, lambda: list(client.pushes()))()
        assert client.closed


def test_last_words_that_came_behind_a_reply(backend, fake):
    def play(peer):
        frame = peer.frame()
        peer.send(encode(Kind.REPLY, b"first", request_id=frame.request_id) + LAST)

    with connect(fake(roomy(play)), backend=backend) as client:
        assert client.request(b"x") == b"first"
        with pytest.raises(ConnectionLost, match=r"; it said: oops$"):
            client.request(b"y")


def test_last_words_that_come_while_a_frame_is_being_sent(backend, fake):
    address = fake(roomy(lambda peer: peer.send(LAST)))
    with connect(address, backend=backend) as client, pytest.raises(ConnectionLost, match=r"; it said: oops$"):
        client.notify(bytes(4 << 20))


@pytest.mark.parametrize("call", ["request", "request_many", "notify"])
def test_a_timeout_that_leaves_a_frame_half_sent_closes_the_client(backend, fake, call):
    timed_out = threading.Event()
    with connect(fake(roomy(lambda peer: timed_out.wait(10))), backend=backend) as client:
        payload = bytes(4 << 20)
        with pytest.raises(RequestTimeout):
            getattr(client, call)([b"x", payload] if call == "request_many" else payload, timeout=0.05)
        assert client.closed
        timed_out.set()
        with pytest.raises(ConnectionLost, match=r"this client is closed: connect\(\) again"):
            client.request(b"x")


@pytest.mark.parametrize("call", ["request", "request_many", "notify"])
def test_a_timeout_before_anything_was_sent_closes_nothing(backend, fake, call):
    """The pipe was full already, of whole frames."""
    timed_out = threading.Event()

    def play(peer):
        assert timed_out.wait(10)
        while (frame := peer.frame()) is not None and frame.kind != Kind.BYE:
            if frame.flags != FLAG_NO_REPLY:
                peer.send(encode(Kind.REPLY, frame.payload, request_id=frame.request_id))

    def fill():
        while True:
            client.notify(bytes(1000), timeout=0)

    with connect(fake(roomy(play)), backend=backend) as client:
        try:
            with pytest.raises(RequestTimeout):
                fill()
            for payload in (b"small", bytes(4 << 20)):
                with pytest.raises(RequestTimeout):
                    getattr(client, call)([payload] * 3 if call == "request_many" else payload, timeout=0.02)
            assert not client.closed
        finally:
            timed_out.set()
        assert client.request(b"hello") == b"hello"
        assert client.request_many([b"one", b"two"]) == [b"one", b"two"]


# Frames that need a feature


@pytest.mark.parametrize("features", [0, 3])
def test_a_piece_of_a_stream_that_was_not_agreed_on(backend, fake, features):
    """It breaks the rules, as any unknown flag does."""

    def play(peer):
        assert peer.frame().kind == Kind.CIR
        peer.send(encode_accepted(1, b"", features))
        peer.send(encode(Kind.REPLY, b"x", request_id=peer.frame().request_id, flags=FLAG_MORE))
        until_bye(peer)

    with connect(fake(play), backend=backend) as client, pytest.raises(ProtocolError):
        client.request(b"x")


@pytest.mark.parametrize(
    ("features", "payload", "good"),
    [
        (3, b"\0\0\0\1x", False),
        (16, b"\0\0\1", False),
        (16, b"\0\0\0\1", True),
        (16, b"\0\0\0\1" + b"x" * 1001, False),
        (16, b"\0\0\0\1" + b"x" * 1000, True),
    ],
    ids=["not agreed on", "cut short", "of an empty one", "too large", "the largest"],
)
def test_a_push_that_tells_of_others(backend, fake, features, payload, good):
    """Its length counts without that."""

    def play(peer):
        assert peer.frame().kind == Kind.CIR
        peer.send(encode_accepted(1, b"", features) + encode(Kind.PUSH, payload, flags=FLAG_GAP))
        until_bye(peer)

    with connect(fake(play), backend=backend, max_payload=1000) as client:
        if good:
            assert next(client.pushes(timeout=5)) == payload[4:]
            assert client.missed_pushes == 1
        else:
            with pytest.raises(ProtocolError):
                next(client.pushes(timeout=5))
