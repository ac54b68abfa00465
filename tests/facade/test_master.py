from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys

import pytest
from support import environment, plug, run_python

from pysock import Address, AddressInUse, MasterSocket, ServerState
from pysock.states import SERVER_TRANSITIONS, IllegalTransition, ServerEvent

# The steps


def test_the_states_of_the_classical_steps(master):
    seen = [master.state]
    for step in (master.remove_stale, master.create, master.bind, master.listen, master.close):
        step()
        seen.append(master.state)
    assert [state.name for state in seen] == ["NEW", "NEW", "CREATED", "BOUND", "LISTENING", "CLOSED"]


def test_each_step_logs_what_it_did(master, caplog):
    caplog.set_level("DEBUG", "pysock.server")
    for step in (master.create, master.bind, master.listen):
        step()
    fd = master.fd
    with plug(master.address) as client:
        data = master.accept()
        client.sendall(b"x")
        data.recv()
        data.send(b"y")
        data.close()
    master.close()
    said = [re.split(r"\(", record.getMessage())[0] for record in caplog.records]
    unix = master.address.transport == "unix"
    steps = ["bind", "listen", "accept", "recvfrom", "sendto", "close", "close"]
    assert said == ["socket", *["flock"] * unix, *steps, *["unlink", "unlink"] * unix]
    assert f"bind({fd}, " in caplog.text


STEPS = {
    ServerEvent.CREATE: MasterSocket.create,
    ServerEvent.BIND: MasterSocket.bind,
    ServerEvent.LISTEN: MasterSocket.listen,
    ServerEvent.ADOPT: MasterSocket.adopt,
}
WAY = {
    ServerState.NEW: [],
    ServerState.CREATED: ["create"],
    ServerState.BOUND: ["create", "bind"],
    ServerState.LISTENING: ["create", "bind", "listen"],
    ServerState.CLOSED: ["close"],
}
ILLEGAL = [pair for pair in itertools.product(WAY, STEPS) if pair not in SERVER_TRANSITIONS]


@pytest.mark.parametrize(("state", "event"), ILLEGAL, ids=lambda value: value.name)
def test_a_step_out_of_order_raises_and_changes_nothing(backend, unix_address, state, event):
    with MasterSocket(unix_address, backend) as master:
        for step in WAY[state]:
            getattr(master, step)()
        before = (master.state, master.fd, master.address, os.path.exists(master.address.path))
        with pytest.raises(IllegalTransition, match=f"a server that is {state.name} can't {event.name}"):
            STEPS[event](master)
        assert (master.state, master.fd, master.address, os.path.exists(master.address.path)) == before


@pytest.mark.parametrize("state", [ServerState.NEW, ServerState.CREATED, ServerState.BOUND, ServerState.CLOSED])
def test_accept_needs_a_listening_socket(backend, unix_address, state):
    with MasterSocket(unix_address, backend) as master:
        for step in WAY[state]:
            getattr(master, step)()
        with pytest.raises(IllegalTransition, match=f"a master socket that is {state.name} can't ACCEPT"):
            master.accept()


@pytest.mark.parametrize("state", [ServerState.BOUND, ServerState.LISTENING, ServerState.CLOSED])
def test_a_bound_master_socket_does_not_take_its_own_file_for_a_stale_one(backend, unix_address, state):
    with MasterSocket(unix_address, backend) as master:
        for step in WAY[state]:
            getattr(master, step)()
        with pytest.raises(IllegalTransition, match="can't remove a stale file any more"):
            master.remove_stale()
        assert os.path.exists(master.address.path) is (state is not ServerState.CLOSED)


def test_a_failed_step_leaves_the_state_as_it_was(backend, unix_address, socket_dir):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(socket_dir / "s"))
    with MasterSocket(unix_address, backend) as master:
        master.create()
        with pytest.raises(AddressInUse, match=r"a dead server's socket, remove_stale\(\) removes it"):
            master.bind()
        assert master.state is ServerState.CREATED
        (socket_dir / "s").unlink()
        master.bind()
        assert master.state is ServerState.BOUND


def test_close_can_be_called_again(master):
    master.create()
    master.close()
    master.close()
    assert (master.state, master.fd) == (ServerState.CLOSED, -1)


def test_the_real_address(listening, transport):
    if transport == "tcp":
        assert listening.address.port > 0
        assert str(listening.address) == f"tcp://127.0.0.1:{listening.address.port}"
    else:
        assert str(listening.address).startswith("unix:/tmp/")


def test_its_repr_says_where_it_is(listening):
    assert repr(listening) == f"<MasterSocket {listening.address} LISTENING fd={listening.fd}>"


def test_the_descriptor_is_not_inherited(listening, pair):
    assert os.get_inheritable(listening.fd) is False
    assert os.get_inheritable(pair[1].fd) is False


# Other addresses


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="abstract names are Linux's")
def test_an_abstract_name(backend):
    name = f"unix:@pysock-test-{os.getpid()}"
    with MasterSocket(name, backend) as master, MasterSocket(name, backend) as second:
        assert master.remove_stale() is False
        for step in (master.create, master.bind, master.listen):
            step()
        with plug(name) as client, master.accept() as data:
            client.sendall(b"hello")
            assert data.recv() == b"hello"
        second.create()
        with pytest.raises(AddressInUse, match="a live server listens there; stop it or choose another name"):
            second.bind()


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6(backend):
    with MasterSocket("tcp://[::1]:0", backend) as master:
        master.create()
        try:
            master.bind()
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                pytest.skip("this machine has no IPv6 loopback")
            raise
        master.listen()
        with plug(master.address) as client, master.accept() as data:
            assert data.address == f"[::1]:{client.getsockname()[1]}"


def test_a_port_that_is_taken(backend):
    with MasterSocket("127.0.0.1:0", backend) as first:
        first.create()
        first.bind()
        first.listen()
        with MasterSocket(first.address, backend) as second:
            second.create()
            with pytest.raises(
                AddressInUse, match="another socket has that port; stop its program or choose"
            ) as caught:
                second.bind()
            assert caught.value.errno == errno.EADDRINUSE
            assert str(first.address) in str(caught.value)


def test_a_port_that_was_bound_by_two_is_listened_at_by_one(backend):
    """With SO_REUSEADDR the kernel finds out at listen() only."""
    with MasterSocket("127.0.0.1:0", backend) as first:
        first.create()
        first.bind()
        with MasterSocket(first.address, backend) as second:
            second.create()
            second.bind()
            first.listen()
            with pytest.raises(AddressInUse, match="another socket has that port"):
                second.listen()
            assert second.state is ServerState.BOUND


def test_an_interface_that_this_machine_does_not_have(backend):
    with MasterSocket("192.0.2.1:0", backend) as master:
        master.create()
        with pytest.raises(OSError, match=r"this machine has no interface with the address '192\.0\.2\.1'"):
            master.bind()


def test_a_host_that_cannot_be_resolved(backend):
    with MasterSocket("no.such.host.invalid:9", backend) as master:
        with pytest.raises(OSError, match="can't be resolved"):
            master.create()
        assert master.state is ServerState.NEW


def test_an_inherited_socket_is_adopted(backend, socket_dir):
    path = socket_dir / "s"
    inherited = socket.socket(socket.AF_UNIX)
    inherited.bind(str(path))
    inherited.listen()
    with MasterSocket(f"fd://{inherited.fileno()}", backend) as master:
        with pytest.raises(ValueError, match=r"exists already: adopt\(\) it instead"):
            master.create()
        master.adopt()
        assert master.fd == inherited.detach()
        with plug(f"unix:{path}") as client, master.accept() as data:
            client.sendall(b"hello")
            assert data.recv() == b"hello"
    assert path.exists()  # it isn't ours to remove
    with pytest.raises(ConnectionRefusedError):
        plug(f"unix:{path}")


def test_only_listening_sockets_can_be_adopted(backend):
    with socket.socket(socket.AF_UNIX) as sock, open(os.devnull) as file:
        with pytest.raises(OSError, match="isn't a listening stream socket"):
            MasterSocket(f"fd://{sock.fileno()}", backend).adopt()
        with pytest.raises(OSError, match="that isn't a socket of this process"):
            MasterSocket(f"fd://{file.fileno()}", backend).adopt()
        assert os.fstat(file.fileno())  # still open
    with pytest.raises(OSError, match=r"that isn't a socket of this process \(Bad file descriptor\)"):
        MasterSocket("fd://987654", backend).adopt()


def test_an_address_that_is_no_inherited_socket_cannot_be_adopted(backend, unix_address):
    with pytest.raises(ValueError, match=r"isn't an inherited socket: create\(\) it instead"):
        MasterSocket(unix_address, backend).adopt()


def test_the_backlog_is_what_the_address_says(backend, unix_address):
    with MasterSocket(f"{unix_address}?backlog=1", backend) as master:
        for step in (master.create, master.bind, master.listen):
            step()
        waiting = []
        try:
            waiting.extend(plug(unix_address) for _ in range(2))  # Linux lets one more wait than it was told
            with socket.socket(socket.AF_UNIX) as late:
                late.setblocking(False)
                assert late.connect_ex(Address.parse(unix_address).path) == errno.EAGAIN
        finally:
            for sock in waiting:
                sock.close()


# What the kernel sees

BY_HAND = """
import sys, threading, socket
from pysock import MasterSocket, Address
address, backend = sys.argv[1:]
with MasterSocket(address, backend) as master:
    master.remove_stale()
    master.create()
    master.bind()
    master.listen()
    print("ready", master.fd, flush=True)
    data = master.accept()
    print("accepted", data.fd, flush=True)
    data.send(data.recv())
    data.close()
"""

CALLS = "socket,bind,listen,accept,accept4,connect,recvfrom,recvmsg,read,sendto,sendmsg,write,close,unlink,unlinkat"


def trace(tmp_path, backend, path):
    """The system calls on sockets, as (name, the rest), of one conversation by hand."""
    log = tmp_path / "trace"
    command = [
        "strace",
        "-f",
        "-o",
        str(log),
        "-e",
        f"trace={CALLS}",
        sys.executable,
        "-c",
        BY_HAND,
        f"unix:{path}",
        backend,
    ]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        master_fd = process.stdout.readline().split()[1]
        with plug(f"unix:{path}") as client:
            data_fd = process.stdout.readline().split()[1]
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
            assert client.recv(100) == b""
    lines = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]
    calls = [match.groups() for line in lines if (match := re.match(r"(\w+)\((.*)", line))]
    return calls, master_fd, data_fd


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace isn't installed")
@pytest.mark.parametrize("stale", [False, True], ids=["nothing there", "a stale file"])
def test_the_sequence_of_system_calls(tmp_path, backend, socket_dir, stale):
    path = socket_dir / "s"
    before = []
    if stale:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        before = ["socket", "connect", "unlink"]
    calls, master_fd, data_fd = trace(tmp_path, backend, path)

    started = next(
        number for number, (name, rest) in enumerate(calls) if name == "socket" and rest.startswith("AF_UNIX")
    )
    listening = next(number for number, (name, _) in enumerate(calls) if name == "listen")
    fds = (master_fd, data_fd)
    seen = [
        (name, rest)
        for number, (name, rest) in enumerate(calls)
        if number >= started
        and (name in {"socket", "bind", "connect", "unlink"} or re.split(r"[,)]", rest)[0] in fds)
        # Before that the numbers are still those of others: of the directory, of the lock file ...
        and (number >= listening or name != "close")
    ]
    assert [name for name, _ in seen] == [
        *before,
        *["socket", "bind", "listen", "accept4", "recvfrom", "sendto", "close", "close", "unlink", "unlink"],
    ]
    last = [re.split(r"[,)]", rest)[0] for name, rest in seen[-10:]]
    assert last[1:8] == [master_fd, master_fd, master_fd, data_fd, data_fd, data_fd, master_fd]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace isn't installed")
def test_no_byte_is_read_from_or_written_to_the_master_socket(tmp_path, backend, socket_dir):
    calls, master_fd, _ = trace(tmp_path, backend, socket_dir / "s")
    bound = next(number for number, (name, rest) in enumerate(calls) if name == "bind")
    moving = {"recvfrom", "recvmsg", "read", "sendto", "sendmsg", "write"}
    assert not [call for call in calls[bound:] if call[0] in moving and call[1].startswith(f"{master_fd},")]


def test_an_interrupted_accept_ends_with_the_interrupt(backend, unix_address):
    code = """
import os, signal, sys, threading
from pysock import MasterSocket
with MasterSocket(sys.argv[1], sys.argv[2]) as master:
    master.create(); master.bind(); master.listen()
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        master.accept()
    except KeyboardInterrupt:
        print("interrupted")
"""
    done = run_python(code, unix_address, backend)
    assert done.stdout == "interrupted\n", done.stderr
