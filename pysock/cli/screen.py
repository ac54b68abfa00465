"""What ``pysock bench`` shows to people: the progress, the report, and what makes figures worth less.

The result goes to standard output; progress and warnings go to standard error.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from pysock.load import LoadOptions, LoadResult
from pysock.load import Progress as LoadProgress

#: Above this use of its core the generator is what was measured.
_CLIENT_BOUND: Final = 0.85
#: Below this part of the rate asked for an open loop is no longer one.
_FELL_BEHIND: Final = 0.98
#: Between two rows of the histogram, in each decade of microseconds.
_EDGES: Final = [step * 10.0**power for power in range(-1, 8) for step in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)]
_BAR_WIDTH: Final = 40
#: With so many the report fits a terminal of 24 lines, also with both warnings.
_MOST_ROWS: Final = 8


class Screen:
    """Everything that bench shows to people."""

    def __init__(self, quiet: bool) -> None:
        self._out = Console(highlight=False)
        self._err = Console(highlight=False, stderr=True)
        self._quiet = quiet
        fancy = self._out.encoding.startswith("utf")
        self._micro, self._blocks = ("µs", " ▏▎▍▌▋▊▉█") if fancy else ("us", " #")

    def _say(self, text: str) -> None:
        self._out.print(text, markup=False, soft_wrap=True)

    # While it runs

    @contextmanager
    def progress(self, options: LoadOptions) -> Iterator[Any]:
        """Give what shows the progress: a bar on a terminal, otherwise nothing."""
        if self._quiet or not self._err.is_terminal:
            yield None
            return
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %")
        with Progress(*columns, console=self._err, auto_refresh=False, transient=True) as bar:
            task = bar.add_task("connecting", total=options.duration or options.count)
            before = LoadProgress(0, 0, 0, 0.0)

            def show(now: LoadProgress) -> None:
                nonlocal before
                bar.update(task, description=describe(now, before, options), completed=how_far(now, options))
                bar.refresh()
                before = now

            yield show

    # Afterwards

    def report(self, result: LoadResult) -> None:
        """Print the result for people."""
        rate = f"{result.messages_per_second:,.0f} messages/s, {result.bytes_per_second / 2**20:,.2f} MiB/s each way"
        if self._quiet:
            p50, p99 = (dict(result.latency.percentiles)[percent] for percent in (50.0, 99.0))
            self._say(f"{rate}, p50 {p50:,.1f} {self._micro}, p99 {p99:,.1f} {self._micro}")
            return
        self._say(f"{result.options.address}: {what(result.options)}")
        self._histogram(result.histogram)
        self._latency(result)
        self._say(f"{result.messages:,} messages in {result.seconds:.3f} s, {result.errors or 'no'} errors")
        if result.options.churn:  # elsewhere they last
            self._say(f"{result.connections_per_second:,.0f} connections/s")
        self._say(f"the load generator used {result.client_core:.2f} of a core")
        self._say(rate)

    def _latency(self, result: LoadResult) -> None:
        table = Table(
            title=f"latency, {self._micro}",
            title_justify="left",
            title_style="bold",
            box=None,
            padding=(0, 1, 0, 0),
        )
        latency = result.latency.as_dict()
        for name in latency:
            table.add_column(name, justify="right", no_wrap=True)
        table.add_row(*(f"{value:,.{1 if value < 1000 else 0}f}" for value in latency.values()))
        self._out.print(table)

    def _histogram(self, histogram: Sequence[tuple[float, int]]) -> None:
        table = Table(title="histogram", title_justify="left", title_style="bold", box=None, show_header=False)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        rows = fewer(rows_of(histogram), _MOST_ROWS)
        total, most = sum(count for _, count in rows), max((count for _, count in rows), default=0)
        for edge, count in rows:
            share = f"{100 * count / total:.2f} %"
            table.add_row(f"to {edge:,.10g} {self._micro}", self._bar(count / most), f"{count:,}", share)
        self._out.print(table)

    def _bar(self, part: float) -> str:
        """Draw it as finely as the letters allow; what isn't nothing is seen."""
        steps = len(self._blocks) - 1
        length = max(1, round(part * _BAR_WIDTH * steps)) if part else 0
        return self._blocks[-1] * (length // steps) + self._blocks[length % steps].strip()

    def warn(self, result: LoadResult) -> None:
        """Say on standard error when the figures aren't what they seem."""
        if self._quiet:
            return
        if result.client_core > _CLIENT_BOUND:
            self._complain(
                f"client-bound: the load generator used {result.client_core:.2f} of its core, so the figures are more"
                " its own than the server's"
            )
        rate = result.options.rate
        answered = (result.messages + result.errors) / result.seconds if result.seconds else 0.0
        if rate is not None and answered < _FELL_BEHIND * rate:
            self._complain(f"only {answered:,.0f} requests a second were answered, of the {rate:,.10g} that were due")

    def _complain(self, text: str) -> None:
        self._err.print(f"pysock: {text}", markup=False, soft_wrap=True)


def what(options: LoadOptions) -> str:
    """Return in words what was done."""
    how = {
        "closed": f"{options.in_flight} in flight on each, closed loop",
        "open": f"at most {options.in_flight} in flight on each, open loop at {options.rate or 0:,.10g} requests/s",
        "churn": "a new one for each request",
    }[options.mode]
    plural = "" if options.connections == 1 else "s"
    return f"{options.framing}, {options.size} bytes, {options.connections} connection{plural}, {how}"


def describe(now: LoadProgress, before: LoadProgress, options: LoadOptions) -> str:
    """Return what the progress bar says of this moment."""
    if not now.seconds:
        return f"{now.connections} of {options.connections} connected"
    passed = now.seconds - before.seconds
    rate = (now.messages - before.messages) / passed if passed > 0 else 0.0
    errors = f", {now.errors:,} errors" if now.errors else ""
    return f"{rate:,.0f} messages/s{errors}"


def how_far(now: LoadProgress, options: LoadOptions) -> float:
    """Return how much of the duration, or of the count, is done."""
    return now.seconds if options.count is None else now.messages + now.errors


def rows_of(histogram: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """Return the histogram in rows that people can read: up to which latency, how many; from the first to the last."""
    counts: dict[int, int] = {}
    for longest, count in histogram:
        row = min(bisect_left(_EDGES, longest), len(_EDGES) - 1)
        counts[row] = counts.get(row, 0) + count
    return [(_EDGES[row], counts.get(row, 0)) for row in range(min(counts), max(counts) + 1)] if counts else []


def fewer(rows: Sequence[tuple[float, int]], most: int) -> list[tuple[float, int]]:
    """Return at most so many rows: neighbours that have the fewest are put together, so what is rare loses detail."""
    rows = list(rows)
    while len(rows) > most:
        at = min(range(len(rows) - 1), key=lambda row: rows[row][1] + rows[row + 1][1])
        rows[at : at + 2] = [(rows[at + 1][0], rows[at][1] + rows[at + 1][1])]
    return rows
