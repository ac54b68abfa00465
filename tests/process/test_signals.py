from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

import pytest
from support import PATIENCE, Program, RawPeer, left_in, plug, run_python, until_bye, wait_for, welcomed

import pysock
from pysock import PysockError, connect
from pysock.wire.format import Kind, encode


def handler(client, request):
    return request


SERVE = """
import os, sys, time, pysock
address, backend = sys.argv[1:]
server = pysock.Server(address, backend=backend)
began = []

def watched(grace, interrupt=server._running.interrupt):
    interrupt(grace)
    began.append(True)
    os.write(1, b"began\\n")  # in a signal's handler print() might be inside itself

server._running.interrupt = watched

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


HELD_UP = """
import logging, os, sys, time, pysock, pysock.running
pysock.running.PATIENCE = 0.05
address, backend = sys.argv[1:]
server = pysock.Server(address, backend=backend)
told = []

class Listener(logging.Handler):
    def emit(self, record):
        told.append(record.getMessage())

logging.getLogger("pysock").addHandler(Listener(logging.ERROR))

@server.service
def handler(client, request):
    os.write(1, b"entered\\n")
    deadline = time.monotonic() + 5
    while request == b"hangs" and not told and time.monotonic() < deadline:
        time.sleep(0.005)
    return request

server.on_state(lambda old, new: print(new.name, *server.addresses, flush=True))
server.serve_forever(grace=0.05)
time.sleep(0.2)
print([text.rpartition(">")[2] for text in told])
"""


@pytest.mark.parametrize(
    ("request_", "told"), [(b"hangs", [" didn't end in 0.1 seconds: a handler hasn't returned"]), (b"", [])]
)
def test_a_handler_that_holds_the_end_up_is_logged(backend, unix_address, request_, told):
    """Once, as stop() does: else nobody would know why the first signal seems to do nothing."""
    with Program(HELD_UP, unix_address, backend) as program, RawPeer.connect(serving(program)) as peer:
        peer.hello()
        peer.srm(request_)
        wait_for_line(program, "entered")
        program.signal(signal.SIGTERM)
        code, out, err = program.end()
    assert (code, err, out.splitlines()[-1]) == (0, "", str(told))


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


# Ctrl-C while clients keep it busy


@pytest.fixture
def load():
    """``load(address)``: clients that ask as fast as they can, until the server is gone."""
    threads = []

    def ask(address):
        with suppress(PysockError, OSError), connect(address) as client:  # it may be gone before we come
            while True:
                client.request_many([b"x" * 100] * 50)

    def start(address):
        threads.extend(threading.Thread(target=ask, args=(address,)) for _ in range(3))
        for thread in threads:
            thread.start()

    yield start
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


BUSY = """
import os, sys, threading, time, pysock
address, backend = sys.argv[1:3]
server = pysock.Server(address, backend=backend)
server.requests = 0

@server.service
def handler(client, request):
    server.requests += 1
    if server.requests == 1000:
        os.write(1, b"BUSY %s\\n" % str(server.addresses[0]).encode())
    return request

def say(old, new):
    new.name == "SERVING" and print("SERVING", server.addresses[0], flush=True)

server.on_state(say)
"""


def test_ctrl_c_under_load(backend, address, load):
    """In ``serve_forever``: it drains and returns, however much more is asked."""
    with Program(BUSY + "server.serve_forever()\nprint('returned')", address, backend) as program:
        load(serving(program))
        wait_for_line(program, "BUSY")
        started = time.monotonic()
        program.signal(signal.SIGINT)
        assert program.end() == (0, "returned\n", "")
        assert time.monotonic() - started < 2


WAITS = {
    "sleep": "time.sleep(60)",
    "event": "threading.Event().wait()",
    "join": "next(thread for thread in threading.enumerate() if 'pysock' in thread.name).join()",
    "compute": "[None for _ in iter(int, 1)]",
}


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c_beside_a_background_server(backend, unix_address, load, wait, busy):
    """In a main thread that waits, or computes, it is a KeyboardInterrupt as ever."""
    code = f"""{BUSY}
with server:
    try:
        print("ready", flush=True)
        {WAITS[wait]}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
    with Program(code, unix_address, backend) as program:
        where = serving(program)
        wait_for_line(program, "ready")
        if busy:
            load(where)
            wait_for_line(program, "BUSY")
        started = time.monotonic()
        program.signal(signal.SIGINT)
        wait_for_line(program, "interrupted")
        assert time.monotonic() - started < 2
        assert program.end()[0] == 0


def silent(peer):
    """A server that never answers."""
    until_bye(peer)


CALLS = {
    "request": "client.request(b'x')",
    "request_many": "client.request_many([b'x'] * 3)",
    "ping": "client.ping()",
    "pushes": "next(client.pushes())",
}


@pytest.mark.parametrize("call", CALLS)
def test_ctrl_c_in_a_client_that_waits(backend, fake, call):
    code = f"""
import sys, pysock
client = pysock.connect(sys.argv[1], backend=sys.argv[2], timeout=None)
try:
    print("ready", flush=True)
    {CALLS[call]}
except KeyboardInterrupt:
    print("interrupted", client.closed)
client.close()
"""
    with Program(code, fake(welcomed(silent)), backend) as program:
        assert program.line() == "ready"
        time.sleep(0.05)  # not for a condition: to be inside, mostly
        started = time.monotonic()
        program.signal(signal.SIGINT)
        assert program.end() == (0, "interrupted False\n", "")
        assert time.monotonic() - started < 2


def test_a_signal_at_any_moment_of_a_call(make_server, backend, unix_address):
    """Also just before the sleep: it is seen then without another one. A call may end, a client never hangs."""
    server = make_server(unix_address)
    server.batch_service(lambda clients, requests: requests, max_batch=10_000, max_wait=60)  # no answer for a minute
    code = """
import random, signal, sys, time, pysock

def interrupt(*_):
    raise KeyboardInterrupt

chance, late, closed = random.Random(4), 0, 0
client = pysock.connect(sys.argv[1], backend=sys.argv[2])
signal.signal(signal.SIGALRM, interrupt)
for _ in range(250):
    started = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 2e-4))
        client.request(b"x", timeout=5)
    except KeyboardInterrupt:
        late += time.monotonic() - started > 2
    if client.closed:  # the interrupt came while the request was being sent
        closed += 1
        client = pysock.connect(sys.argv[1], backend=sys.argv[2])
client.close()
print(late, closed < 250)
"""
    with server:
        done = run_python(code, unix_address, backend)
        assert (done.returncode, done.stdout, done.stderr) == (0, "0 True\n", "")
        server.stop(0)


def test_a_handler_of_a_signal_that_uses_the_client_in_the_middle_of_a_call(backend, fake):
    """It is told so, instead of waiting for itself for ever; the call goes on."""

    def play(peer):
        frame = peer.frame()
        assert peer.sock.recv(1) == b"!"
        peer.send(encode(Kind.REPLY, b"late", request_id=frame.request_id))
        until_bye(peer)

    code = """
import os, signal, sys, pysock
client = pysock.connect(sys.argv[1], backend=sys.argv[2], timeout=None)

def use(*_):
    for call in (lambda: client.request(b"y"), client.ping, lambda: client.request_many([b"y"]), client.close):
        try:
            call()
        except pysock.PysockError as error:
            print(type(error).__name__, "in the middle of another call" in str(error))
    os.write(client_fd, b"!")

client_fd = next(int(fd) for fd in sorted(os.listdir("/proc/self/fd"), reverse=True)
                 if os.path.exists(f"/proc/self/fd/{fd}") and "socket" in os.readlink(f"/proc/self/fd/{fd}"))
signal.signal(signal.SIGALRM, use)
signal.setitimer(signal.ITIMER_REAL, 0.1)
print(client.request(b"x"))
client.close()
print(client.closed)
"""
    done = run_python(code, fake(welcomed(play)), backend)
    assert done.stdout == "PysockError True\n" * 4 + "b'late'\nTrue\n", done.stderr
