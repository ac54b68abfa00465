from __future__ import annotations

import os
import re
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pysock import Address
from pysock.address import NAME_BYTES_MAX, PATH_BYTES_MAX, as_address

GOOD = {
    "unix:/run/demo.sock": Address("unix", path="/run/demo.sock"),
    "unix:///run/demo.sock": Address("unix", path="/run/demo.sock"),
    "ipc:///run/demo.sock": Address("unix", path="/run/demo.sock"),
    "UNIX:/run/demo.sock": Address("unix", path="/run/demo.sock"),
    "unix:demo.sock": Address("unix", path="demo.sock"),
    "unix://demo.sock": Address("unix", path="demo.sock"),
    "unix:/with space/ä:1": Address("unix", path="/with space/ä:1"),
    "unix:/a%3Fb%25c": Address("unix", path="/a?b%c"),
    "unix:////double": Address("unix", path="//double"),
    "unix:%40file": Address("unix", path="@file"),
    "unix:/x?mode=0660&group=www&user=bob&backlog=7": Address(
        "unix", path="/x", mode=0o660, group="www", user="bob", backlog=7
    ),
    "tcp://0.0.0.0:1?proxy=v2&trust=10.0.0.0/8,127.0.0.1": Address(
        "tcp", host="0.0.0.0", port=1, proxy="v2", trust="10.0.0.0/8,127.0.0.1"
    ),
    "tcp://[::]:1?backlog=7&proxy=any&trust=2001:db8::/32": Address(
        "tcp", host="::", port=1, backlog=7, proxy="any", trust="2001:db8::/32"
    ),
    "unix:/x?proxy=v1": Address("unix", path="/x", proxy="v1"),
    "unix:@x?proxy=v2": Address("abstract", path="x", proxy="v2"),
    "unix:/x?mode=600&user=1000": Address("unix", path="/x", mode=0o600, user="1000"),
    "unix:/x?mode=0o777": Address("unix", path="/x", mode=0o777),
    "unix:": Address("unix"),
    "ipc://": Address("unix"),
    "unix:?name=demo": Address("unix", name="demo"),
    "unix:?mode=0660&name=a.b-c_1": Address("unix", name="a.b-c_1", mode=0o660),
    "unix:@name": Address("abstract", path="name"),
    "unix-abstract:name": Address("abstract", path="name"),
    "ipc://@name": Address("abstract", path="name"),
    "unix:@name?backlog=5": Address("abstract", path="name", backlog=5),
    "tcp://127.0.0.1:9000": Address("tcp", host="127.0.0.1", port=9000),
    "tcp:127.0.0.1:9000": Address("tcp", host="127.0.0.1", port=9000),
    "127.0.0.1:9000": Address("tcp", host="127.0.0.1", port=9000),
    "localhost:0": Address("tcp", host="localhost", port=0),
    "[::1]:8000": Address("tcp", host="::1", port=8000),
    "tcp://[fe80::1%eth0]:8000": Address("tcp", host="fe80::1%eth0", port=8000),
    ":8000": Address("tcp", host="", port=8000),
    "tcp://h:1?backlog=100": Address("tcp", host="h", port=1, backlog=100),
    "tls://db.example:9443": Address("tls", host="db.example", port=9443),
    "TLS:[::1]:9443": Address("tls", host="::1", port=9443),
    "tls://h:1?cert=/a%26b.pem&key=50%25&ca=c&verify=require&backlog=7": Address(
        "tls", host="h", port=1, cert="/a&b.pem", key="50%", ca="c", verify="require", backlog=7
    ),
    "tls://10.0.0.1:1?name=db.example": Address("tls", host="10.0.0.1", port=1, name="db.example"),
    "fd://3": Address("fd", fd=3),
}


@pytest.mark.parametrize("text", GOOD)
def test_every_form_is_understood(text):
    assert Address.parse(text) == GOOD[text]


@pytest.mark.parametrize("text", GOOD)
def test_the_canonical_form_parses_to_an_equal_address(text):
    address = Address.parse(text)
    assert Address.parse(str(address)) == address
    assert str(Address.parse(str(address))) == str(address)


def test_the_canonical_forms():
    canonical = ["unix:/run/x", "unix:@name", "tcp://127.0.0.1:9000", "tcp://[::1]:8000", "tcp://:8000", "fd://3"]
    canonical += ["unix:/x?mode=0660&user=bob&group=www&backlog=7", "unix:", "unix:?name=demo&mode=0660"]
    assert [str(Address.parse(text)) for text in canonical] == canonical


BAD = {
    "": "there is no port",
    "demo": "there is no port",
    "/run/demo.sock": "did you mean unix:/run/demo.sock?",
    "http://localhost:80": "unknown scheme 'http'; write unix:",
    "abstract://x": "unknown scheme 'abstract'",
    "unix:@": "the abstract name is empty; write for example unix:@demo",
    "unix-abstract:": "the abstract name is empty",
    "unix:/a\0b": "has a NUL in it",
    "unix:@a%00b": "has a NUL in it",
    "unix:/": "the path '/' is that of a directory; write the name of a socket file, too, for example unix:/run/",
    "unix:/run/demo.sock/": "the path '/run/demo.sock/' is that of a directory",
    "unix:/run/demo.sock/?mode=0660": "the path '/run/demo.sock/' is that of a directory",
    "unix:run/.": "the path 'run/.' is that of a directory",
    "unix:..": "the path '..' is that of a directory",
    "localhost:": "the port must be a number, not ''",
    "localhost:http": "the port must be a number, not 'http'; write for example tcp://127.0.0.1:9000",
    "localhost:65536": "the port must be a number from 0 to 65535, not 65536",
    "localhost:-1": "the port must be a number, not '-1'",
    "localhost:+1": "the port must be a number",
    "localhost:1_0": "the port must be a number",
    "localhost:٣": "the port must be a number",
    "localhost:99999999999999999999": "the port must be a number",
    "tcp://localhost": "there is no port",
    "tcp://[::1]": "there is no port",
    "::1:8000": "an IPv6 address goes in brackets; write for example tcp://[::1]:9000",
    "[localhost]:80": "isn't an IPv6 address",
    "tcp://a b:80": "isn't a host",
    "tcp://user@host:80": "isn't a host",
    "tcp://host/path:80": "isn't a host",
    "fd://": "the descriptor must be a number, not ''; write for example fd://3",
    "fd://x": "the descriptor must be a number",
    "fd://-1": "the descriptor must be a number",
    "fd://99999999999": "the descriptor must be a number",
    "fd://3?backlog=5": "unknown option 'backlog' for the transport 'fd'; it takes none",
    "unix:/x?": "there is no option after the '?'; it takes name, mode, user, group, backlog, proxy, and %3F is a",
    "fd://3?": "there is no option after the '?'; it takes none",
    "unix:/x?mode=0660&": "there is no option after the '&'",
    "unix:/x?&mode=0660": "there is no option after the '?'",
    "unix:/x%00y": "the path '/x\\x00y' has a NUL in it, which no path can have; leave it out (it may be written",
    "unix:@x%00y": "the abstract name 'x\\x00y' has a NUL in it, which pysock doesn't take; leave it out",
    "unix:/x?mod=0660": "unknown option 'mod' for the transport 'unix'; it takes name, mode, user, group, backlog",
    "unix:/x?mode=0660&mode=0600": "the option 'mode' is given twice",
    "unix:/x?mode": "the option 'mode' has no value; write mode=VALUE",
    "unix:/x?mode=": "the option 'mode' has no value",
    "unix:/x?mode=rw": "mode must be an octal number from 000 to 0777, not 'rw'; write for example mode=0660",
    "unix:/x?mode=0688": "mode must be an octal number",
    "unix:/x?mode=4755": "mode must be an octal number from 000 to 0777, not '4755'; write for example mode=0660",
    "unix:/x?mode=0o1777": "mode must be an octal number from 000 to 0777, not '0o1777'",
    "unix:/x?name=demo": "'name' goes with a socket file that has no path; write for example unix:?name=demo",
    "unix:?name=../x": "'../x' can't name a socket file: take up to 64 of A-Z a-z 0-9 . _ -",
    "unix:?name=.hidden": "'.hidden' can't name a socket file",
    "unix:?name=-x": "'-x' can't name a socket file",
    "unix:?name=ä": "'ä' can't name a socket file",
    "unix:?name=" + "x" * 65: "can't name a socket file: take up to 64",
    "unix:@x?name=y": "unknown option 'name' for the transport 'abstract'",
    "unix:/x?user=a b": "user must be a name or a number",
    "unix:/x?backlog=0": "backlog must be a number from 1",
    "unix:/x?backlog=many": "backlog must be a number",
    "unix:@x?mode=0660": "unknown option 'mode' for the transport 'abstract'; it takes backlog",
    "tcp://h:1?proxy=v2": "trust is missing: over TCP anybody could say that he is a proxy",
    "tcp://h:1?trust=10.0.0.0/8": "trust goes with proxy=; write for example proxy=v2&trust=10.0.0.0/8",
    "tcp://h:1?proxy=v3&trust=10.0.0.0/8": "proxy must be v1, v2 or any, not 'v3'",
    "tcp://h:1?proxy=v2&trust=": "the option 'trust' has no value",
    "tcp://h:1?proxy=v2&trust=10.0.0.1/8": "trust must be addresses or networks, with commas between: 10.0.0.1/8 has",
    "tcp://h:1?proxy=v2&trust=127.0.0.1, ::1": "' ::1' does not appear to be an IPv4 or IPv6 network",
    "tcp://h:1?proxy=v2&trust=localhost": "'localhost' does not appear to be an IPv4 or IPv6 network",
    "unix:/x?proxy=v2&trust=10.0.0.0/8": "unknown option 'trust' for the transport 'unix'",
    "fd://3?proxy=v2": "unknown option 'proxy' for the transport 'fd'; it takes none",
    "tcp://h:1?mode=0660": "unknown option 'mode' for the transport 'tcp'; it takes backlog",
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_address_is_told_what_is_wrong(text):
    with pytest.raises(ValueError, match=re.escape(BAD[text])) as caught:
        Address.parse(text)
    assert repr(text) in str(caught.value)


def test_a_path_may_have_107_bytes_whatever_its_parts():
    path = "/" + "x" * (PATH_BYTES_MAX - 1)
    assert Address.parse("unix:" + path).path == path


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reaches longer paths")
def test_a_longer_path_may_have_85_bytes_after_its_last_slash():
    path = "/" + "x" * PATH_BYTES_MAX + "/" + "y" * NAME_BYTES_MAX
    assert NAME_BYTES_MAX == 85
    assert Address.parse("unix:" + path).path == path
    with pytest.raises(ValueError, match=r"yz' has 195 bytes, 86 of them in the file's name; .* at most 85"):
        Address.parse(f"unix:{path}z")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reaches longer paths")
def test_the_longest_path_that_linux_takes():
    path = "/" + "x/" * 2046 + "yy"
    assert Address.parse("unix:" + path).path == path
    with pytest.raises(ValueError, match=r"has 4096 bytes, but Linux takes at most 4095 \(PATH_MAX\)"):
        Address.parse(f"unix:{path}y")


def test_a_long_path_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ValueError, match=rf"has {PATH_BYTES_MAX + 2} bytes, but a Unix socket takes at most"):
        Address.parse("unix:/" + "x" * PATH_BYTES_MAX + "/")


def test_an_abstract_name_may_have_107_bytes_and_no_more():
    name = "x" * PATH_BYTES_MAX
    assert Address.parse(f"unix:@{name}").path == name
    with pytest.raises(ValueError, match=rf"has {PATH_BYTES_MAX + 1} bytes, but a Unix socket takes at most"):
        Address.parse(f"unix:@{name}y")


def test_the_length_of_a_path_counts_in_bytes():
    with pytest.raises(ValueError, match=r"has 121 bytes"):
        Address.parse("unix:/" + "ä" * 60)


def test_the_name_of_a_socket_file_without_a_path_goes_where_none_is():
    assert Address.parse("unix:").named("demo") == Address("unix", name="demo")
    assert Address.parse("unix:?name=other").named("demo").name == "other"
    for text in ("unix:/x", "unix:@x", "tcp://127.0.0.1:1", "unix:"):
        address = Address.parse(text)
        assert address.named(None) is address
        assert address.named("") is address
    assert Address.parse("unix:/x").named("demo") == Address.parse("unix:/x")
    with pytest.raises(ValueError, match="'my server' can't name a socket file"):
        Address.parse("unix:").named("my server")


def test_where_a_socket_file_without_a_path_goes(monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert Address.parse("unix:").socket_file == "/run/user/7/pysock/server.sock"
    assert Address.parse("unix:?name=demo").socket_file == "/run/user/7/pysock/demo.sock"
    assert Address.parse("unix:x").socket_file == "x"
    for value in ("", "run/user/7"):  # a relative one is to be ignored, says the XDG specification
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert Address.parse("unix:?name=demo").socket_file == f"/tmp/pysock-{os.geteuid()}/demo.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert Address.parse("unix:").resolve(listening=False) == [
        (socket.AF_UNIX, f"/tmp/pysock-{os.geteuid()}/server.sock")
    ]


def test_only_a_text_or_an_address_is_an_address():
    address = Address.parse("unix:/x")
    assert as_address(address) is address
    assert as_address("unix:/x") == address
    with pytest.raises(TypeError, match=r"an address is a str, an os.PathLike or an Address, not int"):
        as_address(3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"transport": "udp"}, "unknown transport 'udp': choose one of unix, abstract, tcp, tls, fd"),
        ({"transport": "tcp", "host": "h", "port": 1, "mode": 0o600}, "'mode' doesn't go with the transport 'tcp'"),
        ({"transport": "unix", "path": "/x", "port": 1}, "'port' doesn't go with the transport 'unix'"),
        ({"transport": "tcp", "host": "h", "port": "1"}, "the port must be a number from 0 to 65535, not '1'"),
        ({"transport": "fd"}, "the descriptor must be a number from 0"),
        ({"transport": "unix", "path": "/x", "mode": 0o1777}, "mode must be a number from 0 to 0o777, not 0o1777;"),
        ({"transport": "unix", "path": "/x", "mode": "0660"}, "not '0660'; write for example mode=0o660"),
        ({"transport": "unix", "path": "/x", "mode": True}, "not True; write for example mode=0o660"),
        ({"transport": "unix", "name": 3}, "3 can't name a socket file"),
        ({"transport": "tcp", "host": "h", "name": "x"}, "'name' doesn't go with the transport 'tcp'"),
        ({"transport": "unix", "path": "/x", "group": ""}, "group must be a name or a number"),
    ],
)
def test_an_address_made_from_fields_is_checked_as_well(fields, message):
    with pytest.raises(ValueError, match=message):
        Address(**fields)


def test_an_address_is_frozen_and_hashable():
    address = Address.parse("unix:/x")
    with pytest.raises(AttributeError):
        address.path = "/y"
    assert {address: 1}[Address.parse("unix:///x")] == 1


names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=25)
words = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)


def is_a_files(path):
    return os.path.basename(path) not in {"", ".", ".."}


@given(
    path=names.filter(is_a_files),
    mode=st.none() | st.integers(0, 0o777),
    user=st.none() | words,
    backlog=st.none() | st.integers(1, 9999),
)
def test_any_path_survives_writing_and_parsing(path, mode, user, backlog):
    address = Address("unix", path=path, mode=mode, user=user, backlog=backlog)
    assert Address.parse(str(address)) == address


@given(name=names)
def test_any_abstract_name_survives_writing_and_parsing(name):
    address = Address("abstract", path=name)
    assert Address.parse(str(address)) == address


@given(raw=st.binary(min_size=1, max_size=50).filter(lambda raw: b"\0" not in raw and is_a_files(os.fsdecode(raw))))
def test_a_path_of_any_bytes_survives(raw):
    address = Address("unix", path=os.fsdecode(raw))
    assert os.fsencode(Address.parse(str(address)).path) == raw


@given(text=st.text(max_size=60))
def test_any_text_is_an_address_or_a_value_error(text):
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address


def test_what_the_socket_module_wants():
    assert Address.parse("unix:/x").resolve(listening=True) == [(socket.AF_UNIX, "/x")]
    assert Address.parse("unix:@x").resolve(listening=False) == [(socket.AF_UNIX, "\0x")]
    assert Address.parse("127.0.0.1:9").resolve(listening=False) == [(socket.AF_INET, ("127.0.0.1", 9))]


def test_to_listen_an_empty_host_is_every_interface_and_ipv4_comes_first():
    assert Address.parse(":9").resolve(listening=True)[0] == (socket.AF_INET, ("0.0.0.0", 9))
    assert Address.parse("localhost:9").resolve(listening=True)[0][0] == socket.AF_INET


def test_to_connect_an_empty_host_is_this_machine():
    hosts = {where[0] for _, where in Address.parse(":9").resolve(listening=False)}
    assert hosts <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:0", "fd://3"])
def test_some_addresses_are_only_to_listen_at(text):
    with pytest.raises(ValueError, match="that is only something to listen at"):
        Address.parse(text).resolve(listening=False)


def test_a_host_that_does_not_exist():
    with pytest.raises(
        OSError, match=r"tcp://no\.such\.host\.invalid:9: the host .* can't be resolved .*check its spelling"
    ):
        Address.parse("no.such.host.invalid:9").resolve(listening=True)


def test_a_host_that_cannot_be_one():
    with pytest.raises(ValueError, match="isn't the name of a host"):
        Address.parse("x" * 70 + ".example:9").resolve(listening=True)
