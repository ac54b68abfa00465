"""A server hands its clients over to another one: both sides of the conversation, on each pair of engines."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from contextlib import contextmanager

import pytest
from conftest import native_is_missing
from handing import QUICK, Handing, channels, greeted, hand_over, pair
from support import RawPeer, left_in, wait_for

import pysock
from pysock import HandoverFailed, Server, ServerState
from pysock.handover import tags
from pysock.handover.channel import Channel, Gone
from pysock.handover.messages import Kind as Said
from pysock.handover.messages import encode_versions
from pysock.handover.options import Options
from pysock.handover.relay import take
from pysock.wire.format import Kind, encode

#: From which engine to which; the native one is among them when it can.
PAIRS = [("pure", "pure")]
if not native_is_missing():
    PAIRS += [("native", "pure"), ("pure", "native"), ("native", "native")]


@pytest.fixture(params=PAIRS, ids="-".join)
def engines(request):
    return request.param


def upper(client, request):
    return request.upper()


@contextmanager
def servers(address, engines, prepare=lambda server, number: None, services=((),), **options):
    """The old one, which serves, and the new one, which doesn't yet."""
    made = []
    try:
        for number, backend in enumerate(engines):
            server = Server(address, backend=backend, **options)
            server.service(upper)
            for name in services[min(number, len(services) - 1)]:
                server.service(name)(lambda client, request, name=name, number=number: f"{name} {number}".encode())
            prepare(server, number)
            made.append(server)
        made[0].start()
        yield made
    finally:
        for server in made:
            server.stop(0)


@pytest.fixture
def unix(socket_dir):
    yield f"unix:{socket_dir}/s"
    assert left_in(socket_dir) == []


@pytest.fixture
def peer():
    """Make raw peers."""
    made = []

    def make(address):
        made.append(RawPeer.connect(address))
        return made[-1]

    yield make
    for one in made:
        one.sock.close()


@pytest.mark.parametrize("transport", ["unix", "tcp"], indirect=True)
def test_clients_go_on_where_they_were(address, engines):
    with servers(address, engines) as (old, new):
        (where,) = old.addresses
        clients = [pysock.connect(where, name=f"c{number}") for number in range(3)]
        assert clients[0].request(b"a") == b"A"
        one = old.clients.by_name("c1")
        one.data = {"list": [1, 2.5, None, True, -(2**70)], b"raw": "text"}
        one.join("red")
        before = old.clients.snapshot()
        given = hand_over(old, new)
        assert (given.moved, given.drained, new.took_over) == (3, 0, 3)
        assert old.state is ServerState.CLOSED
        after = new.clients.snapshot()
        assert [row.id for row in after] == [row.id for row in before]
        assert [row.connected_at for row in after] == pytest.approx([row.connected_at for row in before], abs=1e-5)
        assert new.clients.by_name("c1").data == {"list": [1, 2.5, None, True, -(2**70)], b"raw": "text"}
        assert new.clients.by_name("c0").data is None
        assert new.clients.group("red").send(b"news") == 1
        assert [client.request(b"b") for client in clients] == [b"B"] * 3
        assert next(clients[1].pushes(timeout=5)) == b"news"
        with pysock.connect(where) as late:
            assert late.request(b"c") == b"C"
        wait_for(lambda: new.stats()["requests"] == 5, "the counters of both")
        assert new.stats()["accepted"] == 4
        for client in clients:
            client.close()


def test_the_old_side_knows_them_no_more(unix, engines):
    told = []
    with servers(
        unix, engines, lambda server, number: server.on_disconnect(lambda *what: told.append((number, *what)))
    ) as (old, new):
        with pysock.connect(unix, name="c") as client:
            there = old.clients.by_name("c")
            hand_over(old, new)
            assert told == []
            assert there.state.name == "CLOSED"
            with pytest.raises(pysock.ConnectionLost):
                there.send(b"x")
            assert client.request(b"a") == b"A"
        wait_for(lambda: told, "the hook of the new one")
        assert [number for number, *_ in told] == [1]
        assert len(old.clients) == 0


def test_the_socket_file_has_an_owner_all_the_time(unix, engines):
    path = unix.removeprefix("unix:")
    with servers(unix, engines) as (old, new):
        number = os.stat(path).st_ino
        hand_over(old, new)
        assert os.stat(path).st_ino == number
        with pytest.raises(pysock.AddressInUse):
            Server(unix).start()
        assert not new._running.listening.masters[0].inherited
    assert not os.path.exists(path)


def test_long_frames_and_long_queues(unix, engines, peer):
    request = os.urandom(3_000_000)
    with servers(unix, engines, limits=pysock.Limits(push_hard=2**25)) as (old, new):
        half, queued = peer(unix), peer(unix)
        half.hello()
        queued.hello("queued")
        frame = encode(Kind.SRM, request, request_id=7)
        half.send(frame[:2_000_000])
        wait_for(lambda: sum(row.bytes_in for row in old.clients.snapshot()) >= 2_000_000)
        for part in range(3):
            old.clients.by_name("queued").send(bytes([part]) * 1_000_000)
        assert hand_over(old, new).moved == 2
        half.send(frame[2_000_000:])
        answer = half.frame()
        assert hashlib.sha256(answer.payload).digest() == hashlib.sha256(request.upper()).digest()
        for part in range(3):
            assert queued.frame().payload == bytes([part]) * 1_000_000


def test_more_than_one_message(unix, engines, peer):
    with servers(unix, engines) as (old, new):
        peers = [peer(unix) for _ in range(150)]
        for number, one in enumerate(peers):
            one.hello(f"c{number}")
        for client in old.clients.values():
            client.data = client.name
        assert hand_over(old, new).moved == 150
        for client in new.clients.values():
            assert client.data == client.name
        for number, one in enumerate(peers):
            one.srm(b"x", request_id=number + 1)
        for number, one in enumerate(peers):
            answer = one.frame()
            assert (answer.payload, answer.request_id) == (b"X", number + 1)


def test_a_busy_client_comes_later(unix, engines):
    go, began = threading.Event(), threading.Event()

    def prepare(server, number):
        @server.service("slow", threads=1)
        def slow(client, request):
            began.set()
            go.wait(10)
            return b"%d" % number

    with servers(unix, engines, prepare) as (old, new), pysock.connect(unix) as busy, pysock.connect(unix) as idle:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(busy.request(b"", "slow")))
        asking.start()
        assert began.wait(10)
        moved = threading.Event()
        ours, theirs = pair()
        take(new, theirs, options=QUICK)
        giving = Handing(old, ours, on_moved=lambda count: moved.set() if count == 1 else None)
        new.start()
        assert moved.wait(10)
        assert idle.request(b"a") == b"A"
        assert old.clients.snapshot()[0].in_flight == 1
        go.set()
        assert giving.end().moved == 2
        asking.join()
        assert answers == [b"0"]
        assert busy.request(b"", "slow") == b"1"
        assert len(new.clients) == 2


def test_who_comes_later_and_cannot_be_taken_is_not_kept_either(unix, engines, peer):
    """Its connection ends with the old side's: the new one has no copy of it left."""
    go, began = threading.Event(), threading.Event()

    def prepare(server, number):
        server.on_handover_out(lambda client: b"x")
        server.on_handover_in(lambda client, written: 1 / 0)

        @server.service("slow", threads=1)
        def slow(client, request):
            began.set()
            go.wait(10)
            return b"%d" % number

    with servers(unix, engines, prepare) as (old, new), pysock.connect(unix) as idle:
        busy = peer(unix)
        busy.hello("busy")
        old.clients.by_name("busy").data = object()
        busy.srm(b"", service=1)
        assert began.wait(10)
        ours, theirs = pair()
        take(new, theirs, options=QUICK)
        giving = Handing(old, ours)
        new.start()
        assert idle.request(b"a") == b"A"
        go.set()
        assert busy.frame().payload == b"0"
        assert giving.end().moved == 1
        wait_for(lambda: len(new.clients) == 1)
        assert new.clients.snapshot()[0].name == ""
        old.stop(1.0)
        assert busy.frame().kind == Kind.GOAWAY
        assert busy.frame() is None


def test_who_is_busy_for_too_long_gets_an_error_and_moves(unix, engines):
    def prepare(server, number):
        @server.service("never")
        async def never(client, request):
            await asyncio.sleep(3600)

    with servers(unix, engines, prepare) as (old, new), pysock.connect(unix) as client:
        errors = []

        def ask():
            try:
                client.request(b"", "never")
            except pysock.RemoteError as error:
                errors.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        wait_for(lambda: old.clients.snapshot()[0].in_flight)
        assert hand_over(old, new, Options(step=2.0, prepare=5.0, grace=0.1)).moved == 1
        asking.join()
        assert errors[0].code == pysock.ErrorCode.CANCELLED  # it had begun, so it may not be sent again blindly
        assert client.request(b"a") == b"A"


def test_what_a_client_was_asked_it_answers_to_who_asked(unix, engines):
    release = threading.Event()

    def answer(client, request):
        release.wait(10)
        return request + b"!"

    with servers(unix, engines) as (old, new), pysock.connect(unix, name="c", services={"ask": answer}) as client:
        there = old.clients.by_name("c")
        answers = []
        asking = threading.Thread(target=lambda: answers.append(there.request(b"why", "ask")))
        asking.start()
        wait_for(lambda: there.asks is not None and there.asks.are_open)
        timer = threading.Timer(0.2, release.set)
        timer.start()
        assert hand_over(old, new).moved == 1
        asking.join()
        timer.join()
        assert answers == [b"why!"]
        assert client.request(b"a") == b"A"  # so it is awake
        assert new.clients.by_name("c").request(b"again", "ask") == b"again!"


def test_numbers_of_services_stay(unix, engines, peer):
    services = (["a", "b", "c"], ["new", "c", "a"])
    with servers(unix, engines, services=services) as (old, new):
        one = peer(unix)
        one.hello()
        hand_over(old, new)
        one.srm(b"", service=1)
        assert one.frame().payload == b"a 1"
        one.srm(b"", service=2)
        answer = one.frame()
        assert (answer.kind, answer.code) == (Kind.ERROR, pysock.ErrorCode.NO_SUCH_SERVICE)
        one.srm(b"", service=3)
        assert one.frame().payload == b"c 1"
        one.srm(b"", service=4)
        assert one.frame().payload == b"new 1"
        with pysock.connect(unix) as client:
            assert dict(client.services) == {"a": 1, "c": 3, "new": 4}
        third = Server(unix, backend=engines[0])
        third.service("b")(lambda client, request: b"b 2")
        try:
            hand_over(new, third)
            one.srm(b"", service=2)
            assert one.frame().payload == b"b 2"
        finally:
            third.stop(0)


def test_data_that_cannot_travel(unix, engines, peer, caplog):
    with servers(unix, engines) as (old, new):
        one, other = peer(unix), peer(unix)
        one.hello("lock")
        other.hello("plain")
        old.clients.by_name("lock").data = threading.Lock()
        given = hand_over(old, new)
        assert (given.moved, given.drained) == (1, 1)
        assert one.frame().kind == Kind.GOAWAY
        assert one.frame() is None
        assert "a lock isn't plain" in caplog.text
        other.srm(b"x")
        assert other.frame().payload == b"X"


def test_a_hook_that_writes_no_bytes_costs_its_client_a_goodbye_and_no_more(unix, engines, caplog):
    def prepare(server, number):
        server.on_handover_out(lambda client: "no bytes")

    with (
        servers(unix, engines, prepare) as (old, new),
        pysock.connect(unix, name="lock"),
        pysock.connect(unix) as other,
    ):
        old.clients.by_name("lock").data = threading.Lock()
        given = hand_over(old, new)
        assert (given.moved, given.drained) == (1, 1)
        assert "on_handover_out hook failed: TypeError" in caplog.text
        assert other.request(b"x") == b"X"


def test_hooks_write_it_down_and_read_it(unix, engines):
    def prepared(server, number):
        @server.on_handover_out
        def write(client):
            return b",".join(sorted(client.data)) if isinstance(client.data, set) else None

        @server.on_handover_in
        def read(client, written):
            client.data = set(written.split(b","))

    with (
        servers(unix, engines, prepared) as (old, new),
        pysock.connect(unix, name="set"),
        pysock.connect(unix, name="list"),
    ):
        old.clients.by_name("set").data = {b"x", b"y"}
        old.clients.by_name("list").data = [1]
        hand_over(old, new)
        assert new.clients.by_name("set").data == {b"x", b"y"}
        assert new.clients.by_name("list").data == [1]


def test_a_hook_that_fails_leaves_all_as_it_was(unix, engines, caplog):
    def prepare(server, number):
        server.on_handover_out(lambda client: b"x")

        @server.on_handover_in
        def read(client, written):
            raise RuntimeError("no")

    with servers(unix, engines, prepare) as (old, new), pysock.connect(unix, name="c") as client:
        old.clients.by_name("c").data = object()
        with pytest.raises(HandoverFailed, match="no"):
            hand_over(old, new)
        assert new.state is ServerState.CLOSED
        assert client.request(b"a") == b"A"
        assert [row.name for row in old.clients.snapshot()] == ["c"]


def refused(old, new, match):
    with pytest.raises(HandoverFailed, match=match):
        hand_over(old, new)
    assert old.state is ServerState.SERVING
    assert new.state is ServerState.CLOSED


@pytest.mark.parametrize(
    ("before", "after", "match"),
    [
        ({}, {"framing": "u32"}, "another framing than 'pysock'"),
        ({"authkey": b"a"}, {"authkey": b"b"}, "another authkey"),
        ({"authkey": b"a"}, {}, "another authkey"),
        ({}, {"limits": pysock.Limits(max_clients=1)}, "there are 2 clients, and it lets in 1"),
    ],
    ids=["framing", "key", "no key", "full"],
)
def test_another_server_is_refused(unix, backend, before, after, match):
    old, new = Server(unix, backend=backend, **before), Server(unix, backend=backend, **after)
    for server in (old, new):
        server.service(upper)
    with (
        old,
        pysock.connect(unix, authkey=before.get("authkey")) as client,
        pysock.connect(unix, authkey=before.get("authkey")),
    ):
        refused(old, new, match)
        assert client.request(b"a") == b"A"


def test_other_addresses_are_refused(socket_dir, backend):
    old, new = (Server(f"unix:{socket_dir}/{name}", backend=backend) for name in "ab")
    for server in (old, new):
        server.service(upper)
    with old:
        refused(old, new, "it listens at")


def test_a_start_that_fails_leaves_all_as_it_was(unix, engines):
    def ready():
        raise RuntimeError("not ready")

    with servers(unix, engines) as (old, new), pysock.connect(unix) as client:
        with pytest.raises(RuntimeError, match="not ready"):
            hand_over(old, new, ready=ready)
        assert client.request(b"a") == b"A"
        with pysock.connect(unix) as other:
            assert other.request(b"b") == b"B"


@pytest.mark.parametrize("how", ["goes", "gives up", "hangs", "talks", "is truncated"])
@pytest.mark.parametrize("when", ["greeted", "prepared", "frozen", "taken"])
def test_a_new_side_that_fails(unix, backend, how, when):
    with servers(unix, [backend]) as (old,), pysock.connect(unix) as client:
        channel, fd = channels()
        giving = Handing(old, fd, Options(step=0.2, prepare=0.2, grace=1.0))
        assert greeted(channel, old).message.kind == Said.OFFER
        assert channel.receive(5).message.kind == Said.LISTENERS
        if when != "greeted":
            channel.send(Said.PREPARED, patience=1)
        if when in {"frozen", "taken"}:
            assert channel.receive(5).message.kind == Said.FREEZE
        if when == "taken":
            heard = channel.receive(5)
            os.close(heard.descriptors.pop())
            channel.send(Said.TAKEN, [(tags.NUMBER, heard.message.one(tags.NUMBER))], patience=1)
            assert channel.receive(5).message.kind == Said.COMMIT
        if how == "goes":
            channel.close()
        elif how == "gives up":
            channel.send(Said.GAVE_UP, [(tags.WHY, b"because")], patience=1)
        elif how == "talks":
            channel.send(Said.BYE, patience=1)
        elif how == "is truncated":
            channel._socket.send(b"\1\0\0\0\xff\0\0\0half")
        with pytest.raises(HandoverFailed):
            giving.end()
        if how == "hangs":
            kinds = [heard.message.kind for heard in channel.queued()]
            assert (Said.ABORT in kinds) == (when != "greeted")
        channel.close()
        assert client.request(b"a") == b"A"
        with pysock.connect(unix) as other:
            assert other.request(b"b") == b"B"


def test_a_version_that_is_not_known(unix, backend):
    with servers(unix, [backend]) as (old,):
        channel, fd = channels()
        giving = Handing(old, fd)
        channel.send(Said.HELLO, [(tags.VERSIONS, encode_versions(7, 9)), (tags.FRAMING, b"\0")], patience=1)
        heard = channel.receive(5)
        assert heard.message.kind == Said.REFUSE
        assert b"PHO7 to PHO9" in heard.message.one(tags.WHY)
        with pytest.raises(HandoverFailed, match="PHO7"):
            giving.end()
        channel.close()


def test_no_descriptor_is_left(unix, engines):
    def count():
        return len(os.listdir("/proc/self/fd"))

    with servers(unix, engines) as (old, new), pysock.connect(unix):
        hand_over(old, new)
    before = count()
    for ready in (None, lambda: 1 / 0):
        with servers(unix, engines) as (old, new), pysock.connect(unix):
            if ready is None:
                hand_over(old, new)
            else:
                with pytest.raises(ZeroDivisionError):
                    hand_over(old, new, ready=ready)
        wait_for(lambda: count() <= before, "the last descriptor")


def test_time_goes_on(unix, engines, peer):
    """What is left of a deadline is what was left of it."""
    with servers(unix, engines, limits=pysock.Limits(cir_timeout=0.6)) as (old, new):
        silent = peer(unix)
        began = time.monotonic()
        wait_for(lambda: old.stats()["pending"])
        assert hand_over(old, new).moved == 1
        assert silent.frame().kind == Kind.CIR_REFUSED
        assert 0.5 < time.monotonic() - began < 2


def test_what_was_said_before_an_end_is_heard():
    """Whoever closes with something unread resets the connection, and that is told first (unix(7))."""
    ours, theirs = channels()
    other = Channel(theirs)
    ours.send(Said.TAKEN, patience=1)
    other.send(Said.ABORT, patience=1)
    other.close()
    assert ours.receive(1).message.kind == Said.ABORT
    with pytest.raises(Gone):
        ours.receive(1)
    ours.close()
