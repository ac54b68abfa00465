"""Descriptors that the program closes under a server or a client: it ends, and leaves the numbers to others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import environment, left_in

PROGRAM = """
import os, sys, threading, time, logging
import pysock
logging.basicConfig(format="LOG %(levelname)s %(message)s", stream=sys.stdout)
backend, address = sys.argv[1:]
server = pysock.Server(address, backend=backend)

def close_all():
    os.closerange(3, 200)

def take_numbers():
    # Pipes: both whether something is written to them and whether they are open can be seen.
    return [os.pipe2(os.O_NONBLOCK) for _ in range(60)]

def wait_for_the_end():
    while server.state.name != "CLOSED":
        time.sleep(0.01)

def check(pipes):
    for read, write in pipes:
        os.fstat(write)
        try:
            print("written to", os.read(read, 100))
        except BlockingIOError:
            pass

@server.service()
def echo(client, request):
    return request

@server.service("close")
def close(client, request):
    global pipes
    close_all()
    pipes = take_numbers()
    return b"x"
"""

STOP_AFTER = """
server.start()
client = pysock.connect(address, backend=backend)
assert client.request(b"x") == b"x"
close_all()
{between}
server.stop()
print(server.state.name)
client.close()
check(pipes)
"""

IN_A_HANDLER = """
server.start()
peer = os.fork()
if not peer:
    try:
        pysock.connect(address, backend=backend, timeout=5).request(b"x", service="close")
    except Exception:
        pass
    os._exit(0)
os.waitpid(peer, 0)
server.stop()
print(server.state.name)
check(pipes)
"""

FOREVER = """
def later():
    global pipes
    while server.state.name != "SERVING":
        time.sleep(0.001)
    close_all()
    pipes = take_numbers()
thread = threading.Thread(target=later)
thread.start()
server.serve_forever()
thread.join()
print(server.state.name)
check(pipes)
"""

CLIENT = """
server.start()
client = pysock.connect(address, backend=backend)
data = pysock.MasterSocket(address + "2", backend=backend)
data.create(); data.bind(); data.listen()
close_all()
pipes = take_numbers()
client.close()
data.close()
check(pipes)
server.stop()
print(server.state.name)
check(pipes)
"""

BY_HAND = """
master = pysock.MasterSocket(address, backend=backend)
master.create(); master.bind(); master.listen()
import socket
peer = socket.socket(socket.AF_UNIX); peer.connect(address.removeprefix("unix:")); peer.detach()
data = master.accept()
close_all()
pipes = take_numbers()
data.close(); master.close()
check(pipes)
print("CLOSED")
"""

POLL_ALONE = """
import socket
server.start()
peer = socket.socket(socket.AF_UNIX)
peer.connect(address.removeprefix("unix:"))
while not server.stats()["accepted"]:
    time.sleep(0.01)
for number in range(3, 100):
    try:
        if "eventpoll" in os.readlink(f"/proc/self/fd/{number}"):
            os.close(number)
    except FileNotFoundError:
        pass
pipes = take_numbers()
BETWEEN
server.stop()
assert peer.recv(100)[-1:] != b"x"
while peer.recv(100):
    pass
peer.close()
print(server.state.name)
check(pipes)
"""

#: A handler closes the number of its client, and opens something that gets it.
ONE_CLIENT = """
import socket
other = []

@server.service("steal")
def steal(client, request):
    number = client.fd
    os.close(number)
    other.append(number)
    if TAKES == "a pipe":
        other.append(os.pipe()[1])
    elif TAKES == "a file":
        other.append(os.open(os.devnull, os.O_RDWR))
    elif TAKES == "a socket":
        other.extend(one.detach() for one in socket.socketpair())
    if len(other) > 1:
        os.dup2(other[1], number)
    return b"reply"

server.start()
with pysock.connect(address, backend=backend, timeout=5) as witness, pysock.connect(address, backend=backend) as client:
    try:
        client.request(b"x", service="steal")
    except pysock.ConnectionLost:
        print("lost")
    assert witness.request(b"y") == b"y"
    if TAKES == "a socket":
        print("told", os.read(other[2], 100)[12:])
    else:
        while len(server.clients) > 1:
            time.sleep(0.01)
server.stop()
print(server.state.name)
if len(other) > 1:
    print("still there", os.path.sameopenfile(other[0], other[1]))
"""

LOST = "LOG ERROR the program has closed the descriptors of this server under it: it ends"


def run(body: str, backend: str, directory: Path) -> list[str]:
    command = [sys.executable, "-c", PROGRAM + body, backend, f"unix:{directory}/s"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert left_in(directory) == []
    return sorted(done.stdout.splitlines())


@pytest.mark.parametrize(
    "between", ["pipes = []", "pipes = take_numbers()", "pipes = take_numbers(); wait_for_the_end()"]
)
def test_stop_after_closerange_ends(backend: str, socket_dir: Path, between: str) -> None:
    assert run(STOP_AFTER.format(between=between), backend, socket_dir) == ["CLOSED", LOST]


@pytest.mark.parametrize("body", [IN_A_HANDLER, FOREVER])
def test_it_ends_by_itself_and_touches_no_number(backend: str, socket_dir: Path, body: str) -> None:
    assert run(body, backend, socket_dir) == ["CLOSED", LOST]


def test_a_client_and_a_master_socket_leave_foreign_numbers_alone(backend: str, socket_dir: Path) -> None:
    assert run(CLIENT, backend, socket_dir) == ["CLOSED", LOST]


def test_sockets_used_by_hand_leave_foreign_numbers_alone(backend: str, socket_dir: Path) -> None:
    assert run(BY_HAND, backend, socket_dir) == ["CLOSED"]


@pytest.mark.parametrize("between", ["", "wait_for_the_end()"])
def test_only_its_poll_is_closed(backend: str, socket_dir: Path, between: str) -> None:
    """Its clients are told, and the number stays somebody else's."""
    assert run(POLL_ALONE.replace("BETWEEN", between), backend, socket_dir) == ["CLOSED", LOST]


@pytest.mark.parametrize("takes", ["nothing", "a pipe", "a file", "a socket"])
def test_only_one_clients_number_is_closed(backend: str, socket_dir: Path, takes: str) -> None:
    """The others are served, and the number stays somebody else's. But a stream socket that has got it is sent what was
    for the client, as the documentation says (threads.md): to look before each message would cost a system call.
    """
    lines = {"nothing": [], "a socket": ["still there True", "told b'reply'"]}.get(takes, ["still there True"])
    assert run(f"TAKES = {takes!r}\n{ONE_CLIENT}", backend, socket_dir) == sorted(["CLOSED", "lost", *lines])
