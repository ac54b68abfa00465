"""The header of the PROXY protocol, read by C and by Python, and written for clients that are proxies; held against the
parser that others wrote (``proxy-protocol`` on PyPI).
"""

from __future__ import annotations

import socket
import string
import struct
from typing import NamedTuple

import proxying as by
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from proxying import summed, tcp4, tcp6, tlv, v2
from proxyprotocol.result import ProxyResultIPv4, ProxyResultIPv6, ProxyResultUnix
from proxyprotocol.tlv import ProxyProtocolSSLTLV, ProxyProtocolTLV
from proxyprotocol.v1 import ProxyProtocolV1
from proxyprotocol.v2 import ProxyProtocolV2

from pysock import ProxyHeader, ProxyTLS
from pysock.engine.choice import choose
from pysock.errors import ParameterError
from pysock.wire.proxy.facts import header_of
from pysock.wire.proxy.reading import HeaderError, read
from pysock.wire.proxy.writing import header_for


class Said(NamedTuple):
    """What a reader makes of bytes."""

    wrong: str = ""
    size: int = 0
    whole: bool = False
    kept: int = 0
    is_local: bool = False
    family: int = 0
    source: bytes = b""
    port: int = 0


def by_python(data, versions=3):
    try:
        found = read(data, versions)
    except HeaderError as error:
        return Said(str(error))
    if not found.whole:
        return Said(size=found.size)
    family, source, port = found.source or (0, b"", 0)
    source = b"" if family == socket.AF_UNIX else source
    return Said("", found.size, True, found.kept, found.is_local, family, source, port)


def by_c(data, versions=3):
    from pysock._engine import ffi, lib  # noqa: PLC0415  # it may not be there

    found = ffi.new("ps_proxy_header *")
    result = lib.ps_proxy_read(data, len(data), versions, found)
    if result < 0:
        return Said(ffi.string(found.wrong).decode())
    if not result:
        return Said(size=found.size)
    size = {socket.AF_INET: 4, socket.AF_INET6: 16}.get(found.family, 0)
    source = bytes(found.source)[:size]
    return Said("", found.size, True, found.kept, bool(found.is_local), found.family, source, found.port)


@pytest.fixture
def said(backend):
    """What the reader of this engine makes of bytes."""
    choose(backend)
    return by_c if backend == "native" else by_python


# Headers, good and bad

ADDRESS4, ADDRESS6 = st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16)
PORT = st.integers(0, 65535)
PATH = st.text(string.ascii_letters + "/.", min_size=1, max_size=107)
VALUE = st.binary(max_size=20) | st.binary(min_size=120, max_size=140) | st.just(bytes(2000))
SSL_VALUE = st.builds(
    lambda client, verify, name: struct.pack("!BI", client, verify) + tlv(0x22, name),
    st.integers(0, 7), st.integers(0, 1), st.binary(max_size=9),
)  # fmt: skip
TLVS = st.lists(
    st.builds(tlv, st.sampled_from([1, 2, 3, 4, 5, 0x20, 0x30, 0xE0, 0xFF]), VALUE)
    | st.builds(lambda value: tlv(by.SSL, value), SSL_VALUE),
    max_size=4,
).map(b"".join)
HEADERS = st.builds(
    lambda command, kind, addresses, tlvs, lie: v2(
        addresses + tlvs, command=command, kind=kind, length=max(0, len(addresses + tlvs) + lie)
    ),
    st.sampled_from([0x20, 0x21, 0x21, 0x21, 0x22, 0x11]),
    st.sampled_from([0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32, 0x41, 0x13]),
    st.sampled_from([b"", tcp4(), tcp6(), by.paths(b"/x"), bytes(5)]),
    TLVS,
    st.sampled_from([0, 0, 0, 0, 1, -1]),
)
LINES = st.builds(
    lambda words, blank, end: b"PROXY " + blank.join(words) + end,
    st.tuples(
        st.sampled_from([b"TCP4", b"TCP6", b"UNKNOWN", b"TCP"]),
        *2 * [st.sampled_from([b"1.2.3.4", b"::1", b"1.2.3", b"01.2.3.4", b"::ffff:1.2.3.4", b""])],
        *2 * [st.sampled_from([b"0", b"65535", b"65536", b"00", b"7", b"-1", b" 7", b"\xb2"])],
    ),
    st.sampled_from([b" ", b" ", b" ", b"  ", b"\t"]),
    st.sampled_from([b"\r\n", b"\r\n", b"\n", b" \r\n", b"\r", b"\r\nmore"]),
)


@st.composite
def damaged(draw):
    """A header, of which a byte may be another, and the end missing."""
    data = bytearray(draw(HEADERS | LINES | st.binary(max_size=30)))
    if data and draw(st.booleans()):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@settings(deadline=None)
@given(damaged(), st.integers(0, 3))
@example(b"", 3)
@example(by.SIGNATURE, 3)
@example(b"PROXY UNKNOWN " + b"x" * 93, 3)
@example(summed(v2(None, tlv(by.CRC32C, bytes(4)))), 2)
@example(summed(v2(b"", tlv(by.CRC32C, bytes(4)), kind=0)), 2)
@example(v2(b"", tlv(by.CRC32C, bytes(4)), kind=0), 2)
def test_both_engines_read_the_same(data, versions):
    choose("native")
    assert by_c(data, versions) == by_python(data, versions)


@settings(deadline=None)
@given(HEADERS | LINES)
def test_what_is_taken_is_what_others_read(data):
    """Whoever this server takes for the client, their parser does, too."""
    found = by_python(data)
    if not found.whole or found.family not in {socket.AF_INET, socket.AF_INET6}:
        return  # of a Unix socket's address theirs takes ASCII alone
    other = ProxyProtocolV1() if data.startswith(b"P") else ProxyProtocolV2()
    result = other.unpack(data[: found.size])
    told = header_of(data[: found.kept])
    assert (found.source, found.port) == (result.source[0].packed, result.source[1])
    if found.kept == found.size:
        assert dict(told.items) == dict(result.tlv)


# What others write


@settings(deadline=None)
@given(ADDRESS4, ADDRESS4, PORT, PORT, st.binary(max_size=128), PATH)
def test_headers_of_theirs(source, destination, port, other, unique_id, authority):
    tlvs = ProxyProtocolTLV(unique_id=unique_id, authority=authority)
    theirs = ProxyResultIPv4(_ip(source, port), _ip(destination, other), protocol=socket.SOCK_STREAM, tlv=tlvs)
    for data in (ProxyProtocolV2().pack(theirs), ProxyProtocolV1().pack(theirs)):
        for found in (by_python(data), by_c(data)):
            assert (found.whole, found.family, found.source, found.port) == (True, socket.AF_INET, source, port)
    told = header_of(ProxyProtocolV2().pack(theirs))
    assert (told.unique_id, told.authority) == (unique_id, authority)


@settings(deadline=None)
@given(ADDRESS6, PORT, PATH, st.booleans())
def test_headers_of_theirs_of_other_kinds(source, port, path, verified):
    tls = ProxyProtocolSSLTLV(has_ssl=True, has_cert_conn=True, verified=verified, cn="joe", cipher="X")
    theirs = ProxyResultIPv6(
        _ip(source, port), _ip(source, 1), protocol=socket.SOCK_STREAM, tlv=ProxyProtocolTLV(ssl=tls)
    )
    told = header_of(ProxyProtocolV2().pack(theirs))
    assert told.ssl == ProxyTLS(client=3, verify=int(not verified), cn="joe", cipher="X")
    assert told.ssl.verified == verified
    unix = ProxyProtocolV2().pack(ProxyResultUnix(path, "/run/front", protocol=socket.SOCK_STREAM))
    assert header_of(unix) == ProxyHeader(source=f"unix:{path}", destination="unix:/run/front")


def _ip(address, port):
    from ipaddress import ip_address  # noqa: PLC0415

    return ip_address(address), port


# In pieces


@pytest.mark.parametrize("end", [b"", b"more"])
@pytest.mark.parametrize(
    "header",
    [
        v2(),
        summed(v2(tcp6(), tlv(1, b"h2"), tlv(by.CRC32C, bytes(4)), kind=by.TCP6)),
        v2(b"", command=by.LOCAL, kind=0),
        b"PROXY UNKNOWN\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 9000\r\n",
        b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n",
    ],
)
def test_nothing_is_said_before_all_is_there(said, header, end):
    """At every cut; and nothing is taken of what follows."""
    for size in range(len(header)):
        found = said(header[:size])
        assert (found.wrong, found.whole, found.family) == ("", False, 0)
        assert found.size in {0, len(header)}
    assert said(header + end) == said(header)
    assert (said(header).whole, said(header).size) == (True, len(header))


# Clients that are proxies

FULL = ProxyHeader(
    source="192.0.2.7:4711",
    destination="10.0.0.1:9000",
    alpn="h2",
    authority="ä.example",
    unique_id=b"\0\1",
    netns="blue",
    ssl=ProxyTLS(
        client=7, verify=0, version="TLSv1.3", cn="joe", cipher="C", signature="S", key="K", group="G", scheme="H",
        certificate=b"\x30",
    ),
    items=((0xE0, b"own"), (0xE0, b"again")),
)  # fmt: skip


@pytest.mark.parametrize(
    "header",
    [
        FULL,
        ProxyHeader(),
        ProxyHeader(alpn="x"),
        ProxyHeader(source="[2001:db8::7]:1", destination="[::]:0"),
        ProxyHeader(source="unix:/run/a", destination="unix:@b"),
    ],
)
def test_what_is_written_says_the_same_when_it_is_read(said, header):
    data = header_for(header)
    found = said(data)
    assert (found.wrong, found.whole, found.size) == ("", True, len(data))
    told = header_of(data)
    assert header_of(header_for(told)) == told  # so one may be passed on
    for name in ("source", "destination", "alpn", "authority", "unique_id", "ssl", "netns"):
        assert getattr(told, name) == getattr(header, name), name
    assert set(header.items) <= set(told.items)
    broken = data[:-1] + bytes([data[-1] ^ 1])
    assert "checksum" in said(broken).wrong


def test_their_parser_reads_what_is_written():
    result = ProxyProtocolV2().unpack(header_for(FULL))
    assert (str(result.source[0]), result.source[1]) == ("192.0.2.7", 4711)
    assert (result.tlv.alpn, result.tlv.authority, result.tlv.netns) == (b"h2", "ä.example", "blue")
    assert (result.tlv.ssl.cn, result.tlv.ssl.verified, result.tlv.ssl.has_cert_sess) == ("joe", True, True)


@pytest.mark.parametrize(
    ("pair", "source", "destination"),
    [
        (("192.0.2.7:4711", "10.0.0.1:9000"), "192.0.2.7:4711", "10.0.0.1:9000"),
        ((("192.0.2.7", 4711), ("10.0.0.1", 9000)), "192.0.2.7:4711", "10.0.0.1:9000"),
        ((("2001:db8::7", 1, 0, 0), ("10.0.0.1", 9000)), "[2001:db8::7]:1", "[::ffff:10.0.0.1]:9000"),
        (("192.0.2.7:4711", ""), "192.0.2.7:4711", "0.0.0.0:0"),
    ],
)
def test_a_pair_of_addresses(pair, source, destination):
    told = header_of(header_for(pair))
    assert (told.source, told.destination) == (source, destination)


def test_the_proxy_itself(said):
    assert said(header_for(ProxyHeader(source=None))) == Said("", 16, True, 16, is_local=True)


@pytest.mark.parametrize(
    ("proxy", "error", "words"),
    [
        ("192.0.2.7:4711", TypeError, "takes a ProxyHeader, or a pair of source and destination, not '192.0.2.7:4711'"),
        (("192.0.2.7", 4711), TypeError, "an address in proxy= is a text or a pair of host and port, not 4711"),
        (("192.0.2.7", "10.0.0.1:1"), ParameterError, "proxy has '192.0.2.7' for an address; write for example"),
        (("host.example:1", "10.0.0.1:1"), ParameterError, "for an address; write for example .*, with numbers"),
        (("192.0.2.7:65536", "10.0.0.1:1"), ParameterError, "has '192.0.2.7:65536' for an address"),
        (("unix:/x", "10.0.0.1:1"), ParameterError, "a source and a destination of two kinds"),
        (("unix:" + "x" * 109, "unix:/y"), ParameterError, "for an address"),
        (ProxyHeader(source=5), TypeError, "has a field source of type int; it must be str or None"),
        (ProxyHeader(destination=None), TypeError, "has a field destination of type NoneType; it must be str"),
        (ProxyHeader(alpn=5), TypeError, "has a field alpn of type int"),
        (ProxyHeader(unique_id="x"), TypeError, "has a field unique_id of type str; it must be bytes or None"),
        (ProxyHeader(ssl=ProxyTLS(cn=b"x")), TypeError, "has a field ssl.cn of type bytes; it must be str or None"),
        (ProxyHeader(ssl=ProxyTLS(client="1")), TypeError, "has a field ssl.client of type str; it must be int"),
        (ProxyHeader(items=5), TypeError, "has a field items of type int; it must be tuple or list"),
        (ProxyHeader(items=((0xE0, "x"),)), TypeError, r"has among its items \(224, 'x'\)"),
        (ProxyHeader(items=(5,)), TypeError, "has among its items 5; each is a pair of type and value"),
        (ProxyHeader(source="1.2.3.4:5", unique_id=bytes(129)), ParameterError, "has a unique_id of 129 bytes"),
        (ProxyHeader(source="1.2.3.4:5", items=((0xE0, bytes(70000)),)), ParameterError, "has a TLV of type 224 and"),
        (ProxyHeader(source="1.2.3.4:5", items=2 * ((0xE0, bytes(40000)),)), ParameterError, "has 80025 bytes"),
    ],
)
def test_what_can_not_be_written(proxy, error, words):
    with pytest.raises(error, match=words):
        header_for(proxy)
