"""Several servers of one service: which one a client goes to, on both engines, by both kinds of clients."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import socket
import threading
import time
from collections import Counter

import pytest
from restarted import FAST
from support import own_host, wait_for, welcomed

import pysock
from pysock import ConnectionLost, ConnectionRefused, Limits, aio
from pysock.balance.balancer import Balancer
from pysock.balance.targets import checked_targets

#: How many it takes to see that they spread; what is made of C makes more in the same time.
MANY: dict[str, int] = {"native": 400, "pure": 150}


class Group:
    """Servers of one service, each of which says which one it is."""

    def __init__(self, backend, places):
        self.backend = backend
        self.places = places
        self.servers = {}
        self.go_on = threading.Event()

    def start(self, *which, advertise=(), **options):
        for at in which or range(len(self.places)):
            told = [self.places[one] for one in advertise] if advertise else options.pop("told", None)
            server = pysock.Server(self.places[at], backend=self.backend, name=f"s{at}", advertise=told, **options)

            @server.service
            def who(client, request, at=at):
                if request == b"slow":
                    time.sleep(0.2)
                return b"%d" % at

            @server.service("held", threads=1)
            def held(client, request, at=at):
                self.go_on.wait(10)
                return b"%d" % at

            server.start()
            self.servers[at] = server
        return self

    def stop(self, *which, grace=1.0):
        for at in which or tuple(self.servers):
            self.servers.pop(at).stop(grace)

    def counts(self):
        return [len(server.clients) for server in self.servers.values()]

    @property
    def text(self):
        return ",".join(self.places)


@pytest.fixture
def group(backend, socket_dir):
    made = []

    def make(count=3, places=None):
        made.append(Group(backend, places or [f"unix:{socket_dir}/s{at}" for at in range(count)]))
        return made[-1]

    yield make
    for one in made:
        one.stop(grace=0)


class Threads:
    """The blocking client, with the words of the other one."""

    def __init__(self, backend):
        self.backend = backend

    @contextlib.asynccontextmanager
    async def connect(self, *given, **options):
        client = await asyncio.to_thread(pysock.connect, *given, backend=self.backend, **options)
        try:
            yield _Blocking(client)
        finally:
            await asyncio.to_thread(client.close)

    def pool(self, *given, **options):
        return _BlockingPool(given, {"backend": self.backend, **options})


class _Blocking:
    def __init__(self, client):
        self.inner = client

    async def request(self, *given, **options):
        return await asyncio.to_thread(self.inner.request, *given, **options)

    @property
    def balancer(self):
        return self.inner._connections._balancer


class _BlockingPool:
    def __init__(self, given, options):
        self.given, self.options = given, options

    async def __aenter__(self):
        self.inner = await asyncio.to_thread(pysock.Pool, *self.given, **self.options)
        return self

    async def __aexit__(self, *exc_info):
        await asyncio.to_thread(self.inner.close)

    async def request(self, *given, **options):
        return await asyncio.to_thread(self.inner.request, *given, **options)

    def __len__(self):
        return len(self.inner)


class Tasks:
    """The asyncio client."""

    def __init__(self, backend):
        self.backend = backend

    @contextlib.asynccontextmanager
    async def connect(self, *given, **options):
        async with aio.connect(*given, backend=self.backend, **options) as client:
            yield _Async(client)

    def pool(self, *given, **options):
        return aio.Pool(*given, backend=self.backend, **options)


class _Async:
    def __init__(self, client):
        self.inner, self.request = client, client.request

    @property
    def balancer(self):
        return self.inner._keeper._balancer


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "tasks"])
def kind(request, backend):
    """Of a client."""
    return request.param(backend)


async def until(condition):
    await asyncio.to_thread(wait_for, condition)


def chosen(group, mode, seed=7, **options):
    """A balancer whose chance is none."""
    return Balancer(checked_targets(group.text), mode, chance=random.Random(seed), **options)


# One connection


def test_first_is_the_first_that_answers(kind, group):
    async def main():
        for given in (servers.text, servers.places, f" {servers.places[0]} , {','.join(servers.places[1:])}"):
            async with kind.connect(given, balance="first") as client:
                assert await client.request(b"") == b"1"
                assert str(client.inner.address) == servers.places[1]
        async with kind.connect(servers.text) as client:  # as it is by default
            assert await client.request(b"") == b"1"

    servers = group().start(1, 2)
    asyncio.run(main())


def test_round_is_one_after_the_other(kind, group):
    async def main():
        shared, seen = chosen(servers, "round"), []
        for _ in range(6):
            async with kind.connect(servers.text, balance=shared) as client:
                seen.append(await client.request(b""))
        assert sorted(seen[:3]) == [b"0", b"1", b"2"]
        assert seen[3:] == seen[:3]

    servers = group().start()
    asyncio.run(main())


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_p2c_spreads(backend, group, times):
    """None of the clients knows of another; the count that servers tell is enough."""
    servers = group(4)
    servers.start(advertise=range(4))
    clients = [pysock.connect(servers.text, balance="p2c", backend=backend) for _ in range(times * MANY[backend])]
    counts = wait_for(lambda: sum(counts := servers.counts()) == len(clients) and counts)
    assert max(counts) <= 1.1 * min(counts)
    for client in clients:
        client.close()


def test_p2c_of_an_asyncio_client_spreads_too(run, backend, group):
    async def main():
        clients = [await aio.connect(servers.text, balance="p2c", backend=backend) for _ in range(40)]
        await until(lambda: sum(servers.counts()) == len(clients))
        assert max(servers.counts()) <= 2 * min(servers.counts())
        for client in clients:
            await client.aclose()

    servers = group(4)
    servers.start(advertise=range(4))
    run(main())


def test_p2c_without_their_word_is_chance(kind, group):
    async def main():
        seen = Counter()
        for seed in range(30):
            async with kind.connect(servers.text, balance=chosen(servers, "p2c", seed)) as client:
                seen[await client.request(b"")] += 1
        assert len(seen) == 3

    servers = group().start()
    asyncio.run(main())


def test_one_that_says_it_goes_is_the_worse_choice(kind, group):
    """Though it has fewer clients."""

    async def main():
        servers.servers[0].clients.nodes._state = 5
        async with kind.connect(servers.places[1]), kind.connect(servers.places[1]):
            for seed in range(6):
                async with kind.connect(servers.text, balance=chosen(servers, "p2c", seed)) as client:
                    assert await client.request(b"") == b"1"

    servers = group(2)
    servers.start(advertise=range(2))
    asyncio.run(main())


def test_a_full_one_sends_on_to_the_next(kind, group):
    async def main():
        async with kind.connect(servers.text) as one, kind.connect(servers.text) as two:
            assert [await one.request(b""), await two.request(b"")] == [b"0", b"1"]
            with pytest.raises(pysock.ServerFull, match=r"none of 2 addresses .* the server is full \(2\)"):
                async with kind.connect(servers.text):
                    pass

    servers = group(2)
    servers.start(limits=Limits(max_clients=1))
    asyncio.run(main())


def test_where_none_answers_each_is_told_with_its_reason(kind, named, socket_dir):
    async def main():
        given = [f"unix:{socket_dir}/no", "tcp://service.test:9", f"tcp://127.0.0.1:{port}"]
        with pytest.raises(OSError, match="none of 3 addresses lets this client in: start one of them") as caught:
            async with kind.connect(given, balance="first"):
                pass
        text = str(caught.value)
        assert caught.value.errno == errno.ECONNREFUSED
        assert f"(1) unix:{socket_dir}/no: there is no such socket file; is the server running" in text
        assert "(2) tcp://service.test:9: the host 'service.test' can't be resolved" in text
        assert f"(3) tcp://127.0.0.1:{port}: nobody listens there; is the server running" in text
        with pytest.raises(OSError, match="none of 3 addresses"):
            async with kind.connect(given, balance="p2c", reconnect=FAST, timeout=0.1):
                pass

    named(())
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    asyncio.run(main())


def test_a_refusal_for_good_isnt_carried_to_the_next(kind, group):
    async def main():
        with pytest.raises(ConnectionRefused, match="auth key"):
            async with kind.connect(servers.text, balance="first", authkey=b"wrong"):
                pass

    servers = group(2)
    servers.start(authkey=b"right")
    asyncio.run(main())


def test_a_silent_one_leaves_time_to_the_next(kind, group, socket_dir):
    async def main():
        async with kind.connect([f"unix:{socket_dir}/silent", *servers.places], timeout=0.6) as client:
            assert await client.request(b"") == b"0"

    servers = group(1).start()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{socket_dir}/silent")
        silent.listen()
        asyncio.run(main())


def test_what_it_is_balanced_by(kind, unix_address):
    async def main():
        with pytest.raises(ValueError, match="balance must be one of 'first', 'p2c', 'round', not 'best'"):
            async with kind.connect(unix_address, balance="best"):
                pass
        with pytest.raises(ValueError, match="bad address 'tcp://a:1,'"):
            async with kind.connect("tcp://a:1,"):
                pass

    asyncio.run(main())


# Names


@pytest.fixture
def named(monkeypatch):
    """``named(hosts)``: a name that stands for them; the threads that looked it up."""
    looked = []
    plain = socket.getaddrinfo

    def make(hosts):
        def resolve(host, port, *given, **options):
            if host != "service.test":
                return plain(host, port, *given, **options)
            looked.append(threading.current_thread())
            if not hosts:
                raise socket.gaierror(socket.EAI_NONAME, "unknown")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in hosts]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        return looked

    return make


@pytest.fixture
def by_name(group, named):
    """Three servers at one port of three hosts, which have one name; what is done to the list is seen at once."""
    first, second, *rest = own_host().split(".")
    hosts = [".".join((first, str((int(second) - 64) % 64 + 64 * step), *rest)) for step in (1, 2, 3)]
    with socket.socket() as probe:
        probe.bind((hosts[0], 0))
        port = probe.getsockname()[1]
    servers = group(places=[f"tcp://{host}:{port}" for host in hosts])
    looked = named(hosts)
    return servers, hosts, looked, f"tcp://service.test:{port}"


def test_a_name_with_several_records_is_several_servers(kind, by_name):
    async def main():
        shared = Balancer(checked_targets(name), "round", chance=random.Random(7))
        seen = set()
        for _ in range(3):
            async with kind.connect(name, balance=shared) as client:
                seen.add(await client.request(b""))
                assert str(client.inner.address) in servers.places
        assert seen == {b"0", b"1", b"2"}
        assert threading.main_thread() not in looked  # where the loop is

    servers, _, looked, name = by_name
    servers.start()
    asyncio.run(main())


def test_a_name_is_looked_up_for_each_attempt(kind, by_name):
    async def main():
        async with kind.connect(name, balance="first", reconnect=FAST) as client:
            assert await client.request(b"") == b"0"
            hosts[:] = hosts[2:]
            await asyncio.to_thread(servers.stop, 0)
            assert await client.request(b"") == b"2"
            hosts.clear()
            hosts.append(servers.places[1][6:].partition(":")[0])
            await asyncio.to_thread(servers.stop, 2)
            assert await client.request(b"") == b"1"

    servers, hosts, _, name = by_name
    servers.start()
    asyncio.run(main())


# Connections that are made again


def test_a_server_that_goes_is_left_without_an_error(kind, group):
    """What is on its way is answered there."""

    async def main():
        async with kind.connect(servers.text, balance="first", reconnect=FAST) as client:
            assert await client.request(b"") == b"0"
            slow = asyncio.create_task(client.request(b"slow"))
            await until(lambda: servers.servers[0].stats()["requests"] == 2)
            stopping = asyncio.create_task(asyncio.to_thread(servers.stop, 0))
            assert await client.request(b"") in (b"0", b"1")
            assert await slow == b"0"
            await stopping
            assert await client.request(b"") == b"1"
            servers.start(0)
            assert await client.request(b"") == b"1"  # it stays
            await asyncio.to_thread(servers.stop, 1)
            assert await client.request(b"") == b"0"

    servers = group(2).start()
    asyncio.run(main())


def test_a_node_that_cant_be_one_is_in_nobodys_way(kind, by_name):
    async def main():
        async with kind.connect(servers.text, balance="first", reconnect=FAST) as client:
            assert await client.request(b"") == b"0"
            await asyncio.to_thread(servers.stop, 0)
            assert await client.request(b"") == b"1"

    servers, *_ = by_name
    servers.start(0, told=["tcp://a..b:9000"]).start(1, 2)
    asyncio.run(main())


def test_one_that_fails_again_and_again_is_left_alone(kind, group, socket_dir):
    """It isn't asked any more, but where nobody else answers."""

    async def main():
        given = [f"unix:{socket_dir}/bad", *servers.places]
        for _ in range(3):
            balancer = Balancer(checked_targets(given), "first")
        for _ in range(5):
            async with kind.connect(given, balance=balancer) as client:
                assert await client.request(b"") == b"0"
        await until(lambda: len(asked) == 3)
        await asyncio.to_thread(servers.stop)
        with pytest.raises(OSError, match="none of 2 addresses"):
            async with kind.connect(given, balance=balancer):
                pass
        await until(lambda: len(asked) == 4)

    servers, asked = group(1).start(), []
    with socket.socket(socket.AF_UNIX) as bad:
        bad.bind(f"{socket_dir}/bad")
        bad.listen()
        thread = threading.Thread(target=_hang_up, args=(bad, asked))
        thread.start()
        asyncio.run(main())
        bad.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _hang_up(listener, asked):
    with contextlib.suppress(OSError):
        while True:
            sock = listener.accept()[0]
            asked.append(None)
            sock.close()


def test_connections_that_are_lost_put_a_server_aside(kind, group, played):
    async def main():
        async with kind.connect([address, *servers.places], balance="first", reconnect=FAST) as client:
            answer = b""
            while not answer:
                with contextlib.suppress(ConnectionLost):
                    answer = await client.request(b"", idempotent=True)
            assert answer == b"0"

    def goes(peer):
        came.append(peer)

    came = []
    servers, address = group(1).start(), played(*[welcomed(goes)] * 9)
    asyncio.run(main())
    assert len(came) == 5


# What servers tell


def test_new_servers_are_found_and_those_that_are_gone_are_left(kind, group):
    async def main():
        async with kind.connect(servers.places[0], balance="first", reconnect=FAST) as client:
            assert await client.request(b"") == b"0"
            assert [str(address) for address in client.balancer.wanted()] == servers.places[:2]
            await until(lambda: servers.servers[0].clients.nodes._waiting)
            servers.start(2, advertise=[1, 2])
            for at in (0, 1):
                servers.servers[at].advertise(*servers.places[1:])
            while (answer := await client.request(b"")) == b"0":  # it hears of it when it reads
                await asyncio.sleep(0.002)
            assert answer == b"1"
            await until(lambda: len(servers.servers[0].clients) == 0)
            await asyncio.to_thread(servers.stop, 1)
            assert await client.request(b"") == b"2"
            assert not servers.servers[0].clients

    servers = group(3)
    servers.start(0, 1, advertise=[0, 1])
    asyncio.run(main())


def test_what_is_on_its_way_to_one_that_isnt_listed_any_more_is_answered(kind, group):
    async def main():
        async with kind.connect(servers.places[0], balance="first", reconnect=FAST) as client:
            await until(lambda: servers.servers[0].clients.nodes._waiting)
            held = asyncio.create_task(client.request(b"", service="held"))
            await until(lambda: servers.servers[0].stats()["requests"] >= 3)
            for server in servers.servers.values():
                server.advertise(servers.places[1])
            while await client.request(b"") != b"1":
                await asyncio.sleep(0.002)
            servers.go_on.set()
            assert await held == b"0"
            await until(lambda: not servers.servers[0].clients)

    servers = group(2)
    servers.start(advertise=[0, 1])
    asyncio.run(main())


def test_one_that_listens_hears_of_it_too(backend, group):
    """A thread reads for it, and no call."""
    servers, got = group(3), []
    servers.start(0, 1, advertise=[0, 1])
    with pysock.connect(servers.places[0], balance="first", reconnect=FAST, backend=backend) as client:
        client.on_push(got.append)
        wait_for(lambda: servers.servers[0].clients.nodes._waiting)
        servers.servers[0].advertise(*servers.places[:2], servers.places[2])
        wait_for(lambda: len(client._connections._balancer.wanted()) == 3)
        wait_for(lambda: servers.servers[0].clients.nodes._waiting)  # it asks on
        servers.servers[0].advertise(servers.places[1])
        wait_for(lambda: len(servers.servers[1].clients) == 1)
        servers.servers[1].clients.broadcast(b"here")
        wait_for(lambda: got == [b"here"])


def test_a_server_that_takes_one_request_at_a_time_isnt_kept_busy(kind, group):
    async def main():
        async with kind.connect(servers.places[0], balance="first", reconnect=FAST) as client:
            assert await client.request(b"") == b"0"
            assert not servers.servers[0].clients.nodes._waiting

    servers = group(1)
    servers.start(advertise=[0], limits=Limits(max_in_flight=1))
    asyncio.run(main())


def test_a_list_that_is_broken_does_no_harm(kind, group, caplog):
    async def main():
        async with kind.connect(servers.places[0], balance="first", reconnect=FAST) as client:
            assert await client.request(b"") == b"0"
            await until(lambda: servers.servers[0].clients.nodes._waiting)
            nodes = servers.servers[0].clients.nodes
            nodes._answer = lambda: b"nonsense"
            nodes.set(checked_targets(servers.places[1]))
            for _ in range(3):
                assert await client.request(b"") == b"0"
            await until(lambda: "a list of nodes that is broken" in caplog.text)
        async with kind.connect(servers.text, balance="p2c") as client:
            assert await client.request(b"") in (b"0", b"1")

    servers = group(2)
    servers.start(advertise=[0])
    asyncio.run(main())


def test_two_that_were_compared_leave_none_behind(kind, group):
    async def main():
        async with kind.connect(servers.text, balance="p2c", reconnect=FAST):
            await until(lambda: sum(servers.counts()) == 1)

    servers = group(3)
    servers.start(advertise=range(3))
    asyncio.run(main())
    assert wait_for(lambda: servers.counts() == [0, 0, 0])


# Pools


def test_a_pool_has_a_few_servers_of_its_own(kind, group):
    async def main():
        async with kind.pool(servers.text, 6, balance="p2c", reconnect=FAST) as pool:
            assert len(pool) == 3
            await until(lambda: sum(servers.counts()) == 3)
            assert sorted(servers.counts()) == [0, 0, 1, 1, 1]
            answers = Counter([await pool.request(b"") for _ in range(60)])
            assert len(answers) == 3
            assert min(answers.values()) >= 5
            await asyncio.gather(*(pool.request(b"slow") for _ in range(6)))
            assert len(pool) <= 6
            await until(lambda: sum(servers.counts()) == len(pool))
            mine = [count for count in servers.counts() if count]
            assert len(mine) == 3
            assert max(mine) - min(mine) <= 1

    servers = group(5)
    servers.start(advertise=range(5))
    asyncio.run(main())


def test_a_pool_finds_the_others_by_one_of_them(kind, group):
    async def main():
        async with kind.pool(servers.places[0], 3, balance="p2c", reconnect=FAST) as pool:
            assert len(pool) == 3
            await until(lambda: sum(servers.counts()) == 3)
            assert max(servers.counts()) == 1

    servers = group(5)
    servers.start(advertise=range(5))
    asyncio.run(main())


def test_a_pool_goes_on_when_one_of_them_goes(kind, group):
    async def main():
        async with kind.pool(servers.text, 3, balance="p2c", reconnect=FAST) as pool:
            for at in (0, 1, 2):
                await asyncio.to_thread(servers.stop, at)
                assert len({await pool.request(b"") for _ in range(20)} - {b"%d" % at}) >= 1
                servers.start(at)
            assert await pool.request(b"") in (b"0", b"1", b"2")

    servers = group(3).start()
    asyncio.run(main())


def test_a_pool_of_clients_that_dont_heal_makes_new_ones(kind, group):
    async def main():
        async with kind.pool(servers.text, 2, balance="p2c", reconnect=False) as pool:
            before = await pool.request(b"")
            await asyncio.to_thread(servers.stop, int(before))
            answer = b""
            while not answer:  # until it sees that the connection has ended
                with contextlib.suppress(ConnectionLost):
                    answer = await pool.request(b"")
                await asyncio.sleep(0.002)  # where nothing waits, the loop learns nothing of it
            assert {await pool.request(b"") for _ in range(9)} == {b"%d" % (1 - int(before))}

    servers = group(2).start()
    asyncio.run(main())


def test_the_fewest_calls_still_count(kind, group):
    """Where there is no choice of servers, a pool is what it was."""

    async def main():
        async with kind.pool(servers.places[0], 3) as pool:
            assert len(pool) == 1
            await asyncio.gather(*(pool.request(b"") for _ in range(9)))
            assert 1 <= len(pool) <= 3

    servers = group(1).start()
    asyncio.run(main())
