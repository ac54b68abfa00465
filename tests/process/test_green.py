"""gevent and eventlet patch the standard library: what works among green threads works, what can't says what does."""

from __future__ import annotations

import importlib.util

import pytest
from support import run_python

PROGRAM = """
import sys
{patch}
import os, pysock
server = pysock.Server("unix:@" + os.urandom(8).hex(), backend=sys.argv[1])
server.service(lambda client, request: request.upper())
try:
    server.start()
    with pysock.connect(server.addresses[0], backend=sys.argv[1], timeout=5) as client:
        print(client.request(b"hello").decode())
    server.stop(1)
except pysock.PysockError as error:
    print(error)
"""

GEVENT, EVENTLET = "from gevent import monkey; monkey.patch_all(%s)", "import eventlet; eventlet.monkey_patch(%s)"
NEVER = "gevent or eventlet has patched threads, and start() would never return"
SOCKETS = "eventlet has patched the modules socket or select"


def said(backend, patch, options):
    name = "gevent" if patch is GEVENT else "eventlet"
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"NOT TESTED among green threads: {name} isn't installed")
    done = run_python(PROGRAM.format(patch=patch % options), backend, PYTHONWARNINGS="ignore")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().partition(":")[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("patch", "options", "native", "pure"),
    [
        (GEVENT, "", NEVER, "HELLO"),
        (GEVENT, "select=False", NEVER, NEVER),
        (GEVENT, "thread=False", "HELLO", "HELLO"),
        (GEVENT, "thread=False, select=False", "HELLO", "HELLO"),
        (EVENTLET, "", NEVER, SOCKETS),
        (EVENTLET, "thread=False", "HELLO", SOCKETS),
        (EVENTLET, "thread=False, socket=False, select=False", "HELLO", "HELLO"),
    ],
)
def test_what_works_among_green_threads(backend, patch, options, native, pure):
    assert said(backend, patch, options).startswith({"native": native, "pure": pure}[backend])
