"""Results as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.figures import short
from bench.results import CLIENT_BOUND, Results, Row, base_of, ratio
from bench.scenarios import Scenario
from bench.summary import Summary, summaries

MIB: Final = 1024 * 1024

#: Terminals that are narrower get fewer columns.
WIDE: Final = 112

LEGEND: Final = (
    "Medians over the rounds; min - max are messages/s. * = client-bound: the generator needed more than"
    f" {CLIENT_BOUND:.0%} of its core (client), so the server may be faster than this. CPU is the server's, in us per"
    " message; p50, p99 and p99.9 are latencies in us; MiB is the server's resident memory."
)


@dataclass(frozen=True, slots=True)
class Column:
    """``cell(row, base)`` is its text; ``metric`` must have been measured in one row at least."""

    head: str
    cell: Callable[[Row, Row | None], str]
    metric: str
    wide: bool = False


def _plain(metric: str) -> Callable[[Row, Row | None], str]:
    def cell(row: Row, _base: Row | None) -> str:
        value = row.median(metric)
        return "" if value is None else short(value)

    return cell


def _multiple(metric: str) -> Callable[[Row, Row | None], str]:
    def cell(row: Row, base: Row | None) -> str:
        value = ratio(row, base, metric)
        return "" if value is None else f"{value:.2f}"

    return cell


def _marked(row: Row, _base: Row | None) -> str:
    return short(row.median("messages_per_second") or 0.0) + ("*" if row.client_bound else " ")


def _spread(row: Row, _base: Row | None) -> str:
    return " - ".join(short(value) for value in row.spread("messages_per_second"))


def _mebibytes(row: Row, _base: Row | None) -> str:
    return f"{(row.median('resident_bytes') or 0.0) / MIB:.1f}"


#: "of" is filled up with what the ratios refer to.
COLUMNS: Final = (
    Column("of", _multiple("messages_per_second"), "messages_per_second"),
    Column("messages/s", _marked, "messages_per_second"),
    Column("min - max", _spread, "messages_per_second", wide=True),
    Column("p50", _plain("p50_us"), "p50_us"),
    Column("p99", _plain("p99_us"), "p99_us"),
    Column("p99.9", _plain("p999_us"), "p999_us", wide=True),
    Column("CPU", _plain("cpu_us"), "cpu_us"),
    Column("of", _multiple("cpu_us"), "cpu_us"),
    Column("client", _plain("client_core"), "client_core", wide=True),
    Column("MiB", _mebibytes, "resident_bytes", wide=True),
    Column("B/idle", _plain("idle_bytes"), "idle_bytes"),
    Column("kept", _plain("kept"), "kept"),
    Column("hog", _plain("hog_core"), "hog_core"),
)


def _table(title: str, first: str, heads: list[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def of_load(scenario: Scenario, rows: list[Row], width: int) -> RenderableType:
    """One load: a line for each peer, ratios to the first; and what couldn't be measured."""
    base = base_of(rows)
    known = {metric for row in rows for metric in row.runs}
    columns = [column for column in COLUMNS if column.metric in known and (width >= WIDE or not column.wide)]
    first = "floor" if base and base.group.endswith("floor") else "first"
    own = " (Python clients)" if rows[0].own_client else ""
    heads = [f"of {first}" if column.head == "of" else column.head for column in columns]
    table = _table(f"{scenario.id} {rows[0].load}{own}", "", heads)
    for row in rows:
        if row.runs:
            table.add_row(row.title, *(column.cell(row, base) for column in columns))
    complaints = [(row.title, row.missing or row.failed) for row in rows if row.missing or row.failed]
    notes = [Text(f"{title}: {reason}", style="yellow") for title, reason in complaints]
    return Group("", table, *notes)


def of_results(results: Results) -> RenderableType:
    """The headlines of all scenarios, as ratios where there is one."""
    return Group(*(_summary(summary) for summary in summaries(results)))


def _summary(summary: Summary) -> RenderableType:
    table = _table(summary.title, summary.head[0], summary.head[1:])
    table.columns[0].no_wrap, table.columns[0].min_width = False, 30
    for label, cells in summary.rows:
        table.add_row(label, *(cell.ratio or cell.value for cell in cells))
    return Group("", table)
