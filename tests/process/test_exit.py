"""The end of the interpreter, whatever goes on at that moment: soon, with the code that is due, and never a crash."""

from __future__ import annotations

import os
import time

import pytest
from support import PATIENCE, Program, RawPeer, left_in, run_python

#: The interpreter's exit takes no longer, in seconds; starting and a busy machine have the rest of the patience.
SOON = 2.0

BEGINNING = """
import atexit, faulthandler, os, sys, threading, time, pysock
faulthandler.enable()
address, backend = sys.argv[1:]
server = pysock.Server(address, backend=backend)
entered = threading.Event()
began = []

@server.service
def echo(client, request):
    return request

@server.service("block")
def block(client, request):
    entered.set()
    threading.Event().wait()

@server.service("spin")
def spin(client, request):
    entered.set()
    while True:
        pass

def in_background(function, *arguments):
    threading.Thread(target=function, args=arguments, daemon=True).start()

def ask(service, times=1):
    try:
        with pysock.connect(server.addresses[0], backend=backend, timeout=None) as client:
            for _ in range(times):
                client.request(b"x", service=service)
    except pysock.PysockError:
        pass  # the server ends

# Registered before pysock's own, so it runs after it.
import pysock.running
atexit.unregister(pysock.signals.stop_background)
atexit.register(lambda: print("exit", time.monotonic(), flush=True))
atexit.register(pysock.signals.stop_background)
server.start()
"""

WORK = {
    "idle": "",
    "a client": "client = pysock.connect(server.addresses[0], backend=backend)",
    "load": "[in_background(ask, None, 10**9) for _ in range(3)]; time.sleep(0.05)",
    "a handler that waits for ever": "in_background(ask, 'block'); entered.wait(10)",
    "a handler that computes for ever": "in_background(ask, 'spin'); entered.wait(10)",
    "clients that wait for ever": "[in_background(ask, 'block') for _ in range(3)]; entered.wait(10)",
    "a thread that uses the server": "in_background(lambda: [server.clients.broadcast(b'x') for _ in iter(int, 1)])",
    "two servers that hang": """
in_background(ask, 'block'); entered.wait(10); entered.clear()
first, server = server, pysock.Server("tcp://127.0.0.1:0", backend=backend)
server.service("block")(block); server.start()
in_background(ask, 'block'); entered.wait(10)
""",
}

ENDINGS = {
    "end of the script": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise ValueError('the end')", 1),
    "os._exit": ("print('exit', time.monotonic(), flush=True); os._exit(4)", 4),
}


@pytest.mark.parametrize(
    ("work", "ending"),
    [*((work, "sys.exit") for work in WORK), *(("load", each) for each in ENDINGS if each != "sys.exit")],
)
def test_it_ends_soon(backend, unix_address, work, ending):
    """Also while handlers hang, all of them together for a second; their threads end with the process."""
    last, wanted = ENDINGS[ending]
    code = f"{BEGINNING}\n{WORK[work]}\nprint('ending', time.monotonic(), flush=True)\n{last}\n"
    done = run_python(code, unix_address, backend, timeout=PATIENCE, PYTHONWARNINGS="ignore")
    ended = time.monotonic()
    assert done.returncode == wanted, done.stderr
    assert "Fatal" not in done.stderr
    began = float(next(line for line in done.stdout.splitlines() if line.startswith("ending ")).split()[1])
    assert ended - began < SOON, done.stdout


def leaves_in_order(code, address, backend, socket_dir):
    """A program that ends when its input does: its clients are told, and no socket file stays."""
    with Program(code, address, backend) as program:
        assert program.line() == "ready"
        with RawPeer.connect(address) as peer:
            peer.hello()
            status, _, err = program.end()
            assert (status, err) == (0, "")
            assert peer.rest()[4:5] == b"\x87"  # GOAWAY, then the end
    assert left_in(socket_dir) == []


def test_the_socket_file_goes_and_the_clients_are_told(backend, unix_address, socket_dir):
    code = f"{BEGINNING}\nprint('ready', flush=True)\nsys.stdin.readline()\n"
    leaves_in_order(code, unix_address, backend, socket_dir)


def test_a_background_server_that_nobody_refers_to(backend, unix_address):
    """It goes on; at the exit it is stopped, and nobody warns."""
    code = """
import gc, sys, pysock
address, backend = sys.argv[1:]
def begin():
    server = pysock.Server(address, backend=backend)
    server.service(lambda client, request: request.upper())
    server.start()
begin()
gc.collect()
with pysock.connect(address, backend=backend) as client:
    print(client.request(b"still there"))
"""
    done = run_python(code, unix_address, backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'STILL THERE'\n", "")
    assert not os.path.exists(unix_address.removeprefix("unix:"))


def test_a_daemon_thread_that_serves(backend, unix_address, socket_dir):
    """``serve_forever`` in a thread of the program's own ends as a server in the background does."""
    code = """
import sys, threading, pysock
address, backend = sys.argv[1:]
server = pysock.Server(address, backend=backend)
server.service(lambda client, request: request)
serving = threading.Event()
server.on_state(lambda old, new: new.name == "SERVING" and serving.set())
threading.Thread(target=server.serve_forever, daemon=True).start()
serving.wait(10)
print("ready", flush=True)
sys.stdin.readline()
"""
    leaves_in_order(code, unix_address, backend, socket_dir)


def test_a_main_thread_that_serves(backend, unix_address):
    """sys.exit() in a handler comes out of ``serve_forever``; the background server beside it is stopped as well."""
    code = f"""{BEGINNING}
main = pysock.Server(address + "2", backend=backend)
main.service("end")(lambda client, request: sys.exit(5))
main.on_state(lambda old, new: new.name == "SERVING" and print("ready", flush=True))
main.serve_forever()
"""
    with Program(code, unix_address, backend) as program:
        assert program.line() == "ready"
        with RawPeer.connect(unix_address + "2") as peer:
            peer.hello()
            peer.srm(b"", service=1)
            peer.rest()
        code, _, err = program.end()
        assert (code, err) == (5, "")


def test_os_exit_leaves_a_stale_file_that_the_next_start_replaces(backend, unix_address):
    for _ in range(2):
        done = run_python(f"{BEGINNING}\nos._exit(0)", unix_address, backend)
        assert (done.returncode, done.stderr) == (0, "")
    assert os.path.exists(unix_address.removeprefix("unix:"))


def test_objects_that_are_left_at_the_exit(backend, unix_address):
    """Unclosed clients and sockets in global names: a warning each at most, and no crash, though modules go first."""
    code = f"""{BEGINNING}
master = pysock.MasterSocket("127.0.0.1:0", backend)
for step in (master.remove_stale, master.create, master.bind, master.listen):
    step()
import builtins
client = builtins.kept = pysock.connect(address, backend=backend)
builtins.kept_too = master
"""
    done = run_python(code, unix_address, backend, PYTHONWARNINGS="default")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
