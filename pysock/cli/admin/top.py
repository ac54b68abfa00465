"""``pysock top``: a running server, looked at each second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from pysock.cli.admin.asking import Asker, admin_of, admin_options, print_json
from pysock.cli.admin.rates import Look, between
from pysock.cli.admin.shown import columns, plain, short, size, span
from pysock.cli.admin.stats import described
from pysock.cli.options import example

#: With more clients than these, in one page of the table, they aren't compared: that would cost the server something.
_MOST: Final = 1000

_SERVICES: Final = ("SERVICE", "REQUESTS/S", "ERRORS/S", "P50", "P99")
_WORKERS: Final = ("WORKER", "PROCESS", "CLIENTS", "REQUESTS/S", "BUSY", "")
_CLIENTS: Final = ("CLIENT", "NAME", "REQUESTS/S", "IN/S", "OUT/S", "IN FLIGHT", "QUEUED")


@click.command(epilog=example("pysock top unix:upper.sock"))
@admin_options
@click.option(
    "--every", type=click.FloatRange(0.1, 3600), default=1.0, show_envvar=True, help="Seconds between two looks."
)
@click.option("--count", type=click.IntRange(1), metavar="N", show_envvar=True, help="End after so many.")
def top(address: str, timeout: float, json: bool, every: float, count: int | None) -> None:
    """Show what a server does, each second, until Ctrl-C.

    How long requests take and how busy the loop is are known of servers with metrics=True.
    """
    with admin_of(address, timeout) as asker, _screen(json) as show:
        before = _look(asker)
        looks = 0
        while count is None or looks < count:
            time.sleep(every)
            after = _look(asker)
            show(after.stats, between(before, after))
            before, looks = after, looks + 1


def _look(asker: Asker) -> Look:
    stats = asker.ask("stats")
    if stats["counters"]["clients"] > _MOST:
        return Look(stats, None)
    return Look(stats, {row["id"]: row for row in asker.ask("clients", limit=_MOST)["clients"]})


@contextmanager
def _screen(json: bool) -> Iterator[Callable[[Mapping[str, Any], Mapping[str, Any]], None]]:
    """What shows a look: on a terminal all of it, over the last one."""
    console = Console(highlight=False)
    if json:
        yield lambda _stats, rates: print_json(rates)
    elif not console.is_terminal:
        yield lambda stats, rates: click.echo("\n".join([*lines_of(stats, rates), ""]))
    else:
        with Live(console=console, screen=True, auto_refresh=False) as live:

            def show(stats: Mapping[str, Any], rates: Mapping[str, Any]) -> None:
                lines = lines_of(stats, rates)[: max(1, console.height - 1)]
                live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)

            yield show


def lines_of(stats: Mapping[str, Any], rates: Mapping[str, Any]) -> list[str]:
    """What is shown."""
    rate = rates["per_second"]
    lines = [
        *described(stats),
        f"{rates['clients']} of {stats['max_clients']} clients, {size(rate['accepted'])} connections/s,"
        f" {size(rate['disconnected'])} gone/s",
        f"{size(rate['requests'])} requests/s, {size(rate['errors'])} errors/s, {size(rate['pushes'])} pushes/s,"
        f" {size(rate['bytes_in'])}B/s in, {size(rate['bytes_out'])}B/s out",
        *_loop(rates),
        "",
    ]
    if rates["workers"]:
        lines += [*columns(_WORKERS, map(_worker, rates["workers"].items()), ">>>>>"), ""]
    if rates["services"]:
        lines += [*columns(_SERVICES, map(_service, rates["services"].items()), "<>>>>"), ""]
    if rates["noisiest"] is None:
        return [*lines, "so many clients aren't compared"]
    return lines + (columns(_CLIENTS, map(_client, rates["noisiest"]), "<<>>>>>") if rates["noisiest"] else [])


def _loop(rates: Mapping[str, Any]) -> list[str]:
    if rates["busy"] is None:
        return []
    outside = f", {rates['outside']:.0%} waits for the GIL" if rates["outside"] else ""
    return [f"the loop is busy for {rates['busy']:.0%} of the time{outside}"]


def _worker(item: tuple[str, Mapping[str, Any]]) -> tuple[str, ...]:
    number, rates = item
    busy = "" if rates["busy"] is None else f"{rates['busy']:.0%}"
    hangs = f"hangs since {span(rates['stuck_for'])}" if rates["stuck_for"] else ""
    return number, str(rates["pid"]), str(rates["clients"]), size(rates["requests"]), busy, hangs


def _service(item: tuple[str, Mapping[str, float]]) -> tuple[str, ...]:
    name, rates = item
    times = (short(rates["p50"]), short(rates["p99"])) if rates["p99"] else ("", "")
    return plain(name) or "(unnamed)", size(rates["requests"]), size(rates["errors"]), *times


def _client(row: Mapping[str, Any]) -> tuple[str, ...]:
    rates = (size(row[name]) for name in ("requests", "bytes_in", "bytes_out"))
    return row["id"], plain(row["name"]), *rates, str(row["in_flight"]), size(row["output_waiting"])
