"""Clients that connect again, of both kinds, while their server is killed and started again.

A ledger, a file to which each handler writes what it runs before it answers, is the referee: every request is answered
once or its outcome is unknown, and what may not run twice has not.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pysock
from lab.experiment import Failed, Scale, check, per_engine
from lab.processes import Child, raise_descriptors, until
from lab.served import place
from pysock import Backoff, Limits, OutcomeUnknown, aio

#: Of each kind; the blocking ones are threads of several processes.
CLIENTS, PROCESSES = 32, 4
#: Seconds within which all of a herd must be back.
SOON = 5.0
#: A client that connects again doesn't wait longer here: the server is back at once.
BACKOFF = Backoff(0.005, 0.1)

Outcomes = list[tuple[str, str]]


def serve(channel: Connection, engine: str, address: str, ledger: str) -> None:
    """A server that writes down what it runs, until it is killed."""
    book = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def run(client: Any, request: bytes) -> bytes:
        os.write(book, request + b"\n")
        return request

    server = pysock.Server(address, backend=engine, limits=Limits(max_clients=10_000))
    server.service("once")(run)
    server.service("twice", idempotent=True)(run)
    server.start()
    channel.send("serves")
    channel.recv()
    server.stop()


class Server:
    """One such process after the other."""

    def __init__(self, engine: str, address: str, ledger: Path) -> None:
        self.about = engine, address, str(ledger)
        self.child = self._new()

    def _new(self) -> Child:
        child = Child(serve, *self.about)
        until(lambda: child.channel.poll(0.01), "the server to serve")
        check(child.receive() == "serves", "it doesn't")
        return child

    def kill_and_start(self) -> None:
        self.child.kill()
        self.child.channel.close()
        self.child = self._new()


def _nth(who: str, number: int) -> tuple[str, str]:
    """The service and the payload of a request; one in four may be run twice."""
    service = ("once", "twice")[number % 4 == 0]
    return service, f"{service} {who} {number}"


def ask_blocking(channel: Connection, address: str, engine: str, whose: str, count: int) -> Outcomes:
    """Threads with a client each, until told to stop."""
    outcomes: Outcomes = []
    over = threading.Event()
    failed: list[str] = []

    def ask(who: str) -> None:
        with pysock.connect(address, who, reconnect=BACKOFF, backend=engine, timeout=30) as client:
            number = 0
            while not over.is_set():
                number += 1
                service, payload = _nth(who, number)
                try:
                    if client.request(payload.encode(), service=service) != payload.encode():
                        failed.append(f"{payload} had another's answer")
                    outcomes.append((payload, "answered"))
                except OutcomeUnknown:
                    outcomes.append((payload, "unknown"))

    threads = [threading.Thread(target=_told(ask, failed), args=(f"{whose}.{each}",)) for each in range(count)]
    for thread in threads:
        thread.start()
    channel.recv()
    over.set()
    for thread in threads:
        thread.join(60)
    check(not failed, "; ".join(failed[:3]))
    return outcomes


def _told(call: Callable[[str], None], failed: list[str]) -> Callable[[str], None]:
    def whole(who: str) -> None:
        try:
            call(who)
        except Exception as error:
            failed.append(f"{who}: {error!r}")

    return whole


def ask_in_a_loop(channel: Connection, address: str, engine: str, whose: str, count: int) -> Outcomes:
    """Tasks with a client each, likewise; each has three requests on their way."""
    outcomes: Outcomes = []

    async def ask(who: str, over: asyncio.Event) -> None:
        async with aio.connect(address, who, reconnect=BACKOFF, backend=engine, timeout=30) as client:
            await asyncio.gather(*(one(client, f"{who}.{lane}", over) for lane in range(3)))

    async def one(client: Any, who: str, over: asyncio.Event) -> None:
        number = 0
        while not over.is_set():
            number += 1
            service, payload = _nth(who, number)
            try:
                check(await client.request(payload.encode(), service=service) == payload.encode(), f"{payload}: wrong")
                outcomes.append((payload, "answered"))
            except OutcomeUnknown:
                outcomes.append((payload, "unknown"))

    async def main() -> None:
        over = asyncio.Event()
        asyncio.get_running_loop().add_reader(channel.fileno(), over.set)
        await asyncio.gather(*(ask(f"{whose}.{each}", over) for each in range(count)))

    asyncio.run(main())
    channel.recv()
    return outcomes


def healing(scale: Scale, engine: str, transport: str) -> str:
    """SIGKILL under load, again and again."""
    restarts = scale.of(10, 100)
    chance = scale.random("healing", engine, transport)
    with place(transport) as address:
        ledger = Path(f"/tmp/pysock-ledger-{os.getpid()}")  # of this process alone
        ledger.unlink(missing_ok=True)
        server = Server(engine, address, ledger)
        each = CLIENTS // PROCESSES
        clients = [Child(ask_blocking, address, engine, f"b{number}", each) for number in range(PROCESSES)]
        clients.append(Child(ask_in_a_loop, address, engine, "a", CLIENTS))
        try:
            for number in range(restarts):
                time.sleep(0.05 + chance.random() * 0.2)
                server.kill_and_start()
                if number % 20 == 19:
                    scale.say(f"{number + 1} restarts")
            time.sleep(0.5)
            for one in clients:
                one.send("enough")
            outcomes = [pair for one in clients for pair in one.result(90)]
            ran = Counter(ledger.read_text().split("\n"))
        finally:
            for one in clients:
                one.kill()
            server.child.kill()
            ledger.unlink(missing_ok=True)
    return _judged(outcomes, ran, restarts)


def _judged(outcomes: Outcomes, ran: Counter[str], restarts: int) -> str:
    told = Counter(payload for payload, _ in outcomes)
    kinds = Counter((payload.split()[0], outcome) for payload, outcome in outcomes)
    again = sum(1 for payload, times in ran.items() if payload.startswith("twice") and times > 1)
    seen = (
        f"{restarts} restarts, {len(outcomes):,} requests: {kinds['once', 'answered']:,} that may run once and"
        f" {kinds['twice', 'answered']:,} others answered, {kinds['once', 'unknown']} and {kinds['twice', 'unknown']}"
        f" unknown; {again} ran more than once"
    )
    check(all(times == 1 for times in told.values()), f"one has two outcomes; {seen}")
    for payload, outcome in outcomes:
        times = ran[payload]
        most = 1 if payload.startswith("once") else 4
        check(times <= most, f"{payload} ran {times} times; {seen}")
        check(times >= 1 or outcome == "unknown", f"{payload} was answered and never ran; {seen}")
    strangers = set(ran) - set(told) - {""}
    check(not strangers, f"{len(strangers)} ran that nobody heard of; {seen}")
    check(kinds["once", "answered"] > 50 * restarts, f"the load was too small: {seen}")
    return seen


# Thousands


def herd_of(channel: Connection, address: str, engine: str, count: int) -> list[float]:
    """So many clients; when each was back."""
    raise_descriptors(count + 100)
    back: list[float] = []

    async def main() -> None:
        clients = []
        for _ in range(count):
            client = await aio.connect(address, reconnect=True, backend=engine, timeout=60)
            client.on_reconnect(lambda client: back.append(time.monotonic()))
            clients.append(client)
        channel.send("there")
        over = asyncio.Event()
        asyncio.get_running_loop().add_reader(channel.fileno(), over.set)
        await over.wait()
        for client in clients:
            with suppress(Exception):
                await client.aclose()

    asyncio.run(main())
    channel.recv()
    return back


def herd(scale: Scale, engine: str, transport: str) -> str:
    """A restart, and all of thousands are back soon, not all at one moment."""
    count, processes = scale.of((500, 2), (5000, 10))
    with place(transport) as address:
        ledger = Path(f"/tmp/pysock-ledger-{os.getpid()}")  # of this process alone
        raise_descriptors(count + 200)
        server = Server(engine, address, ledger)
        clients = [Child(herd_of, address, engine, count // processes) for _ in range(processes)]
        try:
            for one in clients:
                check(one.receive(120) == "there", "they don't connect")
            server.kill_and_start()
            began = time.monotonic()
            time.sleep(SOON + 1)
            for one in clients:
                one.send("enough")
            back = sorted(moment - began for one in clients for moment in one.result(60))
        finally:
            for one in clients:
                one.kill()
            server.child.kill()
            ledger.unlink(missing_ok=True)
    if len(back) < count:
        raise Failed(f"{len(back)} of {count} are back after {SOON + 1:g} s")
    tenth = max(back[-1] - back[0], 1e-9) / 10
    spread = Counter(min(9, int((moment - back[0]) / tenth)) for moment in back)
    histogram = " ".join(str(spread[each]) for each in range(10))
    seen = f"{count} clients, back {back[0]:.2f} to {back[-1]:.2f} s after the server; by tenths of that: {histogram}"
    check(back[-1] <= SOON, seen)
    check(max(spread.values()) < 0.9 * count, f"they all came at one moment: {seen}")
    return seen


EXPERIMENTS = [
    *per_engine("healing", "clients that connect again, their server killed under load", healing),
    *per_engine("herd", "thousands of clients that connect again after a restart", herd, alone=True),
]
