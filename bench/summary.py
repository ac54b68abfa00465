"""The short form of results: the headline loads of each scenario, a column for each library, the floor first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bench.figures import METRICS, short
from bench.results import Results, Row, base_of, ratio
from bench.scenarios import SCENARIOS, Scenario

#: Groups of peers, in the order of the columns.
COLUMNS: Final = (
    "floor",
    "floor polling",
    "engine only",
    "pysock",
    "pysock linger=0",
    "pysock pure",
    "uvloop",
    "asyncio",
    "gevent",
    "socketserver",
    "mp.connection",
)

#: The loads that show what clients in Python see: head of the column, scenario, beginning of the load's title, metric.
OWN_CLIENTS: Final = (
    ("one request, 64 B: p50 us", "S1", "Unix 1 x 1, 64 B", "p50_us"),
    ("1,000 pipelined, 64 B: messages/s", "S3", "Unix 1 x 1000, 64 B", "messages_per_second"),
    ("100 in flight, 64 B: messages/s", "S3", "Unix 1 x 100, 64 B", "messages_per_second"),
    ("one request, 1 MiB: p50 us", "S4", "Unix 1 x 1, 1 MiB", "p50_us"),
    ("connect, request, close: /s", "S7", "Unix 1 x 1, 64 B, connect", "messages_per_second"),
)

#: The loads that show what a handler of another kind costs.
HANDLERS: Final = (
    ("32 x 1: messages/s", "S9", "Unix 32 x 1, 64 B", "messages_per_second"),
    ("32 x 1: CPU us", "S9", "Unix 32 x 1, 64 B", "cpu_us"),
    ("8 x 256: messages/s", "S9", "Unix 8 x 256, 64 B", "messages_per_second"),
    ("8 x 256: CPU us", "S9", "Unix 8 x 256, 64 B", "cpu_us"),
    ("8 x 32: messages/s", "S10", "Unix 8 x 32, 64 B", "messages_per_second"),
    ("1 x 1: p50 us", "S10", "Unix 1 x 1, 64 B", "p50_us"),
)

#: What TLS costs.
SECURED: Final = (
    ("32 x 1: messages/s", "S12", "TLS 32 x 1, 64 B", "messages_per_second"),
    ("32 x 1: CPU us", "S12", "TLS 32 x 1, 64 B", "cpu_us"),
    ("8 x 256: messages/s", "S12", "TLS 8 x 256, 64 B", "messages_per_second"),
    ("8 x 256: CPU us", "S12", "TLS 8 x 256, 64 B", "cpu_us"),
    ("8 x 1, 100 KiB: messages/s", "S12", "TLS 8 x 1, 100 KiB", "messages_per_second"),
    ("8 x 1, 100 KiB: CPU us", "S12", "TLS 8 x 1, 100 KiB", "cpu_us"),
    ("a busy thread: messages/s", "S12", "TLS 64 x 1, 1 KiB, a busy", "messages_per_second"),
    ("handshakes/s", "S12", "TLS 32 x 1, 64 B, connect", "messages_per_second"),
    ("handshake: CPU us", "S12", "TLS 32 x 1, 64 B, connect", "cpu_us"),
)

#: What the README shows: scenario, load, metric, and what to call them.
SHOWN: Final = (
    ("S1", "Unix 1 x 1, 64 B", "p50_us", "One client, one request at a time: median latency in us, less is better"),
    ("S2", "Unix 8 x 1, 64 B", "messages_per_second", "8 clients, one request at a time: messages/s"),
    ("S3", "Unix 8 x 256, 64 B", "messages_per_second", "8 clients, 256 requests in flight each: messages/s"),
    (
        "S7",
        "Unix 32 x 1, 64 B, connect, request, close",
        "messages_per_second",
        "32 clients that connect, ask once and close: requests/s",
    ),
)

#: Whose figures those are, where they were measured.
SHOWN_COLUMNS: Final = ("floor", "pysock", "pysock pure", "uvloop", "asyncio", "mp.connection")


@dataclass(frozen=True, slots=True)
class Figure:
    """One of those that the README shows: the best of each library, by its name."""

    title: str
    values: list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure, and its ratio to the floor's if there is one."""

    value: str
    ratio: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.ratio})" if self.ratio else self.value


@dataclass(frozen=True, slots=True)
class Summary:
    """One table. Each row has a label and a cell for each further column."""

    title: str
    head: list[str]
    rows: list[tuple[str, list[Cell]]]


def summaries(results: Results) -> list[Summary]:
    """The tables that have anything in them."""
    found = [
        _by_library(results, "The figure of each scenario, and its ratio to the floor", None),
        _by_library(results, "Server CPU per message in us, and its ratio to the floor", "cpu_us"),
        _by_peer(results, "Handlers of other kinds, Unix socket, 64 B", "handler", HANDLERS, False),
        _by_peer(
            results,
            "TLS 1.3 over TCP, a P-256 certificate, handshakes with client certificates",
            "server",
            SECURED,
            False,
        ),
        _by_peer(results, "Clients in Python, Unix socket", "Python client", OWN_CLIENTS, True),
    ]
    return [summary for summary in found if summary.rows]


def shown(results: Results) -> list[Figure]:
    """The figures of the README that were measured."""
    found = []
    for scenario, load, metric, title in SHOWN:
        rows = results.of(scenario, load, False)
        bests = [(name, best([row for row in rows if row.group == name], metric)) for name in SHOWN_COLUMNS]
        found.append(Figure(title, [(name, row.median(metric) or 0.0) for name, row in bests if row is not None]))
    return [figure for figure in found if figure.values]


def _by_library(results: Results, title: str, metric: str | None) -> Summary:
    columns = [name for name in COLUMNS if any(row.group == name and row.runs for row in results.rows)]
    rows = []
    for scenario in (one for one in SCENARIOS if one.by_library):
        for load in _headlines(results, scenario):
            shown = metric or scenario.figure
            named = f"{scenario.id} {load}" + ("" if metric else f": {_figure(shown)}")
            rows.append((named, _cells(results.of(scenario.id, load, False), columns, shown)))
    return Summary(title, ["scenario", *columns], rows)


def _headlines(results: Results, scenario: Scenario) -> list[str]:
    """Those measured, also if the herd had to be smaller."""
    titles = {load.title for load in scenario.loads if load.headline}
    herds = any(load.idle and load.headline for load in scenario.loads)
    measured = [load for load, own_client in results.loads(scenario.id) if not own_client]
    found = [load for load in measured if load in titles]
    return found or (measured[-1:] if herds else [])


def _figure(metric: str) -> str:
    shown = METRICS[metric]
    return f"{shown.title}, {shown.unit}" if shown.unit else shown.title


def _cells(rows: list[Row], columns: list[str], metric: str) -> list[Cell]:
    base = base_of(rows)
    return [_cell(best([row for row in rows if row.group == group], metric), base, metric) for group in columns]


def best(rows: list[Row], metric: str) -> Row | None:
    """The idiom of a library that does best here."""
    measured = [row for row in rows if row.median(metric) is not None]
    if not measured:
        return None
    choose = max if METRICS[metric].more_is_better else min
    return choose(measured, key=lambda row: row.median(metric) or 0.0)


def _cell(row: Row | None, base: Row | None, metric: str) -> Cell:
    if row is None:
        return Cell("-")
    multiple = ratio(row, base, metric)
    bound = "*" if row.client_bound and metric == "messages_per_second" else ""
    shown = f"{multiple:.2f}" if multiple is not None and row is not base else ""
    return Cell(short(row.median(metric) or 0.0) + bound, shown)


def _by_peer(
    results: Results, title: str, what: str, columns: tuple[tuple[str, str, str, str], ...], own: bool
) -> Summary:
    """A row for each server or client, a column for each figure: its head, scenario, beginning of the load, metric.

    What wasn't measured of anybody has no column.
    """
    figures = [(head, _figures(results, scenario, start, metric, own)) for head, scenario, start, metric in columns]
    figures = [(head, cells) for head, cells in figures if cells]
    peers = dict.fromkeys(peer for _, cells in figures for peer in cells)
    rows = [(peer, [cells.get(peer, Cell("-")) for _, cells in figures]) for peer in peers]
    return Summary(title, [what, *(head for head, _ in figures)], rows)


def _figures(results: Results, scenario: str, start: str, metric: str, own: bool) -> dict[str, Cell]:
    """By the title of the peer."""
    loads = [load for load, own_client in results.loads(scenario) if own_client == own and load.startswith(start)]
    found = {}
    for row in results.of(scenario, loads[0], own) if loads else []:
        value = row.median(metric)
        if value is not None:
            bound = "*" if row.client_bound and metric == "messages_per_second" else ""
            found[row.title] = Cell(short(value) + bound)
    return found
