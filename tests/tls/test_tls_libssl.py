"""The native engine's driver: OpenSSL as the system has it, what it tells, and what is done where it isn't there."""

from __future__ import annotations

import pytest
from certificates import certificates
from support import run_python

import pysock
from pysock import TLS, Server
from pysock.engine.choice import choose

if "libssl" not in choose("native").tls_drivers():
    pytest.skip("OpenSSL 3 isn't here", allow_module_level=True)


def test_what_is_known_is_the_same_on_both_engines():
    """All but who did the work."""
    made, told = certificates(), []
    for backend in ("native", "pure"):
        server = Server("tls://127.0.0.1:0", tls=TLS(made.server, ca=made.ca, verify="require"), backend=backend)
        server.service(lambda client, request: told.append(client.tls) or request)
        with server, pysock.connect(server.addresses[0], tls=TLS(made.client, ca=made.ca)) as client:
            assert client.request(b"x") == b"x"
    of_native, of_pure = told
    assert (of_native.driver, of_pure.driver) == ("libssl", "ssl")
    assert of_native._replace(driver="ssl") == of_pure
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
print(pysock.Server("tls://127.0.0.1:0", tls=tls)._running.backend.name)
try:
    pysock.Server("tls://127.0.0.1:0", tls=tls, backend="native")
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("lacks", "why"), [("library", "libssl-of-another-world.so.3"), ("symbol", "libc.so.6 has no TLS_server_method")]
)
def test_where_it_is_not_there(lacks, why):
    """One line says so, and the pure engine serves; who asks for the native one hears what to do."""
    done = run_python(_ABSENT, lacks, certificates().server)
    assert done.returncode == 0, done.stderr
    drivers, backend, error = done.stdout.splitlines()
    assert (drivers, backend) == ("ssl ssl", "pure")
    assert error == "the native engine can't speak TLS here: use backend='auto', or 'pure'"
    assert done.stderr.count("the native engine has no TLS") == 1
    assert why in done.stderr
