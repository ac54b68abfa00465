"""``pysock serve --workers``, what its workers say of themselves, and a load that notes what fails."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from programs import serving
from support import PATIENCE, ROOT, Program, wait_for

import pysock

#: What is served: ``supervised.py`` beside this file.
PROGRAM = "supervised:server"
PATH = f"{ROOT}:{ROOT}/tests/help"


class Crew(Program):
    """A supervisor and its workers, when they serve.

    :ivar address: where.
    """

    def __init__(self, address: str, *options: str, program: str = PROGRAM, **changes: str) -> None:
        path = changes.pop("PYTHONPATH", PATH)
        super().__init__("import sys; from pysock.cli.main import main; sys.exit(main(sys.argv[1:]))", "serve", program,
                         "--bind", address, "--grace", "5", *options, PYTHONPATH=path, **changes)  # fmt: skip
        (self.address,) = serving(self)

    def ask(self, what: str) -> Any:
        """One of the workers, by a connection of its own."""
        with pysock.connect(self.address) as client:
            return json.loads(client.request(what.encode()))

    def workers(self, count: int) -> dict[int, int]:
        """Their processes by number, as soon as there are so many."""
        found: dict[int, int] = {}

        def all_seen() -> bool:
            number, workers, pid = self.ask("which")
            if workers == count:
                found[number] = pid
            return len(found) == count

        with Held(self, 0) as held:
            while not all_seen():
                held.one_more()  # who has more clients than the others leaves them the next one
        return found

    def changed(self, old: dict[int, int], count: int) -> dict[int, int]:
        """The same when none of the old ones is there any more."""
        wait_for(lambda: not any(is_alive(pid) for pid in old.values()), "the old workers to end")
        return self.workers(count)

    def stopped(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit code after that signal, and its errors."""
        self.signal(number)
        code, _, errors = self.end(2 * PATIENCE)
        return code, errors


class Held:
    """Clients that stay connected."""

    def __init__(self, crew: Crew, count: int) -> None:
        self._crew = crew
        self.clients: list[pysock.Client] = []
        for _ in range(count):
            self.one_more()

    def one_more(self) -> None:
        self.clients.append(pysock.connect(self._crew.address))

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for client in self.clients:
            client.close()


def is_alive(pid: int) -> bool:
    """Whether there is a process of that number that hasn't ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # gone between the two, too
        return False


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does nothing meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Load:
    """Two threads that ask again and again until told to stop: one by a client that stays, the other by a new one for
    each request. Both connect again where a server says goodbye.

    :ivar answers: how many each process gave.
    :ivar failed: what failed.
    """

    def __init__(self, address: str, backend: str) -> None:
        self._address, self._backend = address, backend
        self._is_over = threading.Event()
        self.answers: Counter[int] = Counter()
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=work) for work in (self._stay, self._come_and_go)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)

    def _stay(self) -> None:
        with pysock.connect(self._address, reconnect=True, backend=self._backend) as client:
            while not self._is_over.wait(0.001):
                self._ask(client)

    def _come_and_go(self) -> None:
        while not self._is_over.wait(0.001):
            try:
                client = pysock.connect(self._address, reconnect=True, backend=self._backend)
            except Exception as error:
                self.failed.append(f"connect: {error!r}")
                continue
            with client:
                self._ask(client)

    def _ask(self, client: pysock.Client) -> None:
        try:
            self.answers[json.loads(client.request(b"pid"))] += 1
        except Exception as error:
            self.failed.append(repr(error))
