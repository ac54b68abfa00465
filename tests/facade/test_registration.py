from __future__ import annotations

import functools
from functools import partial

import pytest
from support import RawPeer, plug

import pysock
from pysock import PysockError, connect


@pytest.fixture
def server(make_server, address):
    return make_server(address, name="test")


def handler(client, request):
    return request


def test_a_name_can_be_registered_once(server):
    server.service("a")(handler)
    with pytest.raises(ValueError, match="the service 'a' is registered already; choose another name"):
        server.batch_service("a")(handler)
    server.service(handler)
    with pytest.raises(ValueError, match=r'the unnamed service is registered already; .* @server.service\("name"\)'):
        server.service(handler)


@pytest.mark.parametrize("name", ["", "x" * 256, "ä" * 128])
def test_a_name_has_1_to_255_bytes(server, name):
    with pytest.raises(ValueError, match="a service name has 1 to 255 bytes of UTF-8"):
        server.service(name)(handler)


def test_a_name_of_255_bytes(server):
    server.service("x" * 255)(handler)
    with server, connect(server.addresses[0], backend=server.backend) as client:
        assert client.request(b"hello", service="x" * 255) == b"hello"


def test_a_name_must_be_encodable(server):
    with pytest.raises(ValueError, match="can't be encoded in UTF-8"):
        server.service("\udc80")(handler)


@pytest.mark.parametrize("wrong", [5, b"name", ["a"]])
def test_a_handler_must_be_callable(server, wrong):
    with pytest.raises(TypeError, match="a handler must be callable, not"):
        server.service(wrong)
    with pytest.raises(TypeError, match="a handler must be callable, not"):
        server.service("name")(wrong)


async def later(*arguments):
    return False


async def later_and_more(*arguments):
    yield False


class Later:
    async def __call__(self, *arguments):
        return False


ASYNC = [later, later_and_more, Later(), Later().__call__, partial(later, 1), partial(partial(Later(), 1), 2)]


@pytest.mark.parametrize("function", ASYNC)
def test_async_handlers_of_batches_are_refused(server, function):
    with pytest.raises(TypeError, match=r"is an async (function|generator); handlers of batches are plain functions"):
        server.batch_service("b")(function)


@pytest.mark.plain
def test_a_hook_that_may_be_async_is_no_async_generator(server):
    with pytest.raises(TypeError, match="is an async generator; it has nothing to yield to"):
        server.on_disconnect(later_and_more)


def test_a_kind_of_handler_that_there_is_not(server):
    with pytest.raises(ValueError, match="kind must be 'async' or 'stream', or left out"):
        server.service("a", kind="sync")(lambda client, request: request)


def test_a_class_is_called_to_make_one(server):
    """What calling its objects does is another thing."""

    class Made(Later):
        def __init__(self, client, reason):
            pass

    assert server.on_disconnect(Made) is Made


class Methods:
    def two(self, client, request):
        return request

    @classmethod
    def of_class(cls, client, request):
        return request

    @staticmethod
    def of_none(client, request):
        return request

    def one(self, request):
        return request

    def __call__(self, client, request):
        return request


def any_number(*arguments):
    return arguments[1]


def wrapped(function):
    @functools.wraps(function)
    def inner(*arguments):
        return function(*arguments[1:])

    return inner


TAKEN = [
    handler,
    lambda client, request, more=b"": request,
    lambda client, *rest: rest[0],
    lambda client, request, *, key=1: request,
    any_number,
    Methods().two,
    Methods.of_class,
    Methods().of_none,
    Methods(),
    partial(lambda more, client, request: request, 1),
    partial(lambda client, request, *, key: request, key=1),
    max,
    wrapped(lambda request: request),
]

#: Each is found when it is registered, not when the first request comes.
NOT_TAKEN = [
    lambda request: request,
    lambda: b"",
    lambda client, request, more: request,
    lambda client, request, *, key: request,
    Methods().one,
    Methods.two,
    partial(handler, 1),
    partial(lambda client, request, *, key: request),
    type("Other", (), {"__call__": lambda self, request: request})(),
    len,
]


@pytest.mark.parametrize("function", TAKEN)
def test_a_handler_that_takes_client_and_request(server, function):
    server.service(function)
    server.service("named")(function)
    server.batch_service("batch")(function)
    with server:
        pass


@pytest.mark.plain
@pytest.mark.parametrize("function", NOT_TAKEN)
def test_a_handler_of_other_parameters_is_refused(server, function):
    with pytest.raises(TypeError, match=r"the handler .* can't be called as handler\(client, request\)"):
        server.service(function)
    with pytest.raises(TypeError, match=r"can't be called as handler\(clients, requests\)"):
        server.batch_service("batch")(function)
    assert server.stats()["requests"] == 0


def test_hooks_of_other_parameters_are_refused(server, unix_address, backend):
    for register, call in (
        (server.on_connect, r"hook\(client\)"),
        (server.on_disconnect, r"hook\(client, reason\)"),
        (server.on_state, r"hook\(old, new\)"),
    ):
        with pytest.raises(TypeError, match=f"the hook .*test_registration.py.* can't be called as {call}"):
            register(lambda: None)
    with pytest.raises(TypeError, match=r"the allow= function .* can't be called as allow\(peer\)"):
        pysock.Server(unix_address, allow=lambda pid, uid, gid: True, backend=backend)


@pytest.mark.parametrize("function", ASYNC)
def test_async_hooks_are_refused(server, function):
    """What they return is true: an on_connect hook would let everybody in."""
    for register in (server.on_connect, server.on_state):
        with pytest.raises(TypeError, match=r"the hook .* is an async \w+; hooks are plain functions"):
            register(function)


@pytest.mark.parametrize("function", ASYNC)
def test_an_async_rule_is_refused(make_server, unix_address, function):
    with pytest.raises(TypeError, match=r"the allow= function .* is an async \w+; it must be a plain one"):
        make_server(unix_address, allow=function)


@pytest.mark.parametrize("options", [{"max_batch": 0}, {"max_batch": 1.5}, {"max_batch": True}])
def test_max_batch(server, options):
    with pytest.raises(ValueError, match="max_batch must be a whole number of at least 1"):
        server.batch_service("a", **options)(handler)


@pytest.mark.parametrize("wait", [-1, float("inf"), float("nan"), "1"])
def test_max_wait(server, wait):
    with pytest.raises(ValueError, match="max_wait must be 0 or more seconds"):
        server.batch_service("a", max_wait=wait)(handler)


def test_nothing_can_be_registered_after_the_start(server):
    late = server.service("late")
    with server:
        for register in (server.service, server.batch_service, late, server.on_connect, server.on_state):
            with pytest.raises(
                PysockError, match="must be registered before the server is started; this one is SERVING"
            ):
                register(handler)


@pytest.mark.parametrize("framing", ["u32", "line", "raw"])
def test_only_the_native_framing_names_services(make_server, unix_address, framing):
    server = make_server(unix_address, framing=framing)
    with pytest.raises(ValueError, match=f"the framing '{framing}' can't name services: register the unnamed one"):
        server.service("name")(handler)
    server.service(handler)


@pytest.mark.parametrize(
    ("framing", "sent", "answer"),
    [("u32", b"\0\0\0\2hi", b"\0\0\0\2HI"), ("line", b"hi\n", b"HI\n"), ("raw", b"hi", b"HI")],
)
def test_the_other_framings(make_server, address, framing, sent, answer):
    server = make_server(address, framing=framing)
    server.service(lambda client, request: request.upper())
    with server, RawPeer(plug(server.addresses[0])) as peer:
        peer.send(sent)
        assert peer.read(len(answer)) == answer
        (client,) = server.clients.values()
        assert client.state is pysock.ConnectionState.ESTABLISHED


def test_many_services_are_added_without_looking_through_those_that_are_there(unix_address, backend):
    """A name is found by its hash: 10,000 services would take minutes else."""
    compared = []

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared.append(other)
            return str.__eq__(self, other)

    server = pysock.Server(unix_address, backend=backend)
    for number in range(200):
        server.service(Name(f"service {number}"))(lambda client, request: request)
    assert len(compared) < 200
    with pytest.raises(ValueError, match="registered already"):
        server.service("service 100")(lambda client, request: request)
