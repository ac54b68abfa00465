"""``pysock clients``: who is connected to a server, what each has done, and who has gone, and why."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import click

from pysock.cli.admin.asking import Asker, admin_of, admin_options, print_json
from pysock.cli.admin.shown import columns, plain, size, span
from pysock.cli.options import example

_FIELDS: Final = ("uid", "name", "group")
#: Between two looks, in seconds.
_EVERY: Final = 1.0

_HEAD: Final = (
    "ID", "NAME", "FROM", "AGE", "IDLE", "IN FLIGHT", "QUEUED", "REQUESTS", "IN", "OUT", "SOFTWARE", "GROUPS",
)  # fmt: skip
_RIGHT: Final = "<<<>>>>>>>"


def where_of(_ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """The fields that ``--where`` names."""
    found: dict[str, Any] = {}
    for text in values:
        field, sign, value = text.partition("=")
        if not sign or field not in _FIELDS:
            raise click.BadParameter(f"{text!r} isn't FIELD=VALUE with one of the fields {', '.join(_FIELDS)}")
        if field in found:
            raise click.BadParameter(f"{field} is given twice")
        if field == "uid" and not value.isdecimal():
            raise click.BadParameter(f"uid={value} isn't the number of a user")
        found[field] = int(value) if field == "uid" else value
    return found


@click.command(epilog=example("pysock clients unix:upper.sock --where name='sensor-*'"))
@admin_options
@click.option(
    "--where",
    multiple=True,
    metavar="FIELD=VALUE",
    callback=where_of,
    show_envvar=True,
    help="Only those with this uid, name (a pattern, as 'sensor-*') or group; may be repeated.",
)
@click.option("--gone", type=click.IntRange(0, 1000), default=0, show_envvar=True, help="And so many of who went last.")
@click.option("--watch", is_flag=True, show_envvar=True, help="Look again each second, until Ctrl-C.")
def clients(address: str, timeout: float, json: bool, where: Mapping[str, Any], gone: int, watch: bool) -> None:
    """Show who is connected to a server, oldest first.

    ADDR is its admin socket, or the Unix socket that this is beside of.
    """
    with admin_of(address, timeout) as asker:
        while True:
            answer = everybody(asker, where, gone)
            if json:
                print_json(answer)
            else:
                if watch:
                    click.clear()
                click.echo("\n".join(_lines(answer)))
            if not watch:
                return
            time.sleep(_EVERY)


def everybody(asker: Asker, where: Mapping[str, Any], gone: int = 0) -> dict[str, Any]:
    """All pages in one answer."""
    answer = asker.ask("clients", **where, gone=gone)
    found, after = answer["clients"], answer.pop("next")
    while after is not None:
        page = asker.ask("clients", **where, after=after)
        found += page["clients"]
        after = page["next"]
    found.sort(key=lambda row: row["connected_at"])
    return answer


def _lines(answer: Mapping[str, Any]) -> list[str]:
    now = answer["at"]
    rows = [_cells(row, now) for row in answer["clients"]]
    lines = columns(_HEAD, rows, _RIGHT) if rows else []
    lines.append(f"{len(rows)} {'client' if len(rows) == 1 else 'clients'}")
    if left := answer["gone"]:
        cells = [(*_cells(row, row["left_at"]), row["reason"].lower(), span(now - row["left_at"])) for row in left]
        lines += ["", *columns((*_HEAD, "REASON", "AGO"), cells, _RIGHT)]
    return lines + [f"worker {number} doesn't answer: it hangs" for number in answer.get("hung", ())]


def _cells(row: Mapping[str, Any], now: float) -> tuple[str, ...]:
    return (
        row["id"],
        plain(row["name"]),
        plain(row["address"]) if row["uid"] is None else f"uid {row['uid']}, pid {row['pid']}",
        span(now - row["connected_at"]),
        span(now - row["idle_since"]),
        str(row["in_flight"]),
        size(row["output_waiting"]),
        size(row["requests"]),
        size(row["bytes_in"]),
        size(row["bytes_out"]),
        plain(row["software"]),
        plain(",".join(row["groups"])),
    )
