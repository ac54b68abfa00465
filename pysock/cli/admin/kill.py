"""``pysock kill``: close the connections of some clients."""

from __future__ import annotations

import click

from pysock.cli.admin.asking import admin_of, admin_options, print_json
from pysock.cli.options import example


@click.command(epilog=example("pysock kill unix:upper.sock 1.7"))
@admin_options
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--name", metavar="PATTERN", show_envvar=True, help="Those with such a name, as 'sensor-*'.")
@click.option("--uid", type=click.IntRange(0), show_envvar=True, help="Those whose process is this user's.")
@click.option("--group", show_envvar=True, help="Those in this group.")
def kill(
    address: str,
    timeout: float,
    json: bool,
    ids: tuple[str, ...],
    name: str | None,
    uid: int | None,
    group: str | None,
) -> int:
    """Close the connections of clients, and say of how many: in order, what was accepted is answered first.

    Who is meant is told by IDs, as pysock clients shows them, or by what is true of them. The exit code is 1 if it is
    nobody.
    """
    if not ids and (name, uid, group) == (None, None, None):
        raise click.UsageError("say who: an ID, --name, --uid or --group")
    killed: list[str] = []
    count = 0
    with admin_of(address, timeout) as asker:
        for one in ids or (None,):
            answer = asker.ask("kill", id=one, name=name, uid=uid, group=group)
            killed += answer["ids"]
            count += answer["killed"]
    if json:
        print_json({"killed": count, "ids": killed})
    else:
        click.echo(f"{count} {'client' if count == 1 else 'clients'} killed")
    return 0 if count else 1
