"""What does the work of TLS: OpenSSL as the system has it, or Python's module ssl, also where the first isn't there."""

from __future__ import annotations

import pytest
from certificates import certificates
from support import run_python, wait_for

import pysock
from pysock import TLS, Server
from pysock.engine.choice import choose
from pysock.errors import ParameterError

if "libssl" not in choose("native").tls_drivers():
    pytest.skip("OpenSSL 3 isn't here", allow_module_level=True)


def test_what_is_known_is_the_same_whoever_did_the_work():
    made, told = certificates(), []
    for backend, driver in (("native", "libssl"), ("native", "ssl"), ("pure", "auto")):
        tls = TLS(made.server, ca=made.ca, verify="require")
        server = Server("tls://127.0.0.1:0", tls=tls, backend=backend, tls_driver=driver)
        server.service(lambda client, request: told.append(client.tls) or request)
        with server, pysock.connect(server.addresses[0], tls=TLS(made.client, ca=made.ca)) as client:
            assert client.request(b"x") == b"x"
    of_native, by_ssl, of_pure = told
    assert (of_native.driver, by_ssl.driver, of_pure.driver) == ("libssl", "ssl", "ssl")
    assert of_native._replace(driver="ssl") == by_ssl == of_pure
    assert of_native.subject == "CN=worker"
    assert of_native.sans == ("one.workers.example", "spiffe://example/worker")


_ABSENT = """
import logging, sys
import pysock
import pysock.engine.native.tls as native
logging.basicConfig(level=logging.INFO)
if sys.argv[1] == "library":
    native.LIBSSL = b"libssl-of-another-world.so.3"
else:
    native.LIBSSL = b"libc.so.6"
print(pysock.tls_driver, pysock.tls_driver)
tls = pysock.TLS(sys.argv[2])
server = pysock.Server("tls://127.0.0.1:0", tls=tls)
server.service(lambda client, request: client.tls.driver.encode())
with server, pysock.connect(server.addresses[0], tls=pysock.TLS(verify="none")) as client:
    print(server.backend, client.request(b"").decode())
try:
    pysock.Server("tls://127.0.0.1:0", tls=tls, tls_driver="libssl")
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("lacks", "why"), [("library", "libssl-of-another-world.so.3"), ("symbol", "libc.so.6 has no TLS_server_method")]
)
def test_where_it_is_not_there(lacks, why):
    """One line says so, and the native engine serves all the same; who asks for it hears what to do."""
    done = run_python(_ABSENT, lacks, certificates().server, PYSOCK_BACKEND="native")
    assert done.returncode == 0, done.stderr
    drivers, backend, error = done.stdout.splitlines()
    assert (drivers, backend) == ("ssl ssl", "native ssl")
    assert error.startswith("the TLS driver 'libssl' isn't there: this system has no OpenSSL 3 (libssl.so.3,")
    assert error.endswith("or choose 'auto'")
    assert done.stderr.count("TLS goes by Python's module ssl") == 1
    assert why in done.stderr


def test_a_driver_that_can_not_be():
    made = certificates()
    with pytest.raises(ParameterError, match="tls_driver must be one of 'auto', 'ssl', 'libssl', not 'openssl'"):
        Server("tls://127.0.0.1:0", tls=made.served, tls_driver="openssl")
    with pytest.raises(ParameterError, match=r"'libssl' can't use an ssl\.SSLContext"):
        Server("tls://127.0.0.1:0", tls=made.served.server_context(), tls_driver="libssl")
    with pytest.raises(ImportError, match="is the native engine's, which isn't used here: choose 'auto'"):
        Server("tls://127.0.0.1:0", tls=made.served, tls_driver="libssl", backend="pure")


def test_sessions_are_sealed_by_other_keys_each_hour(monkeypatch):
    """Of which one is shortened here. By then a client goes on with the session that it was given meanwhile."""
    monkeypatch.setattr(pysock.engine.native.tls, "PERIOD", 300_000_000)
    made = certificates()
    server = Server("tls://127.0.0.1:0", tls=TLS(made.server), backend="native")
    server.service(lambda client, request: b"%d" % client.tls.resumed)
    trusting = TLS(ca=made.ca)

    def goes_on(session=None):
        if session is not None:
            trusting._sessions.update(dict.fromkeys(trusting._sessions, session))
        with pysock.connect(server.addresses[0], tls=trusting) as client:
            return client.request(b"") == b"1"

    with server:
        assert not goes_on()
        (first,) = trusting._sessions.values()
        wait_for(lambda: not goes_on(first), "its keys are gone")
        server.reload_tls()
        wait_for(goes_on, "a newer one")
