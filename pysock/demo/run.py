"""``pysock demo``: the whole model at work on a real text file.

A server in this process listens on a Unix socket and on TCP. Several client processes connect, send every line of
the file as a request exactly once, and add up the word counts that come back. The total must equal ``wc -w``.
"""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

from rich.console import Console

import pysock
from pysock.base.ids import shown
from pysock.demo import words
from pysock.demo.client import ONE_BY_ONE, PATIENCE, PIPELINED
from pysock.demo.screen import Result, Row, Screen
from pysock.demo.story import Brief, Story

#: Modules of the standard library whose source is a good long text, best first. All are there since Python 3.6.
DEFAULT_TEXTS = ("_pydecimal", "typing")

#: Seconds between two looks at the clients.
REFRESH = 0.05


class DemoError(Exception):
    """What the user gets to read when the demo fails."""


class Cast(NamedTuple):
    """One client process, and how it sends its requests."""

    name: str
    transport: str
    manner: str
    service: str


CLIENTS = (
    Cast("anna", "unix", ONE_BY_ONE, "words"),
    Cast("bert", "unix", PIPELINED, "words"),
    Cast("carl", "tcp", ONE_BY_ONE, "words"),
    Cast("dora", "tcp", PIPELINED, "words-batch"),
)


#: The client processes, by name.
Children: TypeAlias = dict[str, "subprocess.Popen[str]"]


class Report(NamedTuple):
    """What a client says at the end; the times are of the machine's monotonic clock."""

    lines: int
    words: int
    burst: int  # how many of the lines were sent between the two times
    started: float
    ended: float


def default_text() -> Path:
    """Return a text file that every installation of Python has."""
    for module in DEFAULT_TEXTS:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None and Path(spec.origin).is_file():
            return Path(spec.origin)
    raise DemoError("this Python comes without the source of its library: give a text file with --input")


def split_lines(text: bytes) -> list[bytes]:
    """Return the lines without their newlines; the last one may lack it."""
    lines = text.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def make_server(
    socket_file: Path, text: bytes, count: Callable[[bytes], int], reports: dict[str, Report], heard: dict[str, bytes]
) -> pysock.Server:
    """Return the server with its services. It puts the clients together by their manner, in a group for each."""
    manners = {cast.name: cast.manner for cast in CLIENTS}
    server = pysock.Server(f"unix:{socket_file}?mode=0600", "tcp://127.0.0.1:0", name="demo")

    @server.service("words")
    def words(_client: pysock.DataSocket, line: bytes) -> bytes:
        return b"%d" % count(line)

    @server.batch_service("words-batch")
    def words_batch(_clients: Sequence[pysock.DataSocket], lines: Sequence[bytes]) -> list[bytes]:
        return [b"%d" % count(line) for line in lines]

    @server.service("text")
    def whole(_client: pysock.DataSocket, _request: bytes) -> Iterator[bytes]:
        yield from io.BytesIO(text)

    @server.service("report")
    def report(client: pysock.DataSocket, request: bytes) -> None:
        reports[client.name] = Report(**json.loads(request))

    @server.service("heard")
    def hear(client: pysock.DataSocket, request: bytes) -> None:
        heard[client.name] = request

    @server.on_join
    def join(client: pysock.DataSocket, _row: pysock.ClientRow) -> None:
        if client.name in manners:
            client.join(manners[client.name])

    return server


def tell_what_happens(server: pysock.Server, story: Story) -> None:
    """Tell the server's states as they change, and the clients as they come and go."""
    server.on_state(story.state)
    server.on_connect(story.came)
    server.on_disconnect(story.went)


def start_client(cast: Cast, address: str, lines: Sequence[bytes], pace: float) -> subprocess.Popen[str]:
    """Start one client process. It gets its lines from a file, so that nobody has to feed a pipe meanwhile."""
    with tempfile.TemporaryFile() as share:
        share.writelines(line + b"\n" for line in lines)
        share.seek(0)
        return subprocess.Popen(  # noqa: S603 -- our own module, no shell
            [sys.executable, "-m", "pysock.demo.client", address, cast.name, cast.service, cast.manner, str(pace)],
            stdin=share,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextmanager
def client_processes(server: pysock.Server, lines: Sequence[bytes], pace: float) -> Iterator[Children]:
    """Run all clients, each with its share of the lines; they go slowly for so many seconds first. Those that are still
    there at the end are ended.
    """
    addresses = {address.transport: str(address) for address in server.addresses}
    with ExitStack() as stack:
        children: Children = {}
        for number, cast in enumerate(CLIENTS):
            child = start_client(cast, addresses[cast.transport], lines[number :: len(CLIENTS)], pace)
            stack.enter_context(child)
            stack.callback(child.terminate)  # does nothing to one that has ended
            children[cast.name] = child
        yield children


def complaint(child: subprocess.Popen[str]) -> str:
    """Return what a client process that has ended said last."""
    assert child.stderr is not None
    said = child.stderr.read().strip().splitlines()
    return said[-1] if said else f"exit code {child.returncode}"


class Demo:
    """One run: the server, its clients, the file, and what the clients reported."""

    def __init__(self, text: bytes, screen: Screen, story: Story, directory: Path) -> None:
        self.text = text
        self.lines: list[bytes] = split_lines(text)
        self.count: Callable[[bytes], int] = words.counter_for(text)
        self.reports: dict[str, Report] = {}
        self.screen = screen
        self.story = story
        self.heard: dict[str, bytes] = {}
        self.server: pysock.Server = make_server(directory / "demo.sock", text, self.count, self.reports, self.heard)
        tell_what_happens(self.server, story)

    def run(self) -> None:
        """Go through it all. The clients stay until the server drains."""
        with self.server:
            self.story.addresses(self.server.addresses)
            with client_processes(self.server, self.lines, self.story.pace) as children:
                self.let_clients_work(children)
                self.show_results()
                self.take_stream()
                self.tell_group(children)
                self.compare()
                socket_files = self.stop()
                self.see_off(children)
                self.story.end(socket_files, len(children))

    def let_clients_work(self, children: Children) -> None:
        """Start the clients all at once, and show how they get on until the last one has reported."""
        everybody = len(children)
        with self.screen.live():

            def look() -> None:
                rows = table_rows(self.server)
                done = sum(row.requests for row in rows) - len(self.reports)
                self.screen.update(rows, min(done, len(self.lines)))
                check_all_run(children)

            wait_until(lambda: len(self.server.clients) == everybody, look)
            self.server.clients.broadcast(b"start")
            wait_until(lambda: len(self.reports) == everybody, look)

    def show_results(self) -> None:
        """Print what each client counted."""
        self.screen.results(
            Result(*cast, report.lines, report.words, report.burst, report.ended - report.started)
            for cast in CLIENTS
            for report in [self.reports[cast.name]]
        )

    def take_stream(self) -> None:
        """Have the file streamed, line by line, to one more client, which is this process."""
        with pysock.connect(self.server.addresses[0], "emil") as client, client.stream(b"", service="text") as stream:
            lines = list(stream)
        if b"".join(lines) != self.text:
            raise DemoError("the file that was streamed isn't the file that there is")
        self.story.streamed(len(lines))

    def tell_group(self, children: Children) -> None:
        """Send something to the clients of one group, and see that these have it, and nobody else."""
        group, sent = self.server.clients.group(PIPELINED), b"well done"
        names = [client.name for client in group]
        reached = group.send(sent)
        wait_until(lambda: len(self.heard) >= reached, lambda: check_all_run(children))
        if self.heard != dict.fromkeys(names, sent):
            raise DemoError(f"sent to the group {', '.join(names)}, but {', '.join(self.heard)} got it")
        self.story.grouped(names, len(children))

    def compare(self) -> None:
        """Hold the clients' total against the real ``wc -w``, and tell how fast it went."""
        reports = self.reports.values()
        total = sum(report.words for report in reports)
        wc = words.wc(self.text)
        expected = self.count(self.text) if wc is None else wc
        self.story.total(total, wc, expected)
        if total != expected:
            raise DemoError(f"the totals differ: {total} words counted by the clients, {expected} expected")
        seconds = max(report.ended for report in reports) - min(report.started for report in reports)
        self.story.equal(sum(report.burst for report in reports), seconds, self.server.backend)

    def stop(self) -> list[Path]:
        """Stop the server, see that its socket files are gone, and return where they were."""
        socket_files = [Path(address.path) for address in self.server.addresses if address.transport == "unix"]
        self.story.stopping()
        self.server.stop()
        for file in socket_files:
            if file.exists():
                raise DemoError(f"the socket file {file} is still there")
        return socket_files

    def see_off(self, children: Children) -> None:
        """Wait for the clients to leave by themselves."""
        for name, child in children.items():
            if child.wait(PATIENCE) != 0:
                raise DemoError(f"the client process {name} failed: {complaint(child)}")


def check_all_run(children: Children) -> None:
    """Give up if one of the client processes has ended already."""
    for name, child in children.items():
        if child.poll() is not None:
            raise DemoError(f"the client process {name} failed: {complaint(child)}")


def table_rows(server: pysock.Server) -> list[Row]:
    """Return the server's client table as it is now."""
    return [
        Row(
            client.name,
            shown(client.id),
            client.fd,
            "unix" if client.address.startswith("unix:") else "tcp",
            client.state.name,
            client.requests,
            client.bytes_in,
            client.bytes_out,
        )
        for client in server.clients.values()
    ]


def wait_until(done: Callable[[], bool], look: Callable[[], None]) -> None:
    """Look at the clients now and then until it is done, and once more then."""
    while not done():
        look()
        time.sleep(REFRESH)
    look()


def run(path: Path, console: Console) -> None:
    """Run the demo on this file.

    :raises ValueError: if the file is empty.
    :raises DemoError: if something didn't work, or the totals differ.
    """
    text = path.read_bytes()
    if not text:
        raise ValueError(f"{path} is empty: give a text file with at least one line")
    screen = Screen(console, len(split_lines(text)))
    story = (Brief if screen.watched else Story)(screen, path)
    story.begin(len(split_lines(text)))
    with tempfile.TemporaryDirectory(prefix="pysock-") as directory:
        Demo(text, screen, story, Path(directory)).run()
