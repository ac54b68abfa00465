from __future__ import annotations

import contextlib
import errno
import socket
import threading

import pytest
from support import run_python, running

from pysock.files.probe import PATIENCE, Finding, probe
from pysock.wire.format import HEADER, Kind, encode
from pysock.wire.health import DRAINING


@pytest.fixture
def path(socket_dir):
    return str(socket_dir / "s")


@pytest.fixture
def listener(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        yield listener


@pytest.fixture
def answering(listener):
    """``answering(reply)``: the listener sends the pieces of bytes that ``reply(ping)`` returns."""
    threads = []

    def start(reply):
        def play():
            client, _ = listener.accept()
            with client, contextlib.suppress(ConnectionError):
                client.settimeout(10)
                for piece in reply(client.recv(1000)):
                    client.sendall(piece)
                while client.recv(1000):
                    pass

        threads.append(threading.Thread(target=play))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(10)


def test_a_pysock_server_answers(make_server, path):
    server = make_server(f"unix:{path}")
    with running(server):
        assert probe(path) is Finding.ANSWERS
        assert server.stats()["violations"] == 0


@pytest.mark.parametrize("framing", ["u32", "line", "raw"])
def test_a_server_of_another_framing_lives_too(make_server, path, framing):
    server = make_server(f"unix:{path}", framing=framing)
    server.service(lambda client, request: None)
    with running(server):
        assert probe(path) is Finding.SILENT


def test_nobody_listens(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        assert probe(path) is Finding.STALE
    assert probe(path) is Finding.STALE


def test_a_server_that_does_not_accept_lives(listener, path):
    assert probe(path) is Finding.SILENT


def test_a_full_backlog_is_a_sign_of_life(listener, path):
    listener.listen(0)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(path)
        assert probe(path) is Finding.SILENT


def test_a_datagram_socket_lives(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as live:
        live.bind(path)
        assert probe(path) is Finding.SILENT


def pong(ping: bytes, code: int = 0) -> bytes:
    return encode(Kind.PONG, ping[HEADER.size :], code=code)


ANSWERS = {
    "at once": (lambda ping: [pong(ping)], Finding.ANSWERS),
    "byte by byte": (lambda ping: [bytes([byte]) for byte in pong(ping)], Finding.ANSWERS),
    "by one that drains": (lambda ping: [pong(ping, DRAINING)], Finding.ANSWERS),
    "half": (lambda ping: [pong(ping)[:15]], Finding.SILENT),
    "to another ping": (lambda ping: [encode(Kind.PONG, b"another!")], Finding.SILENT),
    "an echo": (lambda ping: [ping], Finding.SILENT),
    "in another language": (lambda ping: [b"HTTP/1.1 400 Bad Request\r\n\r\n"], Finding.SILENT),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_answered(answering, path, name):
    reply, finding = ANSWERS[name]
    answering(reply)
    assert probe(path) is finding


def test_it_hangs_up(listener, path):
    def hang_up():
        listener.accept()[0].close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    assert probe(path) is Finding.SILENT
    thread.join(10)


def test_a_server_that_is_gone_before_the_ping_kills_nobody(path):
    """Not even where SIGPIPE would."""
    code = """
import signal, socket, sys
from pysock.files import probe

signal.signal(signal.SIGPIPE, signal.SIG_DFL)
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()

def gone_first(handle, answers=probe._answers):
    listener.accept()[0].close()
    return answers(handle)

probe._answers = gone_first
print(probe.probe(sys.argv[1]).name)
"""
    done = run_python(code, path)
    assert (done.returncode, done.stdout) == (0, "SILENT\n"), done.stderr


def test_an_answer_that_comes_in_drops_does_not_hold_us_up(answering, path, monkeypatch):
    """Each byte comes in time, all of them don't."""
    now = iter([0.0, 0.0, PATIENCE * 1.1])  # at the start, before and after the first drop
    monkeypatch.setattr("pysock.files.probe.monotonic", lambda: next(now))
    answering(lambda ping: [pong(ping)[:3]])
    assert probe(path) is Finding.SILENT
    assert next(now, None) is None


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.ENOMEM])
def test_what_it_cannot_find_out_it_tells(path, monkeypatch, number):
    def connect(*_):
        raise OSError(number, "no")

    monkeypatch.setattr(socket, "socket", type("Probe", (socket.socket,), {"connect": connect}))
    with pytest.raises(OSError, match="no") as caught:
        probe(path)
    assert caught.value.errno == number
