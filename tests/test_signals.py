from __future__ import annotations

import os
import signal
import time

import pytest
from support import Program, RawPeer, left_in, plug, run_python, wait_for

import pysock
from pysock import connect
from pysock.protocol import Kind


def handler(client, request):
    return request


SERVE = """
import os, sys, time, pysock
address, backend = sys.argv[1:]
server = pysock.Server(address, backend=backend)
began = []

def watched(grace, interrupt=server._interrupt):
    interrupt(grace)
    began.append(True)
    os.write(1, b"began\\n")  # in a signal's handler print() might be inside itself

server._interrupt = watched

@server.service
def handler(client, request):
    os.write(1, b"entered\\n")
    while request == b"never" or request == b"last" and not began:
        time.sleep(0.005)
    return request

@server.on_state
def tell(old, new):
    print(new.name, *server.addresses, flush=True)

server.serve_forever(grace=5)
print("returned", flush=True)
"""


def serving(program: Program) -> str:
    """Wait until it serves; its address."""
    return wait_for_line(program, "SERVING").split()[1]


def wait_for_line(program: Program, beginning: str) -> str:
    return next(line for line in iter(program.line, None) if line.startswith(beginning))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(backend, address, number):
    with Program(SERVE, address, backend) as program:
        where = serving(program)
        with RawPeer.connect(where) as peer:
            peer.hello()
            peer.srm(b"last", request_id=5)
            wait_for_line(program, "entered")
            program.signal(number)
            frames = list(iter(peer.frame, None))
        assert (Kind.REPLY, 5, b"last") in [(frame.kind, frame.request_id, frame.payload) for frame in frames]
        code, out, err = program.end()
    assert code == 0, err
    assert out.splitlines()[-1] == "returned"
    if where.startswith("unix:"):
        assert not os.path.exists(where.removeprefix("unix:"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_an_idle_server(backend, unix_address, number):
    with Program(SERVE, unix_address, backend) as program, RawPeer.connect(serving(program)) as peer:
        peer.hello()
        started = time.monotonic()
        program.signal(number)
        code, out, err = program.end()
        assert (code, err) == (0, "")
        assert out.splitlines()[-1] == "returned"
        assert time.monotonic() - started < 2
        assert peer.frame().kind == Kind.GOAWAY
        assert peer.frame() is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_second_signal_ends_at_once(backend, unix_address, socket_dir, number, code):
    with Program(SERVE, unix_address, backend) as program, RawPeer.connect(serving(program)) as peer:
        peer.hello()
        peer.srm(b"never")
        wait_for_line(program, "entered")
        program.signal(number)
        wait_for_line(program, "began")
        program.signal(number)
        started = time.monotonic()
        assert program.end()[0] == code
        assert time.monotonic() - started < 2
        peer.rest()  # closed, with or without a GOAWAY
    assert left_in(socket_dir) == []


RESTORES = """
import os, signal, sys, threading, pysock
server = pysock.Server(sys.argv[1], backend=sys.argv[2])
mine = lambda *_: None
signal.signal(signal.SIGTERM, mine)
read, write = os.pipe(); os.set_blocking(write, False)
signal.set_wakeup_fd(write)
interrupt = signal.getsignal(signal.SIGINT)
server.on_state(lambda old, new: new.name == "SERVING" and threading.Timer(0.1, os.kill, (os.getpid(), 15)).start())
server.serve_forever()
assert signal.getsignal(signal.SIGTERM) is mine
assert signal.getsignal(signal.SIGINT) is interrupt
assert signal.set_wakeup_fd(-1) == write
print("fine")
"""


def test_the_handlers_of_before_are_restored(backend, unix_address):
    done = run_python(RESTORES, unix_address, backend)
    assert done.stdout == "fine\n", done.stderr


def test_a_signal_that_is_ignored_stays_ignored(backend, unix_address):
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + SERVE
    with Program(code, unix_address, backend) as program, RawPeer.connect(serving(program)) as peer:
        peer.hello()
        program.signal(signal.SIGINT)
        peer.srm(b"still here")
        assert peer.frame().payload == b"still here"
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0


def test_a_signal_while_it_starts(backend, unix_address, socket_dir):
    code = SERVE.replace(
        "def tell(old, new):",
        "def tell(old, new):\n    import os, signal\n    new.name == 'BOUND' and os.kill(os.getpid(), signal.SIGTERM)",
    )
    with Program(code, unix_address, backend) as program:
        code, out, err = program.end()
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "returned"
    assert left_in(socket_dir) == []


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise ValueError('the end')"])
def test_the_interpreter_ends_though_a_server_runs(backend, unix_address, socket_dir, ending):
    code = f"""
import sys, pysock
server = pysock.Server(sys.argv[1], backend=sys.argv[2])
server.start()
client = pysock.connect(sys.argv[1], backend=sys.argv[2])
{ending}
"""
    done = run_python(code, unix_address, backend, timeout=10, PYTHONWARNINGS="default")
    assert done.returncode == {"": 0, "sys.exit(3)": 3}.get(ending, 1)
    assert left_in(socket_dir) == []


def listens(address: str) -> bool:
    try:
        plug(address).close()
    except OSError:
        return False
    return True


def test_serve(backend, unix_address):
    code = """
import sys, pysock
addresses = [sys.argv[1], sys.argv[1] + "2"]
pysock.serve(addresses, lambda client, request: request.upper(), backend=sys.argv[2], name="mine")
print("returned")
"""
    with Program(code, unix_address, backend) as program:
        wait_for(lambda: listens(unix_address + "2"))
        with connect(unix_address + "2", backend=backend) as client:
            assert client.request(b"hello") == b"HELLO"
        program.signal(signal.SIGTERM)
        assert program.end()[:2] == (0, "returned\n")


def test_serve_takes_one_address(backend):
    with pytest.raises(ValueError, match="bad address 'nonsense'"):
        pysock.serve("nonsense", handler, backend=backend)
