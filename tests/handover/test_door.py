"""``Server(handover="unix:PATH")``: a program is started once more, and takes over from the one that runs."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import struct
import textwrap
import threading
from contextlib import contextmanager

import pytest
from handing import greeted
from support import Program, left_in, plug, wait_for

import pysock
from pysock import HandoverFailed, Server, ServerState
from pysock.handover.channel import Channel
from pysock.handover.messages import Kind as Said


@pytest.fixture
def unix(socket_dir):
    yield f"unix:{socket_dir}/s"
    assert left_in(socket_dir) == []


def upper(client, request):
    return request.upper()


@contextmanager
def generations(address, backend, count=2, **options):
    """So many servers of one program; none runs yet."""
    made = []
    for _ in range(count):
        made.append(Server(address, backend=backend, handover=f"{address}.next", **options))
        made[-1].service(upper)
    try:
        yield made
    finally:
        for server in made:
            server.stop(0)


def is_closed(server):
    wait_for(lambda: server.state is ServerState.CLOSED, f"the end of {server}")


def test_each_takes_over_from_the_one_before(unix, backend):
    with generations(unix, backend, 4) as servers:
        servers[0].start()
        assert servers[0].took_over == 0
        with pysock.connect(unix, name="c") as client:
            servers[0].clients.by_name("c").data = 7
            for old, new in itertools.pairwise(servers):
                new.start()
                is_closed(old)
                assert new.took_over == 1
                assert new.clients.by_name("c").data == 7
                assert client.request(b"a") == b"A"
            with pysock.connect(unix) as other:
                assert other.request(b"b") == b"B"


def test_serve_forever_returns(unix, backend):
    with generations(unix, backend) as (old, new):
        serving = threading.Thread(target=old.serve_forever, daemon=True)
        serving.start()
        wait_for(lambda: old.state is ServerState.SERVING)
        new.start()
        serving.join(10)
        assert not serving.is_alive()
        assert old.state is ServerState.CLOSED


def test_a_normal_start_where_nobody_is(unix, backend, socket_dir):
    with generations(unix, backend) as (old, new):
        old.start()
        assert left_in(socket_dir) == ["s", "s.lock", "s.next", "s.next.lock"]
        assert os.stat(f"{socket_dir}/s.next").st_mode & 0o777 == 0o600
        old.stop()
        assert left_in(socket_dir) == []
        new.start()
        assert new.took_over == 0


def test_a_file_that_was_left_behind(unix, backend, socket_dir):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(f"{socket_dir}/s.next")
    with generations(unix, backend) as (old, _):
        old.start()
        assert old.state is ServerState.SERVING


def test_something_else_is_there(unix, backend, socket_dir):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(f"{socket_dir}/s.next")
        other.listen()
        place = "whoever is there hands nothing over"
        with generations(unix, backend) as (old, _), pytest.raises(HandoverFailed, match=place):
            old.start()
    os.unlink(f"{socket_dir}/s.next")


def test_another_user_is_refused(unix, backend, monkeypatch, caplog):
    with generations(unix, backend) as (old, new):
        old.start()
        real = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: real + 1)
        with pytest.raises(HandoverFailed, match=f"is one of uid {real}, and this one of uid {real + 1}"):
            new.start()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(f"{unix.removeprefix('unix:')}.next")
            assert sock.recv(100) == b""
        monkeypatch.undo()
        assert "was refused" in caplog.text
        with pysock.connect(unix) as client:
            assert client.request(b"a") == b"A"


def test_one_at_a_time(unix, backend):
    with generations(unix, backend) as (old, new):
        old.start()
        first = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        first.connect(f"{unix.removeprefix('unix:')}.next")
        channel = Channel(first.detach())
        assert greeted(channel, old).message.kind == Said.OFFER
        with pytest.raises(HandoverFailed, match="another process takes over"):
            new.start()
        channel.close()
        assert old.state is ServerState.SERVING


def test_one_that_fails_may_be_followed_by_one_that_does_not(unix, backend):
    with generations(unix, backend) as (old, new), generations(unix, backend, 1, framing="u32") as (wrong,):
        old.start()
        with pytest.raises(HandoverFailed, match="another framing"):
            wrong.start()
        new.start()
        is_closed(old)


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:0", "unix:@x", "unix:", "unix:/run/x?mode=0666"])
def test_what_cannot_be_the_place(where):
    with pytest.raises(ValueError, match="handover"):
        Server("unix:/tmp/x", handover=where)


PROGRAM = """
    import sys, pysock
    server = pysock.Server(sys.argv[1], backend=sys.argv[2], handover=sys.argv[1] + ".next")
    @server.service
    def who(client, request):
        client.data = (client.data or 0) + 1
        return b"%d %d" % (int(sys.argv[3]), client.data)
    @server.on_state
    def tell(old, new):
        if new.name == "SERVING":
            print("serving", flush=True)
    server.serve_forever()
    print("ended", flush=True)
"""


def generation(address, backend, number):
    """One process of the program."""
    return Program(textwrap.dedent(PROGRAM), address, backend, str(number))


def test_processes(unix, backend):
    with generation(unix, backend, 1) as first:
        assert first.line() == "serving"
        with pysock.connect(unix) as client:
            assert client.request(b"") == b"1 1"
            with generation(unix, backend, 2) as second:
                assert second.line() == "serving"
                assert client.request(b"") == b"2 2"
                assert first.line() == "ended"
                assert first.end()[0] == 0
                with pysock.connect(unix) as other:
                    assert other.request(b"") == b"2 1"
                with plug(unix) as sock:
                    pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                assert pid == second.process.pid
                second.signal(signal.SIGTERM)
                assert second.line() == "ended"
                assert second.end()[0] == 0
