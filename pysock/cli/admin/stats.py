"""``pysock stats``: how a server is, and its counters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from pysock.cli.admin.asking import admin_of, admin_options, print_json
from pysock.cli.admin.shown import plain, span
from pysock.cli.options import example


@click.command(epilog=example("pysock stats unix:upper.sock"))
@admin_options
def stats(address: str, timeout: float, json: bool) -> None:
    """Show the state of a server and its counters.

    Of a loop that is held up, for however long, it tells that as well.
    """
    with admin_of(address, timeout) as asker:
        answer = asker.ask("stats")
    if json:
        print_json(answer)
        return
    for line in described(answer):
        click.echo(line)
    width = max(map(len, answer["counters"]))
    for name, value in answer["counters"].items():
        click.echo(f"{name:{width}}  {value}")


def described(answer: Mapping[str, Any]) -> list[str]:
    """The first lines: what it is, and how."""
    state = answer["state"].lower() + (", lame" if answer["lame"] else "")
    name = plain(answer["name"] or "server")
    up = span(answer["at"] - answer["since"])
    workers = answer.get("workers", {})
    many = f" and {len(workers)} worker{'s' if len(workers) != 1 else ''}" if workers else ""
    lines = [f"{name}: {state}, process {answer['pid']}{many}, {answer['engine']} engine, up {up}"]
    lines.append(f"at {' '.join(map(plain, answer['addresses']))}")
    for number in answer.get("hung", ()):
        age = span(workers[str(number)]["stuck_for"])
        lines.append(f"WORKER {number} HANGS, or is stopped: it hasn't turned for {age}, its clients aren't served")
    if answer["stuck_for"] and not answer.get("hung"):
        lines.append(f"ITS LOOP HANGS: it hasn't turned for {span(answer['stuck_for'])}, nobody is served")
    return lines
