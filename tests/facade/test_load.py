"""The load generator: against both engines' servers, and against foreign ones that echo or do it wrong."""

from __future__ import annotations

import importlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import native_is_missing
from foreign_servers import Foreign, Play, echo, echo_one_by_one, foreign_server, hang_up, native, reply, say, swallow
from support import WELCOME, run_python, wait_for

import pysock
from pysock import Address, Server
from pysock.load import FRAMINGS, Failure, Load, LoadError, LoadOptions, LoadResult, Outcome, run_load
from pysock.load.result import percentile
from pysock.wire.format import Kind, encode

if native_is_missing():
    pytest.skip("the load generator is part of the native engine", allow_module_level=True)
pytestmark = pytest.mark.not_over_tls("the load generator speaks none")


@pytest.fixture(params=FRAMINGS)
def framing(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def echoing(make_server: Callable[..., Server]) -> Iterator[Callable[..., Server]]:
    """``echoing(address, **options)``: a server of ours that echoes, running."""
    with ExitStack() as stack:

        def start(address: str, **options: Any) -> Server:
            server = make_server(address, **options)
            server.service(lambda _client, request: request)
            return stack.enter_context(server)

        yield start


@pytest.fixture
def foreign(socket_dir: Path) -> Iterator[Callable[..., Foreign]]:
    """``foreign(play, transport="unix")``: a server that isn't ours, running."""
    with ExitStack() as stack:
        yield lambda play, transport="unix": stack.enter_context(foreign_server(socket_dir, transport, play))


def load(server: Server | Foreign, **options: Any) -> LoadResult:
    """Run against it; give up soon."""
    address = server.address if isinstance(server, Foreign) else str(server.addresses[0])
    if "duration" not in options:
        options.setdefault("count", 200)
    return run_load(address, **{"stall": 5.0, **options})


def failure(server: Server | Foreign, **options: Any) -> str:
    with pytest.raises(LoadError) as caught:
        load(server, **options)
    return str(caught.value)


def is_sound(result: LoadResult) -> bool:
    """Do its figures agree with each other?"""
    latency, histogram = result.latency, result.histogram
    values = [latency.least, *(value for _, value in latency.percentiles), latency.most]
    assert values == sorted(values)
    assert latency.least <= latency.mean <= latency.most
    assert sum(count for _, count in histogram) == result.messages
    assert list(histogram) == sorted(histogram)
    assert latency.least <= histogram[0][0] * 1.000001
    assert latency.most <= histogram[-1][0] <= latency.most * 1.01
    assert result.seconds > 0
    assert 0 <= result.client_core < 1.5
    return True


# Closed loop


def test_closed_loop(echoing, address: str, framing: str) -> None:
    server = echoing(address, framing=framing)
    result = load(server, framing=framing, connections=3, in_flight=4, count=500)
    assert (result.messages, result.errors) == (500, 0)
    assert is_sound(result)
    stats = server.stats()
    assert (stats["requests"], stats["accepted"]) == (500, 3) or framing == "raw"


def test_for_a_time(echoing, address: str) -> None:
    result = load(echoing(address), connections=2, duration=0.1)
    assert result.messages > 10
    assert 0.1 <= result.seconds < 5
    assert is_sound(result)


@pytest.mark.parametrize("size", [16 * 1024, 300_000])
def test_large_messages(echoing, address: str, framing: str, size: int) -> None:
    server = echoing(address, framing=framing)
    result = load(server, framing=framing, connections=2, in_flight=3, size=size, count=30)
    assert result.messages == 30
    assert result.bytes_per_second == pytest.approx(30 * size / result.seconds)


def test_a_message_larger_than_what_is_sent_at_once(foreign) -> None:
    assert load(foreign(echo), framing="line", size=5_000_000, in_flight=2, count=6).messages == 6


@pytest.mark.parametrize("framing", ["pysock", "u32", "line"], indirect=True)
def test_empty_messages(echoing, unix_address: str, framing: str) -> None:
    assert load(echoing(unix_address, framing=framing), framing=framing, size=0, in_flight=5).messages == 200


def test_many_connections(echoing, unix_address: str) -> None:
    server = echoing(unix_address)
    result = load(server, connections=1000, count=3000)
    assert result.messages == 3000
    assert server.stats()["accepted"] == 1000


def test_more_connections_than_requests(echoing, unix_address: str) -> None:
    assert load(echoing(unix_address), connections=10, in_flight=7, count=3).messages == 3


@pytest.mark.parametrize("transport", ["unix", "tcp"])
@pytest.mark.parametrize("framing", ["u32", "line", "raw"], indirect=True)
def test_a_foreign_server(foreign, transport: str, framing: str) -> None:
    server = foreign(echo, transport)
    result = load(server, framing=framing, connections=3, in_flight=50, count=1000)
    assert result.messages == 1000
    assert is_sound(result)


@pytest.mark.parametrize("framing", ["u32", "line", "raw"], indirect=True)
def test_replies_in_the_smallest_pieces(foreign, framing: str) -> None:
    assert load(foreign(echo_one_by_one), framing=framing, in_flight=3, size=20, count=30).messages == 30


def test_native_replies_in_the_smallest_pieces(foreign) -> None:
    def answer(peer: Any, frame: Any) -> None:
        for byte in encode(Kind.REPLY, frame.payload, request_id=frame.request_id):
            peer.send(bytes([byte]))

    assert load(foreign(native(answer)), in_flight=3, size=20, count=30).messages == 30


def test_a_new_request_for_each_reply(foreign) -> None:
    """So many are in flight always: the next comes before the others of a batch are answered."""
    waiting: list[Any] = []

    def answer(peer: Any, frame: Any) -> None:
        waiting.append(frame)
        if len(waiting) == 5:  # never less, while there are requests to come
            reply(peer, waiting.pop())

    server = foreign(native(answer))
    running = Load(LoadOptions(address=Address.parse(server.address), in_flight=5, duration=20))
    worker = threading.Thread(target=running.run)
    worker.start()
    wait_for(lambda: running._running and running._running.progress().messages > 50)
    running.stop()
    worker.join()
    assert len(waiting) >= 4


def test_replies_in_any_order(foreign) -> None:
    waiting: list[Any] = []

    def answer(peer: Any, frame: Any) -> None:
        waiting.append(frame)
        if len(waiting) == 7:
            for other in (3, 0, 4, 1, 2, 0, 0):
                reply(peer, waiting.pop(other))

    result = load(foreign(native(answer)), in_flight=7, count=70)
    assert result.messages == 70
    assert is_sound(result)


def test_request_ids_differ(foreign) -> None:
    ids: list[int] = []

    def answer(peer: Any, frame: Any) -> None:
        ids.append(frame.request_id)
        reply(peer, frame)

    load(foreign(native(answer)), in_flight=3, count=100)
    assert len(set(ids)) == len(ids) == 100
    assert 0 not in ids


def test_pushes_are_no_replies(foreign) -> None:
    def answer(peer: Any, frame: Any) -> None:
        peer.send(encode(Kind.PUSH, b"news" * 100))
        reply(peer, frame)

    assert load(foreign(native(answer)), in_flight=3, count=60).messages == 60


def test_a_named_service(echoing, make_server: Callable[..., Server], unix_address: str) -> None:
    server = make_server(unix_address)
    served = []

    @server.service("first")
    def first(_client: pysock.DataSocket, request: bytes) -> bytes:
        return request

    @server.service("second")
    def second(_client: pysock.DataSocket, request: bytes) -> bytes:
        served.append(request)
        return request

    with server:
        assert load(server, service="second", count=20).messages == 20
    assert len(served) == 20


# Open loop


@pytest.mark.parametrize("framing", ["pysock", "u32"], indirect=True)
def test_open_loop(echoing, unix_address: str, framing: str) -> None:
    server = echoing(unix_address, framing=framing)
    result = load(server, framing=framing, connections=3, in_flight=20, rate=1000.0, duration=0.3)
    assert result.messages == 300
    assert 0.3 <= result.seconds < 5
    assert is_sound(result)


def test_open_loop_with_a_count(echoing, unix_address: str) -> None:
    result = load(echoing(unix_address), rate=1000.0, count=100)
    assert result.messages == 100
    assert 0.1 <= result.seconds < 5


def stalling(frames: list[Any]) -> Play:
    """Once, in the middle, it stops for 0.2 seconds."""

    def answer(peer: Any, frame: Any) -> None:
        frames.append(frame)
        if len(frames) == 100:
            time.sleep(0.2)
        reply(peer, frame)

    return native(answer)


def slow(result: LoadResult) -> int:
    return sum(count for longest, count in result.histogram if longest > 20_000)


def test_an_open_loop_does_not_omit_what_a_stall_held_up(foreign) -> None:
    result = load(foreign(stalling([])), rate=1000.0, duration=0.4)
    assert result.messages == 400
    # Those due in 180 of the 200 ms had to wait for more than 20 ms, though a single one was with the server.
    assert slow(result) >= 150


def test_a_closed_loop_does(foreign) -> None:
    assert 1 <= slow(load(foreign(stalling([])), count=400)) < 100


def test_an_open_loop_that_is_too_fast_ends_all_the_same(foreign) -> None:
    def answer(peer: Any, frame: Any) -> None:
        time.sleep(0.01)
        reply(peer, frame)

    result = load(foreign(native(answer)), rate=100_000.0, duration=0.1)
    assert 1 < result.messages < 1000
    assert result.seconds < 5


# Churn


def test_churn(echoing, address: str, framing: str) -> None:
    server = echoing(address, framing=framing)
    result = load(server, framing=framing, connections=4, churn=True, count=50)
    assert result.messages == 50
    assert result.connections_per_second == pytest.approx(50 / result.seconds)
    assert server.stats()["accepted"] == 50
    assert is_sound(result)


def test_churn_where_the_backlog_is_small(socket_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{socket_dir}/small")
        listener.listen(0)
        server = Foreign(listener, echo)
        assert load(server, framing="u32", connections=20, churn=True, count=60).messages == 60
        server.close()


# Errors that are counted


def test_errors_are_counted(make_server: Callable[..., Server], unix_address: str) -> None:
    server = make_server(unix_address)
    numbers = iter(range(1000))

    @server.service
    def sometimes(_client: pysock.DataSocket, request: bytes) -> bytes:
        if (number := next(numbers)) % 4 == 3:
            raise pysock.RemoteError(f"not today {number}")
        return request

    with server:
        result = load(server, connections=2, in_flight=3, count=100)
    assert (result.messages, result.errors) == (75, 25)
    assert result.first_error == "not today 3"
    assert is_sound(result)


def test_an_error_without_words_gets_those_of_its_code(foreign) -> None:
    def answer(peer: Any, frame: Any) -> None:
        peer.send(encode(Kind.ERROR, code=8, request_id=frame.request_id))

    result = load(foreign(native(answer)), count=3)
    assert (result.messages, result.errors, result.first_error) == (0, 3, "deadline passed")
    assert (result.latency.least, result.latency.most, result.histogram) == (0, 0, ())


def test_a_long_error_is_cut(foreign) -> None:
    def answer(peer: Any, frame: Any) -> None:
        peer.send(encode(Kind.ERROR, b"x" * 100_000, code=1, request_id=frame.request_id))

    assert load(foreign(native(answer)), count=3).first_error == "x" * 256


# What goes wrong


def test_nobody_listens(socket_dir: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such socket file"):
        run_load(f"unix:{socket_dir}/nobody", count=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionRefusedError, match="nobody listens there"):
        run_load(f"tcp://127.0.0.1:{port}", count=1)


def test_the_next_address_of_a_host(foreign, monkeypatch: pytest.MonkeyPatch) -> None:
    server = foreign(echo, "tcp")
    real = Address.parse(server.address).resolve(listening=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = (socket.AF_INET, taken.getsockname())
    monkeypatch.setattr(Address, "resolve", lambda _self, *, listening: [nobody, *real])
    assert load(server, framing="u32", count=5).messages == 5


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_it_hangs_up(foreign, framing: str, transport: str) -> None:
    assert "closed a connection before it answered" in failure(foreign(hang_up, transport), framing=framing)


def test_it_never_answers(foreign, framing: str) -> None:
    text = failure(foreign(swallow), framing=framing, stall=0.1)
    assert ("no connection was let in" if framing == "pysock" else "no reply came for 0.1 seconds") in text
    assert f"in the framing {framing!r}" in text


def test_it_never_accepts() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(LoadError, match=r"let in within 0\.1 seconds"):
            run_load(f"tcp://127.0.0.1:{port}", connections=5, count=1, stall=0.1)


def test_it_accepts_a_few_only(socket_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{socket_dir}/full")
        silent.listen(1)
        with pytest.raises(LoadError, match="only 2 of 5 connections were let in"):
            run_load(f"unix:{socket_dir}/full", framing="u32", connections=5, count=1, stall=0.1)


def test_nothing_in_the_time_there_is(foreign) -> None:
    assert "nothing was answered in 0." in failure(foreign(swallow), framing="raw", duration=0.05)


@pytest.mark.parametrize("wanted", FRAMINGS)
@pytest.mark.parametrize("spoken", ["pysock", "u32", "line"])
def test_another_framing(echoing, unix_address: str, wanted: str, spoken: str) -> None:
    if wanted == spoken:
        return
    server = echoing(unix_address, framing=spoken)
    text = failure(server, framing=wanted, stall=0.1)
    assert text.endswith(f"; does a server listen there that echoes in the framing {wanted!r}?")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("u32", b"\0\0\0\x05HELLO", "isn't as long as its request"),
        ("u32", b"\0\0\0\x08ABCDEFGX", "its byte 7 is 0x58, not 0x48"),
        ("line", b"OK\n", "its byte 0 is 0x4f, not 0x41"),
        ("line", b"ABC\n", "isn't as long as its request"),
        ("line", b"ABCDEFGHIJ\n", "isn't as long as its request"),
        ("raw", b"ABCDEFGX", "its byte 7 is 0x58, not 0x48"),
        ("raw", b"ABCDEFGHABCDEFGH", "more bytes came back than were sent"),
        ("pysock", b"\0\0\0\x08ABCDEFGHIJKL", "the answer to the CIR isn't pysock's protocol"),
        ("pysock", b"HTTP/1.1 400 Bad Request\r\n", "the answer to the CIR isn't pysock's protocol"),
        ("pysock", encode(Kind.CIR_ACCEPTED, b"\x05\0"), "the answer to the CIR isn't pysock's protocol"),
        ("pysock", b"\xff\xff\xff\xff\x81\0\0\0\0\0\0\0", "the answer to the CIR isn't pysock's protocol"),
        ("pysock", encode(Kind.CIR_REFUSED, b"go away", code=2), "refused a connection: go away"),
        ("pysock", encode(Kind.CHALLENGE, b""), "the server wants an auth key"),
        ("pysock", WELCOME + encode(Kind.REPLY, b"ABCDEFGH", request_id=77), "the id 77, which no request"),
        ("pysock", WELCOME + encode(Kind.ERROR, b"broken", code=7), "gave up a connection: broken"),
        ("pysock", WELCOME + encode(Kind.GOAWAY, b"see you"), "is shutting down: see you"),
        ("pysock", WELCOME + encode(Kind.PONG, b""), "a frame of kind 0x86, not a reply"),
    ],
)
def test_wrong_answers(foreign, name: str, data: bytes, words: str) -> None:
    assert words in failure(foreign(say(data)), framing=name, size=8)


@pytest.mark.parametrize("size", [8, 40_000])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: {"payload": frame.payload[:-1]}, "isn't as long as its request"),
        (lambda frame: {"payload": frame.payload + b"A"}, "isn't as long as its request"),
        (lambda frame: {"payload": frame.payload[:-1] + b"x"}, "is 0x78, not 0x"),
        (lambda frame: {"payload": b"x" + frame.payload[1:]}, "its byte 0 is 0x78, not 0x41"),
        (lambda _frame: {"kind": Kind.PONG}, "a frame of kind 0x86"),
        (lambda frame: {"request_id": frame.request_id + 1}, "which no request in flight has"),
        (lambda _frame: {"request_id": 0}, "the id 0, which no request in flight has"),
    ],
)
def test_a_wrong_native_reply(foreign, size: int, change: Callable[[Any], dict[str, Any]], words: str) -> None:
    count = 0

    def answer(peer: Any, frame: Any) -> None:
        nonlocal count
        count += 1
        fields = {"kind": Kind.REPLY, "payload": frame.payload, "request_id": frame.request_id}
        peer.send(encode(**{**fields, **(change(frame) if count == 9 else {})}))

    assert words in failure(foreign(native(answer)), size=size)


def test_a_reply_that_comes_twice(foreign) -> None:
    def answer(peer: Any, frame: Any) -> None:
        reply(peer, frame)
        reply(peer, frame)

    assert "which no request in flight has" in failure(foreign(native(answer)), in_flight=3)


@pytest.mark.parametrize("place", [0, 9_000, 39_999])
def test_a_wrong_byte_in_a_large_reply(foreign, place: int) -> None:
    def play(sock: socket.socket) -> None:
        data = bytearray()
        while len(data) < 40_000:
            data += sock.recv(65536)
        data[place] ^= 1
        sock.sendall(data)
        swallow(sock)

    assert f"its byte {place} is" in failure(foreign(play), framing="raw", size=40_000)


def test_no_such_service(echoing, unix_address: str) -> None:
    server = echoing(unix_address)
    assert "has no service 'nothing'; it has none with a name" in failure(server, service="nothing")


def test_no_such_service_among_others(make_server: Callable[..., Server], unix_address: str) -> None:
    server = make_server(unix_address)
    for name in ("add", "multiply"):
        server.service(name)(lambda _client, request: request)
    with server:
        assert "has no service 'ad'; it has 'add', 'multiply'" in failure(server, service="ad")


def test_too_large_for_the_server(echoing, unix_address: str) -> None:
    server = echoing(unix_address, limits=pysock.Limits(max_payload=1000))
    assert "takes at most 1000 bytes in a request, not 1001" in failure(server, size=1001)
    assert load(server, size=1000).messages == 200


def test_the_server_is_full(echoing, unix_address: str) -> None:
    server = echoing(unix_address, limits=pysock.Limits(max_clients=3))
    assert "refused a connection: the server is full" in failure(server, connections=5)


def test_the_server_stops(echoing, unix_address: str) -> None:
    server = echoing(unix_address)
    stopper = threading.Timer(0.1, server.stop)
    stopper.start()
    text = failure(server, duration=20)
    assert "is shutting down" in text or "closed a connection" in text
    stopper.join()


def test_too_few_descriptors() -> None:
    code = """if True:
        import resource, socket, sys
        from pysock.load import run_load
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
        with socket.create_server(("127.0.0.1", 0)) as server:
            try:
                run_load(f"tcp://127.0.0.1:{server.getsockname()[1]}", connections=50, count=1)
            except OSError as error:
                print(error)
    """
    # Nobody answers the CIR, so only the framings without one come that far.
    done = run_python(code.replace("count=1", "count=1, framing='u32'"))
    assert "Too many open files; 50 connections need a higher limit" in done.stdout, done.stderr


# Ending it, watching it


@pytest.mark.parametrize("watched", [False, True])
def test_stop(echoing, unix_address: str, watched: bool) -> None:
    server = echoing(unix_address)
    running = Load(LoadOptions(address=server.addresses[0], duration=20))
    stopper = threading.Timer(0.1, running.stop)
    stopper.start()
    result = running.run((lambda _progress: None) if watched else None)
    assert 0 < result.seconds < 5
    assert result.messages > 0
    stopper.join()
    running.stop()


def test_stop_before_it_runs(echoing, unix_address: str) -> None:
    running = Load(LoadOptions(address=echoing(unix_address).addresses[0], duration=20))
    running.stop()
    assert running.run().messages == 0


def test_progress(echoing, unix_address: str) -> None:
    seen = []
    options = LoadOptions(address=echoing(unix_address).addresses[0], connections=2, duration=0.2)
    result = Load(options).run(seen.append, 0.02)
    assert len(seen) > 3
    assert seen[-1].connections == 2
    assert [now.messages for now in seen] == sorted(now.messages for now in seen)
    assert seen[-1].messages == result.messages
    assert seen[-1].seconds >= 0.2


def test_an_exception_of_whoever_watches_ends_it(echoing, unix_address: str) -> None:
    def watch(_progress: object) -> None:
        raise RuntimeError("enough")

    running = Load(LoadOptions(address=echoing(unix_address).addresses[0], duration=20))
    with pytest.raises(RuntimeError, match="enough"):
        running.run(watch)
    assert running.result is not None


def test_linger_counts_as_no_work(foreign) -> None:
    """The client polls all the time, and yet it isn't what bounds the rate."""

    def answer(peer: Any, frame: Any) -> None:
        time.sleep(0.002)
        reply(peer, frame)

    result = load(foreign(native(answer)), linger=0.1, duration=0.2)
    assert result.client_core < 0.5
    assert result.client_cpu_seconds > result.client_core * result.seconds


# Options and result


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either a duration or a count"),
        ({"duration": 1.0, "count": 1}, "either a duration or a count"),
        ({"count": 0}, "count must be from 1"),
        ({"duration": 0.0}, "duration must be from 0.001"),
        ({"duration": float("nan")}, "duration must be"),
        ({"count": 1, "connections": 0}, "connections must be from 1"),
        ({"count": 1, "in_flight": 65_537}, "in_flight must be from 1 to 65536"),
        ({"count": 1, "size": -1}, "size must be from 0"),
        ({"count": 1, "rate": 0.0}, "rate must be"),
        ({"count": 1, "churn": True, "in_flight": 2}, "in_flight must be 1"),
        ({"count": 1, "churn": True, "rate": 5.0}, "takes no rate"),
        ({"count": 1, "framing": "raw", "size": 0}, "at least 1"),
        ({"count": 1, "framing": "u32", "service": "add"}, "'u32' has no services"),
        ({"count": 1, "service": "a\0b"}, "has no NUL"),
        ({"count": 1, "framing": "http"}, "unknown framing 'http'"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LoadOptions(address=Address.parse("unix:x"), **options)


def test_the_dictionary(echoing, unix_address: str) -> None:
    result = load(echoing(unix_address), count=10)
    found = result.as_dict()
    assert list(found) == [
        *("address", "framing", "connections", "in_flight", "size", "mode", "rate", "seconds", "messages"),
        *("messages_per_second", "bytes_per_second", "errors", "connections_per_second", "latency_us", "histogram"),
        *("client_cpu_seconds", "client_core"),
    ]
    assert list(found["latency_us"]) == ["min", "mean", "p50", "p90", "p99", "p99.9", "max"]
    assert (found["framing"], found["mode"], found["rate"], found["messages"]) == ("pysock", "closed", None, 10)


def test_percentiles() -> None:
    histogram = [(10, 50), (20, 40), (30, 9), (40, 1)]
    assert [percentile(histogram, percent, 38) for percent in (1, 50, 50.1, 90, 99, 99.1, 100)] == [
        *(10, 10, 20, 20, 30, 38, 38)
    ]
    assert percentile([], 50, 0) == 0


def test_python_and_c_agree() -> None:
    ffi = importlib.import_module("pysock._engine").ffi
    numbers = ffi.typeof("enum ps_load_failure").elements.items()
    assert {name.removeprefix("PS_LOAD_"): number for number, name in numbers} == {
        failure.name: failure.value for failure in Failure
    }
    fields = [name for name, _ in ffi.typeof("ps_load_result").fields]
    assert set(fields) == {*Outcome._fields, "text_size"}


def test_without_the_extension() -> None:
    code = """if True:
        import sys
        sys.modules["pysock._engine"] = None
        from pysock.load import run_load
        try:
            run_load("unix:x", count=1)
        except ImportError as error:
            print(error)
    """
    done = run_python(code)
    assert done.stdout.startswith("the load generator is part of the native engine, which isn't installed"), done.stderr
