"""What ``pysock demo`` shows: lines as things happen, the live client table and the progress bar below them.

On a terminal the table and the bar are drawn again and again in place. In a pipe they are printed once, as they are
at the end, and a line at each quarter of the way stands in for the bar.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table


class Row(NamedTuple):
    """One connected client, as the server's client table has it."""

    name: str
    client_id: str
    fd: int
    transport: str
    state: str
    requests: int
    bytes_in: int
    bytes_out: int


class Result(NamedTuple):
    """What one client did."""

    name: str
    transport: str
    manner: str
    service: str
    lines: int
    words: int
    burst: int  # how many of the lines were sent in these seconds
    seconds: float


class Screen:
    """Everything the demo prints goes through here."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("lines answered"),
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            console=console,
        )
        self._task = self._progress.add_task("lines", total=total)
        self._total = total
        self._quarters = 0
        self._rows: list[Row] = []
        self._live: Live | None = None
        #: Whether somebody sees it as it happens.
        self.watched: bool = console.is_interactive
        self.width: int = console.width

    def say(self, text: str) -> None:
        """Print one line, above the table while that is live."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Keep the table and the bar on the screen meanwhile, and leave them there as they are at the end."""
        if not self.watched:
            yield
            self._console.print(self._draw())
            return
        with Live(self._draw(), console=self._console, auto_refresh=False) as self._live:
            yield

    def update(self, rows: Iterable[Row], done: int) -> None:
        """Draw the table and the bar as they are now."""
        self._rows = list(rows)
        self._progress.update(self._task, completed=done)
        if self._live is not None:
            self._live.update(self._draw(), refresh=True)
            return
        quarters = 4 * done // self._total
        if quarters > self._quarters:
            self.say(f"{done} of {self._total} lines answered")
        self._quarters = quarters

    def _draw(self) -> Group:
        return Group(self._low(client_table(self._rows)), self._progress)

    def results(self, results: Iterable[Result]) -> None:
        """Print the word counts of each client; one who watches finds them right below the client table."""
        table = narrow_table(
            None if self.watched else "words counted", ("name", "transport", "requests sent", "service")
        )
        for heading in ("lines", "words", "lines/s"):
            table.add_column(heading, justify="right", overflow="fold")
        for item in results:
            rate = item.burst / item.seconds if item.seconds else 0.0
            table.add_row(*item[:4], str(item.lines), str(item.words), f"{rate:,.0f}")
        self._console.print(self._low(table))

    def _low(self, table: Table) -> Table:
        """Leave out the rule under the headings where lines are few."""
        if self.watched:
            table.box = None
            table.padding = (0, 2, 0, 0)
        return table


def client_table(rows: Iterable[Row]) -> Table:
    """Return the table of connected clients."""
    table = narrow_table("client table", ("name", "id", "fd", "transport", "state"))
    for heading in ("requests", "bytes in", "bytes out"):
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    return table


def narrow_table(title: str | None, headings: Iterable[str]) -> Table:
    """Return an empty table without a frame, so that it fits 80 columns; what is too wide is folded, never cut off."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0)
    )
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
