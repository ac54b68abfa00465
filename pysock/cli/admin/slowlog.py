"""``pysock slowlog``: which requests took long, of which service, and of whom."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import click

from pysock.cli.admin.asking import admin_of, admin_options, print_json
from pysock.cli.admin.shown import columns, plain, short, size
from pysock.cli.options import example

HEAD: Final = ("TIME", "SERVICE", "CLIENT", "WAITED", "TOOK", "IN", "OUT", "")
RIGHT: Final = "<<<>>>>"


@click.command(epilog=example("pysock slowlog unix:upper.sock"))
@admin_options
@click.option("--limit", type=click.IntRange(1, 128), default=128, show_envvar=True, help="So many of the last ones.")
def slowlog(address: str, timeout: float, json: bool, limit: int) -> None:
    """Show the requests that took long, the last one at the end.

    The server keeps the last 128 whose handler took 10 ms, or as pysock serve --slowlog says.
    """
    with admin_of(address, timeout) as asker:
        answer = asker.ask("slowlog", limit=limit)
    if json:
        print_json(answer)
        return
    if answer["slowlog"]:
        click.echo("\n".join(columns(HEAD, map(cells, answer["slowlog"]), RIGHT)))
    for number in answer.get("hung", ()):
        click.echo(f"worker {number} doesn't answer: it hangs")
    total = answer["total"]
    click.echo(f"{total} slow {'request' if total == 1 else 'requests'} so far, of {short(answer['slow'])} and more")


def cells(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of the table."""
    client = "?" if entry["client"] is None else entry["client"]
    return (
        time.strftime("%H:%M:%S", time.localtime(entry["at"])),
        "?" if entry["service"] is None else plain(entry["service"]) or "(unnamed)",
        f"{client} {plain(entry['name'])}" if entry["name"] else client,
        short(entry["waited"]),
        short(entry["took"]),
        "?" if entry["size"] is None else size(entry["size"]),
        "?" if entry["reply_size"] is None else size(entry["reply_size"]),
        _remark(entry),
    )


def _remark(entry: Mapping[str, Any]) -> str:
    among = entry["among"]
    if among > 1:
        return f"all {among} requests of a turn, or one of them"
    return "no request's handler: a stream, or a hook" if among == 0 else "failed" if entry["failed"] else ""
