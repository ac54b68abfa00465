"""The bus over NATS: whom its server lets in and to what, TLS, several servers, and what isn't a NATS at all."""

from __future__ import annotations

import functools
import socket
import threading

import pytest
from buses import Nats, Node
from certificates import Certificates
from haproxy import free_ports
from support import PATIENCE, own_host, run_python

from pysock.cluster.bus.choice import bus_of
from pysock.cluster.bus.contract import BusState, Outcome
from pysock.cluster.bus.nats_stream import Stream
from pysock.errors import BusDown, ParameterError

USERS = """
authorization {
  users: [
    {user: all, password: s3cret}
    {user: some, password: s3cret, permissions: {publish: "pysock.t.>", subscribe: "pysock.t.>"}}
    {user: mute, password: s3cret, permissions: {publish: {deny: "pysock.t.no"}}}
  ]
}
"""


@pytest.fixture
def nats(bus_server):
    """A function that runs one with lines of a configuration."""
    return functools.partial(bus_server, Nats)


def test_who_has_the_password_comes_in_and_nobody_else(nats, node_at, caplog):
    host = nats(USERS).host
    one = node_at(f"nats://all:s3cret@{host}")
    one.hear("a", bytes.upper)
    one.settle()
    assert one.ask("a", b"x") == (Outcome.ANSWERED, b"X")
    for user in ("all:wr0ng@", "t0ken@", ""):
        other = node_at(f"nats://{user}{host}", start=False)
        with pytest.raises(BusDown, match=r"can't be used: the server refuses this user: .*PASSWORD@HOST") as caught:
            other.bus.check((), PATIENCE)
        assert "wr0ng" not in str(caught.value) + caplog.text
        assert host in str(caught.value)
    assert "s3cret" not in caplog.text


def test_a_token_is_enough_where_the_server_wants_one(nats, node_at):
    host = nats("authorization {token: t0ken}").host
    node_at(f"nats://t0ken@{host}").settle()


def test_a_permission_for_its_prefix_is_all_that_it_needs(nats, node_at):
    one = node_at(f"nats://some:s3cret@{nats(USERS).host}")
    one.hear("a", bytes.upper)
    one.settle()
    assert one.ask("a", b"x") == (Outcome.ANSWERED, b"X")
    assert one.bus.check(("pysock.t.a",), PATIENCE).findings == ()


def test_what_it_may_not_is_found_by_a_check(nats, node_at):
    host = nats(USERS).host
    for user, subject in (("some", "other.a"), ("mute", "pysock.t.no")):
        report = node_at(f"nats://{user}:s3cret@{host}", start=False).bus.check(("pysock.t.a", subject), PATIENCE)
        (finding,) = report.findings
        assert f"messages under {subject} don't come back: allow this user" in finding


def test_who_may_not_even_hear_itself_is_told_so(nats, caplog):
    one = Node(f"nats://some:s3cret@{nats(USERS).host}", "n", "pysock.elsewhere")
    one.hear("a")
    with pytest.raises(BusDown, match=r"allows this user too little: allow it to publish .*under pysock.elsewhere"):
        one.bus.check((), PATIENCE)
    assert one.bus.state is BusState.LOST
    one.bus.close()


def test_over_tls_the_servers_certificate_is_verified(nats, node_at, monkeypatch):
    made = Certificates()
    pem = made.issue("nats", "localhost", own_host())
    url = f"tls://{nats(f'tls {{cert_file: {pem!r}, key_file: {pem!r}}}').host}"
    with pytest.raises(BusDown, match=r"certificate isn't trusted: .*SSL_CERT_FILE"):
        node_at(url, start=False).bus.check((), PATIENCE)
    monkeypatch.setenv("SSL_CERT_FILE", made.ca)
    one = node_at(url)
    one.hear("a", bytes.upper)
    one.settle()
    assert one.ask("a", b"x" * 100_000) == (Outcome.ANSWERED, b"X" * 100_000)


def test_of_several_servers_one_that_runs_is_taken(nats, node_at):
    one = nats()
    for _ in range(3):
        node_at(f"nats://{own_host()}:{free_ports(own_host(), 1)[0]},{one.host}").settle()


def says(answer):
    """A server of something else, at a port; the thread ends with its first client."""
    listener = socket.create_server((own_host(), 0))

    def serve():
        with listener, listener.accept()[0] as client:
            client.settimeout(PATIENCE)
            client.sendall(answer)
            client.recv(4096)

    threading.Thread(target=serve, daemon=True).start()
    return f"nats://{own_host()}:{listener.getsockname()[1]}"


@pytest.mark.parametrize("answer", [b"220 mail.example ESMTP\r\n", b"INFO what?\r\n", b"\0\0\0\4abcd\r\n"])
def test_what_is_no_nats_is_told_of(node_at, answer):
    with pytest.raises(BusDown, match=r"what listens there is no NATS: is the port right\?"):
        node_at(says(answer), start=False).bus.check((), PATIENCE)


class _Transport:
    """In the place of asyncio's."""

    def __init__(self):
        self.is_over = False
        self.protocol = None

    def get_protocol(self):
        return self.protocol

    def set_protocol(self, protocol):
        self.protocol = protocol

    def is_closing(self):
        return self.is_over

    def abort(self):
        self.is_over = True


@pytest.mark.parametrize(
    "line", [b"MSG s 2 -40", b"MSG s 2 x", b"MSG s x 1", b"MSG s", b"HMSG s 2 -9 1", b"HMSG s 2 3 1"]
)
def test_a_message_that_makes_no_sense_ends_the_connection(line):
    transport, heard = _Transport(), []

    def hear(message):
        heard.append(message)
        assert len(heard) == 1, "it is heard again and again"

    Stream(transport, hear).data_received(b"MSG s 2 1\r\na\r\n" + line + b"\r\na\r\n")
    assert (transport.is_over, heard) == (True, [(2, b"s", b"", b"", b"a")])


def test_where_nobody_listens_or_answers_the_check_says_so_in_time(node_at):
    (port,) = free_ports(own_host(), 1)
    with pytest.raises(BusDown, match=r"nobody listens there: .*tried for 0.3 seconds"):
        node_at(f"nats://{own_host()}:{port}", start=False).bus.check((), 0.3)


@pytest.mark.parametrize(
    "url",
    ["nats:", "nats://", "nats:HOST", "nats://u:s3cret@:4222", "nats://h:s3cret", "nats://h:99999", "nats://a,,b"],
)
def test_a_url_that_names_no_host_is_an_error(url):
    with pytest.raises(ParameterError, match="must name a host") as caught:
        bus_of(url, node="n")
    assert caught.value.parameter == "url"
    assert "u:s3cret" not in str(caught.value)


def test_without_the_library_the_error_names_the_extra():
    code = (
        "import sys; sys.modules['nats'] = None\n"
        "from pysock.cluster.bus.choice import bus_of\n"
        "try: bus_of('nats://h', node='n')\n"
        "except ImportError as error: print(error)"
    )
    assert "pip install 'pysock-engine[nats]'" in run_python(code).stdout


def test_nothing_of_the_library_is_imported_before_it_is_asked_for():
    code = (
        "import sys; from pysock.cluster.bus.choice import bus_of\n"
        "print('nats' in sys.modules, 'asyncio' in sys.modules)"
    )
    assert run_python(code).stdout.split()[0] == "False"
