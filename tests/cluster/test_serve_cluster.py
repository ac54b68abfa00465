"""``pysock serve --cluster``: a server that isn't told of a cluster by its program is a node, and so is each worker."""

from __future__ import annotations

import signal

import pytest
from crews import PATH, Crew, Held
from programs import Module, pysock_command, serving
from support import wait_for

import pysock

PROGRAM = "clustered:server"


@pytest.fixture
def bus(socket_dir):
    return f"local:{socket_dir}/bus.sock"


def test_a_server_of_a_module_is_a_node(backend, unix_address, bus_url, cluster_name, cluster_node):
    here = cluster_node("here")
    options = ["--bind", unix_address, "--cluster", bus_url, "--cluster-name", cluster_name, "--node", "there"]
    options += ["--cluster-required", "10"]
    with Module("pysock", "serve", PROGRAM, *options, PYSOCK_BACKEND=backend, PYTHONPATH=PATH) as program:
        serving(program)
        wait_for(lambda: [node.name for node in here.cluster.nodes] == ["here", "there"])
        with pysock.connect(unix_address, name="anna") as anna:
            wait_for(lambda: [row.name for row in here.cluster.clients.values()] == ["anna"])
            assert here.cluster.send("anna", b"hello") is True
            assert next(anna.pushes(10)) == b"hello"
        program.signal(signal.SIGTERM)
        assert program.end()[0] == 0
    wait_for(lambda: len(here.cluster.nodes) == 1)


def test_a_handler_is_found_by_the_bus(unix_address, bus):
    options = ["--bind", unix_address, "--cluster", bus, "--cluster-name", "shop"]
    with Module("pysock", "serve", "pysock.examples.upper:upper", *options) as program:
        serving(program)
        with pysock.connect(f"cluster+{bus}?name=shop") as client:
            assert client.request(b"found") == b"FOUND"


def test_each_worker_is_a_node_and_reaches_the_clients_of_the_others(backend, unix_address, bus):
    options = ["--workers", "2", "--cluster", bus, "--node", "web"]
    with Crew(unix_address, *options, program=PROGRAM, PYSOCK_BACKEND=backend) as crew:
        pids = crew.workers(2)
        with Held(crew, 0) as held, pysock.connect(crew.address, name="anna") as anna:
            while {pid_of(client) for client in held.clients} != set(pids.values()):
                held.one_more()
            for client in held.clients:  # one at each worker at least
                wait_for(lambda client=client: client.request(b"anna", "where") != b"")
                assert client.request(b"anna", "tell") == b"True"
                assert next(anna.pushes(10)) == b"told by %d" % pid_of(client)
            wanted = sorted(f"web-{pid}" for pid in pids.values())
            wait_for(lambda: sorted(held.clients[0].request(b"", "nodes").decode().split()) == wanted)
        assert crew.stopped()[0] == 0


def pid_of(client):
    return int(client.request(b"", "pid"))


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--node", "a"], "--node goes with --cluster, which isn't given"),
        (["--unique", "newest"], "--unique goes with --cluster"),
        (["--cluster", "amqp://host"], "--cluster must begin with the kind of the bus"),
        (["--cluster", "local:x/a", "--cluster-name", "b"], "--cluster-name is 'b', and the URL ends with 'a'"),
        (["--cluster", "local:x", "--cluster-name", "a.b"], "--cluster-name must be of 1 to 64 letters"),
        (["--cluster", "local:x", "--node", "a/b"], "--node must have 1 to 128 characters"),
    ],
)
def test_wrong_options(workers, options, words, unix_address):
    done = pysock_command("serve", "pysock.examples.upper:upper", "--bind", unix_address, *options, *workers)
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode().splitlines()[-1]


def test_a_server_that_is_a_node_already(unix_address, bus, tmp_path):
    (tmp_path / "own.py").write_text(
        f"import pysock\nserver = pysock.Server({unix_address!r}, cluster=pysock.Cluster({bus!r}))\n"
    )
    done = pysock_command("serve", "own:server", "--cluster", bus, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert b"this server is a node of a cluster already" in done.stderr


def test_readiness_is_told_by_one_process(unix_address, bus):
    options = ["--cluster", bus, "--cluster-ready", "with-bus", "--workers", "1"]
    done = pysock_command("serve", "pysock.examples.upper:upper", "--bind", unix_address, *options)
    assert done.returncode == 2
    assert b"--cluster-ready is of one process" in done.stderr.splitlines()[-1]


def test_a_bus_that_is_required(unix_address):
    options = ["--cluster", "redis://127.0.0.1:1", "--cluster-required", "0.1"]
    done = pysock_command("serve", "pysock.examples.upper:upper", "--bind", unix_address, *options)
    assert done.returncode == 1
    assert b"can't do without" in done.stderr.splitlines()[-1]
