"""valgrind: the C tests that need no threads of their own, and one server with clients in Python, under memcheck.

It sees what the sanitizers don't: memory that was never written to, and descriptors left open. So the C tests are built
without sanitizers here.
"""

from __future__ import annotations

import re
import sys

from support import ROOT

from lab.building import BUILD, make, need, run
from lab.experiment import Experiment, Missing, Scale, check

#: Those that take a few seconds under valgrind, and those that may take longer.
QUICK = ("test_frame", "test_state", "test_table", "test_timers", "test_output")
FULL = (*QUICK, "test_engine", "test_client")
OPTIONS = ("--error-exitcode=99", "--quiet", "--fair-sched=yes")
LEAKS = ("--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite")

#: One server and a few clients, on the native engine: requests of all sizes, a batch, pushes, a client that is lost.
SMOKE = """
import tempfile
import pysock

folder = tempfile.TemporaryDirectory(prefix="psk", dir="/tmp")
server = pysock.Server(f"unix:{folder.name}/s", backend="native")

@server.service
def echo(client, request):
    client.send(request[:10])
    return request

@server.batch_service("gather")
def gather(clients, requests):
    return [request[::-1] for request in requests]

@server.service("fail")
def fail(client, request):
    raise ZeroDivisionError

with server:
    for round in range(3):
        with pysock.connect(server.addresses[0], name=f"c{round}", timeout=60) as client:
            for size in (0, 1, 5_000, 70_000, 300_000, 300_000):
                assert client.request(bytes(size)) == bytes(size)
            assert client.request_many([b"ab"] * 20, service="gather") == [b"ba"] * 20
            try:
                client.request(b"", service="fail")
            except pysock.RemoteError:
                pass
            server.clients.broadcast(b"all")
print("served")
"""


def _valgrind(*command: object, timeout: float, options: tuple[str, ...], **environment: str) -> str:
    done = run([need("valgrind"), *OPTIONS, *options, *command], timeout, **environment)
    check(done.returncode == 0, f"exit code {done.returncode} of {command[0]}:\n{done.stdout[-3000:]}")
    return done.stdout


def _c_tests(scale: Scale) -> str:
    need("valgrind"), need("cc")
    tests = scale.of(QUICK, FULL)
    for test in tests:
        make("csrc", f"{BUILD}/bare/{test}", BUILD=BUILD)
        scale.say(test)
        _valgrind(BUILD / "bare" / test, timeout=scale.of(300, 1800), options=(*LEAKS, "--track-fds=no"))
    return f"{len(tests)} C tests: no error, nothing leaked"


def _server(scale: Scale) -> str:
    """Only errors that happen in the extension count: an interpreter has its own, which handlers meet as well."""
    need("valgrind")
    import pysock  # noqa: PLC0415

    if pysock.backend != "native":
        raise Missing("the native engine isn't built")
    valgrind = [need("valgrind"), "--error-exitcode=0", "--fair-sched=yes", "--fullpath-after="]
    command = [*valgrind, sys.executable, "-Wignore", "-c", SMOKE]
    found = run(command, scale.of(600, 1800), PYTHONMALLOC="malloc", PYTHONPATH=str(ROOT)).stdout
    check("served" in found, found[-3000:])
    # Each report is a block of lines that begin with ==PID==; the blocks are divided by empty ones.
    blocks = re.split(r"^==\d+== *\n", found, flags=re.MULTILINE)
    reports = [block for block in blocks if re.search(r"Invalid |uninitialised|overlap", block)]
    ours = [report for report in reports if "/csrc/" in "".join(report.splitlines(keepends=True)[:6])]
    check(not ours, "\n".join(ours)[:3000])
    return f"a server and its clients: no error in the extension (of others: {len(reports)})"


EXPERIMENTS = [
    Experiment("memcheck/c", "C tests under valgrind", _c_tests),
    Experiment("memcheck/server", "a server and clients in Python under valgrind", _server),
]
