"""Sub-interpreters: the native engine runs in the main one only, and elsewhere ``auto`` says so and does without.

They are made by CPython's own module for it, which is private and has changed with nearly every version.
"""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from conftest import native_is_missing
from support import run_python

if not any(map(find_spec, ("_interpreters", "_xxsubinterpreters"))):
    pytest.skip("this Python has no sub-interpreters", allow_module_level=True)

#: ``run(code)`` runs it in a new sub-interpreter: with a GIL of its own, or sharing the main one's.
BEGINNING = """
import sys
try:
    import _interpreters as module
    options = {"isolated": "isolated", "legacy": "legacy"}
    create = lambda kind: module.create(options[kind])
except ImportError:
    import _xxsubinterpreters as module
    create = lambda kind: module.create(isolated=kind == "isolated")

def run(code, kind):
    code = f"import sys; sys.argv = {sys.argv!r}; sys.path[:] = {sys.path!r}\\n{code}"
    failed = module.run_string(create(kind), code)
    if failed is not None:
        print("it failed:", failed)
"""

KINDS = ("isolated", "legacy")


def in_subinterpreter(code: str, kind: str, *arguments: str, before: str = "") -> str:
    """What it says; whatever it raises is an error."""
    done = run_python(
        f"{BEGINNING}\n{before}\nrun({code!r}, {kind!r})", *arguments, PYTHONWARNINGS="default", PYSOCK_BACKEND="auto"
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


SERVE = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import pysock
    assert pysock.backend == "pure"
    server = pysock.Server(sys.argv[1])
    server.service(lambda client, request: request.upper())
    texts = [str(each.message) for each in caught if each.category is RuntimeWarning]
print(server.backend, texts)
server.on_state(lambda old, new: new.name == "SERVING" and server.stop())
server.serve_forever()
print(server.state.name)
"""


@pytest.mark.skipif(native_is_missing(), reason="the native engine isn't built")
@pytest.mark.parametrize("loaded", [False, True], ids=["", "native in the main one"])
@pytest.mark.parametrize("kind", KINDS)
def test_auto_falls_back_and_says_so_once(unix_address, kind, loaded):
    before = "import pysock.engine.native.engine" if loaded else ""
    out = in_subinterpreter(SERVE, kind, unix_address, before=before)
    assert out == (
        "pure ['pysock runs on its pure-Python engine, because the native one runs in the main interpreter only, and"
        " this is a sub-interpreter; start the server from there, or set PYSOCK_BACKEND=pure if that is what you"
        " want']\n"
        "CLOSED\n"
    )


@pytest.mark.skipif(native_is_missing(), reason="the native engine isn't built")
@pytest.mark.parametrize("kind", KINDS)
def test_native_is_refused(kind):
    code = """
import pysock
for _ in range(2):
    try:
        pysock.Server("unix:/tmp/never", backend="native")
    except ImportError as error:
        print(error)
"""
    line = (
        "the native engine runs in the main interpreter only, and this is a sub-interpreter: start the server from"
        " there, or use PYSOCK_BACKEND=pure\n"
    )
    assert in_subinterpreter(code, kind) == line * 2


START = """
import warnings
warnings.simplefilter("ignore")
import pysock
server = pysock.Server(sys.argv[1])
server.service(lambda client, request: request.upper())
try:
    with server:
        print(server.state.name)
except pysock.PysockError as error:
    print(error)
"""


def test_one_that_has_no_threads_in_the_background_says_so(unix_address):
    out = in_subinterpreter(START, "isolated", unix_address)
    assert out == (
        "start() needs a daemon thread, and this sub-interpreter allows none: call serve_forever() of a new Server"
        " here, or start it in the main interpreter\n"
    )


def test_one_that_has_threads_serves_in_the_background(unix_address):
    assert in_subinterpreter(START, "legacy", unix_address) == "SERVING\n"


@pytest.mark.skipif(native_is_missing(), reason="the native engine isn't built")
@pytest.mark.parametrize("kind", KINDS)
def test_the_main_interpreter_goes_on(backend, unix_address, kind):
    """A client in a sub-interpreter, its server in the main one; and nothing of the one is taken for the other's."""
    code = f"""{BEGINNING}
import warnings, pysock
server = pysock.Server(sys.argv[1], backend=sys.argv[2])
server.service(lambda client, request: request.upper())
server.start()
ask = '''
import warnings
warnings.simplefilter("ignore")
import pysock
with pysock.connect(sys.argv[1]) as client:
    print(client.request(b"from a sub-interpreter"))
'''
for _ in range(3):
    run(ask, {kind!r})
with pysock.connect(sys.argv[1], backend=sys.argv[2]) as client:
    print(client.request(b"from the main one"))
server.stop()
"""
    done = run_python(code, unix_address, backend)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "b'FROM A SUB-INTERPRETER'\n" * 3 + "b'FROM THE MAIN ONE'\n"


@pytest.mark.parametrize(
    "error", ["ImportError('libfoo.so.1: cannot open shared object file')", "ImportError('odd', name='x')"]
)
def test_a_broken_extension_still_raises_its_own_error(error):
    """In the main interpreter nothing is hidden by a fallback."""
    code = f"""
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "pysock._engine":
            raise {error}
sys.meta_path.insert(0, Broken())
import pysock
try:
    print(pysock.backend)
except ImportError as error:
    print(repr(error))
"""
    done = run_python(code, PYSOCK_BACKEND="auto")
    assert done.stdout.strip() in {error, error.replace(", name='x'", "")}, done.stderr
