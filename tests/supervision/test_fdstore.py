"""``pysock serve --fdstore``: clients and listeners lie in the service manager's store while the service restarts."""

from __future__ import annotations

import logging
import os
import signal
import socket
import struct
import threading
import time
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
from programs import Module, serving
from service_manager import Activated, managing
from support import PATIENCE, ROOT, left_in

import pysock
from pysock.errors import HandoverFailed
from pysock.fdstore import keeping
from pysock.fdstore.bundle import decode_bundle, encode_bundle, mark_of
from pysock.fdstore.keeping import keep, restore
from pysock.fdstore.store import Store
from pysock.files.passed import KEPT, STATE
from pysock.handover.messages import Kind
from pysock.handover.options import Options

TESTS = f"{ROOT}:{ROOT}/tests/help"


@pytest.fixture
def manager(socket_dir):
    with managing(socket_dir, "path") as manager:
        yield manager


@contextmanager
def service(manager, backend, *words, sockets=(), target="supervised:handler", **changes):
    """One life of it; what is in the store is given to it."""
    given = [*sockets, *manager.given_back(seed=7)]
    with Activated(given, "pysock", "serve", target, "--fdstore", *words, NOTIFY_SOCKET=manager.where,
                   PYSOCK_BACKEND=backend, PYTHONPATH=TESTS, **changes) as program:  # fmt: skip
        yield program


def ended(manager, program):
    """By SIGTERM, as a restart begins."""
    program.signal(signal.SIGTERM)
    manager.hear_out(program)
    code, _, errors = program.end()
    assert code == 0, errors
    return errors


def pid_by(client):
    return int(client.request(b"pid"))


def test_clients_stay_connected_while_the_service_restarts(backend, address, manager):
    where = ["--bind", str(address)]
    with ExitStack() as stack:
        with service(manager, backend, *where) as program:
            at = serving(program)[0]
            clients = [stack.enter_context(pysock.connect(at)) for _ in range(5)]
            before = {pid_by(client) for client in clients}
            told = ended(manager, program)
        assert "5 clients are in the service manager's keeping, 0 couldn't be kept" in told
        names = [name for name, _ in manager.stored]
        assert (names.count(f"{STATE}0"), names.count(f"{KEPT}0") >= 6) == (1, True)
        with service(manager, backend, *where) as program:
            assert serving(program) == [at]
            after = {pid_by(client) for client in clients}  # by the connections that they had
            manager.until(lambda words: "FDSTOREREMOVE" in words and not manager.stored)
            assert (after, len(before)) == ({program.process.pid}, 1)
            assert manager.stored == []  # else what is closed there wouldn't be for its peer
            with pysock.connect(at) as fresh:
                assert pid_by(fresh) == program.process.pid
            for client in clients:
                client.close()
            ended(manager, program)


def test_what_was_half_sent_and_what_waits_is_there(backend, manager, socket_dir):
    """A request in two halves, one before the restart, one after it."""
    where = ["--bind", f"unix:{socket_dir}/s"]
    with service(manager, backend, "--framing", "u32", *where) as program:
        serving(program)
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(PATIENCE)
        peer.connect(f"{socket_dir}/s")
        peer.sendall(struct.pack(">I", 3) + b"pid" + struct.pack(">I", 3) + b"p")
        assert peer.recv(100)[4:] == str(program.process.pid).encode()
        ended(manager, program)
    with peer, service(manager, backend, "--framing", "u32", *where) as program:
        serving(program)
        peer.sendall(b"id")
        assert peer.recv(100)[4:] == str(program.process.pid).encode()
        ended(manager, program)


@pytest.mark.parametrize("name", ["api", "pysock.socket"])
def test_a_socket_of_the_managers_own_is_served_on(backend, manager, socket_dir, name):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{socket_dir}/s")
        sock.listen()
        for _ in range(2):
            with service(manager, backend, "--bind", f"systemd:{name}", sockets=[(name, sock)]) as program:
                serving(program)
                with pysock.connect(f"unix:{socket_dir}/s") as client:
                    assert pid_by(client) == program.process.pid
                ended(manager, program)
    assert left_in(socket_dir) == ["notify", "s"]


def test_a_client_that_the_store_has_lost_is_gone_and_the_others_are_there(backend, manager, socket_dir):
    where = ["--bind", f"unix:{socket_dir}/s"]
    at = f"unix:{socket_dir}/s"
    with ExitStack() as stack:
        with service(manager, backend, *where) as program:
            serving(program)
            clients = [stack.enter_context(pysock.connect(at)) for _ in range(3)]
            for client in clients:
                pid_by(client)
            ended(manager, program)
        number = next(
            i for i, (name, fd) in enumerate(manager.stored)
            if name.startswith(KEPT) and mark_of(fd)[:1] == b"s" and not listens(fd)
        )  # fmt: skip
        os.close(manager.stored.pop(number)[1])
        with service(manager, backend, *where) as program:
            serving(program)
            assert sorted(served(client, program) for client in clients) == [False, True, True]
            assert "1 clients were not in the service manager's store any more" in ended(manager, program)


def listens(fd):
    with socket.socket(fileno=os.dup(fd)) as sock:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def served(client, program):
    try:
        return pid_by(client) == program.process.pid
    except pysock.ConnectionLost:
        return False


@pytest.mark.parametrize(
    ("words", "why"),
    [(["--framing", "u32"], "other framing"), (["--authkey-file", "key"], "other authkey")],
    ids=["framing", "authkey"],
)
def test_another_server_lets_them_go_and_begins_anew(backend, manager, socket_dir, words, why):
    where = ["--bind", f"unix:{socket_dir}/s"]
    (socket_dir / "key").write_text("a secret of more than sixteen bytes")
    (socket_dir / "key").chmod(0o600)
    words = [str(socket_dir / "key") if word == "key" else word for word in words]
    with service(manager, backend, *where) as program:
        serving(program)
        client = pysock.connect(f"unix:{socket_dir}/s")
        pid_by(client)
        ended(manager, program)
    with client, service(manager, backend, *where, *words) as program:
        manager.until_says("BARRIER")
        serving(program)
        with pytest.raises(pysock.ConnectionLost):
            pid_by(client)
        assert f"this server has {why} than that one had" in ended(manager, program)


def test_a_program_that_cannot_be_imported_leaves_them_for_the_next_try(backend, manager, socket_dir):
    where = ["--bind", f"unix:{socket_dir}/s"]
    with service(manager, backend, *where) as program:
        serving(program)
        client = pysock.connect(f"unix:{socket_dir}/s")
        pid_by(client)
        ended(manager, program)
    with client, service(manager, backend, *where, target="nothing_of_that_name:handler") as program:
        manager.hear_out(program)
        assert program.end()[0] != 0
        with service(manager, backend, *where) as third:
            serving(third)
            assert pid_by(client) == third.process.pid
            ended(manager, third)


def test_without_a_manager_nothing_is_kept_and_it_says_so(backend, socket_dir):
    with Module("pysock", "serve", "supervised:handler", "--fdstore", "--bind", f"unix:{socket_dir}/s",
                PYSOCK_BACKEND=backend, PYTHONPATH=TESTS) as program:  # fmt: skip
        serving(program)
        program.signal(signal.SIGTERM)
        code, _, errors = program.end()
    assert (code, "NOTIFY_SOCKET isn't set" in errors) == (0, True)


def test_a_manager_that_is_gone_costs_clients_a_goodbye_and_no_more(backend, manager, socket_dir):
    with service(manager, backend, "--bind", f"unix:{socket_dir}/s") as program:
        serving(program)
        with pysock.connect(f"unix:{socket_dir}/s") as client:
            pid_by(client)
            os.unlink(manager.where)
            assert "the clients aren't kept" in ended(manager, program)
            with pytest.raises(pysock.ConnectionLost):
                pid_by(client)
    assert manager.stored == []


def test_with_workers_it_is_refused(socket_dir):
    with Module("pysock", "serve", "supervised:handler", "--fdstore", "--workers", "2", "--bind",
                f"unix:{socket_dir}/s", PYTHONPATH=TESTS) as program:  # fmt: skip
        code, _, errors = program.end()
    assert (code, "--fdstore is for one process" in errors) == (2, True)


def test_a_server_whose_manager_cant_be_told_serves_on(make_server, socket_dir, caplog):
    """By the functions themselves: nothing has moved, and nobody has noticed."""
    server = make_server(f"unix:{socket_dir}/s")
    server.service(lambda client, request: request)
    server.start()
    with pysock.connect(server.addresses[0]) as client, caplog.at_level(logging.WARNING):
        assert client.request(b"a") == b"a"
        assert keep(server, Store(f"{socket_dir}/nobody"), 1.0) is False
        assert client.request(b"b") == b"b"
    assert "can't be told to keep anything" in caplog.text


class Failing(Store):
    """One whose manager doesn't answer in some round, as this says."""

    def __init__(self, where, number, fail):
        super().__init__(where)
        self.left, self.fail = number, fail

    def settle(self):
        if not self.left:
            self.fail()
        self.left -= 1


def says_so():
    raise HandoverFailed("it hasn't answered")


@pytest.mark.parametrize("fail", [says_so, partial(time.sleep, 0.6)], ids=["fails", "is late"])
def test_what_a_failed_round_put_there_is_taken_out(make_server, manager, socket_dir, monkeypatch, fail):
    """Its clients are served on: the process that follows would serve them once more."""
    monkeypatch.setattr(keeping, "Options", partial(Options, step=0.3))
    server = make_server(f"unix:{socket_dir}/s")
    server.service(lambda client, request: request)
    server.start()
    with pysock.connect(server.addresses[0]) as client:
        assert keep(server, Failing(manager.where, 0, fail), 1.0) is False
        assert client.request(b"b") == b"b"
        manager.forget()
        assert manager.stored == []


def test_what_a_later_round_put_there_is_taken_out_alone(make_server, manager, socket_dir):
    server, go, began, answers = make_server(f"unix:{socket_dir}/s"), threading.Event(), threading.Event(), []

    @server.service("slow", threads=1)
    def slow(client, request):
        began.set()
        go.wait(PATIENCE)
        return b"y"

    server.start()
    with pysock.connect(server.addresses[0]), pysock.connect(server.addresses[0]) as busy:
        asking = threading.Thread(target=lambda: answers.append(busy.request(b"", "slow")))
        asking.start()
        assert began.wait(PATIENCE)
        threading.Timer(0.3, go.set).start()
        assert keep(server, Failing(manager.where, 1, says_so), 5.0) is True
        asking.join(PATIENCE)
        assert answers == [b"y"]
        manager.forget()
        assert {name for name, _ in manager.stored} == {f"{KEPT}0", f"{STATE}0"}


def test_an_error_of_another_kind_is_told_and_the_service_can_stop(
    make_server, manager, socket_dir, monkeypatch, caplog
):
    server = make_server(f"unix:{socket_dir}/s")
    server.service(lambda client, request: request)
    server.start()
    with pysock.connect(server.addresses[0]) as client:
        assert client.request(b"a") == b"a"

        def fail(_ids):
            raise MemoryError

        monkeypatch.setattr(server._running.engine, "pack", fail)
        assert keep(server, Store(manager.where), 1.0) is False
        assert "MemoryError" in caplog.text
        assert client.request(b"b") == b"b"


def test_what_is_kept_while_the_store_is_still_emptied_stays_there(make_server, manager, socket_dir, monkeypatch):
    """A service that is stopped as soon as it serves, and a manager that is slow."""

    class Slow(Store):
        def forget(self, names):
            time.sleep(0.3)
            super().forget(names)

    over = threading.Event()
    reading = threading.Thread(target=lambda: [manager.next(0.02) for _ in iter(over.is_set, True)])
    reading.start()
    try:
        for _ in range(2):
            server, store = make_server(f"unix:{socket_dir}/s"), Slow(manager.where)
            given = [(os.dup(fd), name) for name, fd in manager.stored]
            monkeypatch.setattr("pysock.files.passed.stored", lambda given=given: given)
            restore(server, store)
            server.start()
            assert keep(server, store, 1.0) is True
            server.stop(1.0)
        time.sleep(0.6)
    finally:
        over.set()
        reading.join()
    assert f"{STATE}0" in {name for name, _ in manager.stored}


# The bytes


def test_a_bundle_is_read_as_it_was_written():
    offer, rows = [(3, b"a"), (4, b"b"), (4, b"c")], [(0x8001, b"x" * 1000)]
    entries = [(Kind.OFFER, offer, []), (Kind.ROWS, rows, [b"m1", b"m2"])]
    bundle = decode_bundle(encode_bundle(5, entries))
    assert bundle.number == 5
    assert [(entry.message.kind, entry.message.fields, entry.marks) for entry in bundle.entries] == [
        (Kind.OFFER, {3: [b"a"], 4: [b"b", b"c"]}, ()),
        (Kind.ROWS, {0x8001: [b"x" * 1000]}, (b"m1", b"m2")),
    ]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "cut off"),
        (b"ABCD\0\0\0\0", "isn't what a pysock server leaves behind"),
        (encode_bundle(0, [(1, [], [])])[:-1], "field"),
        (encode_bundle(0, []) + struct.pack("<HI", 0x8007, 0), "isn't known"),
        (encode_bundle(0, []) + struct.pack("<HI", 0x8002, 0), "isn't known"),
    ],
)
def test_bytes_that_are_no_bundle(data, why):
    with pytest.raises(ValueError, match=why):
        decode_bundle(data)


def test_a_mark_is_the_same_through_every_copy(socket_dir):
    with socket.socket(socket.AF_UNIX) as one, socket.socket() as other, open(socket_dir / "f", "w") as file:
        marks = [mark_of(each.fileno()) for each in (one, other, file)]
        assert len(set(marks)) == 3
        for each, mark in zip((one, other, file), marks, strict=True):
            copy = os.dup(each.fileno())
            assert mark_of(copy) == mark
            os.close(copy)
