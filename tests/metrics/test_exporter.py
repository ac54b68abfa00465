"""The exporter: what is told by HTTP of servers that serve, hang, drain or are stopped, and of bad requests."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import signal
import socket
import threading
import time
from contextlib import ExitStack, closing

import pytest
from programs import Module, serving
from scraping import ask, samples
from support import PATIENCE, Program, own_host, plug, running, wait_for

import pysock
from pysock.aside.listener import MOST
from pysock.metrics import Exporter, Family, Page, Source


@pytest.fixture
def exporter(unix_address):
    """``exporter(server, **)``: one that has been started, beside the server's Unix socket."""
    with ExitStack() as stack:

        def make(subject, address=None, **options):
            return stack.enter_context(Exporter(subject, address or f"{unix_address}.metrics", **options))

        yield make


@pytest.fixture
def idle(exporter):
    """One without servers, by TCP: for what only HTTP says."""
    return exporter(list, f"{own_host()}:0")


def test_what_a_server_tells(make_server, unix_address, exporter):
    """Also one that wasn't made to be measured; before its start, after its end; and no file is left."""
    server = make_server(unix_address)
    server.service("echo")(lambda client, request: request)
    there = exporter(server)
    assert (ask(there.address, "/livez")[:2], ask(there.address, "/readyz")[0]) == (
        (503, "the server doesn't run yet\n"),
        503,
    )
    with running(server), pysock.connect(unix_address) as client:
        client.request_many([b"x"] * 100, "echo")
        wanted = 'pysock_requests_total{service="echo",code="OK"}'
        wait_for(lambda: wanted in ask(there.address)[1], "the page to be written")
        status, text, headers = ask(there.address)
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        found = samples(text)
        assert (found[wanted], found["pysock_clients"], found["pysock_worker_up"]) == (100, 1, 1)
        assert ask(there.address, "/livez")[:2] == ask(there.address, "/readyz")[:2] == (200, "ok\n")
        server.lame()
        assert ask(there.address, "/readyz")[:2] == (503, "the server drains: new clients should go elsewhere\n")
        assert ask(there.address, "/livez")[0] == 200
    assert ask(there.address, "/readyz")[:2] == (503, "the server doesn't serve: it is CLOSED\n")
    assert samples(ask(there.address)[1])[wanted] == 100
    there.stop()
    there.stop()
    assert not os.path.exists(there.address.path)


def test_of_a_loop_that_hangs_it_tells_where(make_server, unix_address, exporter):
    server = make_server(unix_address, metrics=True)
    called, free = threading.Event(), threading.Event()

    @server.service("stuck")
    def stuck(client, request):
        called.set()
        free.wait(PATIENCE)
        return b""

    there = exporter(server, hung_after=0.1)
    with running(server), pysock.connect(unix_address) as client:
        thread = threading.Thread(target=client.request, args=(b"", "stuck"))
        thread.start()
        assert called.wait(PATIENCE)
        _, text = wait_for(lambda: (told := ask(there.address, "/livez")[:2])[0] == 503 and told, "it to be seen")
        assert "the server hangs since 0 s; the service called last is 'stuck'\n" in text
        assert ask(there.address, "/readyz")[:1] == (503,)
        assert samples(ask(there.address)[1])["pysock_worker_up"] == 0
        told = json.loads(ask(there.address, "/statusz")[1])
        (worker,) = told["workers"]
        assert (worker["up"], worker["in_turn"], worker["called"]) == (False, True, "stuck")
        free.set()
        thread.join(PATIENCE)
        told = wait_for(
            lambda: (told := json.loads(ask(there.address, "/statusz")[1])["workers"][0])["services"] and told
        )
        assert told["services"]["stuck"]["requests"] == 1


WORKER = """
import sys, pysock
server = pysock.Server(sys.argv[1], metrics=True)
server.service("echo")(lambda client, request: request)
with server:
    print(server.metrics.path, flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_stopped_worker_and_a_killed_one_are_told_of(unix_address, exporter):
    """By their last values, at once: nobody asks them."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Program(WORKER, f"{unix_address}{number}")) for number in range(3)]
        pages = [stack.enter_context(closing(Page.open(worker.line().strip()))) for worker in workers]
        for number, page in enumerate(pages):
            with pysock.connect(f"{unix_address}{number}") as client:
                client.request_many([b""] * 10, "echo")
            wait_for(lambda page=page: page.read().requests.get(("echo", "OK")) == 10, "the page to be written")
        workers[1].signal(signal.SIGSTOP)
        workers[2].signal(signal.SIGKILL)
        workers[2].process.wait(PATIENCE)
        there = exporter(
            lambda: [Source(page.read, str(number), up=number != 2) for number, page in enumerate(pages)],
            hung_after=3.0,
        )
        try:
            wait_for(lambda: pages[1].read().is_hung(3.0), "the loop to be late")
            began = time.monotonic()
            found = samples(ask(there.address)[1])
            assert time.monotonic() - began < 2
        finally:
            workers[1].signal(signal.SIGCONT)
        assert [found[f'pysock_worker_up{{worker="{number}"}}'] for number in range(3)] == [1, 0, 0]
        assert found['pysock_requests_total{service="echo",code="OK"}'] == 30
        assert ask(there.address, "/livez")[0] == 200


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (b"GET /nowhere HTTP/1.1\r\n\r\n", 404, "/metrics /livez"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405, "GET or HEAD"),
        (b"GET / HTTP/1.0\r\n\r\n", 200, "/metrics\n/livez\n"),
        (b"GET /livez?verbose=1 HTTP/1.1\r\n\r\n", 503, "nothing runs"),
        (b"HELO\r\n\r\n", 400, "no request of HTTP/1.1"),
        (b"GET http://x/metrics HTTP/1.1\r\n\r\n", 400, "no request"),
        (b"GET /metrics HTTP/1.1\r\nno field\r\n\r\n", 400, "no request"),
        (b"GET /metrics HTTP/1.1\r\nBad : x\r\n\r\n", 400, "no request"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 9000, 431, "too long"),
        (b"\xff\x00\r\n\r\n", 400, "no request"),
    ],
)
def test_what_is_asked_wrongly(idle, sent, status, words):
    with plug(idle.address) as sock:
        sock.sendall(sent)
        answer = http.client.HTTPResponse(sock)
        answer.begin()
        assert answer.status == status
        assert words in answer.read().decode()
        assert answer.headers["connection"] == "close"
        assert sock.recv(1) == b""


def test_a_request_in_pieces_head_and_gzip(exporter, unix_address):
    there = exporter(list, extra=lambda: [Family("x", "y" * 5000, "gauge", [("", {}, 1)])])
    whole = ask(there.address)[1]
    assert whole.endswith("x 1\n")
    status, body, headers = ask(there.address, Accept_Encoding="br, gzip")
    assert gzip.decompress(body.encode("latin-1")).decode() == whole
    assert headers["content-encoding"] == "gzip"
    assert "content-encoding" not in ask(there.address, Accept_Encoding="gzip;q=0")[2]
    assert ask(there.address, Accept="application/openmetrics-text")[1].endswith("\nx 1\n# EOF\n")
    status, body, headers = ask(there.address, method="HEAD")
    assert (status, body, headers["content-length"]) == (200, "", str(len(whole)))
    with plug(there.address) as sock:
        for byte in b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n":
            sock.send(bytes([byte]))
        assert sock.makefile("rb").read().endswith(whole.encode())


def test_who_says_nothing_holds_nobody_up(idle):
    """Of more than it has room for the oldest is closed."""
    with ExitStack() as stack:
        silent = [stack.enter_context(plug(idle.address)) for _ in range(40)]
        silent[-1].send(b"GET /met")
        assert ask(idle.address, "/livez")[0] == 503
        assert silent[0].recv(1) == b""
        assert len(idle._aside._talks._going) <= MOST


def test_what_fails_is_answered_and_logged(exporter, caplog):
    broken = [True]

    def extra():
        if broken:
            raise RuntimeError("no")
        return []

    there = exporter(list, extra=extra)
    assert ask(there.address)[0] == 500
    assert "metrics: /metrics could not be answered" in caplog.text
    broken.clear()
    assert ask(there.address)[0] == 200


def test_what_cannot_be_exposed(make_server, unix_address, exporter):
    server = make_server(unix_address)
    for wrong in ("tls://127.0.0.1:9100", "tcp://127.0.0.1:9100?proxy=v2&trust=127.0.0.1", "fd://3"):
        with pytest.raises(ValueError, match="must be a plain one") as caught:
            Exporter(server, wrong)
        assert caught.value.parameter == "address"
    with pytest.raises(ValueError, match="must be a Server, or a function") as caught:
        Exporter("server", "127.0.0.1:0")
    assert caught.value.parameter == "subject"
    with pytest.raises(ValueError, match="more than 0"):
        Exporter(server, "127.0.0.1:0", hung_after=0)
    there = exporter(list)
    with pytest.raises(pysock.AddressInUse):
        Exporter(list, there.address).start()
    with pytest.raises(pysock.PysockError, match="was started before"):
        there.start()
    with (
        running(make_server(f"{unix_address}2")) as other,
        pytest.raises(pysock.PysockError, match="can't be measured"),
    ):
        Exporter(other, "127.0.0.1:0")


def test_a_dead_ones_file_is_taken_over_and_a_child_leaves_it_alone(exporter, unix_address):
    path = f"{unix_address}.metrics".removeprefix("unix:")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    there = exporter(list)
    assert ask(there.address, "/livez")[0] == 503
    child = os.fork()
    if not child:
        os._exit(there._aside.is_open)
    assert os.waitpid(child, 0)[1] == 0
    assert ask(there.address, "/livez")[0] == 503


def test_serve_tells_prometheus(backend, socket_dir):
    (socket_dir / "shop.py").write_text("def upper(client, request):\n    return request.upper()\n")
    address, there = f"unix:{socket_dir}/s", f"unix:{socket_dir}/m"
    options = ("--bind", address, "--metrics", there)
    with Module("pysock", "--backend", backend, "serve", "shop:upper", *options, PYTHONPATH=str(socket_dir)) as program:
        serving(program)
        with pysock.connect(address) as client:
            assert client.request(b"x") == b"X"
        wanted = 'pysock_requests_total{service="(unnamed)",code="OK"} 1\n'
        wait_for(lambda: wanted in ask(there)[1], "the page to be written")
        assert ask(there, "/readyz")[0] == 200
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0
    assert not os.path.exists(f"{socket_dir}/m")
