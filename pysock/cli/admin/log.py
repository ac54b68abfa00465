"""``pysock log``: how much a running program logs."""

from __future__ import annotations

import click

from pysock.admin.services.log import LEVELS, LONGEST
from pysock.cli.admin.asking import admin_of, admin_options, print_json
from pysock.cli.admin.shown import plain, span, span_of
from pysock.cli.options import example


@click.command(epilog=example("pysock log unix:upper.sock debug pysock.server --for 10m"))
@admin_options
@click.argument("level", metavar="LEVEL", type=click.Choice([*LEVELS]))
@click.argument("logger", metavar="[LOGGER]", required=False)
@click.option(
    "--for",
    "seconds",
    envvar="PYSOCK_LOG_FOR",
    metavar="TIME",
    callback=span_of,
    show_envvar=True,
    help="Only so long: 90s, 10m.",
)
def log(address: str, timeout: float, json: bool, level: str, logger: str | None, seconds: float | None) -> None:
    """Have a logger of the server's program tell from this LEVEL on; without a LOGGER the root of all.

    It stays so until it is changed again, or the admin socket goes.
    """
    if seconds is not None and not 0.001 <= seconds <= LONGEST:
        raise click.UsageError(f"--for {seconds:g}s is no time from a millisecond to a day")
    with admin_of(address, timeout) as asker:
        answer = asker.ask("log", level=level, logger=logger, **{"for": seconds})
    if json:
        print_json(answer)
        return
    during = "" if answer["for"] is None else f", for {span(answer['for'])}"
    click.echo(f"{plain(answer['logger'])}: {answer['level']}{during}; it was {answer['was']}")
