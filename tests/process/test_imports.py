"""What importing pysock brings with it: nothing that takes longer to import than it is worth."""

import inspect
import subprocess
import sys

import pytest

import pysock
from pysock.calls.mailbox import PUSHES_MAX

#: Each of these brings others, or takes milliseconds, and is needed late or never.
SLOW = {
    "argparse",
    "ast",
    "asyncio",
    "dataclasses",
    "dis",
    "fnmatch",
    "inspect",
    "ipaddress",
    "json",
    "logging",
    "pathlib",
    "re",
    "string",
    "subprocess",
    "tempfile",
    "textwrap",
    "tokenize",
    "traceback",
    "typing",
    "urllib",
}


def new_modules(program):
    """What a program imports, beside what the interpreter has at its start."""
    listing = f"import sys\nbefore = set(sys.modules)\n{program}\nprint(*set(sys.modules) - before)"
    # Without site-packages' .pth files, which may import anything; where pysock is found is said here.
    path = f"import sys; sys.path[:0] = {sys.path!r}\n"
    return set(
        subprocess.run(
            [sys.executable, "-S", "-c", path + listing], check=True, capture_output=True, text=True
        ).stdout.split()
    )


@pytest.mark.parametrize(
    "program", ["import pysock; pysock.Server; pysock.connect", "import pysock; pysock.MasterSocket"]
)
def test_the_first_use_imports_nothing_slow(program):
    assert not new_modules(program) & SLOW


def test_the_first_use_imports_few_modules():
    found = new_modules("import pysock; pysock.Server; pysock.connect")
    own = {name.removeprefix("pysock").removeprefix(".") for name in found if name.startswith("pysock")}
    expected = {"", "_version", "base", "base.lean", "base.unique", "connecting", "errors", "registration", "server"}
    assert own == expected
    assert len(found) <= 45


@pytest.mark.parametrize("key", [None, b"key"])
def test_a_server_that_was_made_has_nothing_left_to_import(backend, tmp_path, key):
    """It may have given up its rights, its root directory or all its descriptors before it starts."""
    program = f"""
import pysock, sys
server = pysock.Server("unix:{tmp_path}/x.sock", backend={backend!r}, authkey={key!r})
server.service(lambda client, request: request)

class Refuse:
    def find_spec(self, name, path, target=None):
        raise RuntimeError("imported later: " + name)

sys.meta_path[:0] = [Refuse()]
server.start()
server.stop()
"""
    new_modules(program)


def test_connect_takes_what_a_client_takes():
    """It is written twice, so that the name costs nothing."""
    parameters = inspect.signature(pysock.connect).parameters
    of_one = list(inspect.signature(pysock.Client).parameters.values())
    assert list(parameters.values())[1 : len(of_one)] == of_one[1:]
    assert list(parameters)[len(of_one) :] == ["reconnect", "wait", "balance"]  # of several connections, or servers
    assert parameters["max_pushes"].default == PUSHES_MAX


def test_a_client_imports_nothing_slow(backend):
    program = f"""
import pysock
try:
    pysock.connect("unix:/nowhere/x.sock", backend={backend!r})
except FileNotFoundError:
    pass
"""
    assert not new_modules(program) & SLOW


def test_no_module_of_an_encoding_is_needed(backend, tmp_path):
    """A process that has become somebody else may find none: the interpreter may lie in another user's home."""
    program = f"""
import pysock, sys

class Refuse:
    def find_spec(self, name, path, target=None):
        if name.startswith("encodings."):
            raise RuntimeError("imported later: " + name)

sys.meta_path[:0] = [Refuse()]
for _ in range(2):
    server = pysock.Server("unix:{tmp_path}/x.sock", "unix:@{tmp_path.name}", backend={backend!r})
    server.service(lambda client, request: request)
    with server:
        for address in server.addresses:
            pysock.connect(address, backend={backend!r}).close()
        try:
            pysock.Server("unix:{tmp_path}/x.sock", backend={backend!r}).start()
        except pysock.AddressInUse:
            pass
"""
    new_modules(program)
