"""``pysock serve`` and the other commands over TLS; and the example."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys

import pytest
from certificates import certificates
from conftest import native_is_missing
from programs import Module, pysock_command, run, serving
from support import wait_for

import pysock
from pysock import TLS

HANDLER = "pysock.examples.upper:upper"


@pytest.fixture(scope="module")
def made():
    return certificates()


@pytest.fixture
def served(made):
    """``served(*arguments)``: a server that runs, in a process, and where it listens."""
    programs = []

    def start(*arguments, handler=HANDLER):
        programs.append(Module("pysock", "serve", handler, "--bind", "tls://127.0.0.1:0", *arguments))
        return programs[-1], pysock.Address.parse(serving(programs[-1])[0])

    yield start
    for program in programs:
        program.__exit__(None, None, None)


def test_it_serves_and_is_called(served, made):
    program, address = served("--tls-cert", made.server)
    there = f"{address.bare()}?ca={made.ca}"
    assert pysock_command("call", there, "hello").stdout == b"HELLO"
    done = pysock_command("call", address.bare(), "hello")
    assert done.returncode == 1
    assert re.fullmatch(rb"pysock: tls:[^\n]*: TLS failed: the certificate isn't good: [^\n]*\n", done.stderr)
    program.signal(signal.SIGTERM)
    assert program.end()[0] == 0


@pytest.mark.skipif(native_is_missing(), reason="libssl is its driver")
@pytest.mark.parametrize("driver", ["ssl", "libssl"])
def test_the_driver(served, made, driver, monkeypatch):
    """What the server says in its own words, since no client can see it."""
    monkeypatch.setenv("PYSOCK_BACKEND", "native")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(made.directory), os.environ.get("PYTHONPATH", "")]))
    (made.directory / "told.py").write_text("def driver(client, request):\n    return client.tls.driver.encode()\n")
    _, address = served("--tls-cert", made.server, "--tls-driver", driver, handler="told:driver")
    with pysock.connect(address.bare(), tls=made.trusting) as client:
        assert client.request(b"") == driver.encode()


def test_a_driver_that_the_engine_has_not(made):
    where = ("--bind", "tls://127.0.0.1:0", "--tls-cert", made.server, "--tls-driver", "libssl")
    done = pysock_command("--backend", "pure", "serve", HANDLER, *where)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "pysock: the TLS driver 'libssl' is the native engine's, which isn't used here: choose 'auto'"
    ]


def test_clients_with_certificates(served, made):
    _, address = served("--tls-cert", made.server, "--tls-ca", made.ca)
    with pysock.connect(address.bare(), tls=made.worker) as client:
        assert client.request(b"x") == b"X"
    with pytest.raises(pysock.TLSError, match="it wants a certificate of this end"):
        pysock.connect(address.bare(), tls=made.trusting)


def test_certificates_are_loaded_again(served, made, tmp_path):
    """At SIGHUP; where they aren't good, the old ones go on, and it says so."""
    path = tmp_path / "server.pem"
    shutil.copy(made.server, path)
    program, address = served("--tls-cert", str(path))

    def fingerprint():
        with pysock.connect(address.bare(), tls=TLS(ca=made.ca)) as client:
            return client.tls.fingerprint

    first = fingerprint()
    shutil.copy(made.issue("next", "127.0.0.1"), path)
    program.signal(signal.SIGHUP)
    wait_for(lambda: fingerprint() != first)
    second = fingerprint()
    path.write_text("nonsense")
    program.signal(signal.SIGHUP)
    while "were not loaded again" not in (line := program.process.stderr.readline()):
        assert line
    assert "the old ones are used on: cert" in line
    assert fingerprint() == second


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "there is no certificate"),
        (["--tls-cert", "/no/such"], "--tls-cert '/no/such' isn't there; is the path right?"),
        (["--tls-cert", "{server}", "--tls-verify", "require"], "--tls-ca is missing: verify='require' asks clients"),
        (["--tls-cert", "{server}", "--tls-driver", "gnutls"], "'gnutls' is not one of 'auto', 'ssl', 'libssl'"),
        (["--tls-cert", "{server}", "--bind", "tcp://0.0.0.0:0"], "other machines can connect there"),
    ],
)
def test_wrong_use(made, arguments, words):
    given = [argument.format(server=made.server) for argument in arguments]
    done = pysock_command("serve", HANDLER, "--bind", "tls://127.0.0.1:0", *given)
    assert done.returncode == 2
    assert words in done.stderr.decode()


def test_the_example():
    done = run(sys.executable, "-m", "pysock.examples.tls")
    assert (done.returncode, done.stderr.count(b"\n") <= 3) == (0, True), done.stderr
    assert done.stdout.decode().splitlines() == [
        "a worker speaks TLSv1.3; to the server it is one.workers.example",
        "somebody else isn't let in: not allowed",
        "who has no certificate isn't let in: TLS failed: the other end says: it wants a certificate of this end: give"
        " cert= and key=",
        "who trusts others isn't let in: TLS failed: the certificate isn't good: self-signed certificate in certificate"
        " chain; its CA isn't known here: name the file with that, as ca=",
        "a worker speaks TLSv1.3; to the server it is one.workers.example",
        "the server has another certificate now",
    ]
    done = run(sys.executable, "-m", "pysock.examples.tls", "--bind", "tls://x")
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(rb"tls\.py: bad address 'tls://x': there is no port; [^\n]+\n", done.stderr)
