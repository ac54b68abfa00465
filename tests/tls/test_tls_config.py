"""What a TLS is made of, and what is made of it: everything that is wrong is told before anybody connects."""

from __future__ import annotations

import os
import ssl
import threading
from pathlib import Path

import pytest
import wire
from certificates import certificates
from support import PATIENCE

import pysock
from pysock import TLS, Server
from pysock.errors import ParameterError
from pysock.tls.asked import Asked
from pysock.tls.info import matches, sans_of, subject_of
from pysock.tls.records import Records
from pysock.tls.session import Session
from pysock.tls.validity import times_of


@pytest.fixture(scope="module")
def made():
    return certificates()


def encrypted(made, directory) -> str:
    form = pytest.importorskip("cryptography.hazmat.primitives.serialization")

    whole = Path(made.server).read_bytes()
    key = form.load_pem_private_key(whole, None)
    lock = form.BestAvailableEncryption(b"open sesame")
    path = directory / "locked.pem"
    path.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock))
    return str(path)


def test_a_file_that_is_not_there(made):
    with pytest.raises(ParameterError, match=r"cert '/no/such.pem' isn't there; is the path right\?") as caught:
        TLS("/no/such.pem")
    assert caught.value.parameter == "cert"


def test_a_directory(made, tmp_path):
    with pytest.raises(ParameterError, match=f"ca '{tmp_path}' is a directory; name the file in it"):
        TLS(ca=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(made, tmp_path):
    (tmp_path / "k").touch(mode=0)
    with pytest.raises(ParameterError, match="can't be read by this process"):
        TLS(made.server, tmp_path / "k")


def test_no_path():
    with pytest.raises(TypeError, match=r"cert= takes the path of a file, not 5"):
        TLS(5)


def test_no_certificate_in_it(made, tmp_path):
    (tmp_path / "x").write_text("hello")
    with pytest.raises(ParameterError, match="holds no certificate in PEM form; it begins with -----BEGIN CERT"):
        TLS(tmp_path / "x")
    with pytest.raises(ParameterError, match=r"ca '.*' holds no certificates in PEM form"):
        TLS(ca=tmp_path / "x")


def test_the_key_is_missing(made):
    with pytest.raises(ParameterError, match=r"key= is missing: '.*ca.pem' holds the certificate alone"):
        TLS(made.ca)


def test_a_key_without_a_certificate(made):
    with pytest.raises(ParameterError, match=r"cert= is missing: '.*server.pem' is the key of one"):
        TLS(key=made.server)


def test_the_key_of_another(made):
    with pytest.raises(ParameterError, match=r"client.pem' isn't the key of the certificate in '.*server.pem'"):
        TLS(made.server, made.client)


def test_no_key_in_it(made):
    with pytest.raises(ParameterError, match=r"ca.pem' holds no key in PEM form"):
        TLS(made.server, made.ca)


def test_one_that_has_expired(made):
    path = made.issue("old", "localhost", days=-1)
    with pytest.raises(ParameterError, match=r"cert '.*old.pem' has expired, 20\d\d-.* UTC: renew it"):
        TLS(path)


def test_a_passphrase(made, tmp_path):
    locked = encrypted(made, tmp_path)
    with pytest.raises(ParameterError, match=r"locked.pem' is encrypted: give its passphrase, as password="):
        TLS(made.server, locked)
    with pytest.raises(ParameterError, match=r"password= isn't the passphrase of"):
        TLS(made.server, locked, password="open barley")
    tls = TLS(made.server, locked, password=lambda: "open sesame")
    assert tls.server_context()
    assert "sesame" not in repr(tls)


def test_no_session_begins_while_certificates_are_loaded(made, tmp_path):
    """OpenSSL would copy the certificate that it frees: the process died of that."""
    locked = encrypted(made, tmp_path)
    context = made.served.server_context()
    waited, threads = [], []

    def passphrase():
        threads.append(threading.Thread(target=lambda: Session(context, server=True)))
        threads[-1].start()
        threads[-1].join(0.05)
        waited.append(threads[-1].is_alive())
        return "open sesame"

    tls = TLS(made.server, locked, password=passphrase)
    context = tls.server_context()
    waited.clear()
    tls.reload()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert waited == [False, True]  # first they are looked at, for which nobody has to wait


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"verify": "yes"}, "verify must be one of 'none', 'optional', 'require', not 'yes'"),
        ({"minimum": "1.1"}, "minimum must be one of '1.2', '1.3', not '1.1'"),
        ({"alpn": ["ä"]}, "'ä' is no name of a protocol"),
        ({"name": "a b"}, "name must be the name of a host, not 'a b'"),
        ({"name": "a\0b"}, r"name must be the name of a host, not 'a\\x00b'"),
    ],
)
def test_other_parameters(options, message):
    with pytest.raises(ParameterError, match=message):
        TLS(**options)
    assert TLS(alpn=()).alpn == ()


def test_it_can_not_be_changed(made):
    tls = TLS(made.server)
    with pytest.raises(AttributeError, match="can't be changed"):
        tls.cert = "x"
    assert (tls.cert, tls.key, tls.ca, tls.verify, tls.alpn, tls.minimum, tls.name) == (
        *(made.server, None, None, None, ("pysock/1",), "1.3", None),
    )
    assert tls.asks == "none"
    assert TLS(made.server, ca=made.ca).asks == "require"


def test_the_contexts_are_strict(made):
    server, client = made.served.server_context(), made.trusting.client_context()
    for context in (server, client):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
    assert client.check_hostname
    assert (client.verify_mode, server.verify_mode) == (ssl.CERT_REQUIRED, ssl.CERT_NONE)
    assert server.num_tickets == 1


# Of a server


def test_an_address_without_a_certificate():
    with pytest.raises(ParameterError, match=r"tls://127.0.0.1:0: there is no certificate: pass tls=pysock.TLS"):
        Server("tls://127.0.0.1:0")


@pytest.mark.parametrize("address", ["unix:/tmp/s", "tcp://127.0.0.1:0"])
def test_tls_that_no_address_speaks(made, address):
    with pytest.raises(ParameterError, match=r"tls= goes with an address tls://HOST:PORT, and"):
        Server(address, tls=made.served)
    with pytest.raises(ParameterError, match=r"tls= goes with an address tls://HOST:PORT, and"):
        pysock.connect(address, tls=made.trusting)


def test_tls_twice(made):
    with pytest.raises(ParameterError, match=r"tls= is given, and .* says it as well: leave one out"):
        Server(f"tls://127.0.0.1:0?cert={made.server}", tls=made.served)
    with pytest.raises(ParameterError, match=r"tls= is given, and .* says it as well: leave one out"):
        pysock.connect(f"tls://127.0.0.1:1?ca={made.ca}", tls=made.trusting)


def test_something_else():
    with pytest.raises(TypeError, match=r"tls= takes a pysock.TLS or an ssl.SSLContext, not True"):
        Server("tls://127.0.0.1:0", tls=True)


def test_a_server_needs_a_certificate(made):
    with pytest.raises(ParameterError, match=r"cert= is missing: a server needs a certificate"):
        Server("tls://127.0.0.1:0", tls=made.trusting)


def test_asking_without_an_authority(made):
    with pytest.raises(ParameterError, match="ca= is missing: verify='require' asks clients for certificates"):
        Server("tls://127.0.0.1:0", tls=TLS(made.server, verify="require"))


def test_a_context_of_the_wrong_side(made):
    with pytest.raises(ParameterError, match=r"tls= is the context of a client"):
        Server("tls://127.0.0.1:0", tls=ssl.create_default_context())
    with pytest.raises(ParameterError, match=r"tls= is the context of a server"):
        pysock.connect("tls://127.0.0.1:1", tls=made.served.server_context())


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_context_without_a_certificate(newest):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    with pytest.raises(ParameterError, match=r"tls= is a context without a certificate: call its load_cert_chain"):
        Server("tls://127.0.0.1:0", tls=context)


def test_a_name_at_a_server(made):
    with pytest.raises(ParameterError, match="name= is for clients"):
        Server(f"tls://127.0.0.1:0?name=x&cert={made.server}")


def test_a_client_that_may_or_may_not(made):
    with pytest.raises(ParameterError, match="'optional' is for servers"):
        pysock.connect(f"tls://127.0.0.1:1?ca={made.ca}&verify=optional")


def test_other_machines(made):
    """Encryption alone lets in everybody."""
    for tls in (made.served, TLS(made.server, ca=made.ca, verify="optional")):
        server = Server("tls://0.0.0.0:0", tls=tls)
        with pytest.raises(ParameterError, match="other machines can connect there"):
            server.start()
    for options in ({"tls": TLS(made.server, ca=made.ca)}, {"tls": made.served, "authkey": b"k"}):
        server = Server("tls://0.0.0.0:0", **options)
        server.service(lambda client, request: request)
        with server:
            pass


@pytest.mark.parametrize(
    ("allow", "message"),
    [
        ({"san": []}, 'allow= names nobody by "san"'),
        ({"san": [5]}, "takes names in certificates, as texts, not 5"),
        ({"san": "a*.example"}, """'a\\*.example' can't be meant by "san\""""),
        ({"uid": 0}, "allow= is about Unix sockets, and this server has none"),
    ],
)
def test_rules_that_can_not_be(made, allow, message):
    with pytest.raises((ParameterError, TypeError), match=message):
        Server("tls://127.0.0.1:0", tls=TLS(made.server, ca=made.ca), allow=allow)


def test_names_where_nobody_is_asked_for_a_certificate(made):
    with pytest.raises(ParameterError, match="names clients by their certificates, and this server asks for none"):
        Server("tls://127.0.0.1:0", tls=made.served, allow={"san": "x.example"})
    with pytest.raises(ParameterError, match="this server has no address tls://HOST:PORT"):
        Server("unix:/tmp/s", allow={"san": "x.example"})


def test_a_master_socket_by_hand_speaks_none(made):
    with pysock.MasterSocket(f"tls://127.0.0.1:0?cert={made.server}") as master:
        for step in (master.create, master.bind, master.listen):
            step()
        with pytest.raises(pysock.PysockError, match="by hand there is no TLS"):
            master.accept()


def test_what_does_the_work():
    assert pysock.tls_driver in ("ssl", "libssl")


# Names


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a.example", "a.example", True),
        ("a.example", "A.Example", True),
        ("a.example", "b.a.example", False),
        ("*.example", "a.example", True),
        ("*.example", "b.a.example", False),
        ("*.example", ".example", False),
        ("*.example", "example", False),
        ("*.example", "*.example", False),
        ("*.example", "a.example.evil", False),
        ("*.example", "a*.example", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("*.0.0.1", "10.0.0.1", False),
        ("spiffe://x/y", "spiffe://x/y", True),
        ("spiffe://x/y", "spiffe://x/Y", False),
        ("spiffe://x/y", "spiffe://x/yz", False),
    ],
)
def test_matching(pattern, name, fits):
    assert matches(pattern, name) is fits


def test_names_that_look_like_another_kind():
    assert sans_of(
        [("DNS", "a.example"), ("DNS", "spiffe://x/y"), ("DNS", "a.example\0.evil"), ("URI", "a.example"),
         ("URI", "spiffe://x/y"), ("email", "a@b"), ("IP Address", "10.0.0.1"), ("othername", "<unsupported>"),
         ("DNS", "10.0.0.2"), ("IP Address", "2001:DB8:0:0:0:0:0:1")]
    ) == ("a.example", "spiffe://x/y", "a@b", "10.0.0.1", "2001:db8::1")  # fmt: skip


def test_subjects():
    parts = ((("countryName", "DE"),), (("organizationName", "A, B"),), (("commonName", "x\n\0"),))
    assert subject_of(parts) == "CN=x\\0A\\00,O=A\\, B,C=DE"


def test_times(made):
    before, after = times_of(Path(made.server).read_text())
    assert 1150 < (after - before) / 86400 < 1170
    assert times_of("hello") is None
    assert times_of("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----") is None


@pytest.mark.parametrize("step", [1, 3, 5, 1000])
def test_records_that_bring_nothing(step):
    records = Records()
    records.feed(b"\x16\x03\x03\0\1x")
    records.secured()
    silent = b"\x17\x03\x03\0\2xx" * 32
    for at in range(0, len(silent), step):
        records.feed(silent[at : at + step])
        records.all_read()
    records.feed(b"\x17\x03\x03\0\2xx")
    with pytest.raises(pysock.TLSError, match="too many records that bring nothing"):
        records.all_read()


def hello_of(*alpn):
    """What a client of the module ssl begins with."""
    context, sent = ssl.create_default_context(), ssl.MemoryBIO()
    if alpn:
        context.set_alpn_protocols(alpn)
    client = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return sent.read()


def heard(data, step=1000):
    asked = Asked()
    for at in range(0, len(data), step):
        asked.feed(data[at : at + step])
    return asked.name, asked.protocols


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_what_a_client_asks_for(step):
    """In pieces, and with a message that is in several records, however they come."""
    data = hello_of("h2", "pysock/1")
    records = b"".join(b"\x16\x03\x01\0" + bytes((len(part),)) + part for part in wire.pieces(data[5:], "random"))
    for one in (data, records, data + b"\x17\x03\x03\0\1x"):
        assert heard(one, step) == ("localhost", (b"h2", b"pysock/1"))
    assert heard(hello_of(), step) == ("localhost", None)


def test_a_first_message_that_makes_no_sense():
    """It is OpenSSL's to refuse it."""
    data = hello_of("h2")
    for cut in range(9, len(data)):
        assert heard(data[:cut]) == ("", None)
        short = bytearray(data[:cut])
        short[3:5] = (cut - 5).to_bytes(2, "big")
        short[6:9] = (cut - 9).to_bytes(3, "big")
        name, protocols = heard(bytes(short))
        assert "localhost".startswith(name)
        assert protocols in (None, (), (b"h2",), (b"h",), (b"",))
    for wrong in (b"\x17" + data[1:], data[:5] + b"\x02" + data[6:], b"\x16\x03\x01\0\0" * 100_000, bytes(100_000)):
        assert heard(wrong, 50_000) == ("", None)
