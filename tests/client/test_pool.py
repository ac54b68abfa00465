"""Several connections, for threads and for tasks."""

from __future__ import annotations

import asyncio
import threading

import pytest
from restarted import FAST
from support import wait_for

import pysock
from pysock import ConnectionLost, aio


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2"])
@pytest.mark.parametrize("kind", [pysock.Pool, aio.Pool])
def test_the_size_is_a_number_from_1_on(kind, wrong):
    with pytest.raises(ValueError, match="a pool's size must be a number of connections from 1 on"):
        kind("unix:/x", wrong)


def test_there_are_as_many_as_are_needed(server, backend):
    server.start()
    with pysock.Pool(server.address, 3, "pool", backend=backend) as pool:
        assert (len(pool), len(server.server.clients)) == (1, 1)
        for _ in range(5):
            assert pool.request(b"x") == b"X"
        assert len(pool) == 1
        barrier = threading.Barrier(5)

        def work():
            barrier.wait()
            for _ in range(20):
                assert pool.request_many([b"a", b"slow"[:1]]) == [b"A", b"S"]
                assert pool.request(b"x", idempotent=True) == b"X"
                pool.notify(b"y")

        threads = [threading.Thread(target=work) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert 1 <= len(pool) <= 3
        assert {client.name for client in server.server.clients.values()} == {"pool"}
        assert repr(pool).startswith(f"<Pool {len(pool)} of 3 open ")
    with pytest.raises(ConnectionLost, match="this pool is closed"):
        pool.request(b"x")
    wait_for(lambda: server.ran.count(b"y") == 100)


def test_slow_calls_go_side_by_side(server, backend):
    server.start()
    with pysock.Pool(server.address, 2, backend=backend) as pool:
        threads = [threading.Thread(target=pool.request, args=(b"slow",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(pool) == 2)
        for thread in threads:
            thread.join(10)


def test_it_heals(server, backend):
    server.start()
    with pysock.Pool(server.address, 2, backend=backend, reconnect=FAST) as pool:
        assert pool.request(b"x") == b"X"
        server.restart()
        assert pool.request(b"x") == b"X"
    with pysock.Pool(server.address, 2, backend=backend, reconnect=False) as pool:
        server.restart()
        with pytest.raises(ConnectionLost):
            pool.request(b"x")
        assert pool.request(b"x") == b"X"  # a plain one that has ended is replaced


def test_what_is_wrong_is_told_at_once(backend, unix_address):
    with pytest.raises(FileNotFoundError):
        pysock.Pool(unix_address, 2, backend=backend, reconnect=False)
    with pytest.raises(ValueError, match="heartbeat"):
        aio.Pool(unix_address, 2, heartbeat=-1)


def test_tasks_share_them(run, server, backend):
    async def main():
        async with aio.Pool(server.address, 3, "pool", backend=backend, reconnect=FAST) as pool:
            assert len(pool) == 1
            assert await asyncio.gather(*(pool.request(b"%d" % n) for n in range(50))) == [b"%d" % n for n in range(50)]
            assert len(pool) == 3
            assert await pool.request_many([b"a", b"b"]) == [b"A", b"B"]
            await pool.notify(b"y")
            await asyncio.to_thread(server.restart)
            assert await pool.request(b"x") == b"X"
        with pytest.raises(ConnectionLost, match="this pool is closed"):
            await pool.request(b"x")

    server.start()
    run(main())


def test_tasks_wait_for_the_first(run, server, backend):
    async def main():
        pool = aio.Pool(server.address, 1, backend=backend)
        assert await asyncio.gather(*(pool.request(b"x") for _ in range(20))) == [b"X"] * 20
        assert len(pool) == 1
        await pool.aclose()

    server.start()
    run(main())
