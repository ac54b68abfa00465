"""A server that is killed and started again: it serves at once, and its clients get replies or clear errors."""

from __future__ import annotations

import time
from collections import Counter
from multiprocessing.connection import Connection

import pysock
from lab.experiment import Failed, Scale, check, per_engine
from lab.processes import Child
from lab.served import Served, place
from pysock import RequestTimeout

CLIENTS = 4
#: Seconds until the new one must serve, and until a client of the old one must know that it is gone.
SOON = 1.0


def insist(channel: Connection, address: str, engine: str, seed: object) -> tuple[int, dict[str, int], set[int]]:
    """Ask, and connect again whenever the connection is lost, until told to stop: replies, errors by name, and the
    processes that answered.
    """
    replies, number = 0, 0
    errors: Counter[str] = Counter()
    servers: set[int] = set()
    while not channel.poll():
        began = time.monotonic()
        try:
            with pysock.connect(address, timeout=20, backend=engine) as client:
                same = None
                while not channel.poll():
                    number += 1
                    began = time.monotonic()
                    payloads = [b"%d %d" % (number, each) for each in range(number % 20 + 1)]
                    for payload, reply in zip(
                        payloads, client.request_many(payloads, service="who", timeout=20), strict=True
                    ):
                        pid, _, rest = reply.partition(b" ")
                        same = same or pid
                        if rest != payload or pid != same:
                            raise Failed(f"asked {same!r} {payload!r}, and {reply!r} came")
                        replies += 1
                    servers.add(int(same or 0))
        except RequestTimeout as error:
            raise Failed(f"a client of a killed server hangs: {error}") from None
        except OSError as error:
            errors[type(error).__name__] += 1
            if time.monotonic() > began + SOON + 1:
                raise Failed(f"only after {time.monotonic() - began:.1f} s a client was told: {error!r}") from None
            time.sleep(0.002)
    return replies, dict(errors), servers


def restarts(scale: Scale, engine: str, transport: str) -> str:
    """SIGKILL under load and start again at the same address, with nothing cleaned up."""
    count = scale.of(12, 500)
    chance = scale.random("restarts", engine, transport)
    slowest, used = 0.0, set()
    with place(transport) as address:
        server = Served(engine, address)
        used.add(server.pid)
        clients = [Child(insist, address, engine, each) for each in range(CLIENTS)]
        try:
            for number in range(count):
                time.sleep(0.02 + chance.random() * 0.05)
                server.child.kill()
                server.child.channel.close()
                began = time.monotonic()
                server = Served(engine, address, wait=False)
                used.add(server.pid)
                slowest = max(slowest, _serving_after(server, address, engine, began))
                if number % 50 == 49:
                    scale.say(f"{number + 1} restarts")
            for each in clients:
                each.send("enough")
            results = [each.result() for each in clients]
        finally:
            for each in clients:
                each.kill()
            server.child.kill()
    replies, errors, servers = sum(each[0] for each in results), Counter[str](), set[int]()
    for _, some, pids in results:
        errors.update(some)
        servers |= pids
    seen = (
        f"{count} restarts, serving after {slowest * 1e3:.0f} ms at most; {replies:,} replies, none wrong;"
        f" {', '.join(f'{times} {name}' for name, times in errors.most_common())}"
    )
    check(slowest <= SOON, seen)
    check(servers <= used, f"somebody else answered: {servers - used}; {seen}")
    check(len(servers) > count // 2 and sum(errors.values()) >= count // 2, f"the load was too small: {seen}")
    return seen


def _serving_after(server: Served, address: str, engine: str, began: float) -> float:
    """Seconds until a new client is served."""
    while True:
        try:
            with pysock.connect(address, timeout=5, backend=engine) as client:
                reply = client.request(b"there?", service="who")
                check(reply == b"%d there?" % server.pid, f"{reply!r} came, not from {server.pid}")
                seconds = time.monotonic() - began
            server.wait_serving()
            return seconds
        except OSError:  # noqa: PERF203
            if server.child.channel.poll():
                server.wait_serving()  # it may have failed to start
            check(time.monotonic() < began + 10, "the server doesn't come back")
            time.sleep(0.001)


EXPERIMENTS = per_engine("restarts", "a server killed and started again under load", restarts)
