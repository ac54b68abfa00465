"""``pysock reload``: the workers of a service are replaced by new ones, with new code."""

from __future__ import annotations

from typing import Final

import click

from pysock.cli.admin.asking import admin_of, admin_options_but_timeout, print_json
from pysock.cli.admin.shown import short
from pysock.cli.options import example

#: Seconds for the way there and back, beside what is waited for.
_MORE: Final = 5.0


@click.command(epilog=example("pysock reload unix:upper.sock"))
@admin_options_but_timeout
@click.option(
    "--timeout",
    type=click.FloatRange(0, 86_400, min_open=True),
    default=70.0,
    show_envvar=True,
    help="Seconds to wait until the new workers serve, or the change is called off.",
)
@click.option("--cold", is_flag=True, show_envvar=True, help="Move no clients: the old workers drain.")
def reload(address: str, timeout: float, cold: bool, json: bool) -> None:
    """Replace all workers of pysock serve --workers --admin by new ones, with new code, as SIGHUP does; wait for it.

    Clients stay connected: the new workers take them over. Where they can't, because the program has another framing,
    authkey or address now, --cold does it. Where the new ones don't come to serve, the old ones serve on: then it says
    why, and the exit code is 1.
    """
    with admin_of(address, timeout + _MORE) as asker:
        answer = asker.ask("reload", timeout=timeout, cold=cold)
    if json:
        print_json(answer)
    else:
        count = answer["workers"]
        click.echo(f"{count} new {'worker serves' if count == 1 else 'workers serve'}, after {short(answer['took'])}")
