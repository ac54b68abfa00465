"""``pysock tail``: requests as they are served, live."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

import click

from pysock.cli.admin.asking import Asker, admin_of, admin_options, print_json
from pysock.cli.admin.slowlog import cells
from pysock.cli.options import example

#: Between two looks, in seconds.
_EVERY: Final = 0.25
#: Of each column but the last, in characters: a line is written before the next one is known.
_WIDTHS: Final = (8, 16, 20, 7, 7, 6, 6)


@click.command(epilog=example("pysock tail unix:upper.sock"))
@admin_options
@click.option("--service", metavar="NAME", show_envvar=True, help="Only those of this service.")
@click.option("--count", type=click.IntRange(1), metavar="N", show_envvar=True, help="End after so many.")
def tail(address: str, timeout: float, json: bool, service: str | None, count: int | None) -> None:
    """Show requests as they are served, until Ctrl-C.

    A busy server tells of some of them, eight a turn, and of how many it doesn't tell. It stops five seconds after the
    last look.
    """
    shown = 0
    with admin_of(address, timeout) as asker:
        for answer in _looks(asker):
            found = [entry for entry in answer["tail"] if service in (None, entry["service"])]
            found = found if count is None else found[: count - shown]
            shown += len(found)
            for entry in found if json else ():
                print_json(entry)
            for line in () if json else _lines(found, answer["skipped"]):
                click.echo(line)
            if shown == count:
                return
            time.sleep(_EVERY)


def _looks(asker: Asker) -> Iterable[Mapping[str, Any]]:
    after = asker.ask("tail")["next"]
    while True:
        answer = asker.ask("tail", after=after)
        after = answer["next"]
        yield answer


def _lines(found: Iterable[Mapping[str, Any]], skipped: int) -> list[str]:
    lines = [
        "  ".join([*(f"{cell:{width}}" for cell, width in zip(cells(entry), _WIDTHS, strict=False)), cells(entry)[-1]])
        for entry in found
    ]
    return [line.rstrip() for line in lines] + ([f"({skipped} more)"] if skipped else [])
