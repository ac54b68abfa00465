"""A blocking client that connects again: over both transports, on both engines."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest
from proxy import between
from restarted import FAST, Restarted, answers, lose, speaking
from support import wait_for, welcomed

import pysock
from pysock import ConnectionLost, ConnectionRefused, Limits, OutcomeUnknown, RemoteError, RequestTimeout
from pysock.client import Client
from pysock.healing.client import HealingClient
from pysock.healing.known import Known
from pysock.wire.format import Kind, encode, encode_text


@pytest.fixture
def healing(server, backend):
    made = []

    def make(address=None, name=None, **options):
        options = {"reconnect": FAST, "backend": backend, **options}
        made.append(pysock.connect(address or server.address, name, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def test_everything_that_a_client_does_is_done_by_a_healing_one_too():
    """One that is inherited would use a connection that isn't there."""
    shared = {"on_reconnect", "name"} | {"__enter__", "__exit__"}
    names = {name for kind in Client.__mro__ for name in vars(kind) if kind.__module__.startswith("pysock")}
    public = {name for name in names if not name.startswith("_")} | {"__del__", "__repr__"}
    assert public - set(vars(HealingClient)) - set(vars(Known)) - shared <= {"pushes"}  # which goes through _pushes
    assert "_pushes" in vars(HealingClient)


def test_a_restart_is_not_noticed(server, healing):
    server.start()
    client = healing(name="me")
    assert client.request(b"one") == b"ONE"
    for _ in range(3):
        server.restart()
        assert client.request(b"two") == b"TWO"
        assert client.request_many([b"a", b"b"]) == [b"A", b"B"]
        client.notify(b"three")
        assert client.ping(b"?") < 5
        assert client.request(b"", service="id") == b"%d me" % client.id
    assert (client.closed, client.ended) == (False, None)
    assert set(client.services) == {"id", "push"}
    client.close()
    client.close()
    assert (client.closed, client.ended) == (True, ("left", ""))
    with pytest.raises(ConnectionLost, match=r"^this client is closed: connect\(\) again$"):
        client.request(b"x")
    assert list(client.pushes()) == []


def test_a_call_waits_for_the_server(server, healing):
    server.start()
    client = healing()
    server.stop()
    threading.Timer(0.2, server.start).start()
    started = time.monotonic()
    assert client.request(b"x", timeout=10) == b"X"
    assert time.monotonic() - started > 0.1


def test_but_no_longer_than_it_says(server, healing):
    server.start()
    client = healing()
    server.stop()
    started = time.monotonic()
    with pytest.raises(RequestTimeout, match="not connected in time") as caught:
        client.request(b"x", timeout=0.2)
    assert 0.15 < time.monotonic() - started < 5
    assert caught.value.started is False
    assert not client.closed


def test_who_doesnt_want_to_wait_fails_at_once(server, healing):
    server.start()
    client = healing()
    server.stop()
    with pytest.raises(ConnectionLost, match="not connected to"):
        client.request(b"x", wait=False)
    server.start()
    wait_for(lambda: not _fails(client))  # the connection is made all the same
    assert client.request(b"x", wait=False) == b"X"


def _fails(client):
    try:
        client.request(b"x", wait=False)
    except ConnectionLost:
        return True
    return False


def test_the_order_of_starts_doesnt_matter(server, backend):
    threading.Timer(0.2, server.start).start()
    with pysock.connect(server.address, backend=backend, wait=10, timeout=5) as client:
        assert client.request(b"x") == b"X"
        assert client._timeout == 5


def test_nobody_comes(home, backend):
    started = time.monotonic()
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        pysock.connect(home, backend=backend, wait=0.2)
    assert 0.2 <= time.monotonic() - started < 5
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        pysock.connect(home, backend=backend, wait=0)
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        pysock.connect(home, backend=backend, reconnect=FAST, timeout=0.2)
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        pysock.connect(home, backend=backend, reconnect=FAST, wait=0)


def test_several_addresses_are_tried_in_order(server, healing, backend, socket_dir):
    server.start()
    nowhere = f"unix:{socket_dir}/nowhere"
    with pysock.connect([nowhere, server.address], backend=backend) as client:
        assert client.request(b"x") == b"X"
        assert str(client.address) == server.address
    with pytest.raises(FileNotFoundError):
        pysock.connect([nowhere, nowhere], backend=backend)
    client = healing([nowhere, server.address])
    server.restart()
    assert client.request(b"x") == b"X"
    with pytest.raises(ValueError, match="at least one address"):
        pysock.connect([], backend=backend)


def test_what_is_for_good_is_raised_once(server, backend):
    server.options["authkey"] = b"right"
    server.start()
    started = time.monotonic()
    with pytest.raises(ConnectionRefused, match="auth key"):
        pysock.connect(server.address, backend=backend, authkey=b"wrong", reconnect=True, timeout=30)
    with pytest.raises(ConnectionRefused, match="auth key"):
        pysock.connect(server.address, backend=backend, wait=30)
    assert time.monotonic() - started < 10


def test_a_client_that_is_refused_later_has_ended(server, healing):
    server.start()
    client = healing()
    server.stop()
    server.options["authkey"] = b"new"
    server.start()
    with pytest.raises(ConnectionRefused):
        client.request(b"x")
    assert client.closed
    assert client.ended.how == "refused"
    with pytest.raises(ConnectionLost, match="this client has ended: "):
        client.request(b"x")
    with pytest.raises(ConnectionLost, match="this client has ended: "):
        next(client.pushes())


def test_a_server_that_is_full_is_asked_again(server, backend, healing):
    server.options["limits"] = Limits(max_clients=1)
    server.start()
    with pysock.connect(server.address, backend=backend), pytest.raises(pysock.ServerFull):
        healing(timeout=0.2)
    client = healing()
    assert client.request(b"x") == b"X"


def test_a_hook_restores_what_was_there_before_calls_go_on(server, healing):
    server.start()
    client, order = healing(), []

    @client.on_reconnect
    def restore(again):
        assert again is client
        time.sleep(0.1)
        order.append(again.request(b"hook"))

    server.restart()
    threads = [threading.Thread(target=lambda: order.append(client.request(b"call"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == [b"HOOK"] + [b"CALL"] * 4


def test_a_hook_that_fails_has_the_client_connect_once_more(server, healing, caplog):
    server.start()
    client, times = healing(), []

    @client.on_reconnect
    def restore(again):
        times.append(again)
        if len(times) < 3:
            raise ValueError("not yet")

    server.restart()
    assert client.request(b"x") == b"X"
    assert len(times) == 3
    assert "an on_reconnect hook failed" in caplog.text


def test_a_hook_whose_connection_ends_is_told(played, healing):
    """And the client connects once more."""
    client, told = healing(played(lose(1), lose(1), welcomed(answers))), []

    @client.on_reconnect
    def restore(again):
        try:
            assert again.request(b"hook", idempotent=True) == b"hook"
        except ConnectionLost as error:
            told.append(str(error))
            raise

    assert client.request(b"x", idempotent=True) == b"x"
    assert len(told) == 1
    assert told[0].startswith("the connection ended before it was restored")


def test_a_signal_in_the_middle_of_an_attempt_leaves_it_usable(server, healing, monkeypatch):
    server.start()
    client = healing()
    server.restart()
    with monkeypatch.context() as patch:
        patch.setattr(client._connections, "_attempt", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.request(b"x")
    assert client.request(b"x") == b"X"


def _interrupted(end):
    raise KeyboardInterrupt


def test_a_plain_client_says_that_it_doesnt(server, backend):
    server.start()
    with (
        pysock.connect(server.address, backend=backend) as client,
        pytest.raises(pysock.PysockError, match="reconnect=True"),
    ):
        client.on_reconnect(print)


def test_a_plain_client_takes_the_words_of_a_healing_one(server, backend):
    """Which of the two a program has is said where it connects, and nowhere else."""
    server.start()
    for heals in (False, True):
        with pysock.connect(server.address, backend=backend, reconnect=heals) as client:
            assert client.request(b"x", idempotent=True, wait=False) == b"X"
            assert client.request_many([b"x"], idempotent=True, wait=False) == [b"X"]
            client.notify(b"x", wait=False)
            assert client.ping(wait=False) < 5


# Requests in between


def test_what_may_have_run_is_told(played, healing):
    client = healing(played(lose(1), welcomed(answers)))
    before = time.time()
    with pytest.raises(OutcomeUnknown, match="nobody knows whether the server has run it") as caught:
        client.request(b"x")
    unknown = caught.value
    assert (unknown.request_id, unknown.client_id) == (1, 0x1_0000_0001)
    assert before - 1 < unknown.sent_at < time.time() + 1
    assert client.request(b"x") == b"x"


def test_what_may_run_twice_is_sent_again(played, healing):
    client = healing(played(lose(1), lose(1), lose(1), welcomed(answers)))
    assert client.request(b"x", idempotent=True) == b"x"


def test_three_times(played, healing):
    client = healing(played(*[lose(1)] * 4, welcomed(answers)))
    with pytest.raises(OutcomeUnknown):
        client.request(b"x", idempotent=True)


@pytest.mark.parametrize("code", [5, 9])
def test_what_was_not_started_is_sent_again(played, healing, code):
    def not_started(peer):
        frame = peer.frame()
        peer.send(encode(Kind.ERROR, b"no", code=code, request_id=frame.request_id, flags=code == 9))
        peer.frame()

    client = healing(played(speaking(not_started), welcomed(answers)))
    assert client.request(b"x") == b"x"


def test_a_goodbye_moves_the_client_without_an_error(played, healing):
    """What is on its way is answered on the old connection, what comes then goes over the new one."""
    asked, moved = threading.Event(), threading.Event()

    def goes(peer):
        frame = peer.frame()
        asked.set()
        peer.send(encode_text(Kind.GOAWAY, 0, "moving"))
        assert moved.wait(10)
        peer.send(encode(Kind.REPLY, b"old", request_id=frame.request_id))

    client, got = healing(played(welcomed(goes), welcomed(answers))), []
    thread = threading.Thread(target=lambda: got.append(client.request(b"in flight")))
    thread.start()
    assert asked.wait(10)
    wait_for(lambda: client._connections.current is None or client._connections.current.client._mail.goodbye)
    assert client.request(b"new") == b"new"
    moved.set()
    thread.join(10)
    assert got == [b"old"]


def too_late(code):
    """A script: it takes a request, and says goodbye with this code in place of an answer."""

    def play(peer):
        peer.frame()
        peer.send(encode_text(Kind.GOAWAY, 0, "moving") + encode_text(Kind.GOAWAY, code, "moving"))

    return play


def test_what_came_too_late_for_a_server_that_goes_is_sent_again(played, healing):
    """The goodbye of one that has answered all that it had accepted says that the rest was not run."""
    client = healing(played(speaking(too_late(2)), speaking(too_late(2)), welcomed(answers)))
    assert client.request_many([b"a", b"b"]) == [b"a", b"b"]
    client = healing(played(speaking(too_late(2)), welcomed(answers)))
    assert client.request(b"x") == b"x"


def test_a_goodbye_of_one_that_has_answers_to_give_tells_nothing_of_them(played, healing):
    client = healing(played(welcomed(too_late(0))))
    with pytest.raises(OutcomeUnknown, match="the server said goodbye: moving"):
        client.request(b"x")


def test_of_many_each_is_answered_once_or_unknown(played, healing):
    def half(peer):
        frames = [peer.frame() for _ in range(2)]
        peer.send(encode(Kind.REPLY, b"first", request_id=frames[0].request_id))

    script = [welcomed(half), welcomed(answers)]
    client = healing(played(*script))
    results = client.request_many([b"%d" % number for number in range(8)], return_exceptions=True)
    assert results[0] == b"first"
    assert isinstance(results[1], OutcomeUnknown)
    assert results[1].request_id == 2
    assert all(isinstance(one, OutcomeUnknown) or one == b"%d" % at for at, one in enumerate(results) if at)
    assert results[-1] == b"7"  # was never sent at first


def test_of_many_one_that_is_unknown_is_raised(played, healing):
    client = healing(played(lose(1), welcomed(answers)))
    with pytest.raises(OutcomeUnknown):
        client.request_many([b"1", b"2"])
    assert client.request_many([b"1", b"2"]) == [b"1", b"2"]


def test_an_error_is_the_answer(server, healing):
    server.start()
    client = healing()
    with pytest.raises(RemoteError, match="no service 'x'"):
        client.request(b"x", service="x")
    with pytest.raises(pysock.FrameTooLarge):
        client.request(bytes(20_000_000))


@pytest.mark.parametrize("way", ["up", "down"])
def test_cut_at_every_byte(unix_address, backend, way):
    """A request runs at most once; if it isn't answered its caller hears so."""
    server = Restarted(unix_address, backend).start()
    try:
        whole = _passed(server, backend, way)
        for at in range(1, whole + 1):
            server.ran.clear()
            with (
                between(server.address, **{f"cut_{way}": at}) as proxy,
                pysock.connect(proxy.address, backend=backend, reconnect=FAST) as client,
            ):
                try:
                    assert client.request(b"once") == b"ONCE"
                except OutcomeUnknown:
                    assert server.ran in ([], [b"once"])
                else:
                    assert server.ran == [b"once"]
                wait_for(lambda: proxy.cuts)  # else it may be sent before the cut, and unknown for it
                assert client.request(b"next") == b"NEXT"
            assert server.ran.count(b"once") <= 1
    finally:
        server.stop(0)


def _passed(server, backend, way):
    with between(server.address) as proxy, pysock.connect(proxy.address, backend=backend) as client:
        client.request(b"once")
        return proxy.passed[way]


def test_one_byte_at_a_time(unix_address, backend):
    server = Restarted(unix_address, backend).start()
    try:
        with (
            between(server.address, piece=1) as proxy,
            pysock.connect(proxy.address, backend=backend, reconnect=FAST) as client,
        ):
            assert client.request_many([b"%d" % number for number in range(20)])[-1] == b"19"
            for pair in tuple(proxy.pairs):
                pair[0].shutdown(socket.SHUT_RDWR)
            assert client.request(b"x", idempotent=True) == b"X"
    finally:
        server.stop(0)


# Pushes


def test_pushes_go_on_after_a_restart(server, healing):
    server.start()
    client, got = healing(), []
    listener = threading.Thread(target=lambda: got.extend(client.pushes()))
    listener.start()
    for number in range(3):
        wait_for(lambda: len(server.server.clients) == 1)
        server.server.clients.broadcast(b"%d" % number)
        wait_for(lambda number=number: len(got) == number + 1)
        server.restart()
    client.close()
    listener.join(10)
    assert not listener.is_alive()
    assert got == [b"0", b"1", b"2"]


def test_a_hook_goes_over_to_the_next_connection(server, healing):
    server.start()
    client, got = healing(), []
    client.on_push(got.append)
    for number in range(3):
        wait_for(lambda: len(server.server.clients) == 1)
        server.server.clients.broadcast(b"%d" % number)
        wait_for(lambda number=number: len(got) == number + 1)
        server.restart()  # nobody calls: a thread connects
    assert got == [b"0", b"1", b"2"]


def test_pushes_end_with_their_time(server, healing):
    server.start()
    client = healing()
    assert list(client.pushes(timeout=0)) == []
    client.request(b"one", service="push")
    assert list(client.pushes(timeout=0)) == [b"one"]
    server.stop()
    started = time.monotonic()
    assert list(client.pushes(timeout=0.2)) == []
    assert time.monotonic() - started < 5


# Threads, forks, the end


def test_many_threads_heal_together(server, healing):
    server.start()
    client, failed, over = healing(), [], threading.Event()

    def work():
        while not over.is_set():
            try:
                assert client.request(b"x", idempotent=True) == b"X"
            except OutcomeUnknown:  # noqa: PERF203  # it is what is looped for
                pass  # all at once are more than the bucket has tokens for
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        time.sleep(0.1)
        server.restart()
    over.set()
    for thread in threads:
        thread.join(20)
    assert failed == []


def test_closed_while_a_thread_connects(server, healing):
    server.start()
    client, told = healing(), []
    server.stop()

    def call():
        try:
            client.request(b"x", timeout=20)
        except ConnectionLost as error:
            told.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.1)
    started = time.monotonic()
    client.close()
    thread.join(10)
    assert time.monotonic() - started < 5
    assert told == ["this client is closed: connect() again"]


def test_a_forked_child_makes_a_connection_of_its_own(server, healing):
    server.start()
    client = healing(name="me")
    before = client.request(b"", service="id")
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, client.request(b"", service="id"))
        except BaseException as error:
            os.write(write, repr(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    told = os.read(read, 1000)
    os.close(read)
    os.waitpid(child, 0)
    assert told.endswith(b" me")
    assert told != before
    assert client.request(b"", service="id") == before


def test_thrown_away_open(server, backend):
    server.start()
    client = pysock.connect(server.address, backend=backend, reconnect=FAST)
    with pytest.warns(ResourceWarning, match="unclosed <Client"):
        del client
    wait_for(lambda: not server.server.clients)
