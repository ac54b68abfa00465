"""What ``pysock demo`` says beside its tables: each thing in a line of its own where it is read afterwards (a pipe, a
file); in few and short lines where it is watched, so that nothing scrolls away on a terminal of 80 x 24.
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.cells import cell_len

import pysock
from pysock.address import Address
from pysock.base.ids import shown
from pysock.demo.screen import Screen

_MARK: Final = "..."


class Story:
    """Everything, line by line as it happens."""

    #: Seconds in which the clients go slowly before they send what they can: only one who watches has a use for them.
    pace: float = 0.0

    def __init__(self, screen: Screen, path: Path) -> None:
        self._say = screen.say
        self._path = path

    def begin(self, lines: int) -> None:
        """Say what runs, and on which file."""
        self._say(f"pysock {pysock.__version__}, engine {pysock.backend}, Python {platform.python_version()}")
        self._say(f"input: {self._path}, {lines} lines")

    def addresses(self, addresses: Sequence[Address]) -> None:
        """Say where the server listens."""
        self._say("addresses: " + " and ".join(address.bare() for address in addresses))

    def state(self, old: pysock.ServerState, new: pysock.ServerState) -> None:
        """Say that the server's state is another."""
        self._say(f"server: {old.name} -> {new.name}")

    def came(self, client: pysock.DataSocket) -> None:
        """Say that a client was let in."""
        self._say(
            f"client {client.name}: connection request accepted, id {shown(client.id)}, data socket fd {client.fd}"
        )

    def went(self, client: pysock.DataSocket, reason: str) -> None:
        """Say that a client is gone."""
        self._say(f"client {client.name}: disconnected, {reason}; its data socket is closed")

    def streamed(self, pieces: int) -> None:
        """Say that the whole file came in pieces."""
        self._say(f"a stream: the whole file came to client emil in {pieces} pieces")

    def grouped(self, names: Sequence[str], clients: int) -> None:
        """Say who of so many clients has got what was sent to their group."""
        self._say(f"a group: {len(names)} of {clients} clients got what was sent to theirs: {' and '.join(names)}")

    def total(self, total: int, wc: int | None, expected: int) -> None:
        """Say what the clients counted, and what it is held against: what ``wc`` says, if there is one."""
        if wc is None:
            self._say(f"total: {total} words; there is no wc here, counted in one piece it is {expected}")
        else:
            self._say(f"total: {total} words; wc -w < {self._file()} says {wc}")

    def _file(self) -> str:
        return shlex.quote(str(self._path))

    def equal(self, requests: int, seconds: float, engine: str) -> None:
        """Say that the totals are, and how fast it went."""
        self._say(f"the totals are equal; {requests} requests in {seconds:.3f} s, {requests / seconds:,.0f} a second")
        self._say(f"engine: {engine}")

    def stopping(self) -> None:
        """Say that the server is told to stop."""
        self._say("stopping: no new connections or requests, GOAWAY to the clients")

    def end(self, socket_files: Sequence[Path], processes: int) -> None:
        """Say what is gone: the socket files and the client processes."""
        for file in socket_files:
            self._say(f"the socket file {file} is removed")
        self._say(f"{processes} client processes have ended")


class Brief(Story):
    """The same for one who watches. The client table shows who came; what belongs together is one line."""

    pace: float = 3.0

    def __init__(self, screen: Screen, path: Path) -> None:
        super().__init__(screen, path)
        self._width = screen.width
        self._states: list[str] = []
        self._gone = 0

    def begin(self, lines: int) -> None:
        """Say what runs, and on which file."""
        self._say(f"pysock {pysock.__version__}, engine {pysock.backend}, Python {platform.python_version()}")
        self._fit("input: ", str(self._path), f", {lines} lines")

    def addresses(self, addresses: Sequence[Address]) -> None:
        """Say where the server listens."""
        first, *others = (address.bare() for address in addresses)
        self._fit("addresses: ", first, "".join(f" and {other}" for other in others))

    def state(self, old: pysock.ServerState, new: pysock.ServerState) -> None:
        """Say all states up to SERVING at once, and all up to CLOSED."""
        self._states += [new.name] if self._states else [old.name, new.name]
        if new in (pysock.ServerState.SERVING, pysock.ServerState.CLOSED):
            left = f"; {self._gone} clients have left" if self._gone else ""
            self._say(f"server: {' -> '.join(self._states)}{left}")
            self._states.clear()

    def came(self, client: pysock.DataSocket) -> None:
        """Leave it to the client table."""

    def went(self, client: pysock.DataSocket, reason: str) -> None:
        """Count them."""
        self._gone += 1

    def _file(self) -> str:
        return shlex.quote(self._path.name)

    def total(self, total: int, wc: int | None, expected: int) -> None:
        """Say the same in one line."""
        if wc is None:
            super().total(total, wc, expected)
        else:
            self._fit(f"total: {total} words; wc -w < ", self._file(), f" says {wc}")

    def equal(self, requests: int, seconds: float, engine: str) -> None:
        """Say how fast it went at the end; which engine it is, was the first line."""
        rate = f"{requests / seconds:,.0f} a second"
        self._say(f"the totals are equal; the burst: {requests} requests in {seconds:.3f} s, {rate}")

    def stopping(self) -> None:
        """Leave it to the states."""

    def end(self, socket_files: Sequence[Path], processes: int) -> None:
        """Say what is gone in one line."""
        names = " and ".join(file.name for file in socket_files)
        self._say(f"the socket file {names} is removed, {processes} client processes have ended")

    def _fit(self, before: str, path: str, after: str) -> None:
        """Print it in one line of the terminal; a path that is too long loses directories in front."""
        self._say(before + shortened(path, self._width - cell_len(before) - cell_len(after)) + after)


def shortened(path: str, width: int) -> str:
    """The path in at most so many columns: whole directories are left out in front, or, if its name alone is too long,
    the name's beginning.
    """
    if cell_len(path) <= width:
        return path
    parts = path.split(os.sep)
    tails = (os.sep.join([_MARK, *parts[start:]]) for start in range(1, len(parts)))
    fitting = next((tail for tail in tails if cell_len(tail) <= width), None)
    if fitting is not None:
        return fitting
    name = parts[-1]
    while name and cell_len(_MARK + name) > width:
        name = name[1:]
    return _MARK + name
