"""The page itself: who lays it out, who reads it, what becomes of bad ones; and the values that are read from it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile

import pytest

import pysock
from pysock.engine.meter import BUCKETS, ROW, bucket_of, edge_of
from pysock.metrics import Histogram, Page, make
from pysock.metrics.snapshot import EDGES

PROGRAM = """
import sys, pysock
server = pysock.Server(sys.argv[1], backend=sys.argv[2], metrics=int(sys.argv[3]))
server.service("echo")(lambda client, request: request)
with server:
    print("serves", flush=True)
    sys.stdin.read()
"""


def test_a_supervisor_reads_a_worker_that_it_has_killed(unix_address, backend):
    """The memory is the reader's: what was counted stays."""
    fd = make()
    page = Page.open(fd)
    assert page.read() is None
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, unix_address, backend, str(fd)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[fd],
    ) as worker:  # fmt: skip
        assert worker.stdout.readline() == b"serves\n"
        os.close(fd)
        with pysock.connect(unix_address) as client:
            client.request_many([b"x"] * 10, "echo")
            snapshot = until(page, lambda snapshot: snapshot.requests.get(("echo", "OK")) == 10)
            assert snapshot.pid == worker.pid
            worker.send_signal(signal.SIGKILL)
            worker.wait()
    snapshot = page.read()
    assert snapshot.requests == {("echo", "OK"): 10}
    assert snapshot.counters["established"] == 1
    page.close()
    page.close()


def until(page, holds):
    """What it says when that holds; a loop tells of what it has done within a twentieth of a second."""
    while True:
        snapshot = page.read()
        if snapshot is not None and holds(snapshot):
            return snapshot


def test_a_server_without_a_page(unix_address, backend):
    assert pysock.Server(unix_address, backend=backend).metrics is None
    assert pysock.Server(unix_address, backend=backend, metrics=False).metrics is None


@pytest.mark.parametrize("metrics", ["yes", 1.5, 99999])
def test_what_cant_be_a_page(unix_address, metrics):
    with pytest.raises(ValueError, match="metrics") as caught:
        pysock.Server(unix_address, metrics=metrics)
    assert caught.value.parameter == "metrics"


def test_a_page_is_of_one_server(make_server, unix_address):
    """Its numbers would be mixed up with another's. Nothing is left of the second."""
    first = make_server(unix_address, metrics=True)
    first.start()
    second = make_server(f"{unix_address}2", metrics=first.metrics)
    with pytest.raises(ValueError, match="empty"):
        second.start()
    assert not os.path.exists(f"{unix_address}2".removeprefix("unix:"))


def test_it_can_be_asked_for_until_the_start(make_server, unix_address):
    server = make_server(unix_address)
    server.measure()
    server.start()
    assert server.metrics.read() is not None
    with pytest.raises(pysock.PysockError, match="runs"):
        server.measure()


def test_a_file_that_is_no_page():
    with tempfile.TemporaryFile() as file:
        file.write(b"something else altogether" * 10)
        file.flush()
        page = Page.open(file.fileno())
        with pytest.raises(pysock.PysockError, match="no metrics page"):
            page.read()


def test_a_page_of_another_version():
    page = Page.new()
    page.lay_out(["", "echo"], "pure")
    os.pwrite(page.fd, b"\xff", 8)
    with pytest.raises(pysock.PysockError, match="another version"):
        page.read()


@pytest.mark.skipif(sys.platform != "linux", reason="only memfds are sealed")
def test_a_page_cant_be_cut_off_under_its_readers():
    page = Page.new()
    page.lay_out([""], "pure")
    assert fcntl.fcntl(page.fd, 1034)  # F_GET_SEALS
    with pytest.raises(PermissionError):
        os.ftruncate(page.fd, 10)


def test_ten_thousand_services():
    """It is as long as it is, but takes memory for those only that are called."""
    page = Page.new()
    meter = page.lay_out([f"s{number}" for number in range(10_000)], "pure")
    meter.rows[ROW * 9_999] = 3
    meter.rows[ROW * 10_000 + 2] = 1
    assert page.read().requests == {("s9999", "OK"): 3, ("(unknown)", "NO_SUCH_SERVICE"): 1}
    assert os.fstat(page.fd).st_blocks * 512 < 1 << 20


# --- values ---


def test_buckets_are_four_to_each_power_of_two():
    assert EDGES[0] == 1280e-9
    assert EDGES[3] == 2048e-9
    assert 64 < EDGES[-1] < 70
    for bucket in range(BUCKETS - 1):
        edge = round(edge_of(bucket) * 1e9)
        assert (bucket_of(edge - 1), bucket_of(edge)) == (bucket, bucket + 1)
    assert bucket_of(0) == 0
    assert bucket_of(10**15) == BUCKETS - 1


def test_quantiles_and_sums():
    counts = [0] * BUCKETS
    counts[bucket_of(1_000_000)], counts[bucket_of(80_000_000)] = 90, 10
    one = Histogram(tuple(counts), 0.89)
    assert one.count == 100
    assert one.quantile(0.5) == pytest.approx(0.001, rel=0.25)
    assert one.quantile(0.99) == pytest.approx(0.08, rel=0.25)
    assert one.up_to(0.01) == 90
    assert (one + one).count == 200
    assert ((one + one) - one) == one
    assert Histogram((0,) * BUCKETS, 0.0).quantile(0.99) == 0


def test_what_is_left_of_a_worker_only_grows(make_server, unix_address):
    """Its totals stay, what it had then doesn't; and sums of several go by name."""
    server = make_server(unix_address, metrics=True)
    server.service("echo")(lambda client, request: request)
    server.start()
    with pysock.connect(unix_address) as client:
        client.request(b"", "echo")
        snapshot = until(server.metrics, lambda snapshot: snapshot.requests)
    left = snapshot.retired()
    assert snapshot.counters["clients"] == 1
    assert left.counters["clients"] == left.pid == 0
    assert left.counters["established"] == 1
    both = left + snapshot
    assert both.requests == {("echo", "OK"): 2}
    assert both.counters["clients"] == 1
    assert both.counters["established"] == 2
    assert both.histograms["echo"].count == 2
