"""fork() while servers and clients are in use: the child has nothing of them, and the parent notices nothing."""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import ExitStack

import pytest
from support import PATIENCE, Program, RawPeer, own_host, plug, run_python

from pysock import Address, connect

#: Since Python 3.12 os.fork() warns of other threads; whoever forks beside a server has decided that.
QUIET = "ignore::DeprecationWarning"

BEGINNING = """
import gc, os, signal, sys, threading, time, pysock

def descriptors():
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[int(number)] = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            pass  # the one of the listing itself
    return found

def forked(work):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

address, backend = sys.argv[1:3]
before = descriptors()

def more():
    return [name for fd, name in descriptors().items() if fd not in before]

server = pysock.Server(address, backend=backend)

@server.service
def upper(client, request):
    return request.upper()

@server.service("close")
def close(client, request):
    server.clients.by_name(request.decode()).close()
"""


def program(code: str, *arguments: str) -> Program:
    return Program(BEGINNING + code, *arguments, PYTHONWARNINGS=QUIET)


def test_the_child_has_no_descriptor_and_the_parent_all(backend, address):
    """Neither of the server, nor of a client, nor of sockets used by hand."""
    code = """
server.start()
client = pysock.connect(server.addresses[0], backend=backend)
master = pysock.MasterSocket("127.0.0.1:0", backend)
for step in (master.remove_stale, master.create, master.bind, master.listen):
    step()
import socket
peer = socket.create_connection((master.address.host, master.address.port))
before.update({peer.fileno(): ""})
data = master.accept()
mine = more()
child = forked(lambda: print(more()))
assert ended(child) == 0
assert more() == mine and len(mine) >= 8, mine
peer.sendall(b"x")
assert data.recv() == b"x"
print(client.request(b"still there"), server.state.name, master.state.name, flush=True)
for each in (data, master, client, server):
    (each.stop if each is server else each.close)()
assert more() == []
"""
    with program(code, address, backend) as it:
        assert it.end() == (0, "[]\nb'STILL THERE' SERVING LISTENING\n", "")


@pytest.mark.parametrize("kind", ["os.fork", "multiprocessing"])
def test_a_closed_connection_ends_though_a_child_lives(backend, address, kind):
    """And the address is free when the server has stopped: the child keeps neither open."""
    code = """
server.start()
gate, runs = os.pipe(), os.pipe()
wait = lambda: os.write(runs[1], b"x") and os.read(gate[0], 1)
if sys.argv[3] == "os.fork":
    child = forked(wait)
else:
    import multiprocessing
    child = multiprocessing.get_context("fork").Process(target=wait)
    child.start()
os.read(runs[0], 1)  # until then it may not have had the time to close anything
print(server.addresses[0], flush=True)
sys.stdin.readline()
server.stop(5)
print("stopped", flush=True)
sys.stdin.readline()
os.write(gate[1], b"x")
print(ended(child) if sys.argv[3] == "os.fork" else child.join() or child.exitcode)
"""
    address = address.replace("127.0.0.1", own_host())  # its port becomes free before the end
    with program(code, address, backend, kind) as it:
        where = Address.parse(it.line())
        with RawPeer.connect(where) as first, RawPeer.connect(where) as second:
            first.hello("it")
            welcome = second.hello()
            assert b"close" in welcome.payload
            second.srm(b"it", service=1)
            assert first.rest() == b""
            assert second.frame().payload == b""
            it.process.stdin.write("go on\n")
            it.process.stdin.flush()
            assert it.line() == "stopped"
            second.rest()
        with pytest.raises(OSError, match=r"refused|No such file"):
            plug(where)
        if where.transport == "tcp":
            with socket.create_server((where.host, where.port)):
                pass
        assert it.end() == (0, "0\n", "")


def test_use_in_the_child_is_a_clear_error(backend, address):
    """It names the process whose it is. What only cleans up, and what only looks, does no harm."""
    code = """
server.start()
client = pysock.connect(server.addresses[0], backend=backend, name="it")
served = server.clients.by_name("it")
master = pysock.MasterSocket("127.0.0.1:0", backend)
for step in (master.remove_stale, master.create, master.bind, master.listen):
    step()
import socket
peer = socket.create_connection((master.address.host, master.address.port))
data = master.accept()
uses = {
    "start": server.start, "serve_forever": server.serve_forever, "stats": server.stats,
    "len": lambda: len(server.clients), "ids": lambda: list(server.clients), "has": lambda: served.id in server.clients,
    "by_name": lambda: server.clients.by_name("it"), "broadcast": lambda: server.clients.broadcast(b"x"),
    "push": lambda: served.send(b"x"), "close": served.close, "state": lambda: served.state,
    "request": lambda: client.request(b"x"), "many": lambda: client.request_many([b"x"]), "ping": client.ping,
    "notify": lambda: client.notify(b"x"), "pushes": lambda: next(client.pushes()),
    "accept": master.accept, "listen": master.listen, "bind": master.bind, "remove": master.remove_stale,
    "recv": data.recv, "send": lambda: data.send(b"x"),
}
parent = os.getpid()

def use():
    for name, use in uses.items():
        try:
            use()
        except pysock.PysockError as error:
            if f" belongs to process {parent}, of which this one is a forked child" not in str(error):
                print(name, repr(error))
        else:
            print(name, "did something")
    assert client.closed and client.dropped_pushes == 0
    print(server.state.name, master.state.name, data.state.name, repr(server)[:15], repr(client)[:7], repr(master)[:13])
    server.stop()
    for each in (client, master, data):
        each.close()

assert ended(forked(use)) == 0
assert served.state.name == "ESTABLISHED"
print(client.request(b"still there"), flush=True)
for each in (data, master, peer, client):
    each.close()
server.stop()
"""
    with program(code, address, backend) as it:
        wanted = "CLOSED CLOSED CLOSED <Server CLOSED  <Client <MasterSocket\nb'STILL THERE'\n"
        assert it.end() == (0, wanted, "")


def test_garbage_in_the_child_disturbs_nobody(backend, unix_address):
    """Nothing is told to the parent's clients, no file goes, nobody warns: closing is the parent's to do."""
    code = """
import warnings
warnings.simplefilter("error", ResourceWarning)
server.on_disconnect(lambda client, reason: print("disconnected in", os.getpid()))
server.start()
client = pysock.connect(server.addresses[0], backend=backend)
master = pysock.MasterSocket(address + "2", backend)
for step in (master.remove_stale, master.create, master.bind, master.listen):
    step()

def throw_away():
    global server, client, master, upper, close
    del server, client, master, upper, close
    gc.collect()

assert ended(forked(throw_away)) == 0
print(client.request(b"still there"), os.path.exists(address[5:]), os.path.exists(address[5:] + "2"), flush=True)
master.close()
os._exit(0)
"""
    with program(code, unix_address, backend) as it:
        assert it.end() == (0, "b'STILL THERE' True True\n", "")


def test_a_thread_in_the_middle_of_a_call(backend, unix_address):
    """Its lock doesn't hold up the child, and its call goes on."""
    code = """
entered, go_on = threading.Event(), threading.Event()

@server.service("slow")
def slow(client, request):
    entered.set()
    go_on.wait(10)
    return b"slow answer"

server.start()
client = pysock.connect(server.addresses[0], backend=backend)
caller = threading.Thread(target=lambda: print(client.request(b"", service="slow")))
caller.start()
entered.wait(10)

def use():
    try:
        client.request(b"x", timeout=60)
    except pysock.PysockError as error:
        print(type(error).__name__)
    client.close()
    server.stop()

assert ended(forked(use)) == 0
go_on.set()
caller.join()
client.close()
server.stop()
"""
    with program(code, unix_address, backend) as it:
        assert it.end() == (0, "ConnectionLost\nb'slow answer'\n", "")


@pytest.mark.parametrize("batch", [False, True], ids=["plain", "batch"])
def test_a_handler_that_forks(backend, address, batch):
    """The parent answers. In the child the loop ends when the handler returns, and nobody hears anything of it."""
    code = """
pid = os.getpid()
hooks = []
server.on_disconnect(lambda client, reason: hooks.append(reason))
server.on_state(lambda old, new: new.name == "SERVING" and print(server.addresses[0], flush=True))

def fork(client, request):
    child = os.fork()
    if child == 0:
        # What comes now has the number that the client's data socket had.
        global taken
        taken = [os.pipe() for _ in range(20)]
        os.set_blocking(taken[0][0], False)
        return b"from the child"
    os.waitpid(child, 0)
    return b"from the parent"

if sys.argv[3] == "True":
    server.batch_service("fork")(lambda clients, requests: [fork(clients[0], requests[0])] * len(requests))
else:
    server.service("fork")(fork)
try:
    server.serve_forever()
    print("parent", server.state.name, len(hooks))
except pysock.PysockError as error:
    assert os.getpid() != pid
    for read, write in taken:
        os.set_blocking(read, False)
        try:
            print("written to a pipe:", os.read(read, 100))
        except BlockingIOError:
            pass
    print("child", server.state.name, f"belongs to process {pid}" in str(error), hooks, flush=True)
    os._exit(0)
"""
    with program(code, address, backend, str(batch)) as it:
        where = it.line()
        with RawPeer.connect(where) as peer, RawPeer.connect(where) as other:
            peer.hello()
            other.hello()
            peer.srm(b"a", request_id=1)
            assert peer.frame().payload == b"A"
            peer.srm(b"x", request_id=2, service=2)
            assert peer.frame()[3:] == (2, b"from the parent")
            other.srm(b"b", request_id=3)
            assert other.frame()[3:] == (3, b"B")
            assert it.line() == "child CLOSED True []"
            it.signal(signal.SIGTERM)
            peer.rest()
            other.rest()
        assert it.end() == (0, "parent CLOSED 2\n", "")


@pytest.mark.parametrize("hook", ["on_connect", "on_disconnect", "on_state"])
def test_a_hook_that_forks(backend, unix_address, hook):
    """As a handler: in the child the loop ends when the hook returns, and no other hook is called for what it had."""
    code = """
pid, calls = os.getpid(), []

def fork(*about):
    if sys.argv[3] == "on_state" and about[1].name != "DRAINING":
        return
    calls.append(os.getpid())
    child = os.fork()
    if child:
        assert ended(child) == 0
    return True

getattr(server, sys.argv[3])(fork)
server.on_state(lambda old, new: new.name == "SERVING" and print("serving", flush=True))
try:
    server.serve_forever()
    print(len(calls), server.state.name)
except pysock.PysockError:
    os._exit(os.getpid() == pid or len(calls) > 3)
"""
    with program(code, unix_address, backend, hook) as it:
        assert it.line() == "serving"
        with ExitStack() as stack:
            for _ in range(3):
                peer = stack.enter_context(RawPeer.connect(unix_address))
                peer.hello()
                peer.srm(b"x")
                assert peer.frame().payload == b"X"
        it.signal(signal.SIGTERM)
        assert it.end() == (0, f"{1 if hook == 'on_state' else 3} CLOSED\n", "")


def test_a_background_handler_that_forks(backend, unix_address):
    """In the child the loop's thread ends, and with it the process: it is the only one there."""
    code = """
import logging
logging.basicConfig(level=logging.ERROR)

@server.service("fork")
def fork(client, request):
    pid = os.fork()
    return b"" if pid == 0 else b"%d" % ended(pid)

server.start()
client = pysock.connect(server.addresses[0], backend=backend)
print(client.request(b"", service="fork"), client.request(b"still there"), flush=True)
client.close()
server.stop()
"""
    with program(code, unix_address, backend) as it:
        code, out, err = it.end()
        assert (code, out) == (0, "b'0' b'STILL THERE'\n"), err
        assert "ended because of an exception" in err
        assert "of which this one is a forked child" in err


def test_signals_in_a_child_of_serve_forever(backend, unix_address):
    """The child is no server: SIGTERM ends it as any process, and the parent still drains at one."""
    code = """
child = None

@server.service("child")
def make(client, request):
    global child
    # What comes before the child is ready is thrown away by Python.
    ready = os.pipe()
    child = forked(lambda: (os.write(ready[1], b"x"), time.sleep(60)))
    os.read(ready[0], 1)
    return b"%d" % child

server.on_state(lambda old, new: new.name == "SERVING" and print("serving", flush=True))
server.serve_forever()
print(ended(child))
"""
    with program(code, unix_address, backend) as it:
        assert it.line() == "serving"
        with connect(unix_address, backend=backend) as client:
            child = int(client.request(b"", service="child"))
            os.kill(child, signal.SIGTERM)
            assert client.request(b"still there") == b"STILL THERE"
        it.signal(signal.SIGTERM)
        assert it.end() == (0, f"{-signal.SIGTERM}\n", "")


SPAWN = """
import multiprocessing, sys, pysock

def ask(address, backend):
    with pysock.connect(address, backend=backend) as client:
        return client.request(b"from a child")

if __name__ == "__main__":
    address, backend, method = sys.argv[1:]
    with pysock.Server(address, backend=backend) as server:
        pass
    server = pysock.Server(address, backend=backend)
    server.service(lambda client, request: request.upper())
    server.start()
    client = pysock.connect(address, backend=backend)
    with multiprocessing.get_context(method).Pool(2) as pool:
        print(pool.starmap(ask, [(address, backend)] * 4), client.request(b"x"))
    client.close()
    server.stop()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(backend, unix_address, socket_dir, method):
    """Children of every kind may be clients of the parent's server."""
    path = socket_dir / "program.py"
    path.write_text(SPAWN)
    code = "import runpy, sys; sys.argv[0] = sys.argv.pop(1); runpy.run_path(sys.argv[0], run_name='__main__')"
    # A spawned child imports the program by its path.
    done = run_python(code, str(path), unix_address, backend, method, PYTHONWARNINGS=QUIET)
    assert (done.returncode, done.stdout) == (0, f"{[b'FROM A CHILD'] * 4} b'X'\n"), done.stderr


@pytest.mark.parametrize("extra", ["", "preexec_fn=lambda: None", "close_fds=False"])
def test_subprocess(backend, address, extra):
    """What is started by exec inherits nothing of ours, even where descriptors aren't closed for it."""
    code = f"""
import subprocess
server.start()
client = pysock.connect(server.addresses[0], backend=backend)
listing = "import os; os.system('ls -l /proc/$PPID/fd | grep -c -e socket -e epoll')"
print(subprocess.run([sys.executable, "-c", listing], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, {extra}).stdout)
print(client.request(b"still there"))
client.close()
server.stop()
"""
    with program(code, address, backend) as it:
        assert it.end() == (0, "b'0\\n'\nb'STILL THERE'\n", "")


def test_a_server_that_was_not_started_may_be_started_in_a_child(backend, unix_address):
    """So the program may configure first and fork then."""
    code = """
def serve():
    server.start()
    with pysock.connect(address, backend=backend) as client:
        print(client.request(b"in the child"))
    server.stop()

assert ended(forked(serve)) == 0
server.start()
server.stop()
"""
    with program(code, unix_address, backend) as it:
        assert it.end() == (0, "b'IN THE CHILD'\n", "")


def test_forks_while_clients_come_and_go(backend, address):
    """At whatever moment: each child has closed every descriptor, and nobody's request is lost."""
    code = """
server.start()
print(server.addresses[0], flush=True)
while server.stats()["accepted"] < 20:
    time.sleep(0.001)
gate = os.pipe()
before.update(dict.fromkeys(gate))
left = lambda: os.write(gate[1], b"".join(name.encode() + b" " for name in more()))
for _ in range(150):
    assert ended(forked(left)) == 0
os.close(gate[1])
print(os.read(gate[0], 10_000), flush=True)
sys.stdin.readline()
server.stop()
"""
    over, failures, rounds = threading.Event(), [], [0] * 4
    with program(code, address, backend) as it:
        where = it.line()

        def come_and_go(number):
            try:
                while not over.is_set():
                    with RawPeer.connect(where) as peer:
                        peer.hello()
                        peer.srm(b"x", request_id=7)
                        assert peer.frame()[3:] == (7, b"X")
                    rounds[number] += 1
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            assert it.line() == "b''"
        finally:
            over.set()
            for thread in threads:
                thread.join(PATIENCE)
        assert failures == []
        assert min(rounds) > 5
        assert it.end()[0] == 0


def test_a_child_of_c_code_that_forks_by_itself_leaves_the_server_alone(backend, unix_address):
    """Python's hooks don't run there; ``stop`` at least knows that the process is another."""
    code = """
import ctypes
server.start()
child = ctypes.PyDLL(None).fork()
if child == 0:
    server.stop()
    os._exit(7)
assert ended(child) == 7
with pysock.connect(address, backend=backend) as client:
    print(client.request(b"still there"))
server.stop()
"""
    with program(code, unix_address, backend) as it:
        assert it.end() == (0, "b'STILL THERE'\n", "")


def test_a_fork_that_fails_holds_nothing_up(backend, unix_address):
    """Where there may be no more processes the parent goes on as if nothing had been."""
    code = """
import errno, resource
server.start()
client = pysock.connect(address, backend=backend)
if os.getuid() == 0:
    os.setuid(65534)  # root may have as many as it likes
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
for _ in range(3):
    try:
        os.fork() or os._exit(0)
    except BlockingIOError:
        print(client.request(b"refused"), server.stats()["clients"])
client.close()
os._exit(0)
"""
    with program(code, unix_address, backend) as it:
        assert it.end() == (0, "b'REFUSED' 1\n" * 3, "")


def test_a_descriptor_that_nobody_owns_is_seen(backend, unix_address):
    """That is how the tests above would notice one that is left open."""
    code = """
server.start()
import socket
stray = socket.socket()
assert ended(forked(lambda: print(len(more())))) == 0
server.stop()
"""
    with program(code, unix_address, backend) as it:
        assert it.end()[1] == "1\n"
