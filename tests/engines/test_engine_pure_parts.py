"""What only the pure engine has inside: accepting, sending, waiting, time, commands, the table."""

from __future__ import annotations

import errno
import os
import socket
import time
from types import SimpleNamespace

import pytest
import wire
from engine_alone import eventually, reply, srm, started

from pysock import Limits, Server, connect
from pysock.causes import Cause
from pysock.engine.contract import SLOT_BITS
from pysock.engine.pure import core, output
from pysock.engine.pure.causes import Causes
from pysock.engine.pure.commands import Commands
from pysock.engine.pure.door.access import Origins, network_of
from pysock.engine.pure.framed import FramedConnection
from pysock.engine.pure.poll import READ, WRITE, EpollPoller, SelectorPoller
from pysock.engine.pure.sockets import PureSockets
from pysock.engine.pure.table import Rows
from pysock.engine.pure.timers import Deadlines
from pysock.engine.pure.turn import BACKEND, PureEngine
from pysock.states import DisconnectReason
from pysock.wire import texts
from pysock.wire.format import Kind, Refusal, encode, encode_text


@pytest.fixture
def start(socket_dir):
    yield from started(socket_dir)


# --- sending ---


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM])
def test_send_fails_for_want_of_memory(start, number):
    """It is tried again, and counted and told of: else nobody could say why replies are late."""
    running = start()
    peer = running.peer()
    connection = running.engine._core.table.rows[peer.let_in()]
    real, errors = connection.send, [number]

    def send(data, flags):
        if errors:
            raise OSError(errors.pop(), "said the test")
        return real(data, flags)

    connection.send = send
    peer.send(srm())
    peer.expect(reply())
    assert running.engine.stats().causes[Cause.SEND] == 1
    eventually(lambda: running.noted == [(Cause.SEND, 1)])


# --- accepting ---


class Refusing:
    """A master socket whose accept() fails at first."""

    def __init__(self, sock, errors):
        self._sock = sock
        self._errors = errors

    def accept(self):
        if self._errors:
            raise OSError(self._errors.pop(0), "said the test")
        return self._sock.accept()

    def __getattr__(self, name):
        return getattr(self._sock, name)


@pytest.mark.parametrize(
    ("errors", "failures"),
    [
        ([errno.ECONNABORTED, errno.EPROTO, errno.EPERM], 0),
        ([errno.ENOMEM], 1),
        ([errno.ENOBUFS, errno.ENOBUFS], 2),
        ([errno.EINVAL], 1),
    ],
)
def test_accept_fails(start, errors, failures):
    running = start()
    first = running.peer()
    first.let_in()
    masters = running.engine._masters._listeners
    masters[0].sock = Refusing(masters[0].sock, errors)
    began = time.monotonic()
    running.peer().let_in()
    assert running.engine.stats().causes[Cause.ACCEPT] == failures
    assert running.noted == [(Cause.ACCEPT, 1)] * min(failures, 1)
    assert time.monotonic() - began >= 0.045 * failures
    masters[0].sock = masters[0].sock._sock


def fail_to_start(monkeypatch, error):
    """The next connection's start fails, when it is done."""
    start_one = FramedConnection.start

    def fails(connection):
        monkeypatch.undo()
        start_one(connection)
        raise error

    monkeypatch.setattr(FramedConnection, "start", fails)


def test_no_memory_at_the_start_of_a_connection(start, monkeypatch):
    """It costs that one its connection, and nobody else anything."""
    running = start()
    good = running.peer()
    good.let_in()
    fail_to_start(monkeypatch, MemoryError())
    assert running.peer().to_the_end() == b""
    good.send(srm())
    good.expect(reply())
    eventually(lambda: running.engine.stats()[:2] == (1, 0))
    assert (running.engine.stats().causes[Cause.NO_MEMORY], running.engine.stats().over_limit) == (1, 1)


def test_one_that_is_gone_at_the_start_of_its_connection(start, monkeypatch):
    """macOS refuses to set an option of a socket whose peer has reset it; that is that client's trouble alone."""
    running = start()
    good = running.peer()
    good.let_in()
    fail_to_start(monkeypatch, OSError(errno.EINVAL, "said the test"))
    assert running.peer().to_the_end() == b""
    good.send(srm())
    good.expect(reply())
    eventually(lambda: running.engine.stats()[:2] == (1, 0))
    assert running.raised is None


class Nameless(Refusing):
    """A master socket whose accept() doesn't say who came, as macOS does of one that is gone already."""

    def accept(self):
        sock, peer = self._sock.accept()
        return sock, self._errors.pop(0) if self._errors else peer


@pytest.mark.parametrize("peer", [None, "", ()])
@pytest.mark.parametrize("limits", [Limits(), Limits(max_clients_per_ip=2, max_clients_per_uid=2)])
def test_one_that_is_gone_before_it_is_accepted(peer, limits, unix_address):
    """It is closed, no rule for Unix sockets is asked about it, and others are served on."""
    asked = []
    server = Server("tcp://127.0.0.1:0", unix_address, backend="pure", limits=limits, allow=asked.append)
    server.service(lambda client, request: request.upper())
    with server:
        eventually(lambda: server._running.engine._masters._listeners)
        masters = server._running.engine._masters._listeners
        masters[0].sock = Nameless(masters[0].sock, [peer])
        with wire.dial(server) as gone:
            assert gone.rest() == b""
        with connect(server.addresses[0]) as client:
            assert client.request(b"x") == b"X"
        wire.counted(server, accepted=2, established=1, refused=0)
        masters[0].sock = masters[0].sock._sock
    assert asked == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_who_waits_is_told_that_there_is_no_descriptor(start, number):
    running = start()
    first = running.peer()
    first.let_in()
    masters = running.engine._masters._listeners
    masters[0].sock = Refusing(masters[0].sock, [number])
    reserve = running.engine._masters._reserve
    assert running.peer().to_the_end() == encode_text(Kind.CIR_REFUSED, Refusal.SERVER_FULL, texts.SERVER_FULL)
    eventually(lambda: running.engine.stats().causes[Cause.ACCEPT] == 1)  # it looks for more who wait until then
    running.peer().let_in()
    assert reserve >= 0
    assert running.engine._masters._reserve >= 0
    stats = running.engine.stats()
    assert (stats.accepted, stats.refused, stats.causes[Cause.FULL], stats.causes[Cause.ACCEPT]) == (3, 1, 1, 1)
    masters[0].sock = masters[0].sock._sock


def test_a_descriptor_of_ours_that_is_freed_ends_the_pause(start, monkeypatch):
    monkeypatch.setattr("pysock.engine.pure.accept._PAUSE", 60)
    running = start()
    first = running.peer()
    first.let_in()
    masters = running.engine._masters._listeners
    masters[0].sock = Refusing(masters[0].sock, [errno.ENOBUFS])
    second = running.peer()
    eventually(lambda: running.engine.stats().causes[Cause.ACCEPT] == 1)
    first.sock.close()
    second.let_in()
    masters[0].sock = masters[0].sock._sock


# --- sending ---


@pytest.mark.parametrize("most", [1, 7, 1000])
def test_short_sends_never_tear_frames(start, monkeypatch, most):
    class Short(socket.socket):
        def send(self, data, flags=0):
            return super().send(memoryview(data)[:most], flags)

        def sendmsg(self, buffers, ancillary=(), flags=0):
            return super().send(b"".join(buffers)[:most], flags)

    def accept(self):
        fd, address = self._accept()
        return Short(self.family, self.type, self.proto, fileno=fd), address

    monkeypatch.setattr(socket.socket, "accept", accept)
    monkeypatch.setattr(output, "GATHER_MAX", 100)
    running = start(handler=lambda client, request: running.engine.push(client, b"p" * 30) and request)
    peer = running.peer()
    peer.let_in()
    peer.send(*[srm(b"x" * i, request_id=i) for i in range(20)])
    peer.expect(*[encode(Kind.PUSH, b"p" * 30) + reply(b"x" * i, i) for i in range(20)])


def test_many_small_pushes_to_one_that_does_not_read(start):
    running = start()
    peer = running.peer()
    client_id = peer.let_in()
    for i in range(60_000):
        running.engine.push(client_id, b"%05d" % i)
    for i in range(60_000):
        peer.expect(encode(Kind.PUSH, b"%05d" % i))


# --- the parts ---


@pytest.mark.parametrize("make", [EpollPoller, SelectorPoller], ids=["epoll", "selectors"])
class TestPollers:
    def test_readiness(self, make):
        poller = make()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            fd = ours.fileno()
            poller.change(fd, 0, READ)
            assert poller.wait(0) == []
            assert poller.wait(0.0005) == []
            theirs.send(b"x")
            assert poller.wait(None) == [(fd, READ)]
            assert poller.wait(0.0005) == [(fd, READ)]
            poller.change(fd, READ, READ | WRITE)
            assert poller.wait(1) == [(fd, READ | WRITE)]
            poller.change(fd, READ | WRITE, WRITE)
            assert poller.wait(1) == [(fd, WRITE)]
            poller.change(fd, WRITE, 0)
            assert poller.wait(0.01) == []
        poller.close()

    def test_an_engine_on_it(self, make, start, monkeypatch):
        monkeypatch.setattr(core, "new_poller", make)
        running = start(limits={"output_pause": 100_000})
        peer = running.peer()
        client_id = peer.let_in()
        running.engine.push(client_id, b"x" * 1_000_000)
        eventually(lambda: running.engine.info(client_id).queued)
        peer.send(srm())
        peer.expect(encode(Kind.PUSH, b"x" * 1_000_000), reply())
        peer.sock.close()
        eventually(lambda: running.reasons() == ["closed by peer"])
        running.stop()


def test_deadlines():
    deadlines = Deadlines(5.0)
    assert deadlines.first() is deadlines.next_end() is deadlines.pop_expired(100) is None
    deadlines.start("a", 0)
    deadlines.start("b", 1)
    deadlines.start("a", 2)
    assert (deadlines.first(), deadlines.next_end(), len(deadlines)) == ("b", 6, 2)
    assert deadlines.pop_expired(5.9) is None
    assert deadlines.pop_expired(6) == "b"
    deadlines.stop("a")
    deadlines.stop("a")
    assert "a" not in deadlines


def test_commands_are_bounded():
    commands, done = Commands(), []
    assert commands.post(lambda: done.append(1))
    with pytest.raises(OSError, match="64 MiB"):
        commands.post(lambda: done.append(2), 2**30)
    commands.run()
    assert done == [1]
    assert os.read(commands.read_fd, 10) == b"\0"
    commands.close()
    assert not commands.post(lambda: None)
    commands.wake()
    assert commands.wakeup_fd == -1


def test_generations_wrap_past_zero():
    table = Rows()
    row = object()
    assert table.add(row) == 1 << 32
    table._generations[0] = 2**32 - 1
    table.remove(1 << 32)
    assert table.add(row) == 1 << 32


def test_there_is_a_last_slot():
    """An id has no room for more; without one there is no memory for the connection."""
    table = Rows()
    table._generations = [1] * 5 + [2**32 - 1]
    table._free = [5]
    assert table.add(object()) == (1 << 32) + 5
    table._generations = range(2**SLOT_BITS)
    with pytest.raises(MemoryError):
        table.add(object())


def test_names_are_those_of_the_last():
    table = Rows()
    clients = [SimpleNamespace() for _ in range(3)]
    for client in clients:
        client.client_id = table.add(client)
        table.let_in(client.client_id, client, "twin")
    assert table.find("twin") == clients[2].client_id
    table.leave(clients[2], "twin", DisconnectReason.LEFT)
    assert table.find("twin") == clients[1].client_id
    table.leave(clients[0], "twin", DisconnectReason.LEFT)
    table.leave(clients[1], "twin", DisconnectReason.LEFT)
    assert table.find("twin") is None
    assert [one.connection for one in table.gone] == [clients[2], clients[0], clients[1]]


def test_sockets_by_hand(socket_dir):
    sockets = PureSockets()
    master = sockets.socket(socket.AF_UNIX)
    sockets.bind(master, (socket.AF_UNIX, f"{socket_dir}/s"))
    sockets.listen(master, 5)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(f"{socket_dir}/s")
        data = sockets.accept(master)
        assert os.get_blocking(data)
        assert not os.get_inheritable(data)
        peer.send(b"hello")
        assert sockets.recv(data, 100) == b"hello"
        sockets.send(data, bytearray(b"bye"))
        assert peer.recv(100) == b"bye"
        peer.close()
        assert sockets.recv(data, 100) == b""
        with pytest.raises(BrokenPipeError):
            sockets.send(data, b"x")
    sockets.close(data)
    sockets.close(master)
    sockets.unlink(f"{socket_dir}/s")
    assert not os.path.exists(f"{socket_dir}/s")


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("192.0.2.7", b"\xc0\0\2\7"),
        ("::ffff:192.0.2.7", b"\xc0\0\2\7"),
        ("2001:db8:1:2:3:4:5:6", b"\x20\1\x0d\xb8\0\1\0\2"),
        ("2001:db8:1:2:ffff::", b"\x20\1\x0d\xb8\0\1\0\2"),
        ("fe80::1%lo", b"\xfe\x80" + bytes(6)),
        ("::1", bytes(8)),
    ],
)
def test_what_counts_as_one_address(host, place):
    assert network_of(host) == place


def test_origins():
    origins = Origins()
    for number in (1, 2):
        origins.take(b"here")
        assert origins.taken(b"here") == number
    origins.take(7)
    origins.leave(b"here")
    assert (origins.taken(b"here"), origins.taken(7), origins.taken(8)) == (1, 1, 0)
    origins.leave(b"here")
    origins.leave(7)
    assert not origins._taken  # who has none costs nothing


def test_causes_are_told_once_a_second():
    told = []
    causes = Causes(lambda cause, times: told.append((cause, times)), lambda *_: None)
    for now in (10.0, 10.1, 10.9, 11.0, 11.5):
        causes.note(Cause.LATE, now)
    causes.note(Cause.IDLE, 11.5)
    causes.note(Cause.LATE, 20.0)
    assert told == [(Cause.LATE, 1), (Cause.LATE, 3), (Cause.IDLE, 1), (Cause.LATE, 2)]
    assert causes.counts[Cause.LATE] == 6
    assert sum(causes.counts) == 7


def test_a_connection_there_is_no_memory_for(start, monkeypatch):
    """It is told that the server is full, and others are served on."""
    running = start()
    good = running.peer()
    good.let_in()

    def fails(*_arguments):
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(FramedConnection, "__init__", fails)
    assert running.peer().to_the_end() == encode_text(Kind.CIR_REFUSED, Refusal.SERVER_FULL, texts.SERVER_FULL)
    running.peer().let_in()
    good.send(srm())
    good.expect(reply())
    assert (running.engine.stats().causes[Cause.NO_MEMORY], running.engine.stats().refused) == (1, 1)


def test_the_backend_is_complete():
    assert BACKEND.name == "pure"
    assert BACKEND.engine is PureEngine
