"""``pysock bench``: the load generator of :mod:`pysock.load`, from the options to the exit code."""

from __future__ import annotations

import json as json_module
import resource
from typing import Any, Final

import click

from pysock.address import Address
from pysock.cli.options import FRAMINGS, check_address, example
from pysock.cli.screen import Screen
from pysock.cli.words import answered, as_commands_say, naming
from pysock.load import LARGEST, MOST_CONNECTIONS, MOST_IN_FLIGHT, Load, LoadOptions, LoadResult

#: Descriptors that are needed for other things than connections.
_SPARE: Final = 64


@click.command(
    epilog=example("pysock bench unix:upper.sock --connections 32 --duration 3"),
)
@click.argument("address", metavar="ADDR", callback=check_address)
@click.option(
    "--connections",
    "-c",
    type=click.IntRange(1, MOST_CONNECTIONS),
    default=1,
    show_envvar=True,
    help="How many connections.",
)
@click.option(
    "--in-flight",
    "-d",
    type=click.IntRange(1, MOST_IN_FLIGHT),
    default=1,
    show_envvar=True,
    help="Requests each connection has with the server at once.",
)
@click.option(
    "--size", "-s", type=click.IntRange(0, LARGEST), default=64, show_envvar=True, help="Bytes of a request's payload."
)
@click.option(
    "--framing",
    type=click.Choice(FRAMINGS),
    default="pysock",
    show_envvar=True,
    help="How bytes are cut into messages.",
)
@click.option(
    "--duration", "-t", type=click.FloatRange(0.001, 86_400), show_envvar=True, help="Seconds it takes.  [default: 5]"
)
@click.option("--count", "-n", type=click.IntRange(1, 2**62), show_envvar=True, help="Or so many requests, in all.")
@click.option(
    "--rate",
    type=click.FloatRange(0.001, 1e9),
    show_envvar=True,
    help="Requests a second, in all, whatever the server does; latencies count from when each was due."
    "  [default: a new one as each reply comes]",
)
@click.option("--churn", is_flag=True, show_envvar=True, help="Connect, one request, close, again and again.")
@click.option(
    "--linger",
    type=click.FloatRange(0, 1_000_000),
    default=0.0,
    show_envvar=True,
    help="Microseconds to poll without sleeping before a wait.",
)
@click.option("--service", show_envvar=True, help="The service's name (native).  [default: the unnamed service]")
@click.option(
    "--stall",
    type=click.FloatRange(0.001, 86_400),
    default=5.0,
    show_envvar=True,
    help="Seconds without any reply after which it gives up.",
)
@click.option("--json", is_flag=True, show_envvar=True, help="Print the result as one JSON object.")
@click.option("--quiet", "-q", is_flag=True, show_envvar=True, help="No progress, no warnings, a result of one line.")
def bench(address: str, json: bool, quiet: bool, **options: Any) -> int:
    """Load an echo server, check what it answers, and measure rate and latency.

    ADDR is a server that echoes in the framing, pysock's or not. It gets upper-case letters, so pysock.examples.upper
    will do. The exit code is 1 if any request was answered with an error, or with anything but its echo.
    """
    screen = Screen(quiet)
    load = Load(read_options(address, options))
    make_room(load.options.connections)
    interrupted = False
    try:
        with as_commands_say(address), screen.progress(load.options) as show:
            load.run(show, 0.25)
    except KeyboardInterrupt:
        interrupted = True
    result = load.result
    if result is not None and (result.messages or result.errors):
        click.echo(json_module.dumps(result.as_dict())) if json else screen.report(result)
        screen.warn(result)
    if interrupted:
        return 130
    if result is not None and result.errors:
        raise click.ClickException(naming((load.options.address,), count_errors(result)))
    return 0


def count_errors(result: LoadResult) -> str:
    """Return how many there were, and what the first was."""
    total = result.errors + result.messages
    first = answered(result.first_error, result.options.service, None)
    return f"{result.errors} of {total} requests were answered with an error; the first: {first}"


def read_options(address: str, options: dict[str, Any]) -> LoadOptions:
    """Return the options in the units of :mod:`pysock.load`."""
    if options["duration"] is not None and options["count"] is not None:
        raise click.UsageError("give either --duration or --count")
    if options["count"] is None:
        options["duration"] = options["duration"] or 5.0
    options["linger"] /= 1e6
    options["service"] = options["service"] or ""
    with as_commands_say():
        return LoadOptions(address=Address.parse(address), **options)


def make_room(connections: int) -> None:
    """Raise the limit of open descriptors, as far as this process may. Too few are an error in words, later."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
