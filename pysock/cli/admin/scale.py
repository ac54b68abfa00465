"""``pysock scale``: a service has more workers, or fewer."""

from __future__ import annotations

import click

from pysock.cli.admin.asking import admin_of, admin_options, print_json
from pysock.cli.options import example


@click.command(epilog=example("pysock scale 4 unix:upper.sock"))
@click.argument("workers", metavar="N", type=click.IntRange(1, 1024))
@admin_options
def scale(workers: int, address: str, timeout: float, json: bool) -> None:
    """Have N workers from now on, of pysock serve --workers --admin: more start, or the last ones drain and end."""
    with admin_of(address, timeout) as asker:
        answer = asker.ask("scale", workers=workers)
    if json:
        print_json(answer)
    else:
        count = answer["workers"]
        click.echo(f"{count} {'worker' if count == 1 else 'workers'} from now on; there were {answer['was']}")
