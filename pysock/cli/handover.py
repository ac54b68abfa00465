"""``pysock serve --handover``: the command, given once more, takes over from the process that runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

import pysock


def check_handover(_ctx: click.Context, _param: click.Parameter, value: str | None) -> pysock.Address | None:
    """The address, if it can be one."""
    from pysock.handover.place import checked_handover  # noqa: PLC0415  # few servers hand over

    try:
        return None if value is None else checked_handover(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


handover_option: Callable[[Any], Any] = click.option(
    "--handover",
    metavar="ADDR",
    callback=check_handover,
    show_envvar=True,
    help="Take over the clients of the server that waits at this unix:PATH, if one does; wait there for the next one.",
)


def check_alone(handover: pysock.Address | None, *others: object) -> None:
    """Refuse it beside these, if one is given."""
    if handover is not None and any(other is not None for other in others):
        raise click.UsageError("--handover goes without --workers, --agent, --admin and --metrics: those don't move")


def hand_over_at(server: pysock.Server, where: pysock.Address) -> None:
    """As ``Server(handover=)``."""
    from pysock.handover.relay import relay_of  # noqa: PLC0415  # as above

    relay_of(server).wait_at(where)
